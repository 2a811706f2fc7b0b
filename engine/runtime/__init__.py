"""What every long operation is given: memory plans, progress, cancellation, pinned hashes."""
