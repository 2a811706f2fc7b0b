"""The memory plan of a recovered answer, and how the recovery is divided so that it fits a budget. Knows sizes only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...store.feature_store import FeatureStore
from ..arrays.kernels.heaps import heap_bytes
from ..arrays.scan.scan_loop import cores
from ..arrays.scan.stored_rows import first_plan_within_budget
from ..fitting.fit_record import StoredFit
from ..ingest.examples import Example
from ..ingest.ingest_plan import layers_part
from ..ingest.method_code import fit_memory
from ..ingest.provider import Provider
from ..recovery.recover import recovery_bytes
from ..results.example_table import PartSize
from ..results.table_plan import Scored, with_output
from ..runtime.memory import Part, Plan
from .queries import batch_tokens, queries_part
from .query_options import QueryOptions
from .recovered_weights import BLOCK

_BATCHES = (64, 16, 4, 1)


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """How an answer is recovered."""

    in_memory: bool
    """Whether the table of each example's subsets is in memory; otherwise it is computed again where it is needed."""
    batch: int
    """Number of queries that are solved at a time."""
    parts: PartSize
    """Size of the parts in which results become tables."""
    memory: Plan


@dataclass(frozen=True, slots=True)
class RecoveryTask:
    """What is recovered, as far as its memory depends on it."""

    name: str
    """The method's name."""
    fit: StoredFit
    store: FeatureStore
    queries: Sequence[Example]
    options: QueryOptions

    def planned(self, provider: Provider, budget: int | None) -> RecoveryPlan:
        """The first plan that fits the budget: preferably with the table in memory, then with many queries at a time.

        Raises:
            BudgetError: none fits.
        """
        output = self.options.output(Scored(self.store, self.fit.rows, len(self.queries), BLOCK, budget))
        ways = [(table, n) for table in (True, False) for n in _BATCHES]
        plans = with_output(((self._memory(provider, table, n), (table, n)) for table, n in ways), output)
        memory, ((in_memory, batch), parts) = first_plan_within_budget(plans, Plan(()), budget)
        return RecoveryPlan(in_memory, batch, parts, memory)

    def _memory(self, provider: Provider, in_memory: bool, batch: int) -> Plan:
        method, model_shape, rows = self.fit.method, provider.head.model_shape, self.fit.rows
        design, tokens, count = method.design(rows), batch_tokens(list(self.queries)), len(self.queries)
        subsets, bases, k = design.subsets, len(self.fit.bases), min(self.options.top, rows)
        table = rows * design.degree * (2 if subsets < 1 << 16 else 4)
        return provider.memory(tokens) + Plan.of(
            layers_part(model_shape, [method.needs(model_shape)], tokens),
            Part(f"{self.name}'s operators", fit_memory(self.name, method, model_shape, rows).measuring),
            Part("measurements", 24 * count * subsets * bases),
            Part("recovery", recovery_bytes(count, subsets, batch, cores())),
            Part("subsets of examples", (in_memory * table + rows) * bases),
            Part("weights", 16 * min(count * rows, count * subsets) * bases + 24 * min(BLOCK, rows) * count),
            Part("results", 6 * heap_bytes(count, k)),
            queries_part(list(self.queries)),
        )
