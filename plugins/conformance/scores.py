"""Checks of a similarity method's scores: each from its own row, whatever the block. See `suite.py`."""

from __future__ import annotations

import math
import pickle
import tempfile
from collections.abc import Sequence

import numpy as np
import torch

from ...engine.arrays.precision.precisions import precision_of
from ...engine.arrays.scan.fixed_tiles import TILE_ROWS as TILE
from ...engine.arrays.scan.fixed_tiles import FixedTiles
from ...engine.arrays.scan.scan_loop import ScanShape
from ...engine.arrays.scan.scorers import CustomScorer, Scorer, scorer_of
from ...engine.arrays.scan.top_k import top_k
from ...engine.interface.method import BlockSimilarity, Method, QueryMatrix, Similarity, TextSimilarity
from ...engine.interface.model_view import ModelShape
from ...engine.runtime.run import SILENT_STAGE
from ...store.layout import Array, Block, Column
from .trial import TOLERANCE, alike, demand, state, stored_columns, trials

_NO_SIMILARITY = "the method does not score by similarity"


def _decoded(block: Block) -> Block:
    """The block with floats as float32."""
    columns = {n: v.astype(np.float32) if v.dtype.kind == "f" else v for n, v in block.columns.items()}
    return Block(block.start, columns)


def _scorer(method: Similarity, matrix: QueryMatrix, columns: Sequence[Column]) -> Scorer:
    if isinstance(method, BlockSimilarity):
        tiles = FixedTiles(method.score, matrix)
        return CustomScorer(len(matrix.matrix), lambda block: tiles.scores(_decoded(block)))
    return scorer_of(precision_of("auto", next(c for c in columns if c.name == matrix.column)), matrix.matrix)


def _scores(scorer: Scorer, block: Block) -> Array:
    """Scores (rows, Q) of one tile."""
    out = np.empty((scorer.queries, block.rows), np.float32)
    scorer.score(block, out)
    return out.T


def stored_rows_stay_as_they_were(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`prepare` and `score` change none of their arguments."""
    if not isinstance(method, Similarity):
        return _NO_SIMILARITY
    for trial in trials(method, models, device):
        rows = trial.stored()
        queries = {name: values.astype(np.float32) for name, values in rows.items()}
        before = pickle.dumps((rows, queries))
        statistics = state(method, trial.model, rows)
        matrix = method.prepare(queries, statistics)
        demand(pickle.dumps((rows, queries)) == before, "prepare changed the rows it was given")
        matrix_before = matrix.matrix.copy()
        try:
            _scores(_scorer(method, matrix, method.columns(trial.model)), Block(0, rows))
        except ValueError as error:  # NumPy's: what score is given is read-only
            demand("read-only" not in str(error), "score changed the block it was given")
            raise
        demand(pickle.dumps((rows, queries)) == before, "score changed the block it was given")
        demand(np.array_equal(matrix_before, matrix.matrix), "score changed the queries it was given")
    return ""


def queries_are_each_their_own(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """`prepare` gives (Q, D) float32 for one of the declared columns, and a query's vector depends on no other query."""
    if not isinstance(method, Similarity):
        return _NO_SIMILARITY
    for trial in trials(method, models, device, lengths=(9, 4, 17, 1)):
        rows = {name: values.astype(np.float32) for name, values in trial.stored().items()}
        statistics, widths = (
            state(method, trial.model, rows),
            {c.name: math.prod(c.shape) for c in method.columns(trial.model)},
        )
        together = method.prepare(rows, statistics)
        demand(together.column in widths, f"prepare names the column {together.column}; there are {sorted(widths)}")
        shape, dtype = together.matrix.shape, together.matrix.dtype.name
        expected = (len(trial.lengths), widths[together.column])
        demand((shape, dtype) == (expected, "float32"), f"prepare gives {dtype} {shape}, not float32 {expected}")
        per_query = {name: len(values) for name, values in together.per_query.items() if len(values) != expected[0]}
        demand(not per_query, f"per_query has arrays of another length than the {expected[0]} queries: {per_query}")
        for i in range(len(trial.lengths)):
            alone = method.prepare({name: values[i : i + 1] for name, values in rows.items()}, statistics).matrix[0]
            demand(alike(torch.from_numpy(alone), torch.from_numpy(together.matrix[i])),
                    "a query's vector depends on the other queries")  # fmt: skip
    return ""


def splits_change_no_score(method: Method, models: Sequence[ModelShape], device: str) -> str:
    """The best rows are the same, bit by bit, for every block size; a score depends on its own row alone."""
    if not isinstance(method, Similarity):
        return _NO_SIMILARITY
    trial = next(trials(method, models, device, lengths=[3 + i % 5 for i in range(2 * TILE + 9)]))
    rows = trial.stored()
    query_rows = {name: values[:5].astype(np.float32) for name, values in rows.items()}
    matrix = method.prepare(query_rows, state(method, trial.model, rows))
    scorer = _scorer(method, matrix, method.columns(trial.model))
    with tempfile.TemporaryDirectory() as folder:
        readers = stored_columns(folder, method.columns(trial.model), rows)
        shapes = [ScanShape(rows, workers) for rows, workers in ((TILE, 1), (2 * TILE, 2), (7, 1 + scorer.parallel))]
        first, *others = [top_k(readers, scorer, 20, shape, SILENT_STAGE) for shape in shapes]
    for other in others:
        same = np.array_equal(first.rows, other.rows) and np.array_equal(first.scores, other.scores)
        demand(same, "the best rows depend on the block that the store is read in")
    whole = np.array(_scores(scorer, Block(0, {name: values[:TILE] for name, values in rows.items()})))
    demand(whole.shape == (TILE, 5), f"score gives {whole.shape} for {TILE} rows and 5 queries")
    for at in (0, 1, 77):
        alone = _scores(scorer, Block(at, {name: values[at : at + 1] for name, values in rows.items()}))[0]
        close = np.allclose(alone, whole[at], atol=TOLERANCE * float(np.abs(whole).max()), rtol=0)
        demand(close, "the score of a row depends on the other rows of its tile")
    if isinstance(method, BlockSimilarity):
        _queries_change_no_score(method, matrix, rows, whole)
    return ""


def _queries_change_no_score(
    method: BlockSimilarity, matrix: QueryMatrix, rows: dict[str, Array], whole: Array
) -> None:
    """A query alone has the same scores, bit by bit, as among others."""
    tile = _decoded(Block(0, {name: values[:TILE] for name, values in rows.items()}))
    for at in range(len(matrix.matrix)):
        query = slice(at, at + 1)
        per_query = {name: values[query] for name, values in matrix.per_query.items()}
        alone = QueryMatrix(matrix.column, matrix.matrix[query], per_query, matrix.shared)
        same = np.array_equal(FixedTiles(method.score, alone).scores(tile)[:, 0], whole[:, at])
        demand(
            same,
            "the scores of a query depend on the queries beside it: products by @ do not, np.dot and np.einsum may",
        )


def an_example_finds_itself(method: Method, models: Sequence[ModelShape], device: str, share: float) -> str:
    """Of 200 examples, most rank first for the query that is the example itself."""
    if not isinstance(method, Similarity) or not share:
        return _NO_SIMILARITY if share else "its author opted out"
    trial = max(
        trials(method, models, device, lengths=[8 + i % 17 for i in range(200)]),
        key=lambda trial: (trial.model.max_length > 1, trial.model.vocabulary),
    )
    query_rows = {name: values.float().cpu().numpy() for name, values in trial.rows(range(100)).items()}
    rows = trial.stored()
    scorer = _scorer(method, method.prepare(query_rows, state(method, trial.model, rows)), method.columns(trial.model))
    tiles = [{name: values[at : at + TILE] for name, values in rows.items()} for at in range(0, 200, TILE)]
    scores = np.concatenate([_scores(scorer, Block(TILE * i, tile)) for i, tile in enumerate(tiles)])
    first = float(np.mean([(scores[:, q] <= scores[q, q]).all() for q in range(100)]))
    demand(first >= share, f"only {first:.0%} of examples rank first for their own row, {share:.0%} should: "
            "a method whose score is not a cosine may state its share, checks(finds_itself=0.5)")  # fmt: skip
    return ""


def parts_change_no_score(method: Method) -> str:
    """`score_texts` gives finite (rows, Q) float32 for each part, the same however the corpus is cut; each text finds itself."""
    if not isinstance(method, TextSimilarity):
        return "the method does not compare texts"
    words = ["river", "stone", "light", "garden", "engine", "window", "paper", "winter", "music", "bridge", "silver"]
    texts = [f"{i} " + " ".join(words[(i * 7 + j * j) % len(words)] for j in range(3 + i % 9)) for i in range(40)]
    texts += ["", "nothing of all that"]
    scores = []
    for size in (42, 5):
        parts = [texts[at : at + size] for at in range(0, len(texts), size)]
        parts_scores = list(method.score_texts([*texts[:6], ""], lambda parts=parts: iter(parts)))  # type: ignore[misc]
        demand(
            [part.shape for part in parts_scores] == [(len(part), 7) for part in parts],
            "score_texts gives other shapes",
        )
        scores.append(np.concatenate(parts_scores))
    demand(scores[0].dtype == np.float32 and np.isfinite(scores[0]).all(), "scores are finite float32")
    demand(np.allclose(scores[0], scores[1], atol=1e-6), "scores depend on how the corpus is cut")
    demand((scores[0][:, :6].argmax(0) == np.arange(6)).all(), "a text does not find itself")
    demand(method.memory(10, 1000, 1) <= method.memory(1000, 100_000, 9), "memory falls as the corpus grows")
    return ""


SCORE_CHECKS = (queries_are_each_their_own, stored_rows_stay_as_they_were, splits_change_no_score)
