"""Query sessions: prepare, score, recover."""
