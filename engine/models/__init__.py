"""Language models: loading, fingerprints, and what a batch gives."""
