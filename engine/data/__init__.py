"""From files to documents: sources, formats, array files, indexes of other tools."""
