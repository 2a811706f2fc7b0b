"""The out-of-core array engine: columns and blocks, no model, no text, no method."""
