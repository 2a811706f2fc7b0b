"""From files to rows: corpora, models, readouts, sketches, ingestion. Knows no kernels over stores."""
