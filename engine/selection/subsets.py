"""Reads subsets of a corpus from files: masks, row numbers, ids, or the values of a column. Knows no vectors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from ...store.errors import DataError, SettingsError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.files import JsonObject
from ...store.layout import TEXT_CHUNK_ROWS, Array
from ..evaluation.matrices import read_array, read_masks
from ..results.example_table import Examples
from ..results.groups import Groups, document_of


@dataclass(frozen=True, slots=True)
class Subsets:
    """Some subsets of N examples."""

    names: tuple[str, ...]
    """A name each: its own, or its number."""
    counts: scipy.sparse.csr_array
    """(S, N) float64: how often each holds each example."""


def read_subsets(path: str, store: FeatureStore, rows: int) -> Subsets:
    """From masks (.npy, .parquet, .zarr: (subsets, examples) of 0 and 1), or .jsonl with `rows` (numbers) or `ids` a line and,
    if you like, `name`; a row that is named twice counts twice.

    Raises:
        SettingsError: no such file. DataError: rows or ids that are not there, another number of examples, an empty subset.
    """
    if not path.endswith(".jsonl"):
        masks = read_masks(path)
        if masks.shape[1] != rows:
            raise DataError(f"{path} has masks of {masks.shape[1]} examples; the store has {rows}")
        return Subsets(tuple(map(str, range(len(masks)))), scipy.sparse.csr_array(masks.astype(np.float64)))
    if not Path(path).is_file():
        raise SettingsError(f"{path} does not exist")
    names, lists = [], []
    known: dict[str, list[int]] | None = None
    for number, line in enumerate(_text(path).rstrip("\n").split("\n")):
        told = _record(line, path, number)
        if "ids" in told and known is None:
            known = _places(store)
        names.append(str(told.get("name", number)))
        lists.append(_rows(told, known or {}, rows, f"{path}: subset {names[-1]}"))
    if not lists:
        raise DataError(f"{path} holds no subset")
    return Subsets(tuple(names), _matrix(lists, rows))


def ids_or_mask(path: str, store: FeatureStore, rows: int) -> Array:
    """(N,) bool: the examples that a file names, by an id a line (.txt), or by a mask of one row (.npy, .parquet, .zarr).

    Raises:
        DataError: an id that the store does not hold, or a mask of another number of examples.
    """
    found = np.zeros(rows, bool)
    if not path.endswith(".txt"):
        mask = read_array(path, "a mask").reshape(-1)
        if len(mask) != rows or not np.isin(mask, (0, 1)).all():
            raise DataError(
                f"{path}: a mask has 0 or 1 for each of the store's {rows} examples, not {mask.dtype} {mask.shape}"
            )
        found |= mask.astype(bool)
        return found
    if not Path(path).is_file():
        raise SettingsError(f"{path} does not exist")
    known = _places(store)
    for name in filter(None, (line.strip() for line in _text(path).split("\n"))):
        if name not in known:
            raise DataError(f"{path} names example {name}, which the store does not hold")
        found[known[name]] = True
    return found


def subsets_by(store: FeatureStore, column: str, table: str) -> Subsets:
    """One subset for every value of a column of the corpus."""
    groups = Groups(store, column, table)
    order = np.argsort(groups.of, kind="stable")
    return Subsets(tuple(groups.names), _matrix(np.split(order, np.cumsum(groups.sizes)[:-1]), len(groups.of)))


def union(subsets: Subsets, name: str) -> scipy.sparse.csr_array:
    """Every subset together with the one of that name: (S, N), the larger of the two counts.

    Raises:
        SettingsError: none has it.
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


def _matrix(lists: list[Any] | list[Array], rows: int) -> scipy.sparse.csr_array:
    sizes = [len(one) for one in lists]
    at = (np.repeat(np.arange(len(lists)), sizes), np.concatenate([np.asarray(one, np.int64) for one in lists]))
    return scipy.sparse.csr_array((np.ones(sum(sizes)), at), (len(lists), rows))  # equal places add up


def _record(line: str, path: str, number: int) -> JsonObject:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("rows", found.get("ids")), list):
        raise DataError(f'{path}:{number + 1}: a subset is {{"rows": [0, 1, …]}} or {{"ids": ["a", "b", …]}}')
    return found


def _rows(told: JsonObject, known: dict[str, list[int]], rows: int, what: str) -> list[int]:
    """Row numbers of one subset."""
    if "rows" in told:
        wrong = next((one for one in told["rows"] if type(one) is not int or not 0 <= one < rows), None)
        if wrong is not None:
            raise DataError(f"{what} names row {wrong}; the store has rows 0 to {rows - 1}")
        found = list(told["rows"])
    else:
        wrong = next((one for one in told["ids"] if str(one) not in known), None)
        if wrong is not None:
            raise DataError(f"{what} names example {wrong}, which the store does not hold")
        found = [row for one in told["ids"] for row in known[str(one)]]
    if not found:
        raise DataError(f"{what} is empty")
    return found


def _places(store: FeatureStore) -> dict[str, list[int]]:
    """Example id → its rows: a long text has several."""
    examples, count = Examples(store), store.rows(EXAMPLES)
    found: dict[str, list[int]] = {}
    for first in range(0, count, TEXT_CHUNK_ROWS):
        these = np.arange(first, min(count, first + TEXT_CHUNK_ROWS))
        for row, name in zip(these.tolist(), examples.strings("id", these), strict=True):
            found.setdefault(name, []).append(row)
            if document_of(name) != name:
                found.setdefault(document_of(name), []).append(row)
    return found
