"""Rows of a method that a store does not hold: computed by a pass of the model over its examples, not stored. Knows no score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ...store.completeness import require_whole
from ...store.errors import PluginError
from ...store.feature_store import EXAMPLES, FeatureStore, method_group
from ...store.layout import Array, Block
from ..arrays.scan.stored_rows import first_plan_within_budget
from ..fitting.fit_corpus import base_provider
from ..ingest.examples import WINDOW, Place, StoredFields, example_windows
from ..ingest.ingest_plan import choose_batch
from ..ingest.method_code import MethodRows
from ..ingest.outputs import BATCH_TOKENS, Batching, outputs
from ..ingest.provider import Provider
from ..interface.method import Method, Similarity
from ..interface.registry import load
from ..models.batch_outputs import PackedOutputs, merge_specs
from ..models.language_model import ModelChoice
from ..results.example_table import PartSize
from ..results.table_plan import Scored, all_values, with_output
from ..runtime.memory import Part, Plan
from ..runtime.run import Run


def computable(store: FeatureStore, name: str) -> Similarity | None:
    """The method with its default settings, if it has no rows in a store of texts and its rows depend on nothing but the example;
    else None.
    """
    if method_group(name) in store.groups or EXAMPLES not in store.groups or store.provenance.get("kind") != "text":
        return None
    try:
        kind = load(name)
    except PluginError:
        return None
    if not issubclass(kind, Similarity):
        return None
    is_alone = kind.statistics is Similarity.statistics and kind.fit is Similarity.fit
    return kind.from_settings({}) if is_alone else None


class ComputedRows:
    """A method's rows for all examples of a store, in order."""

    def __init__(
        self, store: FeatureStore, named: tuple[str, Similarity], model: ModelChoice, run: Run, *, partial: bool
    ) -> None:
        """Load the model, and make the plan. named: the method with its name; `partial`: whether an unfinished store is accepted.

        Raises:
            StoreMissing: the store is unfinished. StoreMismatch: another model than the store's. BudgetError: the plan exceeds
                the budget.
        """
        name, self.method = named
        self.notes = [
            *require_whole(store, partial=partial),
            f"{store.url} has no rows of {name}: they are computed by a pass of the model over its examples, and not stored; "
            f"`headwater ingest` with --method {name} keeps them",
        ]
        self.rows = store.rows(EXAMPLES)
        self._provider = base_provider(store, "", model, ())
        shape = self._provider.head.model_shape
        self._columns = self.method.columns(shape)
        window_part = Part("rows of a window", 4 * WINDOW * sum(int(np.prod(column.shape)) for column in self._columns))
        output = all_values(Scored(store, self.rows, 1, WINDOW, run.budget))
        planned = with_output(_batch_plans(self._provider, {name: self.method}), output)
        self.parts: PartSize
        self.plan, (self._tokens, self.parts) = first_plan_within_budget(planned, Plan.of(window_part), run.budget)
        self._compute = MethodRows(name, self.method, self._provider.head, {})
        self._needs = merge_specs([self._compute.needs])

    def blocks(self) -> Iterator[Block]:
        """Windows of rows (n, …) float32 with their first row number.

        Raises:
            DataError: NaN or Inf in an example's logits. BrokenMethod: the method's own code fails.
        """
        first = 0
        for window in example_windows(self._provider.examples(Place())):
            rows: dict[str, Array] = {
                column.name: np.zeros((len(window), *column.shape), np.float32) for column in self._columns
            }
            batches = outputs(self._provider, window, self._needs, self._rows_of_batch, Batching(self._tokens))
            for batch, columns in batches:
                for name, values in columns.items():
                    rows[name][batch] = values
            yield Block(first, rows)
            first += len(window)

    def _rows_of_batch(self, batch_outputs: PackedOutputs) -> dict[str, Array]:
        return {name: values.float().cpu().numpy() for name, values in self._compute(batch_outputs).items()}


def _batch_plans(provider: Provider, methods: Mapping[str, Method]) -> Iterator[tuple[Plan, int]]:
    """The plan of computing rows, and the tokens of a batch, in batches from `BATCH_TOKENS` down to one longest example."""
    tokens, is_last = BATCH_TOKENS, False
    while not is_last:
        batch_tokens, plan = choose_batch(provider, methods, None, tokens, StoredFields(False, False))
        yield plan, batch_tokens
        is_last = batch_tokens > tokens  # one example has more
        tokens //= 2
