"""Compiled CPU loops: inner products, table look-up for sign bits, top-k heaps."""
