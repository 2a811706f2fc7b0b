"""The method holds what headwater asks of every method."""

import pytest
from headwater.plugins.conformance import checks
from headwater_nearest import Nearest


@pytest.mark.parametrize("check", checks(), ids=str)
def test_it_conforms(check):
    check(Nearest())
