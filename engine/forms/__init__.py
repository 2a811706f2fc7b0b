"""How rows are stored: precisions, and what turns rows into them."""
