"""Greedy choice of rows by marginal gain, out of core and exact."""
