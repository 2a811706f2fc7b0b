"""RapidIn's index: whole gradients, shuffled and summed in groups to K numbers (Lin et al. 2024, arXiv 2405.11724, section 3.2).

Kept: a random order and random signs of all of a gradient's numbers, summed in groups to K = 65,536 half-precision ones, which
is what its store costs; the inner product of two such rows. Dropped: LoRA (all chosen maps are taken), several shuffles one
after the other (one uniform hash does what they do), layer-wise gradient norms. Here for comparison: 131 KB an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..engine.intake.projection import outer_sums, unit
from ..engine.intake.sketch import CountSketch, count_sketch
from ..engine.method import BATCH_EXAMPLES, Head, Needs, QueryMatrix, Readout, Similarity, Sizes
from ..store.errors import SettingsError
from ..store.layout import Array, Column, column

_EXAMPLES = 8  # whose whole gradients of one map are held at once


@dataclass(frozen=True)
class RapidIn(Similarity):
    """Settings of RapidIn's index."""

    layers: tuple[str, ...] = ("*",)
    """Names of the linear maps, or patterns of them."""
    groups: int = 65_536
    """K: numbers of a row."""
    seed: int = 0
    """Of the order and the signs."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.groups < 1:
            raise SettingsError("rapidin needs groups ≥ 1")

    def columns(self, sizes: Sizes) -> tuple[Column, ...]:
        """The grouped gradient's direction."""
        return (column("gradient", (self.groups,), "float16"),)

    def needs(self, sizes: Sizes) -> Needs:
        """Traces of the maps."""
        return Needs(linears=tuple(one.name for one in sizes.matching(self.layers)))

    def scratch(self, sizes: Sizes, positions: int) -> int:
        """Groups and signs of every weight, some whole gradients, rows."""
        maps = sizes.matching(self.layers)
        weights, widest = sum(m.inputs * m.outputs for m in maps), max(m.inputs * m.outputs for m in maps)
        floats = max(positions, sizes.max_length) * max(m.inputs + m.outputs for m in maps)
        rows = 3 * self.groups * min(positions, BATCH_EXAMPLES)
        return 12 * weights + 48 * widest + 4 * (2 * _EXAMPLES * widest + floats + rows)

    def tables(self, head: Head) -> dict[str, CountSketch]:
        """Where each weight goes, and with what sign."""
        device = head.weight.device
        return {
            one.name: count_sketch(one.inputs * one.outputs, self.groups, self.seed, f"rapidin.{one.name}", device)
            for one in head.sizes.matching(self.layers)
        }

    def rows(self, readout: Readout, tables: dict[str, CountSketch]) -> dict[str, torch.Tensor]:
        """`gradient` (n, K) float32, of unit norm."""
        total = torch.zeros(readout.examples, self.groups, device=readout.owners.device)
        for name, sketch in tables.items():
            trace = readout.trace(name)
            for first in range(0, readout.examples, _EXAMPLES):
                own = (trace.owners >= first) & (trace.owners < first + _EXAMPLES)
                count = min(_EXAMPLES, readout.examples - first)
                errors, inputs = trace.errors[own].float(), trace.inputs[own].float()
                whole = outer_sums(errors, inputs, trace.owners[own] - first, count).flatten(1)
                total[first : first + count].index_add_(1, sketch.bucket, whole * sketch.sign)
        return {"gradient": unit(total)}

    def prepare(self, rows: Mapping[str, Array], state: Mapping[str, Array]) -> QueryMatrix:
        """The queries' gradients."""
        return QueryMatrix("gradient", np.ascontiguousarray(rows["gradient"], np.float32))
