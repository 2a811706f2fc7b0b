"""Rankings to evaluate: from answers (`attribute -o`), or from all scores of a store's examples. Knows files; no metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ...store.errors import CorpusError, DataError, SettingsError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.json_values import ParsedJson
from ...store.layout import Array
from ..data.record_values import scalar_text
from ..data.sources import find_sources, read_source
from ..data.stored_arrays import reading
from ..results.answers_origin import KEY
from ..results.example_table import Examples, joined_texts
from .matrices import read_array
from .retrieval import Ranking

FIELDS = ("query_id", "example_id", "score")


def read_answers(path: str, method: str = "") -> Iterator[Ranking]:
    """Rankings from a table of answers (.jsonl, .json, .csv, .parquet) with columns query_id, example_id, score and optionally
    prompt and completion, or text.

    The rows of a query may be in any order; they are ranked by score, ties in the order of the file. Of a file with the answers
    of several methods, those of `method` are read.

    Raises:
        CorpusError: the file does not exist, or cannot be read.
        DataError: a column is missing, a score is not a number, or an example or a rank occurs twice for a query.
    """
    rows_of_query: dict[str, list[ParsedJson]] = {}
    methods: dict[str, None] = {}
    for row in _rows(path):
        own = str(row.get("method") or "")
        if method and own != method:
            methods[own] = None
            continue
        methods[own] = None
        if not method and len(methods) > 1:
            raise DataError(f"{path} has answers of {' and '.join(methods)}", hint="choose one by --method NAME")
        missing = [name for name in FIELDS if name not in row]
        if missing:
            raise DataError(f"{path} has no column {missing[0]}: answers have {', '.join(FIELDS)}")
        rows_of_query.setdefault(scalar_text(row["query_id"]), []).append(row)
    if method and not rows_of_query:
        raise DataError(f"{path} has no answers of {method}, but of {', '.join(methods)}")
    for query, rows in rows_of_query.items():
        yield _answer(path, query, rows)


def _rows(path: str) -> Iterator[ParsedJson]:
    """The records of a file of answers; of .json as `attribute` writes it, each answer with its query's id."""
    for source in find_sources([path]):
        for record in read_source(source, 0, None):
            if record.error:
                raise CorpusError(f"{path}:{record.line}: {record.error}")
            fields: ParsedJson = record.fields
            if set(fields) == {KEY, "queries"}:
                for query in fields["queries"]:
                    yield from ({"query_id": query["id"], **answer} for answer in query["answers"])
            else:
                yield fields


def _answer(path: str, query: str, rows: Sequence[ParsedJson]) -> Ranking:
    try:
        scores = np.array([float(row["score"]) for row in rows])
    except (TypeError, ValueError):
        raise DataError(f"{path}: a score of query {query} is not a number") from None
    bad_rows = np.flatnonzero(~np.isfinite(scores))
    if len(bad_rows):
        raise DataError(
            f"{path}: the score of example {rows[bad_rows[0]]['example_id']} for query {query} is not finite"
        )
    order = np.argsort(-scores, kind="stable")
    names = [scalar_text(rows[at]["example_id"]) for at in order]
    if len({str(row.get("row", row["example_id"])) for row in rows}) < len(rows):
        raise DataError(f"{path}: an example comes twice for query {query}", hint="remove one of the rows")
    ranks = [row["rank"] for row in rows if "rank" in row]
    if len(set(map(str, ranks))) < len(ranks):
        raise DataError(
            f"{path}: two examples of query {query} have one rank: do two queries have this id? Rename one of them"
        )
    return Ranking(query, names, [_text(rows[at]) for at in order], scores[order])


def _text(row: ParsedJson) -> str:
    """An example's text: prompt and completion, joined; earlier versions wrote it so."""
    parts = (row.get(name) or "" for name in ("prompt", "completion", "text"))
    return "".join(map(str, parts))


class AllScores:
    """Rankings of all examples of a store, from an array of all scores."""

    def __init__(self, path: str, store: FeatureStore, *, texts: bool) -> None:
        """`path`: (Q, N) scores, or a group written by `attribute --all-scores`; `texts`: whether the labels need the texts.

        Raises:
            DataError: the number of examples differs from the store's.
            SettingsError: texts are needed, and the store keeps none.
        """
        self._scores = read_array(path, "scores")
        rows = store.rows(EXAMPLES)
        if self._scores.ndim != 2 or self._scores.shape[1] != rows:
            raise DataError(f"scores {self._scores.shape} are (queries, examples), and {store.url} has {rows} examples")
        self.names = _query_names(path, len(self._scores))
        examples = Examples(store)
        self.examples = self.names_of(store)
        if texts and not store.provenance.get("text"):
            raise SettingsError(
                f"{store.url} keeps no texts (--no-text), which --match searches",
                hint="use --labels, or ingest with texts",
            )
        parts = examples.parts(("prompt", "text"), np.arange(rows)) if texts else ()
        self._texts = [text for _, columns in parts for text in joined_texts(columns)] or [""] * rows

    @staticmethod
    def names_of(store: FeatureStore) -> list[str]:
        """Ids of all examples of a store, in its order."""
        names = Examples(store).strings("id", np.arange(store.rows(EXAMPLES)))
        return names

    def __iter__(self) -> Iterator[Ranking]:
        for name, scores in zip(self.names, self._scores, strict=True):
            order: Array = np.argsort(-scores, kind="stable")
            yield Ranking(name, [self.examples[at] for at in order], [self._texts[at] for at in order], scores[order])


def _query_names(path: str, count: int) -> list[str]:
    """The ids of the queries if the file has them, else their numbers."""
    if Path(path).suffix == ".zarr":
        import zarr

        with reading(path, DataError):
            names = zarr.open(path, mode="r").attrs.get("queries")
        if isinstance(names, list) and len(names) == count:
            return [str(name) for name in names]
    return [str(number) for number in range(count)]
