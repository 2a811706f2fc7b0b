"""From measurements to weights: chooses solver and penalty on held-out measurements, with diagnostics.

A tenth of the measurements is held out; how sparse the answer is (c of λ = c·λ_max), or how strong a ridge, is what predicts them
best, pooled over queries; the answer then comes from all of them. Knows memberships; no store, no method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.layout import Array
from ..runtime.hashing import hashed
from .gpu_pass import DevicePass
from .lasso import Lasso, Sparse, predicted, refuse
from .membership import Membership, multiplied
from .pursuit import pursued, thresholded
from .ridge import Ridge, overlaps

SHARES = (0.9, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02, 0.012, 0.007, 0.004)
"""c: of λ_max, from sparse to dense: the last are for K near N and beyond, where answers are hardly sparse."""
STRENGTHS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""α over the mean eigenvalue of M_c M_cᵀ."""
CAUSES = (1, 2, 4, 8, 16, 32, 64, 128)
"""s: weights that thresholding and pursuit leave."""
SOLVERS = ("auto", "lasso", "ridge", "iht", "ssmp")
DENSE = 4096
"""Subsets from which on no ridge is tried: it holds K × K."""
_ROUGH = 1e-3  # gap while c is chosen
OnProgress = Callable[[str], None]
PURSUITS = {"iht": thresholded, "ssmp": pursued}


@dataclass(frozen=True, slots=True)
class Recovery:
    """How weights are recovered."""

    solver: str = "auto"
    """lasso, ridge, iht, ssmp; `auto` is lasso, or ridge where that predicts the held-out measurements better by more than one
    standard error."""
    regularization: float = 0.0
    """c, or of a ridge its strength; 0 chooses."""
    causes: int = 0
    """s; 0 chooses."""
    held_out: float = 0.1
    """Of the measurements."""
    tolerance: float = 1e-4
    """Duality gap over ½‖y − ȳ‖²."""
    seed: int = 0
    """Of what is held out."""

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.solver not in SOLVERS:
            raise SettingsError(f"solver is {', '.join(SOLVERS)}; not {self.solver}")
        most = np.inf if self.solver == "ridge" else 1
        if not (
            0 <= self.regularization < most and 0 < self.held_out < 1 and 0 < self.tolerance < 1 and self.causes >= 0
        ):
            raise SettingsError(
                "recovery needs 0 ≤ regularization < 1, 0 < held_out < 1, 0 < tolerance < 1 and causes ≥ 0"
            )


@dataclass(slots=True)
class Recovered:
    """Weights of Q queries, and what speaks for them."""

    solver: str
    """What solved it."""
    regularization: float
    """c, the ridge's strength, or s."""
    explained: Array
    """(Q,) float64: of the held-out measurements' variance about the mean; below 0, the mean predicts them better; 0 where they
    do not vary. The same measurements chose how sparse the answer is, so it is a little too good.
    """
    tried: dict[str, list[tuple[float, float]]]
    """(c or strength, share of held-out variance explained, pooled) of each solver."""
    gap: Array
    """(Q,) duality gap over ½‖y − ȳ‖² of the LASSO; 0 of a ridge, which is solved exactly; NaN of iht and ssmp."""
    converged: Array
    """(Q,) bool."""
    sparse: list[Sparse] | None = None
    """Of the LASSO, iht and ssmp."""
    duals: Array | None = field(default=None, repr=False)
    """Of a ridge: (K, Q), whose weights are Mᵀ duals."""

    def dense(self, membership: Membership, start: int = 0, stop: int | None = None) -> Array:
        """(Q, n) float32 weights of rows from `start` to `stop`, or of all N."""
        stop = membership.rows if stop is None else stop
        if self.duals is not None:
            return multiplied(membership, self.duals, start, stop)
        found = np.zeros((len(self.sparse or ()), stop - start), np.float32)
        for line, one in zip(found, self.sparse or (), strict=True):
            first, last = np.searchsorted(one.rows, (start, stop))
            line[one.rows[first:last] - start] = one.weights[first:last]
        return found


def recovery_bytes(queries: int, subsets: int, together: int, workers: int) -> int:
    """What :func:`recovered` holds at most besides the membership and y: of all queries, of those that are solved together, of
    a ridge.
    """
    solved = min(together, queries) * (128 * subsets + workers * (24 * subsets + (1 << 14)))
    ridge = 80 * subsets**2 if subsets <= DENSE else 0
    return 32 * queries * subsets + solved + ridge


def recovered(
    membership: Membership,
    y: Array,
    asked: Recovery,
    workers: int = 1,
    on_progress: OnProgress = lambda what: None,
    *,
    together: int = 64,
    device: DevicePass | None = None,
) -> Recovered:
    """Weights from measurements y (Q, K) float64. So many queries are solved `together`; what is chosen, all queries choose.

    Raises:
        DataError: measurements of another number, too few, or not finite.
    """
    subsets = membership.subsets
    y = np.asarray(y, np.float64)
    refuse(membership, y)  # before any of it is solved
    held = _held_out(np.asarray(~np.isnan(y).all(0)), asked)
    train = np.where(held, np.nan, y)
    kept = ~np.isnan(train).all(0)
    if kept.sum() < 2 or not held.any():
        raise DataError(f"{subsets} measurements are too few to hold out {asked.held_out:.0%} and solve from the rest")
    base = (y[:, held] - train[:, kept].mean(1)[:, None]) ** 2  # (Q, h)
    base[base.max(1) <= (1e-14 * np.nanmax(np.abs(y), 1)) ** 2] = 0  # rounding
    problems = _Problems(membership, workers, device, together)
    errors, values, shared = _tried(problems, y, train, held, asked, on_progress)
    tried = {name: _told(values[name], errors[name], base) for name in errors}
    solver = _better(errors, tried, base)
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
    fits = [one.fit(value * one.largest(), asked.tolerance) for _, one in problems.of(y)]
    gap, sparse = np.concatenate([fit.gap for fit in fits]), [one for fit in fits for one in fit.weights]
    return Recovered(solver, value, explained, tried, gap, gap <= asked.tolerance, sparse=sparse)


@dataclass(frozen=True, slots=True)
class _Problems:
    """LASSO problems of so many queries together, by what solves them."""

    membership: Membership
    workers: int
    device: DevicePass | None
    together: int

    def of(self, y: Array) -> Iterator[tuple[slice, Lasso]]:
        """Queries, and their problem."""
        for start in range(0, len(y), self.together):
            some = slice(start, start + self.together)
            yield some, Lasso(self.membership, y[some], self.workers, self.device)


def _tried(
    problems: _Problems, y: Array, train: Array, held: Array, asked: Recovery, on_progress: OnProgress
) -> tuple[dict[str, Array], dict[str, Sequence[float]], Array | None]:
    """Of each solver that may be: held-out squared errors (values, Q, h), and the values; M Mᵀ where a ridge may be.

    Raises:
        SettingsError: a ridge of too many subsets.
    """
    membership, subsets = problems.membership, problems.membership.subsets
    errors: dict[str, Array] = {}
    values: dict[str, Sequence[float]] = {}
    # a regularization that was given is the LASSO's
    dense = asked.solver == "ridge" or (asked.solver == "auto" and not asked.regularization)
    shared = overlaps(membership) if dense and subsets <= DENSE else None
    if asked.solver in PURSUITS:
        kept = int((~np.isnan(train).all(0)).sum())
        sizes = (asked.causes,) if asked.causes else tuple(one for one in CAUSES if 4 * one <= kept) or (1,)
        errors[asked.solver] = _along_pursuit(membership, y, train, held, sizes, asked.solver, on_progress)
        values[asked.solver] = sizes
    elif asked.solver != "ridge":
        values["lasso"] = (asked.regularization,) if asked.regularization else SHARES
        errors["lasso"] = np.concatenate([
            _along_lasso(problem, membership, y[some], held, values["lasso"], on_progress) for some, problem in problems.of(train)
        ], 1)  # fmt: skip
    if shared is not None:
        ridge, values["ridge"] = Ridge(shared, train), (asked.regularization,) if asked.regularization else STRENGTHS
        errors["ridge"] = np.stack([(ridge.predicted(one) - y)[:, held] ** 2 for one in values["ridge"]])
    elif asked.solver == "ridge":
        raise SettingsError(f"a ridge holds K × K numbers: at most {DENSE} subsets, not {subsets}")
    return errors, values, shared


def _held_out(counted: Array, asked: Recovery) -> Array:
    """(K,) bool, of measurements that count."""
    order = np.argsort(hashed(asked.seed, "held out", len(counted)), kind="stable")
    order = order[counted[order]]
    found = np.zeros(len(counted), bool)
    found[order[: round(asked.held_out * len(order))]] = True
    return found


def _along_lasso(
    problem: Lasso, membership: Membership, y: Array, held: Array, shares: Sequence[float], on_progress: OnProgress
) -> Array:
    """Held-out squared errors (shares, Q, h) from sparse to dense, each from the one before."""
    errors = []
    for share in shares:
        on_progress(f"lasso, {share:g}")
        fit = problem.fit(share * problem.largest(), _ROUGH)
        errors.append((predicted(membership, fit.weights, fit.intercept) - y)[:, held] ** 2)
    return np.stack(errors)


def _along_pursuit(
    membership: Membership,
    y: Array,
    train: Array,
    held: Array,
    sizes: Sequence[int],
    solver: str,
    on_progress: OnProgress,
) -> Array:
    """The same, for numbers of causes."""
    errors = []
    for causes in sizes:
        on_progress(f"{solver}, {causes}")
        weights, intercept = PURSUITS[solver](membership, train, causes)
        errors.append((predicted(membership, weights, intercept) - y)[:, held] ** 2)
    return np.stack(errors)


def _explained(errors: Array, base: Array) -> Array:
    """(Q,) of (Q, h)."""
    varies = base.any(1)
    return np.where(varies, 1 - errors.sum(1) / np.where(varies, base.sum(1), 1), 0)


def _told(values: Sequence[float], errors: Array, base: Array) -> list[tuple[float, float]]:
    """Share of the held-out variance that each value explains; every query whose measurements vary counts alike."""
    varies = base.any(1)
    pooled = [float(_explained(one, base)[varies].mean()) if varies.any() else 0.0 for one in errors]
    return list(zip(values, pooled, strict=True))


def _better(errors: dict[str, Array], tried: dict[str, list[tuple[float, float]]], base: Array) -> str:
    """The solver of the smaller held-out error; ridge, whose weights name nobody, only where it is so by more than one standard
    error over the held-out measurements.
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
