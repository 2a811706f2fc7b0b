"""Whether scores are right: compared with retraining, and with labels of what is relevant."""
