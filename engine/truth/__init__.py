"""Ground truth: a small model trained on many subsets of a corpus, and what each training did to every query."""
