"""The example with a score of its own in `examples/third_party_block_method`: found by name, and as the contract asks."""

import sys
import tomllib

import numpy as np
import pytest
from headwater.engine.arrays.scan.fixed_tiles import FixedTiles
from headwater.engine.interface.registry import load
from headwater.plugins import Block
from headwater.plugins.conformance import MODELS, checks
from places import ROOT

EXAMPLE = ROOT / "examples/third_party_block_method"
SLOW = ("same_rows_in_another_process", "scratch_covers_what_is_allocated")


@pytest.fixture
def nearest(tmp_path, monkeypatch):
    """The class behind the example's entry point, as if its package were installed."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "headwater_nearest-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["headwater.methods"]
    (info / "entry_points.txt").write_text(
        "[headwater.methods]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLE)
    yield load("nearest")
    sys.modules.pop("headwater_nearest", None)


def test_it_conforms(nearest):
    for check in checks(models=MODELS[:2]):
        if str(check) not in SLOW:
            check(nearest())


def test_its_scores_are_distances_of_every_query(nearest):
    draw = np.random.default_rng(0)
    rows, asked = (draw.normal(size=(count, 6)).astype(np.float32) for count in (150, 70))
    scores = FixedTiles(nearest().score, nearest().prepare({"mean": asked}, {})).scores(Block(0, {"mean": rows}))
    distances = ((rows[:, None].astype(np.float64) - asked[None]) ** 2).sum(2)
    assert np.allclose(scores, -distances, atol=1e-4)
