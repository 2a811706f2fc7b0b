"""Sparse recovery: which examples caused a response, from a few aggregate measurements of it."""
