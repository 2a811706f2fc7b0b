"""The precisions in which rows are stored: float16, bf16, int8, sign bits."""
