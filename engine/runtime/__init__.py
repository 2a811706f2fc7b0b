"""What every long operation uses: memory plans, progress, cancellation, reproducible hashes."""
