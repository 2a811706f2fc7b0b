"""What an answer is, as plain data, and how it is written."""
