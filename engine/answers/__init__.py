"""From questions to results, standing on intake and arrays."""
