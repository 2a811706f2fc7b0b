"""Whether scores are right: against retraining, and against what is known to be relevant."""
