"""Evaluation of scores: against retraining (LDS, brittleness) and against relevance labels (retrieval)."""
