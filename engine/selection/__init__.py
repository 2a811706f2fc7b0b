"""Sets of examples: their utility for a task, calibration, greedy selection."""
