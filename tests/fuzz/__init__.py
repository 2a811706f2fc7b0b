"""A fuzzer of the whole tool: damaged files, kills, hostile inputs and tiny budgets, each case made again from its seed.

`make fuzz` runs it for an hour, tests/fuzz/test_fuzz.py for seconds. Not part of the installed package.
"""
