"""Of sets of examples: their utility for a task by a quadratic surrogate, its calibration, and the choice of good ones."""
