"""Language models: loading, fingerprints, and the outputs of a batch."""
