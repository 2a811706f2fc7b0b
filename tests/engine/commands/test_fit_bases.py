"""`fit --bases`: one fit for each path, whose settings are those of the method and of the member, and none is dropped."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from headwater.engine.commands.fit import FitArguments
from headwater.engine.commands.options import method_settings
from running import headwater


def fits_of(bases: str, *settings: tuple[str, str]) -> dict[str, dict[str, object]]:
    """Member → its settings, as `fit` reads them."""
    arguments = FitArguments(
        store="S", method="stride", settings=settings, bases=bases,
        memory=None, device="cpu", dtype="auto", trust_remote_code=False,
    )  # fmt: skip
    return {
        member.method: dict(method_settings((member.method,), member.settings)[member.method])
        for member in arguments.members()
    }


def test_a_setting_of_the_method_is_one_of_each_member_and_a_members_own_stands_before_it() -> None:
    settings = (("stride@a.subsets", "300"), ("stride.subsets", "100"), ("stride.solver", "ridge"))
    shared = {"subsets": 100, "solver": "ridge"}
    assert fits_of("x/a,y/b.npz", *settings) == {"stride@a": {**shared, "subsets": 300}, "stride@b": shared}
    assert fits_of("", ("stride.subsets", "100")) == {"stride": {"subsets": 100}}


@pytest.mark.parametrize("key", ["strid.subsets", "subsets", "stride@c.subsets"])
def test_a_setting_of_no_member_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(click.UsageError, match="NAME is one of stride, stride@a, stride@b"):
        fits_of("a,b", (key, "300"))
    assert headwater("fit", tmp_path, "--bases", "a,b", "--set", key, 300).exit_code == 2


@pytest.mark.parametrize("bases", [",", "a,", ",a", "a,,b"])
def test_an_empty_path_is_refused(bases: str) -> None:
    with pytest.raises(click.UsageError, match=f"--bases {bases}: nothing"):
        fits_of(bases)
