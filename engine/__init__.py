"""Everything between files on disk and answers, in rooms of a strict order; ARCHITECTURE.md lists them."""
