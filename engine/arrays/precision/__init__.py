"""The precisions in which rows are stored."""
