"""STRIDE's fit session: all operators, and some of them a second time to measure agreement.

What a training leaves to chance (which rows come when, where the basis begins) is noise in every measurement. Some operators are
trained again under another seed; how well the two answers to a query agree tells how far any of them can be trusted. Knows what
training knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ...store.layout import Array
from ..interface.subset_method import Design
from .space import Space
from .training import SteeringRecipe, Training

_AGAIN = 1 << 20  # added to the seed of the second training


@dataclass(frozen=True, slots=True)
class DesignSubset:
    """Some subsets of a design."""

    design: Design
    which: Array
    """(n,) int64, ascending."""

    @property
    def rows(self) -> int:
        """N."""
        return self.design.rows

    @property
    def subsets(self) -> int:
        """How many they are."""
        return len(self.which)

    @property
    def degree(self) -> int:
        """Of the whole design: a row is in fewer of some."""
        return self.design.degree

    def of(self, rows: Array) -> Array:
        """(n, d): those that a row is in; their number where it is in fewer."""
        place = np.full(self.design.subsets + 1, len(self.which))
        place[self.which] = np.arange(len(self.which))
        found: Array = place[self.design.of(rows).astype(np.int64)]
        return found

    def sizes(self) -> Array:
        """Of each."""
        found: Array = self.design.sizes()[self.which]
        return found

    def members(self, subset: int, start: int = 0, stop: int | None = None) -> Array:
        """Of one of them."""
        return self.design.members(int(self.which[subset]), start, stop)


class SteeringFit:
    """Two trainings, one after the other, as one."""

    def __init__(self, space: Space, design: Design, recipe: SteeringRecipe, checked: int) -> None:
        """`checked`: operators that are trained twice; 0 for none."""
        self._main = Training(space, design, recipe)
        count = min(checked, design.subsets)
        self._which = np.arange(count) * design.subsets // max(count, 1)
        again = replace(recipe, seed=recipe.seed + _AGAIN)
        self._check = Training(space, DesignSubset(design, self._which), again) if count else None
        self._updates = recipe.updates

    @property
    def step(self) -> int:
        """Of both."""
        return self._main.step + (self._check.step if self._check else 0)

    @property
    def steps(self) -> int:
        """Of both."""
        return self._updates * (2 if self._check else 1)

    def run(self, on_progress: Callable[[int, float, float], None], should_stop: Callable[[], bool]) -> bool:
        """As the contract says; the losses are fidelity's and stability's, of an operator."""
        if not self._main.run(on_progress, should_stop):
            return False
        behind = self._main.step
        return self._check is None or self._check.run(
            lambda step, *losses: on_progress(behind + step, *losses), should_stop
        )

    def state_dict(self) -> dict[str, Array]:
        """Of both."""
        found = {f"main_{name}": value for name, value in self._main.state_dict().items()}
        if self._check:
            found |= {f"check_{name}": value for name, value in self._check.state_dict().items()}
        return found

    def load_state_dict(self, arrays: Mapping[str, Array]) -> None:
        """Of both."""
        for prefix, training in (("main_", self._main), ("check_", self._check)):
            if training:
                training.load_state_dict(
                    {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
                )

    def parameters(self) -> dict[str, Array]:
        """`basis` and `alpha`; `check_basis`, `check_alpha` and `which` of the operators they are of."""
        found = {name: value for name, value in self._main.state_dict().items() if name in ("basis", "alpha")}
        if self._check:
            found |= {
                f"check_{name}": value for name, value in self._check.state_dict().items() if name in ("basis", "alpha")
            }
            found["which"] = self._which
        return found
