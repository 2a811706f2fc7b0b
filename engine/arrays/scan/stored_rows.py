"""One method's rows in a store: their precisions, their columns, the memory that a scan of them takes. Knows no method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from ....store.cached import CachedColumn, hold
from ....store.columns import ColumnReader
from ....store.errors import StoreMissing
from ....store.feature_store import FeatureStore
from ....store.reader import open_column
from ...runtime.memory import Part, Plan
from ..precision.precisions import Precision, recorded_precisions
from .fixed_tiles import TILE_ROWS, tiles_bytes
from .scan_loop import ScanShape, cores, shapes
from .scorers import query_bytes, scratch_bytes, tile_rows
from .top_k import scan_parts

T = TypeVar("T")


class StoredRows:
    """One group of rows in a store."""

    def __init__(self, store: FeatureStore, group: str) -> None:
        """Raises StoreMissing if no row is committed, StoreDamaged if the columns do not match the record."""
        self.store, self.group = store, group
        self.precisions: dict[str, Precision] = recorded_precisions(store.record(group))
        self.rows = store.rows(group)
        self._cached: dict[str, CachedColumn] = {}
        if not self.rows:
            raise StoreMissing(
                f"{store.url} has no rows of {group} yet", hint="run ingest (or compress) again to continue"
            )

    def open(self, names: Iterable[str]) -> list[ColumnReader]:
        """Readers of stored columns."""
        return [self._cached.get(name) or open_column(self.store, self.group, name) for name in names]

    def cache(self, column: str) -> int:
        """Cache in memory the stored columns that a declared column's scores need; returns their size in bytes.

        Raises:
            StoreDamaged: a chunk differs from its checksum.
        """
        for name in self.precisions[column].scanned:
            self._cached[name] = self._cached.get(name) or hold(open_column(self.store, self.group, name))
        return sum(self._cached[name].array.nbytes for name in self.precisions[column].scanned)

    def scanned(self, column: str) -> list[ColumnReader]:
        """Readers of the stored columns that a declared column's scores need."""
        return self.open(self.precisions[column].scanned)

    @property
    def widest(self) -> Precision:
        """The precision with the largest rows, for memory plans, which are made before it is known which column queries use."""
        return max(
            self.precisions.values(),
            key=lambda precision: (precision.depth, sum(c.row_bytes for c in precision.columns)),
        )

    def scan_plan(self, queries: int, k: int, shape: ScanShape, *, whole: bool = False) -> Plan:
        """Memory of a scan of the widest column; with `whole`, of all columns, decoded one tile at a time for a method's own
        score function.
        """
        widest = self.widest
        tile = min(TILE_ROWS if whole else tile_rows(queries), shape.block_rows)
        parts = scan_parts(self.all_columns() if whole else self.scanned(widest.declared.name), queries, k, shape, tile)
        decoded = sum(12 * tile * max(1, precision.depth) for precision in self.precisions.values()) if whole else 0
        scratch = shape.workers * scratch_bytes(widest, queries, tile) + decoded
        width = sum(4 * precision.depth for precision in self.precisions.values())
        packed = tiles_bytes(queries, widest.depth, width) if whole else query_bytes(widest, queries)
        matrices = 8 * queries * widest.depth + packed
        return parts + Plan.of(
            Part("workers' scratch", scratch), Part("queries", matrices), Part("threads", (shape.workers + 1) << 20)
        )

    def all_columns(self) -> list[ColumnReader]:
        """Readers of the stored columns that scores of all declared columns need."""
        return self.open(name for precision in self.precisions.values() for name in precision.scanned)


def first_plan_within_budget(plans: Iterable[tuple[Plan, T]], others: Plan, budget: int | None) -> tuple[Plan, T]:
    """The first plan that fits the budget together with `others`: the sum of both, and the shape that came with the plan.

    Raises:
        BudgetError: no plan fits; the message names the smallest budget that works.
    """
    rejected = []
    for plan, shape in plans:
        whole = others + plan
        if budget is None or whole.total <= budget:
            return whole, shape
        rejected.append((whole, shape))
    smallest = min(rejected, key=lambda item: item[0].total)[0]
    smallest.check(budget, smallest.total)
    raise AssertionError("a plan within the budget was rejected")


def scan_shapes(rows: StoredRows, *, whole: bool = False) -> list[ScanShape]:
    """Candidate shapes of a scan of the widest column, fastest first; with `whole`, of all columns, by one worker."""
    return shapes(rows.all_columns(), 1) if whole else shapes(rows.scanned(rows.widest.declared.name), cores())
