"""Fits of subset methods to a corpus: hidden states, checkpoints, records."""
