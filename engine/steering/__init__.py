"""Steering operators (STRIDE): a small change of a hidden state that has the effect of training on a subset."""
