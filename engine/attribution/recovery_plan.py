"""The memory plan of a recovered answer, and how the recovery is divided so that it fits a budget. Knows sizes only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...store.feature_store import FeatureStore
from ...store.layout import TEXT_CHUNK_ROWS
from ..arrays.kernels.heaps import heap_bytes
from ..arrays.scan.scan_loop import cores
from ..fitting.fit_record import StoredFit
from ..ingest.examples import Example
from ..ingest.ingest_plan import TEXT_BYTES, layers_part
from ..ingest.method_code import fit_memory
from ..ingest.provider import Provider
from ..recovery.recover import recovery_bytes
from ..results.results import RESULT_QUERIES
from ..results.score_export import export_parts
from ..runtime.memory import Part, Plan
from .queries import batch_tokens, queries_part
from .recovered_weights import BLOCK

_BATCHES = (64, 16, 4, 1)


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """How an answer is recovered."""

    in_memory: bool
    """Whether the table of each example's subsets is in memory; otherwise it is computed again where it is needed."""
    batch: int
    """Number of queries that are solved at a time."""
    memory: Plan


@dataclass(frozen=True, slots=True)
class RecoveryTask:
    """What is recovered, as far as its memory depends on it."""

    name: str
    """The method's name."""
    fit: StoredFit
    store: FeatureStore
    queries: Sequence[Example]
    top: int
    """Number of best examples per query."""

    def planned(self, provider: Provider, budget: int | None) -> RecoveryPlan:
        """The first plan that fits the budget: preferably with the table in memory, then with many queries at a time.

        Raises:
            BudgetError: none fits.
        """
        plans = [RecoveryPlan(table, n, self._memory(provider, table, n)) for table in (True, False) for n in _BATCHES]
        fitting = [plan for plan in plans if budget is None or plan.memory.total <= budget]
        if not fitting:
            smallest = min((plan.memory for plan in plans), key=lambda memory: memory.total)
            smallest.check(budget, smallest.total)
        return fitting[0]

    def _memory(self, provider: Provider, in_memory: bool, batch: int) -> Plan:
        method, model_shape, rows = self.fit.method, provider.head.model_shape, self.fit.rows
        design, tokens, count = method.design(rows), batch_tokens(list(self.queries)), len(self.queries)
        subsets, bases, k = design.subsets, len(self.fit.bases), min(self.top, rows)
        table = rows * design.degree * (2 if subsets < 1 << 16 else 4)
        provenance = self.store.provenance
        longest = int(provenance.get("max_length", 0)) * TEXT_BYTES if provenance.get("text") else 0
        return (
            provider.memory(tokens)
            + export_parts(count, rows)
            + Plan.of(
                layers_part(model_shape, [method.needs(model_shape)], tokens),
                Part(f"{self.name}'s operators", fit_memory(self.name, method, model_shape, rows).measuring),
                Part("measurements", 24 * count * subsets * bases),
                Part("recovery", recovery_bytes(count, subsets, batch, cores())),
                Part("subsets of examples", (in_memory * table + rows) * bases),
                Part("weights", 16 * min(count * rows, count * subsets) * bases + 24 * min(BLOCK, rows) * count),
                Part("results", 6 * heap_bytes(count, k)),
                Part("texts of results", (3 * min(TEXT_CHUNK_ROWS, rows) + 2 * RESULT_QUERIES * k) * longest),
                queries_part(list(self.queries)),
            )
        )
