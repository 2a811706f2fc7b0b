"""Recovers weights from measurements: chooses solver and penalty on held-out measurements, with diagnostics.

A tenth of the measurements is held out; the sparsity (c of λ = c·λ_max) or ridge strength that predicts them best, pooled over
queries, is selected; the final weights use all measurements. Knows memberships; no store, no method.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...store.errors import SettingsError
from ...store.layout import Array
from ..runtime.run import SILENT_STAGE, Stage
from .gpu_pass import DevicePass
from .held_out import HeldOutSplit, split_measurements
from .lasso import Lasso, Sparse, predicted, require_solvable
from .membership import Membership, multiplied
from .pursuit import pursued, thresholded
from .ridge import Ridge, overlaps

SHARES = (0.9, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02, 0.012, 0.007, 0.004)
"""Candidates for c = λ/λ_max, from sparse to dense; the last ones are for K near or above N, where solutions are dense."""
STRENGTHS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""Candidates for the ridge α, relative to the mean eigenvalue of M_c M_cᵀ."""
CAUSES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Candidates for s, the number of non-zero weights in `iht` and `ssmp`."""
SOLVERS = ("auto", "lasso", "ridge", "iht", "ssmp")
DENSE = 4096
"""Maximum number of subsets for ridge, which needs a K × K matrix."""
_ROUGH = 1e-3  # duality gap during selection of c
PURSUITS = {"iht": thresholded, "ssmp": pursued}


@dataclass(frozen=True, slots=True)
class Recovery:
    """Settings of the recovery."""

    solver: str = "auto"
    """lasso, ridge, iht, ssmp; `auto` is lasso, or ridge where that predicts the held-out measurements better by more than one
    standard error."""
    regularization: float = 0.0
    """c of the LASSO, or the strength of ridge; 0: chosen on held-out measurements."""
    causes: int = 0
    """s of iht and ssmp; 0: chosen on held-out measurements."""
    held_out: float = 0.1
    """Fraction of the measurements that is held out."""
    tolerance: float = 1e-4
    """Duality gap over ½‖y − ȳ‖²."""
    seed: int = 0
    """Seed of the held-out split."""

    def __post_init__(self) -> None:
        """Raise SettingsError for settings out of range."""
        if self.solver not in SOLVERS:
            raise SettingsError(f"unknown solver {self.solver}", hint=f"choose from {', '.join(SOLVERS)}")
        most = np.inf if self.solver == "ridge" else 1
        if not (
            0 <= self.regularization < most and 0 < self.held_out < 1 and 0 < self.tolerance < 1 and self.causes >= 0
        ):
            raise SettingsError(
                "recovery needs 0 ≤ regularization < 1 (ridge: any ≥ 0), 0 < held_out < 1, 0 < tolerance < 1 and causes ≥ 0"
            )


@dataclass(slots=True)
class RecoveryResult:
    """Weights of Q queries, with held-out R² and duality gaps."""

    solver: str
    """The solver that was used."""
    regularization: float
    """c, the strength of ridge, or s."""
    explained: Array
    """(Q,) float64: held-out R². Negative if the mean predicts better; 0 if the held-out measurements are constant. The same
    measurements selected the sparsity, so it is slightly optimistic.
    """
    candidates: dict[str, list[tuple[float, float]]]
    """Per solver: (c, strength or s; pooled held-out R²) of every candidate."""
    gap: Array
    """(Q,) duality gap over ½‖y − ȳ‖² of the LASSO; 0 for ridge, which is solved exactly; NaN for iht and ssmp."""
    converged: Array
    """(Q,) bool: whether the gap is within the tolerance."""
    sparse: list[Sparse] | None = None
    """Weights of LASSO, iht and ssmp; None for ridge."""
    duals: Array | None = field(default=None, repr=False)
    """(K, Q) float64 dual variables of ridge; the weights are Mᵀ duals."""

    def dense(self, membership: Membership, start: int = 0, stop: int | None = None) -> Array:
        """(Q, n) float32: weights of rows [start, stop), by default of all N."""
        stop = membership.rows if stop is None else stop
        if self.duals is not None:
            return multiplied(membership, self.duals, start, stop)
        result = np.zeros((len(self.sparse or ()), stop - start), np.float32)
        for line, sparse in zip(result, self.sparse or (), strict=True):
            first, last = np.searchsorted(sparse.rows, (start, stop))
            line[sparse.rows[first:last] - start] = sparse.weights[first:last]
        return result


def recovery_bytes(queries: int, subsets: int, batch: int, workers: int) -> int:
    """Upper bound in bytes of the memory of :func:`recovered`, without membership and y. `batch`: queries solved at a time."""
    solved = min(batch, queries) * (128 * subsets + workers * (24 * subsets + (1 << 14)))
    ridge = 80 * subsets**2 if subsets <= DENSE else 0
    return 32 * queries * subsets + solved + ridge


@dataclass(frozen=True, slots=True)
class RecoveryResources:
    """Threads, batch size and GPU of a recovery; they do not change the weights beyond rounding."""

    workers: int = 1
    """Threads."""
    queries: int = 64
    """Queries that are solved at a time."""
    device: DevicePass | None = None
    """The GPU that computes correlations with all rows; None: the threads do."""


ONE_THREAD = RecoveryResources()
"""One thread, no device."""


def recovered(
    membership: Membership,
    y: Array,
    settings: Recovery,
    resources: RecoveryResources = ONE_THREAD,
    stage: Stage = SILENT_STAGE,
) -> RecoveryResult:
    """Recover weights from measurements y (Q, K) float64; settings are selected over all queries. `stage` gets the number of each
    step, and a note on what it solves.

    Raises:
        DataError: the number of measurements is not K, too small, or they are not finite.
    """
    y = np.asarray(y, np.float64)
    require_solvable(membership, y)  # before solving starts
    split, problems = split_measurements(y, settings.held_out, settings.seed), _Problems(membership, resources)
    steps = itertools.count(1)
    errors, values, shared = _held_out_errors(problems, split, settings, lambda note: stage.report(next(steps), note))
    base = split.base()
    candidates = {name: _explained_by_value(values[name], errors[name], base) for name in errors}
    solver = _better_solver(errors, candidates, base)
    at = int(np.argmax([explained for _, explained in candidates[solver]]))
    value, explained = candidates[solver][at][0], _explained(errors[solver][at], base)
    stage.report(next(steps), f"{solver}, {value:g}")
    zeros = np.zeros(len(y))
    if solver == "ridge":
        assert shared is not None
        duals = Ridge(shared, y).duals(value)
        return RecoveryResult(solver, value, explained, candidates, zeros, zeros == 0, duals=duals)
    if solver in PURSUITS:
        weights, _ = PURSUITS[solver](membership, y, int(value))
        return RecoveryResult(solver, value, explained, candidates, zeros + np.nan, zeros == 0, sparse=weights)
    fits = [problem.fit(value * problem.largest(), settings.tolerance) for _, problem in problems.of(y)]
    gap, sparse = np.concatenate([fit.gap for fit in fits]), [weights for fit in fits for weights in fit.weights]
    return RecoveryResult(solver, value, explained, candidates, gap, gap <= settings.tolerance, sparse=sparse)


@dataclass(frozen=True, slots=True)
class _Problems:
    """Splits queries into LASSO problems of a bounded number of queries."""

    membership: Membership
    resources: RecoveryResources

    def of(self, y: Array) -> Iterator[tuple[slice, Lasso]]:
        """Yield (slice of queries, their LASSO solver)."""
        for start in range(0, len(y), self.resources.queries):
            batch = slice(start, start + self.resources.queries)
            yield batch, Lasso(self.membership, y[batch], self.resources.workers, self.resources.device)


def _held_out_errors(
    problems: _Problems, split: HeldOutSplit, settings: Recovery, report: Callable[[str], None]
) -> tuple[dict[str, Array], dict[str, Sequence[float]], Array | None]:
    """Per solver: held-out squared errors (values, Q, h) and candidate values; also M Mᵀ if ridge is tried.

    Raises:
        SettingsError: ridge is requested with more than `DENSE` subsets.
    """
    membership, subsets = problems.membership, problems.membership.subsets
    errors: dict[str, Array] = {}
    values: dict[str, Sequence[float]] = {}
    # with auto, a given regularization is the LASSO's
    dense = settings.solver == "ridge" or (settings.solver == "auto" and not settings.regularization)
    shared = overlaps(membership) if dense and subsets <= DENSE else None
    if settings.solver in PURSUITS:
        fitting = tuple(size for size in CAUSES if 4 * size <= split.train_count)
        sizes = (settings.causes,) if settings.causes else fitting or (1,)
        errors[settings.solver] = _pursuit_errors(membership, split, sizes, settings.solver, report)
        values[settings.solver] = sizes
    elif settings.solver != "ridge":
        values["lasso"] = (settings.regularization,) if settings.regularization else SHARES
        errors["lasso"] = np.concatenate([
            _lasso_errors(problem, membership, replace(split, y=split.y[batch]), values["lasso"], report)
            for batch, problem in problems.of(split.train)
        ], 1)  # fmt: skip
    if shared is not None:
        values["ridge"] = (settings.regularization,) if settings.regularization else STRENGTHS
        ridge = Ridge(shared, split.train)
        errors["ridge"] = np.stack([split.errors(ridge.predicted(strength)) for strength in values["ridge"]])
    elif settings.solver == "ridge":
        raise SettingsError(f"ridge needs a K × K matrix: at most {DENSE} subsets, not {subsets}")
    return errors, values, shared


def _lasso_errors(
    problem: Lasso, membership: Membership, split: HeldOutSplit, shares: Sequence[float], report: Callable[[str], None]
) -> Array:
    """Held-out squared errors (shares, Q, h) from sparse to dense, each warm-started from the previous."""
    errors = []
    for share in shares:
        report(f"lasso, {share:g}")
        fit = problem.fit(share * problem.largest(), _ROUGH)
        errors.append(split.errors(predicted(membership, fit.weights, fit.intercept)))
    return np.stack(errors)


def _pursuit_errors(
    membership: Membership, split: HeldOutSplit, sizes: Sequence[int], solver: str, report: Callable[[str], None]
) -> Array:
    """Held-out squared errors (sizes, Q, h) of iht or ssmp."""
    errors = []
    for causes in sizes:
        report(f"{solver}, {causes}")
        weights, intercept = PURSUITS[solver](membership, split.train, causes)
        errors.append(split.errors(predicted(membership, weights, intercept)))
    return np.stack(errors)


def _explained(errors: Array, base: Array) -> Array:
    """Held-out R² (Q,) from squared errors (Q, h) and those of the mean (Q, h)."""
    varies = base.any(1)
    return np.where(varies, 1 - errors.sum(1) / np.where(varies, base.sum(1), 1), 0)


def _explained_by_value(values: Sequence[float], errors: Array, base: Array) -> list[tuple[float, float]]:
    """(value, mean held-out R²) of every candidate value, averaged over queries whose measurements vary."""
    varies = base.any(1)
    pooled = [float(_explained(error, base)[varies].mean()) if varies.any() else 0.0 for error in errors]
    return list(zip(values, pooled, strict=True))


def _better_solver(errors: dict[str, Array], candidates: dict[str, list[tuple[float, float]]], base: Array) -> str:
    """The solver with the lower held-out error; ridge, whose weights are not sparse, only if it is better by more than one
    standard error over the held-out measurements.
    """
    varies = base.any(1)
    if len(errors) == 1 or not varies.any():
        return next(iter(errors))
    scale = base[varies].mean(1)[:, None]

    def best_errors(name: str) -> Array:
        """(h,): mean relative errors of a solver's best candidate."""
        best = int(np.argmax([explained for _, explained in candidates[name]]))
        relative: Array = (errors[name][best][varies] / scale).mean(0)
        return relative

    lasso, ridge = best_errors("lasso"), best_errors("ridge")
    ahead = lasso - ridge  # (h,)
    error = float(ahead.std(ddof=1) / np.sqrt(len(ahead))) if len(ahead) > 1 else np.inf
    return "ridge" if float(ahead.mean()) > error else "lasso"
