"""Steering operators: what training on a subset would change, as a small change of the last hidden state."""
