"""Scores of queries against stored rows: top-k, all scores, mean value.

Knows no method by name and no file format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ...store.columns import ColumnReader
from ...store.errors import BrokenMethod, PluginError, SettingsError, StoreMissing
from ...store.feature_store import EXAMPLES, FeatureStore, method_group, precision_group
from ...store.layout import TEXT_CHUNK_ROWS, Array, Block
from ..arrays.precision.precisions import Sign
from ..arrays.scan.certified import ROOM, certified, keeper_bytes, room_for
from ..arrays.scan.fixed_tiles import FixedTiles
from ..arrays.scan.forecast import Forecast, forecast
from ..arrays.scan.scan_loop import OnProgress, Shape
from ..arrays.scan.scorers import CustomScorer, Scorer, scorer_of
from ..arrays.scan.stored_rows import StoredRows, first_plan_within_budget, scan_shapes
from ..arrays.scan.top_k import TopK, all_scores, top_k
from ..arrays.scan.two_stage import default_candidates, require_same_rows, search_parts, two_stage
from ..ingest.corpus_statistics import frozen_statistics
from ..ingest.examples import Example
from ..ingest.first_batch import MethodRows, plugin_code
from ..ingest.ingest_plan import TEXT_BYTES, gradients_part, layers_part
from ..ingest.provider import Provider
from ..interface.method import BlockSimilarity, QueryMatrix, Similarity
from ..interface.registry import load
from ..interface.subset_method import SubsetMethod
from ..results.results import RESULT_QUERIES, Results
from ..results.score_export import export_parts
from ..runtime.memory import Part, Plan
from ..runtime.run import Run
from .queries import batch_tokens, queries_part, query_rows
from .query_options import SearchOptions
from .row_statistics import statistics_of, statistics_parts

ONE_SCAN = SearchOptions()
"""One scan of the rows as they are stored."""


def stored_method(store: FeatureStore, name: str) -> Similarity:
    """The method as the store's rows were made.

    Raises:
        StoreMissing: the store holds no rows of it.
        BrokenMethod: it does not score by similarity.
    """
    group = method_group(name)
    if group not in store.groups:
        held = ", ".join(store.methods) or "none"
        if _is_measured(name):
            raise StoreMissing(
                f"method {name} stores no rows in {store.url}: it is fitted, and asked by attribute and value alone"
            )
        raise StoreMissing(f"{store.url} holds no rows of method {name} (it holds: {held}); ingest adds them")
    method = load(name).from_settings(store.groups[group].settings)
    if not isinstance(method, Similarity):
        raise BrokenMethod(f"method {name} does not score single examples by similarity")
    return method


def _is_measured(name: str) -> bool:
    try:
        return issubclass(load(name), SubsetMethod)
    except PluginError:
        return False


def require_whole(store: FeatureStore, name: str) -> None:
    """Raise StoreMissing where a method lacks rows of examples that the store holds."""
    rows, examples = store.rows(method_group(name)), store.rows(EXAMPLES)
    if rows != examples:
        raise StoreMissing(
            f"{store.url} holds {rows:,} of {examples:,} examples by {name}: ingest --method {name} goes on"
        )


class StoredScores:
    """Questions to one method's rows in one store."""

    def __init__(
        self, store: FeatureStore, name: str, memory: int | None = None, search: SearchOptions = ONE_SCAN
    ) -> None:
        """`memory`: the budget in bytes, or none.

        Raises:
            StoreMissing, UnknownMethod, …: see :func:`stored_method`.
        """
        self.store, self.name, self.memory = store, name, memory
        self.method = stored_method(store, name)
        self._stored, self._search = StoredRows(store, method_group(name)), search
        if search.candidates is not None and not search.form:
            raise SettingsError("--candidates goes with --scan FORM")
        if search.device is not None and (search.form or search.certify or search.all_scores):
            raise SettingsError(
                "--device cuda scans the rows as they are stored: leave --scan, --certify and --all-scores"
            )
        self._small = None if not (search.form or search.certify) else self._form()

    def _form(self) -> StoredRows:
        """The rows in the form that is scanned."""
        name, search = self._search.form or "int8", self._search
        if isinstance(self.method, BlockSimilarity):
            raise SettingsError(f"method {self.name} scores rows itself: other forms are for inner products")
        if search.all_scores:
            raise SettingsError("all scores are those of the rows as they are stored: leave --scan and --certify")
        if search.certify and (name != "int8" or search.candidates is not None):
            raise SettingsError("--certify goes with the form int8, and takes as many candidates as it needs")
        held = self.store.forms(self.name)
        if name not in held:
            raise StoreMissing(f"{self.store.url} holds no form {name} of {self.name} (it holds: {', '.join(held) or 'none'}); "
                               "headwater compress makes one")  # fmt: skip
        small = StoredRows(self.store, precision_group(self.name, name))
        require_same_rows(small, self._stored)
        return small

    def plan(self, provider: Provider, queries: list[Example], k: int) -> tuple[Plan, Shape]:
        """The memory of a run, and how the scan is cut.

        Raises:
            BudgetError: not even blocks of one row fit; the message names the smallest budget that works.
        """
        asking, count = self._asking(provider, queries, k), len(queries)
        shapes = scan_shapes(self._small or self._stored, whole=isinstance(self.method, BlockSimilarity))
        return first_plan_within_budget(
            ((self._scan_plan(count, k, shape), shape) for shape in shapes), asking, self.memory
        )

    def _scan_plan(self, count: int, k: int, shape: Shape) -> Plan:
        """What the search holds; a certified one may end as a scan of the stored rows."""
        whole = self._stored.scan_plan(count, k, shape, whole=isinstance(self.method, BlockSimilarity))
        if self._small is None:
            return whole
        form = self._small.widest
        wanted = shape.workers * room_for(self.rows, k) if self._search.certify else self._candidates(k)
        kept = shape.workers * keeper_bytes(count, k, self.rows) if self._search.certify else 0
        parts = search_parts(self._stored, form.declared.name, count, wanted)
        small = self._small.scan_plan(count, k if self._search.certify else wanted, shape)
        both = small + parts + Plan.of(Part("candidates of workers", kept))
        return max(both, whole, key=lambda one: one.total) if self._search.certify else both

    @property
    def by_products(self) -> bool:
        """Whether scores are inner products of rows and queries, and not the method's own function of a tile."""
        return not isinstance(self.method, BlockSimilarity)

    def cache(self) -> int:
        """Keep the rows that are scanned in memory, for many questions to one object; the bytes that they take."""
        rows = self._small or self._stored
        return rows.hold(rows.widest.declared.name)

    def forecast(self, queries: int, k: int, shape: Shape) -> Forecast:
        """What the search will read and take, for scores that are inner products."""
        candidates = 0 if self._small is None else ROOM if self._search.certify else self._candidates(k)
        return forecast(self._small or self._stored, self._stored, queries, k, candidates, shape)

    def _candidates(self, k: int) -> int:
        assert self._small is not None
        asked = self._search.candidates
        return min(self.rows, max(k, default_candidates(self._small.widest, k) if asked is None else asked))

    def _asking(self, provider: Provider, queries: list[Example], k: int) -> Plan:
        """What a run holds besides the scan."""
        tokens, model_shape = batch_tokens(queries), provider.head.model_shape
        needs = [self.method.needs(model_shape)]
        parts = Plan.of(
            layers_part(model_shape, needs, tokens),
            gradients_part(model_shape, needs, tokens),
            Part(f"{self.name} scratch", self.method.scratch(model_shape, tokens)),
            queries_part(queries),
            Part("texts of results", self._text_bytes(k)),
        )
        parts += provider.memory(tokens) + statistics_parts(self._stored, self.method, model_shape)
        return parts + export_parts(len(queries), self.rows) if self._search.all_scores else parts

    def _text_bytes(self, k: int) -> int:
        """A chunk of stored texts, decoded, and those of one part of the results."""
        if not self.store.provenance.get("text"):
            return 0
        longest = int(self.store.provenance.get("max_length", 0)) * TEXT_BYTES
        return (3 * min(TEXT_CHUNK_ROWS, self.rows) + 2 * RESULT_QUERIES * min(k, self.rows)) * longest

    def prepare(self, provider: Provider, queries: list[Example]) -> QueryMatrix:
        """Queries' rows by one forward pass, made ready by the method.

        Raises:
            DataError: NaN or Inf in a query's logits.
        """
        state = statistics_of(self._stored, self.method, provider.head.model_shape, self.memory, lambda rows: None)
        frozen = frozen_statistics(self.store, self.name, self.method, provider.head.model_shape)
        rows = query_rows(MethodRows(self.name, self.method, provider.head, frozen), provider, queries)
        with plugin_code(self.name, "prepare"):
            return self.method.prepare(rows, state)

    def attribute(self, matrix: QueryMatrix, ids: list[str], k: int, shape: Shape, run: Run) -> Results:
        """The k best examples for each query, in one pass."""
        if self._small is not None:
            return self._searched(matrix, ids, k, shape, run)
        sure, on_progress = self._sure(matrix), run.counter("attribute", self.rows)
        if self._search.device is not None and not isinstance(self.method, BlockSimilarity):
            best = self._on_gpu(matrix, self._search.device, k, on_progress)
        else:
            best = top_k(self._columns(matrix), self._scorer(matrix), k, shape, on_progress)
        return Results(self.name, ids, best.rows, best.scores, sure, 1.0 if sure else math.nan)

    def _on_gpu(self, matrix: QueryMatrix, device: int, k: int, on_progress: OnProgress) -> TopK:
        """By a device's own scan, in nine tenths of its free memory or in the budget."""
        from ..arrays.scan.gpu_scan import GpuScan

        free = int(torch.cuda.mem_get_info(device)[0] * 0.9)
        room = free if self.memory is None else min(free, self.memory)
        form = self._stored.precisions[matrix.column]
        return GpuScan(self._columns(matrix), form, device, room).top_k(matrix.matrix, k, on_progress)

    def _searched(self, matrix: QueryMatrix, ids: list[str], k: int, shape: Shape, run: Run) -> Results:
        """By the small form first."""
        assert self._small is not None
        column, queries, on_progress = matrix.column, matrix.matrix, run.counter("attribute", self.rows)
        if self._search.certify:
            found = certified(self._small, self._stored, column, queries, k, shape, on_progress)
        else:
            found = two_stage(self._small, self._stored, column, queries, k, self._candidates(k), shape, on_progress)
        return Results(self.name, ids, found.best.rows, found.best.scores, found.exact, found.recall)

    def every_score(self, matrix: QueryMatrix, shape: Shape, run: Run) -> Iterator[tuple[int, Array]]:
        """(first row, (rows, Q) scores) of every stored example, in order; an array holds until the next is asked for."""
        return all_scores(self._columns(matrix), self._scorer(matrix), shape, run.counter("scores", self.rows))

    def value(self, matrix: QueryMatrix, shape: Shape, run: Run) -> Iterator[tuple[int, Array]]:
        """(first row, (rows,) mean score over the queries) for every stored example, in order."""
        columns = self._columns(matrix)
        for start, scores in all_scores(columns, self._mean_scorer(matrix), shape, run.counter("value", self.rows)):
            yield start, scores[:, 0]

    def most_valuable(self, matrix: QueryMatrix, k: int, shape: Shape, run: Run) -> Results:
        """The k best examples by :meth:`value`."""
        on_progress = run.counter("value", self.rows)
        best = top_k(self._columns(matrix), self._mean_scorer(matrix), k, shape, on_progress)
        sure = self._sure(matrix)
        return Results(self.name, ["all queries"], best.rows, best.scores, sure, 1.0 if sure else math.nan)

    def _sure(self, matrix: QueryMatrix) -> bool:
        """Whether scores are those of the rows, and not estimates from their signs."""
        return not isinstance(self._stored.precisions.get(matrix.column), Sign)

    @property
    def rows(self) -> int:
        """Rows that can be scored."""
        return self._stored.rows

    def _columns(self, matrix: QueryMatrix) -> list[ColumnReader]:
        """What a scan reads: of an inner product one declared column, else all."""
        if isinstance(self.method, BlockSimilarity):
            return self._stored.all_columns()
        return self._stored.scanned(matrix.column)

    def _scorer(self, matrix: QueryMatrix) -> Scorer:
        if isinstance(self.method, BlockSimilarity):
            return CustomScorer(len(matrix.matrix), self._own_scores(matrix))
        return scorer_of(self._stored.precisions[matrix.column], matrix.matrix)

    def _mean_scorer(self, matrix: QueryMatrix) -> Scorer:
        """The mean over the queries; of inner products it is the product with the mean query."""
        if isinstance(self.method, BlockSimilarity):
            scores = self._own_scores(matrix)
            return CustomScorer(1, lambda block: scores(block).mean(1, keepdims=True, dtype=np.float64))
        mean = matrix.matrix.mean(0, keepdims=True, dtype=np.float64)
        return scorer_of(self._stored.precisions[matrix.column], mean)

    def _own_scores(self, matrix: QueryMatrix) -> Callable[[Block], Array]:
        """The method's own scores of a block of rows as they are stored: (rows, Q) float32."""
        assert isinstance(self.method, BlockSimilarity)
        forms, tiles = self._stored.precisions, FixedTiles(self.method.score, matrix)

        def scores(block: Block) -> Array:
            decoded = {name: form.decode(block.columns) for name, form in forms.items()}
            with plugin_code(self.name, "score"):
                return tiles.scores(Block(block.start, decoded))

        return scores
