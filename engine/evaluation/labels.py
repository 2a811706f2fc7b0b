"""Labels: which examples are relevant for which query, by ids, pairs, a column's value or a pattern in the text.

Knows label files; no scores and no store.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ...store.errors import CorpusError, DataError, SettingsError
from ...store.json_values import ParsedJson
from ...store.layout import Array
from ..data.record_values import scalar_text
from ..data.sources import find_sources, read_source


class Labels(ABC):
    """Which examples are relevant for a query."""

    @abstractmethod
    def relevant(self, query: str, examples: Sequence[str], texts: Sequence[str]) -> Array:
        """(n,) bool: whether each of these examples is relevant for a query."""

    def total(self, query: str) -> int | None:
        """Number of relevant examples of a query in the whole corpus; None if the labels do not determine it."""
        return None

    @property
    def by_id(self) -> bool:
        """Whether relevance depends on the example's id alone, so that examples of one id count as one."""
        return True

    @property
    def known(self) -> frozenset[str]:
        """Ids of all labelled examples; if a store is given, they must be in it."""
        return frozenset()

    @property
    def queries(self) -> frozenset[str]:
        """Ids of the queries that the labels are of; none if they are of all queries."""
        return frozenset()


class RelevantIds(Labels):
    """Ids that are relevant for every query."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = frozenset(ids)

    def relevant(self, query: str, examples: Sequence[str], texts: Sequence[str]) -> Array:
        return np.array([name in self._ids for name in examples], bool)

    def total(self, query: str) -> int:
        return len(self._ids)

    @property
    def known(self) -> frozenset[str]:
        return self._ids


class RelevantPairs(Labels):
    """Ids that are relevant for each query."""

    def __init__(self, pairs: Mapping[str, frozenset[str]]) -> None:
        self._pairs = pairs

    def relevant(self, query: str, examples: Sequence[str], texts: Sequence[str]) -> Array:
        relevant_ids = self._pairs.get(query, frozenset())
        return np.array([name in relevant_ids for name in examples], bool)

    def total(self, query: str) -> int:
        return len(self._pairs.get(query, ()))

    @property
    def known(self) -> frozenset[str]:
        return frozenset().union(*self._pairs.values())

    @property
    def queries(self) -> frozenset[str]:
        return frozenset(self._pairs)


class SameLabel(Labels):
    """Examples whose value of a column equals the query's."""

    def __init__(self, examples: ParsedJson, queries: ParsedJson) -> None:
        self._examples = {name: str(label) for name, label in examples.items() if label is not None}
        self._queries, self._known = queries, frozenset(examples)
        self._counts = Counter(self._examples.values())

    def relevant(self, query: str, examples: Sequence[str], texts: Sequence[str]) -> Array:
        query_label = self._query_label(query)
        return np.array([self._examples.get(name) == query_label for name in examples], bool)

    def total(self, query: str) -> int:
        return self._counts[self._query_label(query)]

    def _query_label(self, query: str) -> str:
        if self._queries.get(query) is None:
            raise DataError(f"query {query} has no label", hint="add it to the file of --query-labels")
        return str(self._queries[query])

    @property
    def known(self) -> frozenset[str]:
        return self._known


class TextMatch(Labels):
    """Examples whose text matches a regular expression anywhere."""

    def __init__(self, pattern: str) -> None:
        """Raises SettingsError if the pattern is not a valid regular expression."""
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise SettingsError(f"{pattern!r} is not a regular expression: {error}") from None

    @property
    def by_id(self) -> bool:
        return False

    def relevant(self, query: str, examples: Sequence[str], texts: Sequence[str]) -> Array:
        return np.array([bool(self._pattern.search(text)) for text in texts], bool)


def read_labels(path: str, column: str = "", queries: str = "") -> Labels:
    """Labels from a file.

    A .txt file has one id per line. A table (.jsonl, .csv, .parquet) has the columns query_id and example_id, or id and `column`.
    In the second case `queries` is a table of the queries' labels; without it, examples whose label is true are relevant.

    Raises:
        CorpusError: the file does not exist or cannot be read.
        DataError: a column or a label is missing, or there are no labels.
    """
    if path.endswith(".txt"):
        return RelevantIds([line for line in (f["text"].strip() for f in _records(path)) if line])
    if not column:
        pairs: dict[str, set[str]] = {}
        for fields in _records(path):
            query, example = (_id(fields, name, path) for name in ("query_id", "example_id"))
            pairs.setdefault(query, set()).add(example)
        return RelevantPairs({query: frozenset(ids) for query, ids in pairs.items()})
    examples = _column(path, column)
    if queries:
        return SameLabel(examples, _column(queries, column))
    return RelevantIds([name for name, label in examples.items() if _is_true(label, path)])


_FALSE = {"", "0", "0.0", "f", "false", "n", "no", "none", "null", "nan"}
_TRUE = {"1", "1.0", "t", "true", "y", "yes"}


def _is_true(label: object, path: str) -> bool:
    text = str(label).strip().lower()
    if text not in _FALSE | _TRUE:
        raise DataError(
            f"{path}: label {label!r} is neither true nor false; --query-labels compares labels with the queries'"
        )
    return text in _TRUE


def _column(path: str, name: str) -> ParsedJson:
    """Id → value of a column; DataError if two rows of one id have different values."""
    values: dict[str, object] = {}
    for fields in _records(path):
        record_id, value = _id(fields, "id", path), _cell(fields, name, path)
        if str(values.setdefault(record_id, value)) != str(value):
            raise DataError(f"{path}: id {record_id} has {name} {values[record_id]} in one row and {value} in another")
    return values


def _id(fields: ParsedJson, name: str, path: str) -> str:
    if not (text := scalar_text(value := _cell(fields, name, path))):
        raise DataError(f"{path} has a row whose {name} is {value!r}", hint="give a number or a text")
    return text


def _cell(fields: ParsedJson, name: str, path: str) -> object:
    if name not in fields:
        raise DataError(f"{path} has no column {name}; it has {', '.join(fields)}")
    return fields[name]


def _records(path: str) -> Iterator[ParsedJson]:
    any_record = False
    for source in find_sources([path], lines=True):
        for record in read_source(source, 0, None):
            if record.error:
                raise CorpusError(f"{path}:{record.line}: {record.error}")
            any_record = True
            yield record.fields
    if not any_record:
        raise DataError(f"{path} holds no label", hint="give one id or row per line")
