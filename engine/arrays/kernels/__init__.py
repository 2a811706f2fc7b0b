"""Compiled loops: products, sign look-up, heaps."""
