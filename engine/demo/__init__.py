"""`headwater demo`: the whole job on an embedded corpus with a small model. Knows no method beyond the name it is given."""
