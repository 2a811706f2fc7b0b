"""Self-influence: each example's score for itself. It is high for wrong labels and outliers, which no other example explains
(Pruthi et al. 2020, arXiv 2002.08484, section 4.1).

One pass over the store: each stored row is prepared as a query's row is, and multiplied with itself; no N × N array. Without
stored rows one pass of the model over the store's examples computes them. Knows no method by name and no text.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...store.blocks import BlockStream
from ...store.completeness import require_whole
from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore, method_group
from ...store.layout import Array, Block
from ..arrays.scan.fixed_tiles import FixedTiles, tiles_bytes
from ..arrays.scan.scan_loop import ScanShape, shapes
from ..arrays.scan.stored_rows import StoredRows, first_plan_within_budget
from ..arrays.scan.top_k import scan_parts, tiles
from ..data.documents import RecordErrors
from ..ingest.array_provider import ArrayProvider
from ..ingest.member_model import MemberModel
from ..interface.method import BlockSimilarity, Similarity
from ..interface.model_view import ModelShape
from ..models.language_model import ModelChoice, model_shape_of, pick_device
from ..results.example_table import PartSize
from ..results.results import QueryText, Results
from ..results.table_plan import Scored, all_values, with_output
from ..runtime.memory import Part, Plan
from ..runtime.run import SILENT, SILENT_STAGE, Run
from .computed_rows import ComputedRows, computable
from .query_session import ScoreBlocks, best_values
from .row_statistics import statistics_of, statistics_parts
from .stored_method import stored_method

_ROWS = 64
"""Rows that are prepared at a time."""
_STORE_MODEL = ModelChoice("")
_EQUAL = 1e-3
"""Relative spread below which self-influences count as equal."""


class StoredTiles:
    """The stored rows of a method, decoded some at a time, with their statistics."""

    def __init__(self, store: FeatureStore, name: str, model: ModelChoice, run: Run, *, partial: bool) -> None:
        """See :class:`SelfInfluence`."""
        self.method, self._run = stored_method(store, name), run
        self.notes = require_whole(store, name, partial=partial)
        self._stored = StoredRows(store, method_group(name))
        self.rows = self._stored.rows
        needs_shape = type(self.method).statistics is not Similarity.statistics
        self._model_shape = _model_shape(store, name, model) if needs_shape else None
        readers = self._stored.all_columns()
        decoded = sum(4 * precision.depth for precision in self._stored.precisions.values())
        others = Plan.of(
            Part("prepared rows", 8 * _ROWS * decoded), Part("tiles", tiles_bytes(_ROWS, decoded // 4, decoded))
        )
        if self._model_shape:
            others += statistics_parts(self._stored, self.method, self._model_shape)
        plans = ((scan_parts(readers, 1, 0, shape, _ROWS), shape) for shape in shapes(readers, 1))
        output = all_values(Scored(store, self.rows, 1, _ROWS, run.budget))
        self._shape: ScanShape
        self.parts: PartSize
        self.plan, (self._shape, self.parts) = first_plan_within_budget(with_output(plans, output), others, run.budget)

    def state(self) -> dict[str, Array]:
        """The statistics that the method's `prepare` needs."""
        if not self._model_shape:
            return {}
        return statistics_of(self._stored, self.method, self._model_shape, self._run.budget, SILENT_STAGE)

    def blocks(self) -> Iterator[Block]:
        """Tiles of decoded rows, in order."""
        readers, precisions = self._stored.all_columns(), self._stored.precisions
        with BlockStream(readers, self._shape.block_rows, self._shape.buffers) as stream:
            while (block := stream.take()) is not None:
                for tile in tiles(block, _ROWS):
                    yield Block(
                        tile.start, {name: precision.decode(tile.columns) for name, precision in precisions.items()}
                    )
                stream.give(block)


class SelfInfluence:
    """The self-influence of a store's examples; the plan is made when it is opened, scores are computed on demand."""

    def __init__(
        self, store: str, method: str, model: ModelChoice = _STORE_MODEL, run: Run = SILENT, *, partial: bool = False
    ) -> None:
        """`model`: with the path of the store's model, or of one of its files of arrays, if it moved; only methods with row
        statistics need it, and methods without rows in the store, whose rows are then computed. `partial`: whether an unfinished
        method is accepted.

        Raises:
            HeadwaterError: the store has no rows of the method, and they cannot be computed, or not all, or the plan exceeds the
                budget.
        """
        self.store, self.name, self._run = FeatureStore.open(store), method, run
        self._lowest, self._highest = np.inf, -np.inf
        self.queries: list[QueryText] = []
        computed = None if "@" in method else computable(self.store, method)  # a member is what its rows are
        self._source: StoredTiles | ComputedRows
        if computed is None:
            self._source = StoredTiles(self.store, method, model, run, partial=partial)
        else:
            self._source = ComputedRows(self.store, (method, computed), model, run, partial=partial)
        self._method, self.notes = self._source.method, self._source.notes
        self.rows, self.plan, self.parts = self._source.rows, self._source.plan, self._source.parts

    def scores(self) -> ScoreBlocks:
        """(first row, (rows,) float32), over all examples in order.

        Raises:
            StoreDamaged: a chunk differs from its checksum.
        """
        state = self._source.state() if isinstance(self._source, StoredTiles) else {}
        stage = self._run.stage("self-influence", self.rows)
        for block in self._source.blocks():
            for tile in tiles(block, _ROWS):
                scores = self._tile(tile, state)
                nonzero = scores[scores != 0]  # examples without target positions score 0
                self._lowest = min(self._lowest, float(nonzero.min(initial=np.inf)))
                self._highest = max(self._highest, float(nonzero.max(initial=-np.inf)))
                yield tile.start, scores
            stage.report(block.start + block.rows)

    def best(self, k: int, scores: ScoreBlocks) -> Results:
        """The k examples with the highest self-influence."""
        best, rows = best_values(scores, min(k, self.rows))
        return Results(self.name, ["self-influence"], rows, best)

    @property
    def all_equal(self) -> bool:
        """Whether the scores computed so far are equal up to rounding, as those of rows of unit norm are."""
        return self._lowest <= self._highest <= self._lowest + _EQUAL * abs(self._highest)

    def _tile(self, tile: Block, state: dict[str, Array]) -> Array:
        columns = {name: np.asarray(values, np.float32) for name, values in tile.columns.items()}
        query = self._method.prepare(columns, state)
        if isinstance(self._method, BlockSimilarity):
            return np.ascontiguousarray(np.diagonal(FixedTiles(self._method.score, query).scores(tile)))
        rows = columns[query.column].reshape(tile.rows, -1)
        products: Array = np.einsum("nd,nd->n", rows, query.matrix, dtype=np.float64).astype(np.float32)
        return products


def _model_shape(store: FeatureStore, name: str, model: ModelChoice) -> ModelShape:
    if store.provenance["kind"] != "arrays":
        choice = MemberModel.of_rows(store, name).chosen(model)
        return choice.loaded.head.model_shape if choice.loaded else model_shape_of(choice.path)
    if not model.path:
        raise SettingsError(
            f"{store.url} was made from arrays, and the method needs the head in them",
            hint="give one of the files with --model FILE",
        )
    return ArrayProvider([model.path], pick_device(ModelChoice("").device), RecordErrors("fail")).head.model_shape
