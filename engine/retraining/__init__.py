"""Ground truth for attribution: a small model is retrained on many subsets, and its loss on each query is recorded."""
