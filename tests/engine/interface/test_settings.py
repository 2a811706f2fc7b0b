"""Settings keep the types of their defaults, from Python, from JSON and from the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from headwater.plugins.grasp import Grasp
from headwater.store.errors import SettingsError


@dataclass(frozen=True)
class Several(Grasp):
    """A method with a setting of each type."""

    words: tuple[str, ...] = ("a",)
    numbers: tuple[float, ...] = (1.0,)
    free: tuple[str, ...] = ()


def test_a_tuple_is_a_list_in_json_and_words_with_commas_on_the_command_line() -> None:
    read = Several.from_settings({"words": "b,,c", "numbers": [2, 3.5], "free": ["x"]})
    assert read == replace(Several(), words=("b", "c"), numbers=(2.0, 3.5), free=("x",))


@pytest.mark.parametrize("value", ["2", True, float("nan"), float("inf"), None, ["x"]])
def test_a_value_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match=r"must be float|got"):
        Several.from_settings({"numbers": [value]})
