"""Answers as plain data: rows, scores, uncertainty, groups; written as tables, JSONL, CSV, Parquet, Zarr."""
