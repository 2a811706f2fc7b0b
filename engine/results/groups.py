"""Sums of scores by source or by any column of the corpus, such as book, site or author.

Scores are streamed; one sum per group and query is in memory, and one part of a table. Knows no method and no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import scipy.sparse

from ...store.layout import Array
from ..runtime.memory import Part, Plan
from .example_table import PART_SIZES, Columns, Examples, PartSize
from .group_labels import GroupColumn
from .result_tables import NOTHING, REPEATED_TEXT, About
from .table_plan import Output, PartsPlan, Scored, table_plan

GROUP_FIELDS = {
    "query_id": pa.string(), "rank": pa.int32(), "group": pa.string(), "examples": pa.int64(), "mean": pa.float64(),
    "total": pa.float64(), "best": pa.float32(), "best_example": pa.string(), "query_prompt": REPEATED_TEXT,
    "query_completion": REPEATED_TEXT, "method": REPEATED_TEXT, "store": REPEATED_TEXT,
}  # fmt: skip


class Groups:
    """The group of each example of a store, such as its source or author."""

    def __init__(self, column: GroupColumn) -> None:
        """Read the labels of the examples.

        Raises:
            DataError: a table lacks the column, or an example. CorpusError: a table cannot be read.
        """
        self.store = column.store
        numbers: dict[str, int] = {}
        parts = []
        for labels in column.labels():
            parts.append(np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int32))
        self.of: Array = np.concatenate(parts)
        """(N,) int32: number of each example's group."""
        self.names = list(numbers)
        self.sizes = np.zeros(len(self.names), np.int64)
        for part in parts:
            np.add.at(self.sizes, part, 1)

    def sums(self, scores: Iterable[tuple[int, Array]], queries: int) -> GroupSums:
        """Sum scores by group. scores: (first row, (rows, Q)), over all examples in order; rows of NaN, which a filter has left
        out, are in no group.
        """
        sums = GroupSums.of(len(self.names), queries)
        for first, part in scores:
            for start, stop in _runs(~np.isnan(part[:, 0])):
                sums.add(self.of[first + start : first + stop], part[start:stop], first + start)
        return sums

    def tables(
        self, sums: GroupSums, queries: Sequence[str], most: PartSize = PART_SIZES[0], about: About = NOTHING
    ) -> Iterator[Columns]:
        """Tables of `GROUP_FIELDS`, query after query, groups in descending order of their mean score; each a part of a query's.

        queries: (Q,) ids.
        """
        examples = Examples(self.store)
        for at, query in enumerate(queries):
            mean = sums.total[:, at] / np.maximum(sums.counts, 1)
            order = np.argsort(-mean, kind="stable")
            order = order[sums.counts[order] > 0]
            best = examples.get("id", sums.where[order, at])
            for start in range(0, len(order), most.rows):
                groups = order[start : start + most.rows]
                yield {
                    "query_id": [query] * len(groups),
                    "rank": list(range(start + 1, start + len(groups) + 1)),
                    "group": [self.names[group] for group in groups],
                    "examples": sums.counts[groups].tolist(),
                    "mean": mean[groups].tolist(),
                    "total": sums.total[groups, at].tolist(),
                    "best": sums.best[groups, at].tolist(),
                    "best_example": best[start : start + most.rows],
                    "query_prompt": [about.query(at).prompt] * len(groups),
                    "query_completion": [about.query(at).completion] * len(groups),
                    **about.record(len(groups)),
                }


@dataclass(frozen=True, slots=True)
class GroupSums:
    """Sums and best scores of G groups for Q queries."""

    total: Array
    """(G, Q) float64: sums of scores."""
    best: Array
    """(G, Q) float32: highest scores."""
    where: Array
    """(G, Q) int64: row numbers of the highest scores; of equal ones the lower."""
    counts: Array
    """(G,) int64: number of examples whose scores are summed."""

    @classmethod
    def of(cls, groups: int, queries: int) -> GroupSums:
        """Sums of no example."""
        shape = (groups, queries)
        return cls(np.zeros(shape), np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64),
                   np.zeros(groups, np.int64))  # fmt: skip

    def add(self, row_groups: Array, scores: Array, first: int) -> None:
        """Add the scores (n, Q) of consecutive rows from `first` on; row_groups: (n,) their groups."""
        count = len(row_groups)
        groups, own = np.unique(row_groups, return_inverse=True)
        membership = scipy.sparse.csr_matrix((np.ones(count), (own, np.arange(count))), (len(groups), count))
        self.counts[groups] += np.bincount(own)
        self.total[groups] += membership @ scores.astype(np.float64)
        order = np.argsort(row_groups, kind="stable")
        starts = np.flatnonzero(np.diff(row_groups[order], prepend=-1))
        sorted_ = np.ascontiguousarray(scores[order])
        highest = np.maximum.reduceat(sorted_, starts, axis=0)  # (groups in this part, Q)
        is_highest = sorted_ == np.repeat(highest, np.diff(starts, append=count), axis=0)
        rows = first + np.minimum.reduceat(np.where(is_highest, order[:, None], count), starts, axis=0)
        better = highest > self.best[groups]
        self.best[groups] = np.where(better, highest, self.best[groups])
        self.where[groups] = np.where(better, rows, self.where[groups])


def _runs(ranked: Array) -> Iterator[tuple[int, int]]:
    """(start, stop) of each run of consecutive True values."""
    edges = np.flatnonzero(np.diff(ranked.astype(np.int8), prepend=0, append=0))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def group_tables(column: str, table: str = "", *, together: bool = False, counted: bool = True) -> Output:
    """Tables of groups (see :class:`GroupColumn`) for each query, or `together` for all queries. Their memory is planned from a
    pass that counts the labels; without `counted`, it is not planned.
    """

    def planned(scored: Scored) -> PartsPlan:
        labels = GroupColumn(scored.store, column, table, scored.rows)
        if not counted:
            return lambda most: Plan(())
        counts, queries = labels.counts(), 1 if together else scored.queries
        groups = min(counts.distinct, scored.rows)
        fixed = labels.reading(counts) + Plan.of(
            Part("sums of groups", (8 + 4 + 8) * groups * queries),
            Part("scores being summed", 56 * min(scored.block, scored.rows) * queries),
            Part("order of groups", 250 * groups),
        )
        parts = table_plan(replace(scored, queries=queries), groups * queries, ("id",))
        return lambda most: fixed + parts(most)

    return planned
