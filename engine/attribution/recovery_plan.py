"""The memory plan of recovered answers, and how the recovery is divided so that it fits a budget. Knows sizes only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..arrays.kernels.heaps import heap_bytes
from ..arrays.scan.scan_loop import cores
from ..fitting.fit_record import StoredFit
from ..ingest.examples import Example
from ..ingest.ingest_plan import layers_part
from ..ingest.method_code import fit_memory
from ..ingest.provider import Provider
from ..recovery.recover import recovery_bytes
from ..runtime.memory import Part, Plan
from .queries import batch_tokens, queries_part
from .recovered_weights import BLOCK

_BATCHES = (64, 16, 4, 1)


@dataclass(frozen=True, slots=True)
class RecoveryWay:
    """How an answer is recovered."""

    in_memory: bool
    """Whether the table of each example's subsets is in memory; otherwise it is computed again where it is needed."""
    batch: int
    """Number of queries that are solved at a time."""


@dataclass(frozen=True, slots=True)
class MemberRecovery:
    """What is recovered for one member, as far as its memory depends on it."""

    fit: StoredFit
    measuring: Plan
    """The memory of its model and of measuring the queries."""

    @classmethod
    def of(cls, fit: StoredFit, provider: Provider, queries: Sequence[Example]) -> MemberRecovery:
        """The sizes for a provider whose model is loaded."""
        method, model_shape, tokens = fit.method, provider.head.model_shape, batch_tokens(list(queries))
        operators = fit_memory(fit.name, method, model_shape, fit.rows).measuring
        layers = layers_part(model_shape, [method.needs(model_shape)], tokens)
        return cls(fit, provider.memory(tokens) + Plan.of(layers, Part(f"{fit.name}'s operators", operators)))

    def results(self, count: int, way: RecoveryWay) -> Plan:
        """The memory of measurements and weights of `count` queries, until the answer is complete."""
        design, rows = self.fit.design(), self.fit.rows
        table = rows * design.degree * (2 if design.subsets < 1 << 16 else 4)
        return Plan.of(
            Part("measurements", 24 * count * design.subsets),
            Part("subsets of examples", way.in_memory * table + rows),
            Part("weights", 16 * min(count * rows, count * design.subsets) + 24 * min(BLOCK, rows) * count),
        )


def recovery_plans(
    members: Sequence[MemberRecovery], queries: Sequence[Example], top: int
) -> Iterator[tuple[Plan, RecoveryWay]]:
    """Candidate plans: preferably with the table in memory, then with many queries at a time. Members are measured and recovered
    one after the other.
    """
    count, rows = len(queries), members[0].fit.rows
    subsets = max(member.fit.design().subsets for member in members)
    measuring = max((member.measuring for member in members), key=lambda plan: plan.total)
    for way in (RecoveryWay(in_memory, batch) for in_memory in (True, False) for batch in _BATCHES):
        one_by_one = measuring + Plan.of(
            Part("recovery", recovery_bytes(count, subsets, way.batch, cores())),
            Part("results", 6 * heap_bytes(count, min(top, rows))),
            queries_part(list(queries)),
        )
        yield sum((member.results(count, way) for member in members), one_by_one), way
