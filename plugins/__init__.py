"""Attribution methods, one file each, and the public names that authors of methods import. Knows nothing of the command line."""
