"""Attribution methods, one file each, and the suite that outsiders run on theirs. Knows nothing of the command line."""
