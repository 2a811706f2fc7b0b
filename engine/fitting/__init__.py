"""Fits of subset methods to a corpus: hidden states, checkpoints, records; from the command to parameters on disk."""
