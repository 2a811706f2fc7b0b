"""Several methods on the same queries: how much their answers agree, and what each costs. Knows no method by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore, method_group
from ...store.layout import Array
from ..arrays.ranks import spearman
from ..attribution.query_session import QuerySession, ScoreBlocks, best_examples
from ..results.results import shared
from ..runtime.memory import show_bytes
from .attributions import as_pandas
from .display import table_html, table_text

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

RANKED_ROWS = 100_000
"""Examples whose ranks are compared: all, or this many at equal distances."""


@dataclass(frozen=True, slots=True)
class MethodCost:
    """What one method costs."""

    method: str
    row_bytes: int
    """Bytes stored for each example; 0 of a method that stores none."""
    seconds: float
    """Wall time of this run: queries read by the model if it is needed, all scores computed. The loading of the model is not
    counted.
    """


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """How much the answers of two methods agree, as means over the queries."""

    first: str
    second: str
    overlap: float
    """Fraction of the k best examples that both methods have among them."""
    correlation: float
    """Spearman's correlation of their scores over the examples; NaN if one method's are all equal."""


class Comparison:
    """Overlap, rank correlation and cost of several methods."""

    def __init__(self, costs: Sequence[MethodCost], pairs: Sequence[PairAgreement], top: int) -> None:
        self.costs, self.pairs, self.top = list(costs), list(pairs), top
        self.methods = [cost.method for cost in costs]

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        headings = ["method", "bytes per example", "seconds"]
        headings += [f"with {name}: overlap@{self.top}, ρ" for name in self.methods]
        rows = []
        for cost in self.costs:
            cells = [cost.method, show_bytes(cost.row_bytes) if cost.row_bytes else "no rows", f"{cost.seconds:.2f}"]
            rows.append(cells + [self._shown(cost.method, other) for other in self.methods])
        return headings, rows

    def _shown(self, first: str, second: str) -> str:
        if first == second:
            return ""
        pair = self.pair(first, second)
        return f"{pair.overlap:.2f}, {pair.correlation:.2f}"

    def pair(self, first: str, second: str) -> PairAgreement:
        """The agreement of two methods.

        Raises:
            SettingsError: one of them is not compared.
        """
        for pair in self.pairs:
            if {pair.first, pair.second} == {first, second}:
                return pair
        raise SettingsError(f"{first} and {second} are not compared: there are {', '.join(self.methods)}")

    def to_arrow(self) -> pa.Table:
        """A pyarrow.Table with a row per pair of methods."""
        import pyarrow as pa

        names = ("first", "second", "overlap", "correlation")
        return pa.table({name: [getattr(pair, name) for pair in self.pairs] for name in names})

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas.DataFrame with a row per pair of methods."""
        return as_pandas(self.to_arrow())

    def __repr__(self) -> str:
        return table_text(*self._cells())

    def _repr_html_(self) -> str:
        return table_html(*self._cells())


def compared(
    session: Callable[[str], QuerySession], prepare: Callable[[str], None], methods: Sequence[str], top: int
) -> Comparison:
    """Ask each method for all scores, one after the other; of each, the k best and the scores of `RANKED_ROWS` examples stay in
    memory. `prepare` is called before a method's time is taken.

    Raises:
        SettingsError: fewer than two methods.
    """
    if len(methods) < 2:
        raise SettingsError("compare: name two methods or more")
    costs, best, scores = [], dict[str, Array](), dict[str, Array]()
    for name in methods:
        prepare(name)
        start = time.perf_counter()
        opened = session(name)
        best[name], scores[name] = _asked(opened, top)
        costs.append(MethodCost(name, _row_bytes(opened.store, name), time.perf_counter() - start))
    pairs = [
        PairAgreement(first, second, shared(best[first], best[second]), _correlation(scores[first], scores[second]))
        for first, second in combinations(methods, 2)
    ]
    return Comparison(costs, pairs, min(top, *(rows.shape[1] for rows in best.values())))


def _asked(session: QuerySession, top: int) -> tuple[Array, Array]:
    """(Q, k) best rows, and (examples, Q) scores of evenly spaced examples."""
    step = max(1, session.rows // RANKED_ROWS)
    sampled: list[Array] = []

    def blocks() -> ScoreBlocks:
        for first, part in session.scores():
            sampled.append(part[-first % step :: step].copy())
            yield first, part

    _, rows = best_examples(blocks(), len(session.query_ids), min(top, session.rows))
    return rows, np.concatenate(sampled)


def _correlation(first: Array, second: Array) -> float:
    each = spearman(first.astype(np.float64), second.astype(np.float64))
    return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")


def _row_bytes(store: FeatureStore, name: str) -> int:
    return sum(column.row_bytes for column in store.columns(method_group(name))) if name in store.methods else 0
