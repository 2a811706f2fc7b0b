"""`python -m headwater` is the command `headwater`."""

from .cli import main

main()
