"""Ground truth by training again and again."""
