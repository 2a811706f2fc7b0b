"""The training loop of steering operators: every operator takes every step.

The differences between subsets are small, and unequal progress would drown them: at a step each operator sees the next `members`
rows of its subset (in an order of the design's, so that all are seen equally often), and of positions drawn for all
operators together those that are not its own; one Adam step on all operators follows, and a slower one on the shared basis. What
is drawn is a function of the seed and the step's number, so that a training that was stopped goes on as if it had not been.
Knows what a space and a design offer; no text, no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ...store.errors import DataError, SettingsError
from ...store.layout import Array
from ..fitting.hidden_states import together
from ..interface.subset_method import Design
from ..runtime.hashing import hashed
from .linearity import Linearity
from .operators import OperatorGradients, Operators
from .space import Drawn, Shared, Space

OnProgress = Callable[[int, float, float], None]


@dataclass(frozen=True, slots=True)
class SteeringRecipe:
    """How operators are trained."""

    rank: int = 16
    """r."""
    updates: int = 150
    """Steps."""
    members: int = 32
    """Rows of its subset that an operator sees in a step, at most."""
    shared: int = 256
    """Positions, of rows drawn anew at each step, that all operators see: those outside its subset bind an operator."""
    rate: float = 1e-3
    """Adam's, of the operators."""
    basis_rate: float = 1e-3
    """Of the basis; 0 leaves it as it was drawn."""
    stability: float = 10.0
    """Weight of KL on what is outside."""
    linearity: float = 0.0
    """Weight of L_LDS: what of measurements of training rows no weights of a sketched M explain."""
    seed: int = 0
    """Of the basis and of all that is drawn."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        least = min(self.rate, self.basis_rate, self.stability, self.linearity)
        if min(self.rank, self.updates, self.members, self.shared) < 1 or not least >= 0:
            raise SettingsError(
                "steering needs rank, updates, members and shared ≥ 1, and rates and weights of losses ≥ 0"
            )


class Training:
    """Operators in training."""

    def __init__(self, space: Space, subsets: Design, recipe: SteeringRecipe) -> None:
        """Begin with operators that do nothing."""
        self._space, self._subsets, self.recipe = space, subsets, recipe
        self.operators = space.initial(subsets.subsets, recipe.rank, recipe.seed)
        self.step = 0
        self._sizes = subsets.sizes()
        self._begin = hashed(
            recipe.seed, "begin", subsets.subsets
        )  # two trainings of a design see its rows in another order
        if not self._sizes.all():
            raise DataError(f"subset {int(np.argmin(self._sizes))} of the design is empty")
        self._linearity = Linearity(subsets, recipe.seed) if recipe.linearity else None
        self._descent = torch.optim.Adam([
            {"params": [self.operators.alpha], "lr": recipe.rate},
            {"params": [self.operators.basis], "lr": recipe.basis_rate},
        ])  # fmt: skip

    def state_dict(self) -> dict[str, Array]:
        """All that a later run needs to go on, float32."""
        found: dict[str, Array] = {"step": np.array(self.step)}
        for name, value in self._named().items():
            moments = self._descent.state.get(value, {})
            found |= {name: value.numpy(force=True)} | {
                f"{name}_{key}": moments[key].numpy(force=True) for key in ("exp_avg", "exp_avg_sq") if moments
            }
        return found

    def load_state_dict(self, arrays: Mapping[str, Array]) -> None:
        """Go on from what :meth:`arrays` gave.

        Raises:
            DataError: it is of other shapes.
        """
        step = arrays.get("step", np.array(-1))
        if step.shape or step.dtype.kind != "i" or not 0 <= int(step) <= self.recipe.updates:
            raise DataError(f"there is no step to go on from: {step}")
        for name, value in self._named().items():
            for key in (name, *((f"{name}_exp_avg", f"{name}_exp_avg_sq") if step else ())):
                there = arrays.get(key, np.zeros(0))
                least = 0 if key.endswith("_sq") else -np.inf
                sound = there.dtype == np.float32 and np.isfinite(there).all() and (there >= least).all()
                if there.shape != tuple(value.shape) or not sound:
                    raise DataError(
                        f"{key} is {there.dtype} {there.shape}, or not finite; it should be {tuple(value.shape)}"
                    )
        for name, value in self._named().items():
            value.copy_(torch.from_numpy(arrays[name]))
            if int(arrays["step"]):
                moments = {
                    key: torch.from_numpy(arrays[f"{name}_{key}"]).to(value) for key in ("exp_avg", "exp_avg_sq")
                }
                self._descent.state[value] = {"step": torch.tensor(float(arrays["step"])), **moments}
        self.step = int(arrays["step"])

    def _named(self) -> dict[str, torch.Tensor]:
        return {"basis": self.operators.basis, "alpha": self.operators.alpha}

    def run(self, on_progress: OnProgress, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the end, or until stopped: whether it is the end. `on_progress` gets steps and the mean losses."""
        while self.step < self.recipe.updates:
            if should_stop():
                return False
            fidelity, drift = self._advance()
            self.step += 1
            on_progress(self.step, fidelity / self._subsets.subsets, drift / self._subsets.subsets)
        return True

    @torch.no_grad()
    def _advance(self) -> tuple[float, float]:
        """One step; the two losses' sums over operators.

        Raises:
            DataError: an operator is no longer finite.
        """
        inside, outside = OperatorGradients.zeros(self.operators), OperatorGradients.zeros(self.operators)
        own = self.inside(self.step)
        for some in together(self._space.corpus, [one.rows for one in own]):
            self._space.add_fidelity(self.operators, some, own[some], inside)
        self._space.add_drift(self.operators, self.outside(self.step), outside)
        alpha, basis = self.operators.alpha, self.operators.basis
        alpha.grad = inside.alpha.add_(outside.alpha, alpha=self.recipe.stability)
        basis.grad = inside.basis.add_(outside.basis, alpha=self.recipe.stability)
        if self._linearity:
            self._add_linearity(self._linearity)
        self._descent.step()
        alpha.grad = basis.grad = None
        finite = torch.isfinite(alpha.flatten(1).sum(1))
        if not finite.all():
            raise DataError(
                f"operator {int(finite.int().argmin())} is no longer finite after step {self.step + 1}: a lower rate"
            )
        return inside.loss, outside.loss

    def _add_linearity(self, linearity: Linearity) -> None:
        found = OperatorGradients.zeros(self.operators)
        linearity.add(self._space, self.operators, self._drawn(self.step, 2, self.recipe.members)[0], found)
        for own, more in ((self.operators.alpha.grad, found.alpha), (self.operators.basis.grad, found.basis)):
            assert own is not None
            own.add_(more, alpha=self.recipe.linearity)

    def inside(self, step: int) -> list[Drawn]:
        """What each operator sees of its subset.

        A row weighs ω over the number of rows in its operator's batch, of those that have positions. (Over the sum of their ω it
        would be heard less in the company of rows that weigh much, and measurements would not add up.)
        """
        return [self._own(subset, step) for subset in range(self._subsets.subsets)]

    def _own(self, subset: int, step: int) -> Drawn:
        size = int(self._sizes[subset])
        count = min(self.recipe.members, size)
        start = (int(self._begin[subset] % size) + step * count) % size
        rows = self._subsets.members(subset, start, min(size, start + count))
        if len(rows) < count:
            rows = np.concatenate([rows, self._subsets.members(subset, 0, count - len(rows))])
        weights, first = self._space.corpus.weights, self._space.corpus.first
        own = np.ones(count) if weights is None else weights[rows].astype(np.float64)
        counted = int((first[rows + 1] > first[rows]).sum())
        return Drawn(rows, own / max(counted, 1))

    def outside(self, step: int) -> Shared:
        """What is drawn for all operators, with which of them it binds: not those whose subsets hold it."""
        rows, chance = self._drawn(step, 1, self.recipe.shared)
        at, first = chance.random(len(rows)), self._space.corpus.first
        kept = first[rows + 1] > first[rows]
        rows, at = rows[kept], at[kept]
        apart = np.ones(
            (self._subsets.subsets + 1, len(rows)), bool
        )  # a row may be in fewer than d: the last is for none
        apart[self._subsets.of(rows).T.astype(np.int64), np.arange(len(rows))] = False
        return Shared(rows, at, apart[:-1])

    def _drawn(self, step: int, which: int, count: int) -> tuple[Array, np.random.Generator]:
        """Rows, and what drew them: a function of the seed and the step."""
        chance = np.random.default_rng([self.recipe.seed, which, step])
        return chance.integers(0, self._subsets.rows, count), chance


def trained(space: Space, subsets: Design, recipe: SteeringRecipe, on_progress: OnProgress) -> Operators:
    """Train all operators from nothing to the end."""
    training = Training(space, subsets, recipe)
    training.run(on_progress)
    return training.operators
