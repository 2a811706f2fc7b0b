"""The demo: all steps on an embedded corpus and a small model. Knows no method beyond the name it is given."""
