"""What every method must hold, as checks that its author runs; ours pass through them first.

import pytest
from headwater.plugins.conformance import checks

@pytest.mark.parametrize("check", checks(), ids=str)
def test_my_method(check):
    check(MyMethod())
"""

from .suite import Check, checks
from .trial import MODELS

__all__ = ["MODELS", "Check", "checks"]
