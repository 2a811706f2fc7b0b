"""Steering operators: what training on a subset would change, as a small change of a hidden state."""
