"""A stored column indexed as a tensor gives the rows that a plain tensor would, whatever chunks they lie in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from headwater.engine.fitting.stored_states import StoredTensor
from headwater.store.errors import StoreDamaged
from headwater.store.feature_store import FeatureStore, method_group
from headwater.store.layout import Column
from headwater.store.reader import open_column
from headwater.store.writer import GroupWriter

ROWS, CHUNK = 23, 5


@pytest.mark.parametrize(
    ("stored", "dtype"), [("float32", torch.float32), ("uint16", torch.bfloat16), ("int64", torch.int64)]
)
@pytest.mark.parametrize("chunk", [CHUNK, ROWS])
def test_it_is_indexed_like_a_tensor(tmp_path: Path, stored: str, dtype: torch.dtype, chunk: int) -> None:
    store, group = FeatureStore.create(tmp_path / "S", {}, "0"), method_group("m")
    store.add_group(group, [Column("x", (3,), stored, chunk)], {})
    values = np.random.default_rng(0).integers(0, 1 << 14, (ROWS, 3)).astype(stored)
    with GroupWriter(store, group) as writer:
        writer.append({"x": values})
        writer.commit()
    expected = torch.from_numpy(values.view(np.int16)).view(dtype) if stored == "uint16" else torch.from_numpy(values)
    tensor = StoredTensor(open_column(store, group, "x"), dtype)
    assert tensor.shape == (ROWS, 3) and torch.equal(tensor[:], expected) and torch.equal(tensor[3:17], expected[3:17])
    for shape in ((0,), (1,), (40,), (4, 7)):
        index = torch.randint(ROWS, shape, generator=torch.Generator().manual_seed(1))
        assert torch.equal(tensor[index], expected[index])
    (tmp_path / "S/shards/0/methods/m/columns/x/c/0/0").unlink()
    with pytest.raises(StoreDamaged, match="is missing"):
        StoredTensor(open_column(store, group, "x"), dtype)
