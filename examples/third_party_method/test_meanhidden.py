"""The method holds what headwater asks of every method."""

import pytest
from headwater.plugins.conformance import checks
from headwater_meanhidden import MeanHidden


@pytest.mark.parametrize("method", [MeanHidden(), MeanHidden(layer=1)], ids=str)
@pytest.mark.parametrize("check", checks(), ids=str)
def test_it_conforms(check, method):
    check(method)
