"""Stored rows as linear features: a set is the mean of its examples' vectors. Knows no method by name.

The widest stored column of any method can serve: GRASP's sketched gradients, representations, projected gradients, vectors of
another tool. The surrogate, its calibration and the selection need nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...store.completeness import require_whole
from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore, method_group
from ...store.layout import Array
from ..arrays.moments import column_sums, moment_parts, weighted_sums
from ..arrays.precision.precisions import Sign
from ..arrays.scan.scan_loop import ScanShape, shapes
from ..arrays.scan.stored_rows import StoredRows, first_plan_within_budget
from ..attribution.stored_method import stored_method
from ..ingest.corpus_statistics import frozen_statistics
from ..ingest.examples import Example, Place
from ..ingest.ingest_plan import TEXT_BYTES, TOKEN_BYTES, gradients_part, layers_part
from ..ingest.method_code import MethodRows
from ..ingest.outputs import BATCH_TOKENS, batching_for, outputs
from ..ingest.provider import Provider
from ..models.batch_outputs import PackedOutputs, merge_specs
from ..runtime.memory import Part, Plan
from ..runtime.run import SILENT, Run
from .subset_counts import SubsetCounts

NOTHING = Plan(())
"""No further memory."""
_PART = 512  # examples of a task that are read together


class LinearFeatures:
    """The stored vectors of a method."""

    def __init__(self, store: FeatureStore, name: str, run: Run = SILENT, *, partial: bool = False) -> None:
        """`run`: its budget bounds each pass. `partial`: whether an unfinished method is accepted.

        Raises:
            StoreMissing: the store has no rows of the method, or not all. SettingsError: they are sign bits.
        """
        self.store, self.name, self.run = store, name, run
        self.method = stored_method(store, name)
        self.notes = require_whole(store, name, partial=partial)
        self.stored = StoredRows(store, method_group(name))
        self.form = self.stored.widest
        if isinstance(self.form, Sign):
            raise SettingsError(
                f"rows of {name} are sign bits, which have no mean", hint=f"ingest with --set {name}.precision float16"
            )
        self.column, self.rows, self.depth = self.form.declared.name, self.stored.rows, self.form.depth

    @property
    def state(self) -> Path | None:
        """Folder of the method's state; None for a remote store, which cannot be written."""
        return None if self.store.remote else self.store.path / self.stored.group / "state"

    def mean(self) -> Array:
        """(D,) float64: the mean over all examples, in one pass."""
        readers = self.stored.scanned(self.column)
        cuts = ((moment_parts(readers, self.form, 1, shape), shape) for shape in shapes(readers, 1))
        _, shape = first_plan_within_budget(cuts, Plan(()), self.run.budget)
        sums = column_sums(readers, self.form, shape, self.run.stage("mean", self.rows))
        return np.asarray(sums / self.rows)

    def means_plan(self, count: int, others: Plan) -> tuple[Plan, ScanShape]:
        """The memory of the means over `count` subsets together with `others`, and the shape of the pass that computes them.

        Raises:
            BudgetError: not even the smallest blocks fit the budget.
        """
        readers = self.stored.scanned(self.column)
        means = Plan.of(Part("means of subsets", 8 * count * self.depth))
        cuts = ((moment_parts(readers, self.form, count, shape), shape) for shape in shapes(readers, 1))
        return first_plan_within_budget(cuts, others + means, self.run.budget)

    def means(self, subsets: SubsetCounts, others: Plan = NOTHING) -> Array:
        """(S, D) float64: the mean over each subset, in one pass. `others`: memory of the caller, that of the subsets included.

        Raises:
            BudgetError: the sums do not fit the budget.
        """
        _, shape = self.means_plan(subsets.shape[0], others)
        stage = self.run.stage("sums over subsets", self.rows)
        sums = weighted_sums(self.stored.scanned(self.column), self.form, subsets.block, shape, stage)
        return np.asarray(sums / subsets.sizes()[:, None])

    def reading_plan(self, provider: Provider, others: Plan) -> tuple[Plan, int]:
        """The memory of :meth:`vectors_of` together with `others`, and the tokens of a batch, padding included.

        Raises:
            BudgetError: not even batches of one longest example fit the budget.
        """
        model_shape, longest = provider.head.model_shape, max(2, provider.longest())
        needs = [self.method.needs(model_shape)]
        halved = [BATCH_TOKENS >> step for step in range(BATCH_TOKENS.bit_length())]

        def plan(tokens: int) -> Plan:
            return provider.memory(tokens) + Plan.of(
                layers_part(model_shape, needs, tokens),
                gradients_part(model_shape, needs, tokens),
                Part(f"{self.name} scratch", self.method.scratch(model_shape, tokens)),
                Part("queries' tokens and texts", _PART * longest * (TOKEN_BYTES + 2 * TEXT_BYTES)),
                Part("vectors of queries", 24 * _PART * self.depth),
            )

        sizes = [*(tokens for tokens in halved if tokens > longest), longest]
        return first_plan_within_budget(((plan(tokens), tokens) for tokens in sizes), others, self.run.budget)

    def vectors_of(self, provider: Provider, batch_tokens: int = BATCH_TOKENS) -> Iterator[tuple[list[Example], Array]]:
        """Parts of a provider's examples, and their vectors (n, D) float64: zeros for an example without target positions."""
        model_shape = provider.head.model_shape
        frozen = frozen_statistics(self.store, self.name, self.method, model_shape)
        method_rows = MethodRows(self.name, self.method, provider.head, frozen)
        on_progress = self.run.counter("queries", None)
        part: list[Example] = []
        done = 0
        for example in provider.examples(Place()):
            part.append(example)
            if len(part) == _PART:
                yield self._read(provider, part, method_rows, batch_tokens)
                done += len(part)
                on_progress(done)
                part = []
        if part:
            yield self._read(provider, part, method_rows, batch_tokens)
            on_progress(done + len(part))

    def _read(
        self, provider: Provider, part: list[Example], method_rows: MethodRows, batch_tokens: int
    ) -> tuple[list[Example], Array]:
        """A part of the examples, with their vectors."""
        indices = [at for at, example in enumerate(part) if example.target_count]
        with_targets, vectors = [part[at] for at in indices], np.zeros((len(part), self.depth))

        def flat_rows(batch_outputs: PackedOutputs) -> Array:
            rows: Array = method_rows(batch_outputs)[self.column].double().cpu().numpy()
            return rows.reshape(len(rows), -1)

        batching = batching_for(with_targets, batch_tokens, noun="query")
        needs = merge_specs([method_rows.needs])
        for batch, rows in outputs(provider, with_targets, needs, flat_rows, batching):
            vectors[[indices[at] for at in batch]] = rows
        return part, vectors
