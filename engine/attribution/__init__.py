"""Query sessions: prepare queries for a method and a store, score, recover."""
