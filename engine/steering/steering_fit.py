"""STRIDE's fit session: trains all operators, and some of them a second time to measure agreement.

The random choices of a training (the order of rows, the initial basis) add noise to each measurement. Some operators are trained
again with another seed: the agreement of the two measurements of a query shows how reliable they are. Knows no text and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ...store.layout import Array
from ..interface.subset_method import Design, OnStep
from .space import Space
from .training import SteeringRecipe, Training

_SECOND_SEED = 1 << 20  # added to the seed for the second training


@dataclass(frozen=True, slots=True)
class DesignSubset:
    """Some subsets of a design."""

    design: Design
    which: Array
    """(n,) int64, ascending."""

    @property
    def rows(self) -> int:
        """N: number of examples."""
        return self.design.rows

    @property
    def subsets(self) -> int:
        """Number of the chosen subsets."""
        return len(self.which)

    @property
    def degree(self) -> int:
        """d of the whole design; a row is in at most so many of the chosen subsets."""
        return self.design.degree

    def of(self, rows: Array) -> Array:
        """(n, d): the chosen subsets that hold each row, filled up with the number of them for a row in fewer than d."""
        place = np.full(self.design.subsets + 1, len(self.which))
        place[self.which] = np.arange(len(self.which))
        return np.asarray(place[self.design.of(rows).astype(np.int64)])

    def sizes(self) -> Array:
        """Number of rows of each subset."""
        return np.asarray(self.design.sizes()[self.which])

    def members(self, subset: int, start: int = 0, stop: int | None = None) -> Array:
        """Rows `start` to `stop` of a subset."""
        return self.design.members(int(self.which[subset]), start, stop)


class SteeringFit:
    """Two trainings, one after the other, as one session."""

    def __init__(self, space: Space, design: Design, recipe: SteeringRecipe, checked: int) -> None:
        """`checked`: number of operators that are trained twice."""
        self._main = Training(space, design, recipe)
        count = min(checked, design.subsets)
        self._which = np.arange(count) * design.subsets // max(count, 1)
        second = replace(recipe, seed=recipe.seed + _SECOND_SEED)
        self._check = Training(space, DesignSubset(design, self._which), second) if count else None
        self._steps = recipe.steps

    @property
    def step(self) -> int:
        """Number of steps done, of both trainings."""
        return self._main.step + (self._check.step if self._check else 0)

    @property
    def steps(self) -> int:
        """Number of steps in all, of both trainings."""
        return self._steps * (2 if self._check else 1)

    def run(self, on_step: OnStep, should_stop: Callable[[], bool]) -> bool:
        """Run to the last step or until stopped; `on_step` gets an operator's mean fidelity and drift."""
        if not self._main.run(on_step, should_stop):
            return False
        main_steps = self._main.step
        return self._check is None or self._check.run(
            lambda step, *losses: on_step(main_steps + step, *losses), should_stop
        )

    def state_dict(self) -> dict[str, Array]:
        """The states of both trainings, under `main_` and `check_`."""
        arrays = {f"main_{name}": value for name, value in self._main.state_dict().items()}
        if self._check:
            arrays |= {f"check_{name}": value for name, value in self._check.state_dict().items()}
        return arrays

    def load_state_dict(self, arrays: Mapping[str, Array]) -> None:
        """Continue both trainings from what `state_dict` returned."""
        for prefix, training in (("main_", self._main), ("check_", self._check)):
            if training:
                training.load_state_dict(
                    {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
                )

    def parameters(self) -> dict[str, Array]:
        """`basis` and `alpha`; from the second training `check_basis`, `check_alpha`, and `which`: the operators it trains."""
        arrays = {name: value for name, value in self._main.state_dict().items() if name in ("basis", "alpha")}
        if self._check:
            arrays |= {
                f"check_{name}": value for name, value in self._check.state_dict().items() if name in ("basis", "alpha")
            }
            arrays["which"] = self._which
        return arrays
