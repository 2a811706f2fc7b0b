"""Results as text and pictures. Computes nothing."""
