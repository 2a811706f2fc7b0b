"""Ingestion: from documents and a model to rows of a store."""
