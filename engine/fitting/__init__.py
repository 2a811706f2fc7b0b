"""What is fitted to a whole corpus once, and kept beside its store: from a command to operators on disk, and back."""
