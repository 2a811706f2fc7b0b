"""Result tables: results with the examples' ids and texts, as columns in parts of bounded size. Knows no method and no file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...store.feature_store import FeatureStore
from ...store.json_values import JsonFields
from ...store.layout import Array
from .answers_origin import Origin
from .example_table import PART_SIZES, Columns, Examples, PartSize
from .result_files import SEVERAL, Fields
from .results import RESULT_QUERIES, QueryText, Results

REPEATED_TEXT = pa.dictionary(pa.int32(), pa.string())
"""Of texts that many rows have: each is in memory once."""
RESULT_FIELDS = {
    "query_id": pa.string(), "rank": pa.int32(), "example_id": pa.string(), "score": pa.float32(),
    "completion": pa.string(), "prompt": pa.string(), "row": pa.int64(), "source": pa.string(), "line": pa.int64(),
    "query_prompt": REPEATED_TEXT, "query_completion": REPEATED_TEXT,
    "method": REPEATED_TEXT, "store": REPEATED_TEXT, "exact": pa.bool_(),
}  # fmt: skip
RECOVERED_FIELDS = {**RESULT_FIELDS, "tie": pa.bool_(), "explained": pa.float32(), "reliability": pa.float32(),
                   "gap": pa.float32()}  # fmt: skip
SPREAD_FIELDS = {"standard_error": pa.float32(), "rank_low": pa.int32(), "rank_high": pa.int32()}
"""Columns of combined scores of several members."""
VALUE_FIELDS = {
    "example_id": pa.string(), "score": pa.float32(), "row": pa.int64(), "source": pa.string(), "line": pa.int64(),
    "method": REPEATED_TEXT, "store": REPEATED_TEXT,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class About:
    """What a file of answers says besides the answers: what was asked, and of what."""

    queries: Sequence[QueryText] = ()
    """(Q,) texts of the queries, in the results' order; none if the results are of no single query."""
    origin: Origin | None = None
    """Method, store and model of the answers."""
    others: tuple[Origin, ...] = ()
    """Those of the answers of further methods in the same file."""

    def query(self, number: int) -> QueryText:
        """The text of a query; empty if the results are of no single query."""
        return self.queries[number] if self.queries else _NO_TEXT

    def to_json(self) -> JsonFields:
        """The origin as a file says it, empty if there is none; of several methods, `methods` lists theirs."""
        if self.origin is None:
            return {}
        methods = [origin.to_json() for origin in (self.origin, *self.others)]
        return {SEVERAL: methods} if self.others else methods[0]

    def record(self, rows: int) -> dict[str, list[str]]:
        """The columns of the origin, for `rows` rows."""
        values = self.origin.record() if self.origin else {"method": "", "store": ""}
        return {name: [value] * rows for name, value in values.items()}


_NO_TEXT = QueryText("", "")
NOTHING = About()
"""Nothing is said."""


def result_rows(
    results: Results, store: FeatureStore, most: PartSize = PART_SIZES[0], about: About = NOTHING
) -> Iterator[Columns]:
    """Results as tables with the columns of :func:`fields_of`, each of a bounded part of some queries' results."""
    examples, k = Examples(store), results.rows.shape[1]
    further = _spread(results) | dict(results.further_columns)
    names = ("id", "prompt", "text", "source", "line")
    for start in range(0, len(results.queries), RESULT_QUERIES):
        rows = results.rows[start : start + RESULT_QUERIES].reshape(-1)
        values = {name: value[start : start + RESULT_QUERIES] for name, value in further.items()}
        scores = results.scores[start : start + RESULT_QUERIES]
        for part, columns in examples.parts(names, rows, most):
            query, rank = np.divmod(np.arange(part.start, part.stop), k)
            ids = [results.queries[start + number] for number in query.tolist()]
            asked = [about.query(start + number) for number in query.tolist()]
            yield {
                "query_id": ids,
                "rank": (rank + 1).tolist(),
                "example_id": columns["id"],
                "score": scores[query, rank].tolist(),
                "completion": columns["text"],
                "prompt": columns["prompt"],
                "row": rows[part].tolist(),
                "source": columns["source"],
                "line": columns["line"],
                "query_prompt": [text.prompt for text in asked],
                "query_completion": [text.completion for text in asked],
                **about.record(len(rank)),
                "method": [results.method] * len(rank),
                "exact": [results.exact] * len(rank),
                **{name: value[query, rank].tolist() for name, value in values.items()},
            }


def fields_of(results: Results) -> Fields:
    """The columns of the table of results."""
    fields = RECOVERED_FIELDS if results.further_columns else RESULT_FIELDS
    return {**fields, **{name: SPREAD_FIELDS[name] for name in _spread(results)}}


def merged_fields(results: Iterable[Results]) -> Fields:
    """The columns of one table of several results: all that one of them has."""
    return {name: kind for own in results for name, kind in fields_of(own).items()}


def padded(columns: Columns, fields: Fields) -> Columns:
    """A table with all of these columns, in their order; those that it lacks are empty."""
    rows = len(columns["query_id"])
    return {name: columns.get(name, [None] * rows) for name in fields}


def _spread(results: Results) -> dict[str, Array]:
    """The columns of `SPREAD_FIELDS`; none for a single member."""
    columns = {name: getattr(results, name) for name in SPREAD_FIELDS}
    return {name: value for name, value in columns.items() if value is not None}


def value_rows(
    scores: Iterable[tuple[int, Array]], store: FeatureStore, most: PartSize = PART_SIZES[0], about: About = NOTHING
) -> Iterator[Columns]:
    """Values with their examples, as tables of `VALUE_FIELDS`, each of bounded size; without examples whose value is NaN, which
    a filter has left out.
    """
    examples = Examples(store)
    for first, values in _joined(scores, most.rows // 2):
        ranked = np.flatnonzero(~np.isnan(values))
        rows, values = first + ranked, values[ranked]
        for part, columns in examples.parts(("id", "source", "line"), rows, most):
            yield {
                "example_id": columns["id"],
                "score": values[part].tolist(),
                "row": rows[part].tolist(),
                "source": columns["source"],
                "line": columns["line"],
                **about.record(part.stop - part.start),
            }


def _joined(scores: Iterable[tuple[int, Array]], size: int) -> Iterator[tuple[int, Array]]:
    """Consecutive (first row, (rows,)) arrays, joined to some of at least `size` rows."""
    parts: list[Array] = []
    start = 0
    for first, part in scores:
        start = start if parts else first
        parts.append(part.copy())
        if sum(map(len, parts)) >= size:
            yield start, np.concatenate(parts)
            parts = []
    if parts:
        yield start, np.concatenate(parts)
