"""Self-influence: every example's score for itself. What only its own gradient explains, such as a wrong label or an outlier,
has much of it (Pruthi et al. 2020, arXiv 2002.08484, section 4.1).

One pass over the store: a stored row is made ready as a query's row is, and multiplied with itself. No N × N, no forward pass.
Knows no method by name and no text.
"""

from __future__ import annotations

import numpy as np

from ...store.blocks import BlockStream
from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore, method_group
from ...store.layout import Array, Block
from ..arrays.scan.fixed_tiles import FixedTiles, tiles_bytes
from ..arrays.scan.scan_loop import shapes
from ..arrays.scan.stored_rows import StoredRows, first_plan_within_budget
from ..arrays.scan.top_k import scan_parts, tiles
from ..data.documents import RecordErrors
from ..ingest.array_provider import ArrayProvider
from ..interface.method import BlockSimilarity, Similarity
from ..interface.model_view import ModelShape
from ..models.language_model import ModelChoice, model_shape_of, pick_device
from ..results.results import Results
from ..runtime.memory import Part, Plan
from ..runtime.run import SILENT, Run
from .query_session import ScoreBlocks, best_values
from .row_statistics import statistics_of, statistics_parts
from .stored_scores import stored_method

_ROWS = 64
"""Rows that are made ready at once."""
_EQUAL = 1e-3
"""Relative spread below which self-influences tell nothing."""


class SelfInfluence:
    """The self-influence of a store's examples, planned, with nothing computed yet."""

    def __init__(self, store: str, method: str, model: str = "", run: Run = SILENT) -> None:
        """`model`: where the store's model (or one of its files of arrays) is now, for methods that learn from stored rows.

        Raises:
            HeadwaterError: the store holds no such rows, or the plan does not fit the budget.
        """
        self.store, self.name, self._run = FeatureStore.open(store), method, run
        self._least, self._most = np.inf, -np.inf
        self.queries: dict[str, str] = {}
        self._method = stored_method(self.store, method)
        self._stored = StoredRows(self.store, method_group(method))
        self.rows = self._stored.rows
        self._sizes = _sizes(self.store, model) if type(self._method).statistics is not Similarity.statistics else None
        readers = self._stored.all_columns()
        decoded = sum(4 * form.depth for form in self._stored.precisions.values())
        others = Plan.of(
            Part("rows made ready", 8 * _ROWS * decoded), Part("tiles", tiles_bytes(_ROWS, decoded // 4, decoded))
        )
        if self._sizes:
            others += statistics_parts(self._stored, self._method, self._sizes)
        cuts = ((scan_parts(readers, 1, 0, shape, _ROWS), shape) for shape in shapes(readers, 1))
        self.plan, self._shape = first_plan_within_budget(cuts, others, run.budget)

    def scores(self) -> ScoreBlocks:
        """(first row, (rows,) float32) of every example, in order.

        Raises:
            StoreDamaged: a chunk differs from its checksum.
        """
        state = (
            statistics_of(self._stored, self._method, self._sizes, self._run.budget, lambda rows: None)
            if self._sizes
            else {}
        )
        readers, forms = self._stored.all_columns(), self._stored.precisions
        on_progress = self._run.counter("self-influence", self.rows)
        with BlockStream(readers, self._shape.block_rows, self._shape.buffers) as stream:
            while (block := stream.take()) is not None:
                for tile in tiles(block, _ROWS):
                    decoded = Block(tile.start, {name: form.decode(tile.columns) for name, form in forms.items()})
                    found = self._tile(decoded, state)
                    some = found[found != 0]  # the others have no counted positions
                    self._least = min(self._least, float(some.min(initial=np.inf)))
                    self._most = max(self._most, float(some.max(initial=-np.inf)))
                    yield tile.start, found
                on_progress(block.start + block.rows)
                stream.give(block)

    def best(self, k: int, scores: ScoreBlocks) -> Results:
        """The k examples with most of it."""
        found, rows = best_values(scores, min(k, self.rows))
        return Results(self.name, ["self-influence"], rows, found)

    @property
    def alike(self) -> bool:
        """Whether those computed so far differ by no more than rounding, as those of rows of unit norm do."""
        return self._least <= self._most <= self._least + _EQUAL * abs(self._most)

    def _tile(self, tile: Block, state: dict[str, Array]) -> Array:
        columns = {name: np.asarray(values, np.float32) for name, values in tile.columns.items()}
        ready = self._method.prepare(columns, state)
        if isinstance(self._method, BlockSimilarity):
            return np.ascontiguousarray(np.diagonal(FixedTiles(self._method.score, ready).scores(tile)))
        rows = columns[ready.column].reshape(tile.rows, -1)
        products: Array = np.einsum("nd,nd->n", rows, ready.matrix, dtype=np.float64).astype(np.float32)
        return products


def _sizes(store: FeatureStore, model: str) -> ModelShape:
    if store.provenance["kind"] != "arrays":
        return model_shape_of(model or str(store.provenance["model_path"]))
    if not model:
        raise SettingsError(
            f"{store.url} was made from arrays, and the method wants their head: --model FILE names one"
        )
    return ArrayProvider([model], pick_device(ModelChoice("").device), RecordErrors("fail")).head.model_shape
