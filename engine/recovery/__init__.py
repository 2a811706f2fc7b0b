"""Sparse recovery: weights of all examples from measurements of a few subsets of them."""
