"""Results as text on a terminal and as plots. Computes nothing."""
