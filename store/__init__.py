"""Rows on disk, in blocks: layout, writing, reading, verification. Knows no model, no method, no score."""
