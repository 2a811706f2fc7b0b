"""Rows on disk: format, writing, reading, checksums, verification, errors. Knows no model, no method, no score."""
