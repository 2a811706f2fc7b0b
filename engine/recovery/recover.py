"""From measurements to weights: chooses solver and penalty on held-out measurements, with diagnostics.

A tenth of the measurements is held out; the sparsity (c of λ = c·λ_max) or ridge strength that predicts them best, pooled over
queries, is selected; the final weights use all measurements. Knows memberships; no store, no method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.layout import Array
from ..runtime.hashing import hashed
from .gpu_pass import DevicePass
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
OnProgress = Callable[[str], None]
PURSUITS = {"iht": thresholded, "ssmp": pursued}


@dataclass(frozen=True, slots=True)
class Recovery:
    """Settings of the recovery."""

    solver: str = "auto"
    """lasso, ridge, iht, ssmp; `auto` is lasso, or ridge where that predicts the held-out measurements better by more than one
    standard error."""
    regularization: float = 0.0
    """c, or of a ridge its strength; 0 chooses."""
    causes: int = 0
    """s of iht and ssmp; 0 selects it on held-out measurements."""
    held_out: float = 0.1
    """Fraction of the measurements that is held out."""
    tolerance: float = 1e-4
    """Duality gap over ½‖y − ȳ‖²."""
    seed: int = 0
    """Seed of the held-out split."""

    def __post_init__(self) -> None:
        """Raise SettingsError for settings out of range."""
        if self.solver not in SOLVERS:
            raise SettingsError(f"unknown solver {self.solver}; choose from {', '.join(SOLVERS)}")
        most = np.inf if self.solver == "ridge" else 1
        if not (
            0 <= self.regularization < most and 0 < self.held_out < 1 and 0 < self.tolerance < 1 and self.causes >= 0
        ):
            raise SettingsError(
                "recovery needs 0 ≤ regularization < 1, 0 < held_out < 1, 0 < tolerance < 1 and causes ≥ 0"
            )


@dataclass(slots=True)
class Recovered:
    """Weights of Q queries, with held-out R² and duality gaps."""

    solver: str
    """What solved it."""
    regularization: float
    """c, the ridge's strength, or s."""
    explained: Array
    """(Q,) float64: held-out R². Negative if the mean predicts better; 0 if the held-out measurements are constant. The same
    measurements selected the sparsity, so it is slightly optimistic.
    """
    tried: dict[str, list[tuple[float, float]]]
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
        for line, one in zip(result, self.sparse or (), strict=True):
            first, last = np.searchsorted(one.rows, (start, stop))
            line[one.rows[first:last] - start] = one.weights[first:last]
        return result


def recovery_bytes(queries: int, subsets: int, together: int, workers: int) -> int:
    """Upper bound of the memory of :func:`recovered` in bytes, membership and y excluded."""
    solved = min(together, queries) * (128 * subsets + workers * (24 * subsets + (1 << 14)))
    ridge = 80 * subsets**2 if subsets <= DENSE else 0
    return 32 * queries * subsets + solved + ridge


def recovered(
    membership: Membership,
    y: Array,
    settings: Recovery,
    workers: int = 1,
    on_progress: OnProgress = lambda what: None,
    *,
    together: int = 64,
    device: DevicePass | None = None,
) -> Recovered:
    """Recover weights from measurements y (Q, K) float64, `together` queries at a time; settings are selected over all queries.

    Raises:
        DataError: the number of measurements is not K, too small, or they are not finite.
    """
    subsets = membership.subsets
    y = np.asarray(y, np.float64)
    require_solvable(membership, y)  # before solving starts
    held_out_mask = _held_out(np.asarray(~np.isnan(y).all(0)), settings)
    train = np.where(held_out_mask, np.nan, y)
    kept = ~np.isnan(train).all(0)
    if kept.sum() < 2 or not held_out_mask.any():
        raise DataError(
            f"{subsets} measurements are too few to hold out {settings.held_out:.0%} and solve from the rest"
        )
    base = (y[:, held_out_mask] - train[:, kept].mean(1)[:, None]) ** 2  # (Q, h)
    base[base.max(1) <= (1e-14 * np.nanmax(np.abs(y), 1)) ** 2] = 0  # rounding
    problems = _Problems(membership, workers, device, together)
    errors, values, shared = _held_out_errors(problems, y, train, held_out_mask, settings, on_progress)
    tried = {name: _explained_by_value(values[name], errors[name], base) for name in errors}
    solver = _better_solver(errors, tried, base)
    at = int(np.argmax([explained for _, explained in tried[solver]]))
    value, explained = tried[solver][at][0], _explained(errors[solver][at], base)
    on_progress(f"{solver}, {value:g}")
    none = np.zeros(len(y))
    if solver == "ridge":
        assert shared is not None
        return Recovered(solver, value, explained, tried, none, none == 0, duals=Ridge(shared, y).duals(value))
    if solver in PURSUITS:
        weights, _ = PURSUITS[solver](membership, y, int(value))
        return Recovered(solver, value, explained, tried, none + np.nan, none == 0, sparse=weights)
    fits = [one.fit(value * one.largest(), settings.tolerance) for _, one in problems.of(y)]
    gap, sparse = np.concatenate([fit.gap for fit in fits]), [one for fit in fits for one in fit.weights]
    return Recovered(solver, value, explained, tried, gap, gap <= settings.tolerance, sparse=sparse)


@dataclass(frozen=True, slots=True)
class _Problems:
    """Splits queries into LASSO problems of at most `together` queries."""

    membership: Membership
    workers: int
    device: DevicePass | None
    together: int

    def of(self, y: Array) -> Iterator[tuple[slice, Lasso]]:
        """Yield (slice of queries, their LASSO solver)."""
        for start in range(0, len(y), self.together):
            batch = slice(start, start + self.together)
            yield batch, Lasso(self.membership, y[batch], self.workers, self.device)


def _held_out_errors(
    problems: _Problems, y: Array, train: Array, held_out_mask: Array, settings: Recovery, on_progress: OnProgress
) -> tuple[dict[str, Array], dict[str, Sequence[float]], Array | None]:
    """Per solver: held-out squared errors (values, Q, h) and candidate values; also M Mᵀ if ridge is tried.

    Raises:
        SettingsError: ridge is requested with more than `DENSE` subsets.
    """
    membership, subsets = problems.membership, problems.membership.subsets
    errors: dict[str, Array] = {}
    values: dict[str, Sequence[float]] = {}
    # a regularization that was given is the LASSO's
    dense = settings.solver == "ridge" or (settings.solver == "auto" and not settings.regularization)
    shared = overlaps(membership) if dense and subsets <= DENSE else None
    if settings.solver in PURSUITS:
        kept = int((~np.isnan(train).all(0)).sum())
        sizes = (settings.causes,) if settings.causes else tuple(one for one in CAUSES if 4 * one <= kept) or (1,)
        errors[settings.solver] = _pursuit_errors(
            membership, y, train, held_out_mask, sizes, settings.solver, on_progress
        )
        values[settings.solver] = sizes
    elif settings.solver != "ridge":
        values["lasso"] = (settings.regularization,) if settings.regularization else SHARES
        errors["lasso"] = np.concatenate([
            _lasso_errors(problem, membership, y[batch], held_out_mask, values["lasso"], on_progress)
            for batch, problem in problems.of(train)
        ], 1)  # fmt: skip
    if shared is not None:
        ridge, values["ridge"] = (
            Ridge(shared, train),
            (settings.regularization,) if settings.regularization else STRENGTHS,
        )
        errors["ridge"] = np.stack([(ridge.predicted(one) - y)[:, held_out_mask] ** 2 for one in values["ridge"]])
    elif settings.solver == "ridge":
        raise SettingsError(f"a ridge holds K × K numbers: at most {DENSE} subsets, not {subsets}")
    return errors, values, shared


def _held_out(counted: Array, settings: Recovery) -> Array:
    """(K,) bool: the held-out measurements, a seeded sample of the valid ones."""
    order = np.argsort(hashed(settings.seed, "held out", len(counted)), kind="stable")
    order = order[counted[order]]
    result = np.zeros(len(counted), bool)
    result[order[: round(settings.held_out * len(order))]] = True
    return result


def _lasso_errors(
    problem: Lasso,
    membership: Membership,
    y: Array,
    held_out_mask: Array,
    shares: Sequence[float],
    on_progress: OnProgress,
) -> Array:
    """Held-out squared errors (shares, Q, h) from sparse to dense, each warm-started from the previous."""
    errors = []
    for share in shares:
        on_progress(f"lasso, {share:g}")
        fit = problem.fit(share * problem.largest(), _ROUGH)
        errors.append((predicted(membership, fit.weights, fit.intercept) - y)[:, held_out_mask] ** 2)
    return np.stack(errors)


def _pursuit_errors(
    membership: Membership,
    y: Array,
    train: Array,
    held_out_mask: Array,
    sizes: Sequence[int],
    solver: str,
    on_progress: OnProgress,
) -> Array:
    """Held-out squared errors (sizes, Q, h) of iht or ssmp."""
    errors = []
    for causes in sizes:
        on_progress(f"{solver}, {causes}")
        weights, intercept = PURSUITS[solver](membership, train, causes)
        errors.append((predicted(membership, weights, intercept) - y)[:, held_out_mask] ** 2)
    return np.stack(errors)


def _explained(errors: Array, base: Array) -> Array:
    """Held-out R² (Q,) from squared errors (Q, h) and those of the mean (Q, h)."""
    varies = base.any(1)
    return np.where(varies, 1 - errors.sum(1) / np.where(varies, base.sum(1), 1), 0)


def _explained_by_value(values: Sequence[float], errors: Array, base: Array) -> list[tuple[float, float]]:
    """(value, mean held-out R²) of every candidate value, averaged over queries whose measurements vary."""
    varies = base.any(1)
    pooled = [float(_explained(one, base)[varies].mean()) if varies.any() else 0.0 for one in errors]
    return list(zip(values, pooled, strict=True))


def _better_solver(errors: dict[str, Array], tried: dict[str, list[tuple[float, float]]], base: Array) -> str:
    """The solver with the lower held-out error; ridge, whose weights are not sparse, only if it is better by more than one
    standard error over the held-out measurements.
    """
    varies = base.any(1)
    if len(errors) == 1 or not varies.any():
        return next(iter(errors))
    lasso, ridge = (
        (errors[name][int(np.argmax([one for _, one in tried[name]]))][varies] / base[varies].mean(1)[:, None]).mean(0)
        for name in ("lasso", "ridge")
    )
    ahead = lasso - ridge  # (h,)
    error = float(ahead.std(ddof=1) / np.sqrt(len(ahead))) if len(ahead) > 1 else np.inf
    return "ridge" if float(ahead.mean()) > error else "lasso"
