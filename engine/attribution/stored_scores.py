"""Scores of queries against stored rows: top-k, all scores, mean value.

Knows no method by name and no file format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ...store.columns import ColumnReader
from ...store.completeness import require_whole
from ...store.errors import SettingsError, StoreMissing
from ...store.feature_store import FeatureStore, method_group, precision_group
from ...store.layout import Array, Block
from ..arrays.precision.precisions import Sign
from ..arrays.scan.certified import CANDIDATES_PER_K, bound_worker_bytes, certified, room_for
from ..arrays.scan.fixed_tiles import TILE_ROWS, FixedTiles
from ..arrays.scan.forecast import Forecast, forecast
from ..arrays.scan.scan_loop import ScanShape
from ..arrays.scan.scorers import CustomScorer, Scorer, scorer_of, tile_rows
from ..arrays.scan.stored_rows import StoredRows, first_plan_within_budget, scan_shapes
from ..arrays.scan.top_k import TopK, all_scores, top_k
from ..arrays.scan.two_stage import (
    CompressedColumn,
    SearchDepth,
    TwoStageResult,
    default_candidates,
    require_same_rows,
    search_parts,
    two_stage,
)
from ..ingest.corpus_statistics import frozen_statistics
from ..ingest.examples import Example
from ..ingest.ingest_plan import gradients_part, layers_part
from ..ingest.method_code import MethodRows, plugin_code
from ..ingest.provider import Provider
from ..interface.method import BlockSimilarity, QueryMatrix
from ..results.example_table import PartSize
from ..results.results import Results
from ..results.table_plan import Scored, with_output
from ..runtime.memory import Part, Plan
from ..runtime.run import SILENT_STAGE, Run, Stage
from .queries import batch_tokens, queries_part, query_rows
from .query_options import ONE_SCAN, QueryOptions, SearchOptions
from .query_session import TOGETHER
from .row_statistics import statistics_of, statistics_parts
from .stored_method import stored_method


class StoredScores:
    """Scores of queries by one method's rows in one store."""

    def __init__(
        self, store: FeatureStore, name: str, budget: int | None = None, search: SearchOptions = ONE_SCAN
    ) -> None:
        """`budget`: largest memory plan, in bytes; None: no budget.

        Raises:
            StoreMissing, UnknownMethod, …: see :func:`stored_method`. StoreMissing: rows are missing, and the search is not
            `partial`.
        """
        self.store, self.name, self.budget = store, name, budget
        self.method = stored_method(store, name)
        self.notes = require_whole(store, name, partial=search.partial)
        self._stored, self._search = StoredRows(store, method_group(name)), search
        if search.candidates is not None and not search.precision:
            raise SettingsError("--candidates works with --scan PRECISION only")
        if search.device is not None and (search.precision or search.certify or search.all_scores):
            raise SettingsError(
                "--device cuda scans the rows as they are stored", hint="leave out --scan, --certify and --all-scores"
            )
        self._compressed = self._compressed_rows() if search.precision or search.certify else None

    @property
    def copy_precision(self) -> str:
        """Precision of the compressed copy that is scanned first; empty if the rows are scanned as they are stored."""
        return "" if self._compressed is None else self._search.precision or "int8"

    def _compressed_rows(self) -> StoredRows:
        """The compressed copy that is scanned."""
        name, search = self._search.precision or "int8", self._search
        if isinstance(self.method, BlockSimilarity):
            raise SettingsError(
                f"method {self.name} has its own score function, which needs the rows as stored",
                hint="leave out --scan and --certify",
            )
        if search.all_scores:
            raise SettingsError(
                "--all-scores and --by score the rows as they are stored", hint="leave out --scan and --certify"
            )
        if search.certify and (name != "int8" or search.candidates is not None):
            raise SettingsError(
                "--certify works with --scan int8 only, and chooses the number of candidates itself",
                hint="leave out --candidates",
            )
        copies = self.store.copies(self.name)
        if name not in copies:
            raise StoreMissing(f"{self.store.url} has no {name} copy of {self.name} (its copies: {', '.join(copies) or 'none'}); "
                               "headwater compress makes one")  # fmt: skip
        compressed = StoredRows(self.store, precision_group(self.name, name))
        require_same_rows(compressed, self._stored)
        return compressed

    def plan(
        self, provider: Provider, queries: list[Example], options: QueryOptions
    ) -> tuple[Plan, tuple[ScanShape, PartSize]]:
        """The memory plan of a run, the shape of its scan, and the size of the parts of its output.

        Raises:
            BudgetError: not even blocks of one row fit; the message names the smallest budget that works.
        """
        others, count = self.query_parts(provider, queries) + provider.memory(batch_tokens(queries)), len(queries)
        output = options.output(Scored(self.store, self.rows, count, self.block_rows(count), self.budget))
        return first_plan_within_budget(with_output(self.scan_plans(count, options.top), output), others, self.budget)

    def scan_plans(self, count: int, k: int) -> list[tuple[Plan, ScanShape]]:
        """Candidate memory plans of a scan for the `k` best examples of `count` queries, fastest first."""
        shapes = scan_shapes(self._compressed or self._stored, whole=isinstance(self.method, BlockSimilarity))
        return [(self._scan_plan(count, k, shape), shape) for shape in shapes]

    def _scan_plan(self, count: int, k: int, shape: ScanShape) -> Plan:
        """Memory of the search. A certified search may fall back to a scan of the stored rows: its plan is the larger of both."""
        whole = self._stored.scan_plan(count, k, shape, whole=isinstance(self.method, BlockSimilarity))
        if self._compressed is None:
            return whole
        certify, column = self._search.certify, self._compressed.widest.declared.name
        candidates = shape.workers * room_for(self.rows, k) if certify else self._candidates(k)
        in_workers = shape.workers * bound_worker_bytes(count, k, self.rows) if certify else 0
        two_stages = (
            self._compressed.scan_plan(count, k if certify else candidates, shape)
            + search_parts(self._stored, column, count, candidates)
            + Plan.of(Part("candidates of workers", in_workers))
        )
        return max(two_stages, whole, key=lambda plan: plan.total) if certify else two_stages

    def block_rows(self, queries: int) -> int:
        """Most rows whose scores are returned together."""
        return tile_rows(queries) if self.by_inner_product else TILE_ROWS

    @property
    def by_inner_product(self) -> bool:
        """Whether scores are inner products of rows and queries; otherwise the method scores tiles of rows itself."""
        return not isinstance(self.method, BlockSimilarity)

    def cache(self) -> int:
        """Keep the scanned rows in memory, for repeated searches; returns their size in bytes."""
        rows = self._compressed or self._stored
        return rows.cache(rows.widest.declared.name)

    def forecast(self, queries: int, k: int, shape: ScanShape) -> Forecast:
        """Bytes and time of the search, for scores that are inner products."""
        candidates = (
            0 if self._compressed is None else CANDIDATES_PER_K if self._search.certify else self._candidates(k)
        )
        return forecast(self._compressed or self._stored, self._stored, queries, SearchDepth(k, candidates), shape)

    def _candidates(self, k: int) -> int:
        assert self._compressed is not None
        given = self._search.candidates
        return min(self.rows, max(k, default_candidates(self._compressed.widest, k) if given is None else given))

    def query_parts(self, provider: Provider, queries: list[Example]) -> Plan:
        """Memory of an attribution besides the model and the scan."""
        tokens, model_shape = batch_tokens(queries), provider.head.model_shape
        needs = [self.method.needs(model_shape)]
        parts = Plan.of(
            layers_part(model_shape, needs, tokens),
            gradients_part(model_shape, needs, tokens),
            Part(f"{self.name} scratch", self.method.scratch(model_shape, tokens)),
            queries_part(queries),
        )
        return parts + statistics_parts(self._stored, self.method, model_shape)

    def prepare(self, provider: Provider, queries: list[Example]) -> QueryMatrix:
        """The queries' rows, computed by one forward pass per batch of queries, and then prepared by the method.

        Raises:
            DataError: NaN or Inf in a query's logits.
        """
        state = statistics_of(self._stored, self.method, provider.head.model_shape, self.budget, SILENT_STAGE)
        frozen = frozen_statistics(self.store, self.name, self.method, provider.head.model_shape)
        rows = query_rows(MethodRows(self.name, self.method, provider.head, frozen), provider, queries)
        with plugin_code(self.name, "prepare"):
            return self.method.prepare(rows, state)

    def attribute(self, matrix: QueryMatrix, ids: list[str], k: int, shape: ScanShape, run: Run) -> Results:
        """The k best examples for each query, in one pass."""
        stage = run.stage("attribute", self.rows)
        if self._compressed is not None:
            search = self._two_stage_search(self._compressed, matrix, k, shape, stage)
            return Results(self.name, ids, search.best.rows, search.best.scores, search.exact, search.recall)
        if self._search.device is not None and not isinstance(self.method, BlockSimilarity):
            best = self._on_gpu(matrix, self._search.device, k, stage)
        else:
            best = top_k(self._columns(matrix), self._scorer(matrix), k, shape, stage)
        return self._results(matrix, ids, best)

    def _results(self, matrix: QueryMatrix, ids: list[str], best: TopK) -> Results:
        exact = self._is_exact(matrix)
        return Results(self.name, ids, best.rows, best.scores, exact, 1.0 if exact else math.nan)

    def _on_gpu(self, matrix: QueryMatrix, device: int, k: int, stage: Stage) -> TopK:
        """Scan on a GPU, in nine tenths of its free memory, or in the budget if that is less."""
        from ..arrays.scan.gpu_scan import GpuScan

        free = int(torch.cuda.mem_get_info(device)[0] * 0.9)
        room = free if self.budget is None else min(free, self.budget)
        precision = self._stored.precisions[matrix.column]
        return GpuScan(self._columns(matrix), precision, device, room).top_k(matrix.matrix, k, stage)

    def _two_stage_search(
        self, compressed: StoredRows, matrix: QueryMatrix, k: int, shape: ScanShape, stage: Stage
    ) -> TwoStageResult:
        """Scan the compressed copy, then score candidates again from the rows as stored."""
        column = CompressedColumn(compressed, self._stored, matrix.column)
        if self._search.certify:
            return certified(column, matrix.matrix, k, shape, stage)
        return two_stage(column, matrix.matrix, SearchDepth(k, self._candidates(k)), shape, stage)

    def all_scores(self, matrix: QueryMatrix, shape: ScanShape, run: Run) -> Iterator[tuple[int, Array]]:
        """(first row, (rows, Q) scores) of all stored examples, in order; an array is valid until the next iteration."""
        return all_scores(self._columns(matrix), self._scorer(matrix), shape, run.stage("scores", self.rows))

    def value(self, matrix: QueryMatrix, shape: ScanShape, run: Run) -> Iterator[tuple[int, Array]]:
        """(first row, (rows,) mean scores of the queries) of all stored examples, in order."""
        columns = self._columns(matrix)
        for start, scores in all_scores(columns, self._mean_scorer(matrix), shape, run.stage("value", self.rows)):
            yield start, scores[:, 0]

    def most_valuable(self, matrix: QueryMatrix, k: int, shape: ScanShape, run: Run) -> Results:
        """The k best examples by :meth:`value`."""
        stage = run.stage("value", self.rows)
        best = top_k(self._columns(matrix), self._mean_scorer(matrix), k, shape, stage)
        return self._results(matrix, [TOGETHER], best)

    def _is_exact(self, matrix: QueryMatrix) -> bool:
        """Whether scores are computed from the rows themselves; scores from sign bits are estimates."""
        return not isinstance(self._stored.precisions.get(matrix.column), Sign)

    @property
    def estimated(self) -> bool:
        """Whether the stored rows are sign bits, whose scores are estimates."""
        return isinstance(self._stored.widest, Sign)

    @property
    def rows(self) -> int:
        """Number of stored rows."""
        return self._stored.rows

    def _columns(self, matrix: QueryMatrix) -> list[ColumnReader]:
        """The columns that a scan reads: one declared column for inner products, else all."""
        if isinstance(self.method, BlockSimilarity):
            return self._stored.all_columns()
        return self._stored.scanned(matrix.column)

    def _scorer(self, matrix: QueryMatrix) -> Scorer:
        if isinstance(self.method, BlockSimilarity):
            return CustomScorer(len(matrix.matrix), self._own_scores(matrix))
        return scorer_of(self._stored.precisions[matrix.column], matrix.matrix)

    def _mean_scorer(self, matrix: QueryMatrix) -> Scorer:
        """Scorer of the mean over the queries; for inner products, the product with the mean query."""
        if isinstance(self.method, BlockSimilarity):
            scores = self._own_scores(matrix)
            return CustomScorer(1, lambda block: scores(block).mean(1, keepdims=True, dtype=np.float64))
        mean = matrix.matrix.mean(0, keepdims=True, dtype=np.float64)
        return scorer_of(self._stored.precisions[matrix.column], mean)

    def _own_scores(self, matrix: QueryMatrix) -> Callable[[Block], Array]:
        """The method's own function: a block of stored rows → scores (rows, Q) float32."""
        assert isinstance(self.method, BlockSimilarity)
        precisions, tiles = self._stored.precisions, FixedTiles(self.method.score, matrix)

        def scores(block: Block) -> Array:
            decoded = {name: precision.decode(block.columns) for name, precision in precisions.items()}
            with plugin_code(self.name, "score"):
                return tiles.scores(Block(block.start, decoded))

        return scores
