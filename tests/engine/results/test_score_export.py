"""All scores as a Zarr group: what was written is read, and a chunk that is damaged or missing is never read as scores."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from headwater.engine.evaluation.matrices import read_array
from headwater.engine.results.score_export import export
from headwater.store.errors import DataError

SCORES = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    blocks = [(first, SCORES[first : first + 7]) for first in range(0, 20, 7)]
    export(str(tmp_path / "s.zarr"), blocks, 20, ["a", "b", "c"], {"method": "m"})
    return tmp_path / "s.zarr"


def test_scores_come_back(path: Path) -> None:
    np.testing.assert_array_equal(np.asarray(zarr.open_group(path, mode="r")["scores"]), SCORES)
    np.testing.assert_array_equal(read_array(str(path), "scores"), SCORES.T)


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_flipped_bit_is_noticed(path: Path, place: int) -> None:
    (chunk,) = (file for file in (path / "scores/c").rglob("*") if file.is_file())
    data = bytearray(chunk.read_bytes())
    data[place] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(DataError, match=r"s\.zarr cannot be read"):
        read_array(str(path), "scores")


def test_a_missing_chunk_is_no_zeros(path: Path) -> None:
    (chunk,) = (file for file in (path / "scores/c").rglob("*") if file.is_file())
    chunk.unlink()
    with pytest.raises(DataError, match="a number is not finite"):
        read_array(str(path), "scores")
