"""Where the checkout and its test data lie, for tests in any folder."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "data"
"""Stores of earlier formats."""
SHARED = ROOT.parent / "shared" / "data"
"""Public data beside the checkout, where there are any."""
BENCHMARKS = ROOT / "examples" / "benchmarks"
