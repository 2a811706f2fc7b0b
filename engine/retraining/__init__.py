"""Ground truth by real training on many subsets of a corpus."""
