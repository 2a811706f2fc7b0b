"""Utilities of subsets, calibration, greedy selection."""
