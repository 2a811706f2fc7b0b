"""The conformance suite: what every method must fulfil, as checks that its author runs.

import pytest
from headwater.plugins.conformance import checks

@pytest.mark.parametrize("check", checks(), ids=str)
def test_my_method(check):
    check(MyMethod())
"""

from .suite import Check, checks
from .trial import MODELS

__all__ = ["MODELS", "Check", "checks"]
