"""Greedy choice of rows, out of core and exact."""
