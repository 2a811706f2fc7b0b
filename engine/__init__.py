"""What every attribution method shares: intake (files to rows), arrays (rows to numbers), answers (questions to results)."""
