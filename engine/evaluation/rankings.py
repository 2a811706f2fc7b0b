"""Rankings to evaluate: from answers (`attribute -o`), or from all scores of a store's examples. Knows files; no metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...store.errors import CorpusError, DataError, SettingsError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import Array
from ..data.formats import read_records
from ..data.sources import find_sources
from ..results.example_table import Examples
from .labels import Labels
from .matrices import read_array
from .retrieval import Ranking

FIELDS = ("query_id", "example_id", "score")


def read_answers(path: str) -> Iterator[Ranking]:
    """Rankings from a table of answers (.jsonl, .csv, .parquet): query_id, example_id, score and, if it is there, text.

    Each query's rows may stand anywhere; they are ranked by score, ties in the file's order.

    Raises:
        CorpusError: the file is not there, or cannot be read.
        DataError: a column is missing, a score is no number, or an example comes twice for a query.
    """
    places: dict[str, list[Mapping[str, Any]]] = {}
    for source in find_sources([path]):
        for record in read_records(source.path, source.format, 0, None):
            if record.fault:
                raise CorpusError(f"{path}:{record.line}: {record.fault}")
            missing = [name for name in FIELDS if name not in record.fields]
            if missing:
                raise DataError(f"{path} has no column {missing[0]}: answers have {', '.join(FIELDS)}")
            places.setdefault(str(record.fields["query_id"]), []).append(record.fields)
    for query, rows in places.items():
        yield _answer(path, query, rows)


def _answer(path: str, query: str, rows: Sequence[Mapping[str, Any]]) -> Ranking:
    try:
        scores = np.array([float(row["score"]) for row in rows])
    except (TypeError, ValueError):
        raise DataError(f"{path}: a score of query {query} is no number") from None
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise DataError(f"{path}: the score of example {rows[bad[0]]['example_id']} for query {query} is not finite")
    order = np.argsort(-scores, kind="stable")
    names = [str(rows[at]["example_id"]) for at in order]
    if len({row.get("row", row["example_id"]) for row in rows}) < len(rows):
        raise DataError(f"{path}: an example comes twice for query {query}")
    return Ranking(query, names, [str(rows[at].get("text") or "") for at in order], scores[order])


class AllScores:
    """All scores of all examples of a store."""

    def __init__(self, path: str, store: FeatureStore, *, texts: bool) -> None:
        """`path`: (Q, N) scores, or a group as `attribute --all-scores` writes it; `texts`: the labels look at them.

        Raises:
            DataError: another number of examples than the store has.
        """
        self._scores = read_array(path, "scores")
        rows = store.rows(EXAMPLES)
        if self._scores.ndim != 2 or self._scores.shape[1] != rows:
            raise DataError(f"scores {self._scores.shape} are (queries, examples), and {store.url} has {rows} examples")
        self.names = _query_names(path, len(self._scores))
        held = Examples(store)
        self.examples = self.names_of(store)
        if texts and not store.provenance.get("text"):
            raise SettingsError(f"{store.url} keeps no texts (--no-text): a pattern has nothing to look at")
        self._texts = held.texts(np.arange(rows)) if texts else [""] * rows

    @staticmethod
    def names_of(store: FeatureStore) -> list[str]:
        """Ids of all examples of a store, in its order."""
        names: list[str] = Examples(store).get("id", np.arange(store.rows(EXAMPLES)))
        return names

    def __iter__(self) -> Iterator[Ranking]:
        for name, scores in zip(self.names, self._scores, strict=True):
            order: Array = np.argsort(-scores, kind="stable")
            yield Ranking(name, [self.examples[at] for at in order], [self._texts[at] for at in order], scores[order])


def _query_names(path: str, count: int) -> list[str]:
    """Queries' ids where the scores have them, else their numbers."""
    if Path(path).suffix == ".zarr":
        import zarr

        names = zarr.open(path, mode="r").attrs.get("queries")
        if isinstance(names, list) and len(names) == count:
            return [str(name) for name in names]
    return [str(number) for number in range(count)]


def require_known(labels: Labels, examples: Sequence[str], where: str) -> None:
    """Raise DataError for a label of an example that a store does not hold."""
    unknown = labels.known.difference(examples)
    if unknown:
        raise DataError(f"{len(unknown)} labels are for examples that {where} does not hold, such as {min(unknown)}")
