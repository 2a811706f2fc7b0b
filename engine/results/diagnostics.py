"""Diagnostics of recovered answers: held-out R², agreement of replicates, duality gap, operators per example, warnings. Knows
no method by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...store.json_values import JsonFields
from ...store.layout import Array

LEAST_AGREEMENT = 0.6
"""Rank correlation of measurements between two fits; measurements with lower values are mostly noise."""
LEAST_OPERATORS_PER_EXAMPLE = 0.1
"""Operators per example; with fewer, weights were close to chance (`examples/benchmarks/steering_digits.py`)."""
LEAST_EXPLAINED = 0.05
"""Held-out R²; lower values mean that sparse weights do not explain the measurements."""


@dataclass(frozen=True, slots=True)
class RecoveryDiagnostics:
    """Diagnostics of Q queries' recovered weights; means over members."""

    subsets: int
    """K: number of subsets, and of operators."""
    rows: int
    """N: number of examples."""
    solvers: tuple[str, ...]
    """Per member: the solver, and its regularization or sparsity."""
    reliability: Array
    """(Q,) rank correlation of measurements between two fits of the same subsets; NaN where it is not known."""
    explained: Array
    """(Q,) held-out R²."""
    gap: Array
    """(Q,) relative duality gap, the largest over members; NaN where a solver has none."""
    converged: Array
    """(Q,) bool: whether the gap is within the tolerance."""

    def facts(self) -> JsonFields:
        """The diagnostics as JSON values, one per query; null where a value is not known."""
        lists = {name: [float(value) if np.isfinite(value) else None for value in getattr(self, name)]
                 for name in ("reliability", "explained", "gap")}  # fmt: skip
        converged = [bool(value) for value in self.converged]
        return {
            "subsets": self.subsets,
            "rows": self.rows,
            "solvers": list(self.solvers),
            **lists,
            "converged": converged,
        }

    @property
    def notes(self) -> list[str]:
        """A summary line, and a line for each warning."""
        return [self._summary(), *self._warnings()]

    def _summary(self) -> str:
        agreement = _median(self.reliability)
        parts = [
            f"{self.subsets:,} operators for {self.rows:,} examples (K/N {self.subsets / self.rows:.2g})",
            ", ".join(dict.fromkeys(self.solvers)),
            f"held-out R² {_median(self.explained):.2f}",
            *([f"agreement of two fits {agreement:.2f}"] if np.isfinite(agreement) else []),
            f"duality gap {_largest(self.gap):.1e}",
        ]
        return "; ".join(parts)

    def _warnings(self) -> Iterator[str]:
        queries = len(self.gap)
        if self.subsets < LEAST_OPERATORS_PER_EXAMPLE * self.rows:
            yield (f"K/N is below {LEAST_OPERATORS_PER_EXAMPLE}: weights of single examples were close to chance in all of our "
                   "measurements")  # fmt: skip
        noisy = int((self.reliability < LEAST_AGREEMENT).sum())
        if noisy:
            yield (f"measurements of {noisy} of {queries} queries agree by less than {LEAST_AGREEMENT} between two fits, and are "
                   "mostly noise: fit for longer, or with more examples per subset")  # fmt: skip
        unexplained = int((self.explained < LEAST_EXPLAINED).sum())
        if unexplained:
            yield (f"sparse weights do not explain the held-out measurements of {unexplained} of {queries} queries: use more "
                   "operators, or a similarity method")  # fmt: skip
        if not self.converged.all():
            yield f"weights of {int((~self.converged).sum())} queries did not converge: their duality gap is above the tolerance"


def _median(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else np.nan


def _largest(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else np.nan
