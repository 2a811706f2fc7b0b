"""Read files as documents: sources, file formats, array files, and the indexes of other tools."""
