"""The command line's commands: each parses, calls one function of the engine and prints. Only cli.py knows them."""
