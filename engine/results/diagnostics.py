"""Diagnostics of recovered answers: held-out R², agreement of replicates, duality gap, operators per example, warnings. Knows
no method by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...store.files import JsonObject
from ...store.layout import Array

LEAST_AGREEMENT = 0.6
"""Rank correlation of two fittings' measurements below which they are mostly chance."""
LEAST_SHARE = 0.1
"""Operators for an example below which answers were near chance (`examples/benchmarks/steering_digits.py`)."""
LEAST_EXPLAINED = 0.05
"""Share of held-out variance below which no sparse cause was found."""


@dataclass(frozen=True, slots=True)
class RecoveryDiagnostics:
    """Of Q queries; of several base models the mean."""

    subsets: int
    """K."""
    rows: int
    """N."""
    solvers: tuple[str, ...]
    """What solved it, and how sparse or strong, for each base model."""
    reliability: Array
    """(Q,) rank correlation of measurements between two fittings of the same subsets; NaN where nobody knows."""
    explained: Array
    """(Q,) share of held-out measurements' variance."""
    gap: Array
    """(Q,) relative duality gap, the largest; NaN where a solver has none."""
    converged: Array
    """(Q,) bool."""

    def facts(self) -> JsonObject:
        """JSON values: one a query, null where nobody knows."""
        lists = {name: [float(one) if np.isfinite(one) else None for one in getattr(self, name)]
                 for name in ("reliability", "explained", "gap")}  # fmt: skip
        converged = [bool(one) for one in self.converged]
        return {
            "subsets": self.subsets,
            "rows": self.rows,
            "solvers": list(self.solvers),
            **lists,
            "converged": converged,
        }

    @property
    def notes(self) -> list[str]:
        """What whoever reads the answers should know: a line each, the first says how it was solved."""
        agreement = _middle(self.reliability)
        told = [f"{self.subsets:,} operators for {self.rows:,} examples (K/N {self.subsets / self.rows:.2g}); "
                f"{', '.join(dict.fromkeys(self.solvers))}; held-out measurements explained {_middle(self.explained):.2f}; "
                + (f"two fittings agree {agreement:.2f}; " if np.isfinite(agreement) else "")
                + f"duality gap {_largest(self.gap):.1e}"]  # fmt: skip
        if self.subsets < LEAST_SHARE * self.rows:
            told.append(
                f"K/N is below {LEAST_SHARE}: so few operators told little of single examples wherever that was measured"
            )
        unsteady = int((self.reliability < LEAST_AGREEMENT).sum())
        if unsteady:
            told.append(f"measurements of {unsteady} of {len(self.gap)} queries agree by less than {LEAST_AGREEMENT} between two "
                        "fittings: they are mostly chance; more updates, or more examples in a subset")  # fmt: skip
        blind = int((self.explained < LEAST_EXPLAINED).sum())
        if blind:
            told.append(f"held-out measurements of {blind} of {len(self.gap)} queries are not explained: sparse recovery is not "
                        "warranted there; more operators, or a method of similarity")  # fmt: skip
        if not self.converged.all():
            told.append(f"{int((~self.converged).sum())} queries did not converge: their gap is above the tolerance")
        return told


def _middle(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan


def _largest(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else np.nan
