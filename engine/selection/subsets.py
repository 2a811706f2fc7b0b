"""Reads subsets of a corpus from files: masks, row numbers, ids, or the values of a column. Knows no vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from ...store.errors import DataError, SettingsError
from ...store.feature_store import FeatureStore
from ...store.json_values import ParsedJson
from ...store.layout import TEXT_CHUNK_ROWS, Array
from ..data.documents import scalar_text
from ..evaluation.matrices import read_array, read_masks
from ..results.example_table import Examples
from ..results.groups import Groups, document_of


@dataclass(frozen=True, slots=True)
class Subsets:
    """S subsets of N examples."""

    names: tuple[str, ...]
    """Name of each subset, or its number."""
    counts: scipy.sparse.csr_array
    """(S, N) float64: how often each subset contains each example."""


def read_subsets(path: str, store: FeatureStore, rows: int) -> Subsets:
    """Subsets from a file: masks (.npy, .parquet, .zarr: (subsets, examples) of 0 and 1), or JSON lines with `rows` (numbers) or
    `ids`, and optionally `name`; a row that is named twice counts twice.

    Raises:
        SettingsError: no such file. DataError: rows or ids that the store does not have, another number of examples, or an empty
            subset.
    """
    if not path.endswith(".jsonl"):
        masks = read_masks(path)
        if masks.shape[1] != rows:
            raise DataError(f"{path} has masks of {masks.shape[1]} examples; the store has {rows}")
        return Subsets(tuple(map(str, range(len(masks)))), scipy.sparse.csr_array(masks.astype(np.float64)))
    if not Path(path).is_file():
        raise SettingsError(f"{path} does not exist")
    names, lists = [], []
    rows_of_id: dict[str, list[int]] | None = None
    for number, line in enumerate(_text(path).rstrip("\n").split("\n")):
        record = _record(line, path, number)
        if "ids" in record and rows_of_id is None:
            rows_of_id = _rows_by_id(store, rows)
        names.append(str(record.get("name", number)))
        lists.append(_rows(record, rows_of_id or {}, rows, f"{path}: subset {names[-1]}"))
    if not lists:
        raise DataError(f"{path} holds no subset")
    return Subsets(tuple(names), _matrix(lists, rows))


def ids_or_mask(path: str, store: FeatureStore, rows: int) -> Array:
    """(N,) bool: the examples that a file names, by one id per line (.txt) or by a mask of one row (.npy, .parquet, .zarr).

    Raises:
        DataError: an id that the store does not have, or a mask of another number of examples.
    """
    selected = np.zeros(rows, bool)
    if not path.endswith(".txt"):
        mask = read_array(path, "a mask").reshape(-1)
        if len(mask) != rows or not np.isin(mask, (0, 1)).all():
            raise DataError(
                f"{path}: a mask has 0 or 1 for each of the store's {rows} examples, not {mask.dtype} {mask.shape}"
            )
        selected |= mask.astype(bool)
        return selected
    if not Path(path).is_file():
        raise SettingsError(f"{path} does not exist")
    rows_of_id = _rows_by_id(store, rows)
    for name in filter(None, (line.strip() for line in _text(path).split("\n"))):
        if name not in rows_of_id:
            raise DataError(f"{path} names example {name}, which the store does not hold")
        selected[rows_of_id[name]] = True
    return selected


def subsets_by(store: FeatureStore, column: str, table: str, rows: int | None = None) -> Subsets:
    """One subset for each value of a column of the corpus; `rows`: of the first so many examples. Default: of all."""
    groups = Groups(store, column, table, rows)
    order = np.argsort(groups.of, kind="stable")
    return Subsets(tuple(groups.names), _matrix(np.split(order, np.cumsum(groups.sizes)[:-1]), len(groups.of)))


def union(subsets: Subsets, name: str) -> scipy.sparse.csr_array:
    """The union of each subset with the one of a name: (S, N), the larger of the two counts.

    Raises:
        SettingsError: no subset has this name.
    """
    if name not in subsets.names:
        raise SettingsError(f"no subset is named {name}: there are {', '.join(subsets.names[:8])}")
    given = subsets.counts[[subsets.names.index(name)] * len(subsets.names)]
    return scipy.sparse.csr_array(subsets.counts.maximum(given))


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _matrix(row_lists: Sequence[Sequence[int] | Array], rows: int) -> scipy.sparse.csr_array:
    """(S, N) counts from the row numbers of each subset."""
    sizes = [len(row_list) for row_list in row_lists]
    columns = np.concatenate([np.asarray(row_list, np.int64) for row_list in row_lists])
    index = (np.repeat(np.arange(len(row_lists)), sizes), columns)
    return scipy.sparse.csr_array((np.ones(sum(sizes)), index), (len(row_lists), rows))  # equal indices add up


def _record(line: str, path: str, number: int) -> ParsedJson:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("rows", record.get("ids")), list):
        raise DataError(f'{path}:{number + 1}: a subset is {{"rows": [0, 1, …]}} or {{"ids": ["a", "b", …]}}')
    return record


def _rows(record: ParsedJson, rows_of_id: dict[str, list[int]], rows: int, subset: str) -> list[int]:
    """Row numbers of one subset; `subset`: its name, for errors."""
    if "rows" in record:
        wrong = next((row for row in record["rows"] if type(row) is not int or not 0 <= row < rows), None)
        if wrong is not None:
            raise DataError(f"{subset} names row {wrong}; the store has rows 0 to {rows - 1}")
        row_numbers = list(record["rows"])
    else:
        wrong = next((name for name in record["ids"] if scalar_text(name) not in rows_of_id), None)
        if wrong is not None:
            raise DataError(f"{subset} names example {wrong}, which the store does not hold")
        row_numbers = [row for name in record["ids"] for row in rows_of_id[scalar_text(name)]]
    if not row_numbers:
        raise DataError(f"{subset} is empty")
    return row_numbers


def _rows_by_id(store: FeatureStore, count: int) -> dict[str, list[int]]:
    """Example or document id → its rows among the first `count`: a long document has several."""
    examples = Examples(store)
    rows_of_id: dict[str, list[int]] = {}
    for first in range(0, count, TEXT_CHUNK_ROWS):
        rows = np.arange(first, min(count, first + TEXT_CHUNK_ROWS))
        for row, name in zip(rows.tolist(), examples.strings("id", rows), strict=True):
            rows_of_id.setdefault(name, []).append(row)
            if document_of(name) != name:
                rows_of_id.setdefault(document_of(name), []).append(row)
    return rows_of_id
