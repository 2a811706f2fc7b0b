"""The training loop of steering operators: all operators take each step.

The differences between subsets are small, and unequal progress would hide them. At each step an operator reads the next `batch`
rows of its subset (in the design's order, so that all rows are read equally often), and those of the shared rows that are outside
its subset; then follows one Adam step on all operators and on the shared basis. Random numbers are a function of the seed and the
step, so a training that is stopped and resumed gives the same bytes. Knows a steering space (`space.py`) and a design; no text
and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ...store.errors import DataError, SettingsError
from ...store.layout import Array
from ..fitting.hidden_states import parts_in_memory
from ..interface.subset_method import Design, OnStep
from ..models.training_recipe import TrainingRecipe
from ..runtime.hashing import hashed
from .linearity import Linearity
from .operators import OperatorGradients, Operators
from .space import SharedRows, Space, WeightedRows

_SHARED_STREAM, _LINEARITY_STREAM = 1, 2  # of random rows


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringRecipe(TrainingRecipe):
    """Hyperparameters of the training of operators. `batch`: rows of its subset that an operator reads at a step."""

    batch: int = 32
    steps: int = 150
    """Optimizer steps."""
    rank: int = 16
    """r: number of columns of the basis."""
    shared: int = 256
    """Rows that all operators read at a step, for drift outside their subsets."""
    basis_learning_rate: float = 1e-3
    """Learning rate of the basis; 0 leaves it random."""
    stability: float = 10.0
    """Weight of the drift, KL(p ‖ p_k) outside the subset."""
    linearity: float = 0.0
    """Weight of the linearity loss."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        least = min(self.learning_rate, self.basis_learning_rate, self.stability, self.linearity)
        if min(self.rank, self.steps, self.batch, self.shared) < 1 or not least >= 0:
            raise SettingsError(
                "steering needs rank, steps (updates), batch (members) and shared ≥ 1, and rates and weights of losses ≥ 0"
            )


class Training:
    """The training of operators of a design."""

    def __init__(self, space: Space, design: Design, recipe: SteeringRecipe) -> None:
        """Begin with operators that change nothing."""
        self._space, self._design, self.recipe = space, design, recipe
        self.operators = space.initial(design.subsets, recipe.rank, recipe.seed)
        self.step = 0
        self._sizes = design.sizes()
        # where each subset's reading starts; another seed starts elsewhere
        self._first_rows = hashed(recipe.seed, "begin", design.subsets)
        if not self._sizes.all():
            raise DataError(f"subset {int(np.argmin(self._sizes))} of the design is empty")
        self._linearity = Linearity(design, recipe.seed) if recipe.linearity else None
        self._optimizer = torch.optim.Adam([
            {"params": [self.operators.alpha], "lr": recipe.learning_rate},
            {"params": [self.operators.basis], "lr": recipe.basis_learning_rate},
        ])  # fmt: skip

    def state_dict(self) -> dict[str, Array]:
        """Everything that a later run needs to continue, in float32."""
        arrays: dict[str, Array] = {"step": np.array(self.step)}
        for name, value in self._named().items():
            moments = self._optimizer.state.get(value, {})
            arrays |= {name: value.numpy(force=True)} | {
                f"{name}_{key}": moments[key].numpy(force=True) for key in ("exp_avg", "exp_avg_sq") if moments
            }
        return arrays

    def load_state_dict(self, arrays: Mapping[str, Array]) -> None:
        """Continue from what :meth:`state_dict` returned.

        Raises:
            DataError: the arrays are of another training, or damaged.
        """
        step = arrays.get("step", np.array(-1))
        if step.shape or step.dtype.kind != "i" or not 0 <= int(step) <= self.recipe.steps:
            raise DataError(f"the checkpoint has no step to continue from: {step}")
        for name, value in self._named().items():
            for key in (name, *((f"{name}_exp_avg", f"{name}_exp_avg_sq") if step else ())):
                _require_array(key, arrays.get(key, np.zeros(0)), tuple(value.shape))
        for name, value in self._named().items():
            value.copy_(torch.from_numpy(arrays[name]))
            if int(arrays["step"]):
                moments = {
                    key: torch.from_numpy(arrays[f"{name}_{key}"]).to(value) for key in ("exp_avg", "exp_avg_sq")
                }
                self._optimizer.state[value] = {"step": torch.tensor(float(arrays["step"])), **moments}
        self.step = int(arrays["step"])

    def _named(self) -> dict[str, torch.Tensor]:
        return {"basis": self.operators.basis, "alpha": self.operators.alpha}

    def run(self, on_step: OnStep, should_stop: Callable[[], bool] = lambda: False) -> bool:
        """Train to the last step or until stopped; True after the last. `on_step` gets an operator's mean fidelity and drift."""
        while self.step < self.recipe.steps:
            if should_stop():
                return False
            fidelity, drift = self._advance()
            self.step += 1
            on_step(self.step, fidelity / self._design.subsets, drift / self._design.subsets)
        return True

    @torch.no_grad()
    def _advance(self) -> tuple[float, float]:
        """Take one step; returns the sums of both losses over operators.

        Raises:
            DataError: an operator is no longer finite.
        """
        fidelity, drift = OperatorGradients.zeros(self.operators), OperatorGradients.zeros(self.operators)
        rows = self.subset_rows(self.step)
        for part in parts_in_memory(self._space.corpus, [own.rows for own in rows]):
            self._space.add_fidelity(self.operators, part, rows[part], fidelity)
        self._space.add_drift(self.operators, self.shared_rows(self.step), drift)
        alpha, basis = self.operators.alpha, self.operators.basis
        alpha.grad = fidelity.alpha.add_(drift.alpha, alpha=self.recipe.stability)
        basis.grad = fidelity.basis.add_(drift.basis, alpha=self.recipe.stability)
        if self._linearity:
            self._add_linearity(self._linearity)
        self._optimizer.step()
        alpha.grad = basis.grad = None
        finite = torch.isfinite(alpha.flatten(1).sum(1))
        if not finite.all():
            raise DataError(
                f"operator {int(finite.int().argmin())} is no longer finite after step {self.step + 1}",
                hint="set a lower rate or basis_rate",
            )
        return fidelity.loss, drift.loss

    def _add_linearity(self, linearity: Linearity) -> None:
        """Add the gradients of the linearity loss at random rows."""
        gradients = OperatorGradients.zeros(self.operators)
        rows, _ = self._random_rows(self.step, _LINEARITY_STREAM, self.recipe.batch)
        linearity.add(self._space, self.operators, rows, gradients)
        alpha, basis = self.operators.alpha, self.operators.basis
        for parameter, gradient in ((alpha, gradients.alpha), (basis, gradients.basis)):
            assert parameter.grad is not None
            parameter.grad.add_(gradient, alpha=self.recipe.linearity)

    def subset_rows(self, step: int) -> list[WeightedRows]:
        """The rows of its subset that each operator reads at a step.

        A row's weight is ω divided by the number of the batch's rows that have target positions. (Divided by the sum of their ω,
        a row would count less beside rows of large ω, and measurements would not be additive.)
        """
        return [self._rows_of(subset, step) for subset in range(self._design.subsets)]

    def _rows_of(self, subset: int, step: int) -> WeightedRows:
        size = int(self._sizes[subset])
        count = min(self.recipe.batch, size)
        start = (int(self._first_rows[subset] % size) + step * count) % size
        rows = self._design.members(subset, start, min(size, start + count))
        if len(rows) < count:
            rows = np.concatenate([rows, self._design.members(subset, 0, count - len(rows))])
        corpus_weights, first = self._space.corpus.weights, self._space.corpus.first
        weights = np.ones(count) if corpus_weights is None else corpus_weights[rows].astype(np.float64)
        with_targets = int((first[rows + 1] > first[rows]).sum())
        return WeightedRows(rows, weights / max(with_targets, 1))

    def shared_rows(self, step: int) -> SharedRows:
        """The random rows that all operators read at a step, and for each operator which of them are outside its subset."""
        rows, generator = self._random_rows(step, _SHARED_STREAM, self.recipe.shared)
        at, first = generator.random(len(rows)), self._space.corpus.first
        has_targets = first[rows + 1] > first[rows]
        rows, at = rows[has_targets], at[has_targets]
        outside = np.ones((self._design.subsets + 1, len(rows)), bool)  # the last is for the padding of `Design.of`
        outside[self._design.of(rows).T.astype(np.int64), np.arange(len(rows))] = False
        return SharedRows(rows, at, outside[:-1])

    def _random_rows(self, step: int, stream: int, count: int) -> tuple[Array, np.random.Generator]:
        """Random rows and their generator: a function of the seed, the step and a stream's number."""
        generator = np.random.default_rng([self.recipe.seed, stream, step])
        return generator.integers(0, self._design.rows, count), generator


def _require_array(name: str, values: Array, shape: tuple[int, ...]) -> None:
    """Raise DataError unless an array of a checkpoint is finite float32 of a shape; second moments are not negative."""
    least = 0 if name.endswith("_sq") else -np.inf
    is_valid = values.dtype == np.float32 and np.isfinite(values).all() and (values >= least).all()
    if values.shape != shape or not is_valid:
        raise DataError(f"{name} is {values.dtype} {values.shape}, or not finite; expected float32 {shape}")


def train_operators(space: Space, design: Design, recipe: SteeringRecipe, on_step: OnStep) -> Operators:
    """Train all operators of a design from the first step to the last."""
    training = Training(space, design, recipe)
    training.run(on_step)
    return training.operators
