"""Steering operators (STRIDE): small changes of hidden states that have the effect of training on a subset."""
