"""Reads subsets of a corpus from files: masks, row numbers, ids, or the values of a column. Knows no vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import scipy.sparse

from ...store.errors import DataError, SettingsError
from ...store.feature_store import FeatureStore
from ...store.json_values import ParsedJson
from ...store.layout import Array
from ..data.record_values import scalar_text
from ..evaluation.mask_files import MASK_READING_BYTES, MASK_ROW_COPIES, mask_file_shape, read_packed_masks
from ..evaluation.matrices import array_file_bytes, read_array
from ..results.example_ids import require_known_ids, rows_by_id
from ..results.group_labels import GroupColumn
from ..results.groups import Groups
from ..runtime.memory import Part, Plan
from .subset_counts import PackedMasks, SparseCounts, SubsetCounts

ID_BYTES = 300
"""Memory of an id with its row or value, as Python objects."""
_NUMBER_BYTES = 64  # of a row number of a subset, while the matrix is made
_NAME_BYTES = 200


@dataclass(frozen=True, slots=True)
class Subsets:
    """S subsets of N examples."""

    names: tuple[str, ...]
    """Name of each subset, or its number."""
    counts: SubsetCounts


@dataclass(frozen=True, slots=True)
class SubsetSource:
    """Where subsets are read: a file of them, or the values of a column of the corpus."""

    store: FeatureStore
    rows: int
    """N: number of the store's examples that subsets are of."""
    path: str = ""
    """Masks (.npy, .parquet, .zarr: (subsets, examples) of 0 and 1), or JSON lines with `rows` (numbers) or `ids`, and optionally
    `name`; a row that is named twice counts twice.
    """
    column: str = ""
    """Instead: one subset for each value of `source`, or of a column of the table."""
    table: str = ""

    def plan(self) -> tuple[Plan, int]:
        """The memory of reading the subsets and of holding them, and their number; a pass over JSON lines or labels counts.

        Raises:
            SettingsError: no such file. DataError: it cannot be read.
        """
        if self.column:
            groups = GroupColumn(self.store, self.column, self.table, self.rows)
            counts = groups.counts()
            return groups.reading(counts) + Plan.of(Part("subsets", _NUMBER_BYTES * self.rows)), counts.distinct
        if self.path.endswith(".jsonl"):
            return self._plan_of_lines()
        shape = mask_file_shape(self.path)
        if shape is None:
            size = array_file_bytes(self.path, "masks")
            return Plan.of(Part("masks as they are read", 3 * size)), size // (8 * max(1, self.rows))
        count, examples, itemsize = shape
        masks = Part("masks as they are read", MASK_READING_BYTES + MASK_ROW_COPIES * examples * itemsize)
        return Plan.of(Part("subsets", 2 * count * (-(-examples // 8) + _NAME_BYTES)), masks), count

    def read(self) -> Subsets:
        """The subsets.

        Raises:
            SettingsError: no such file. DataError: rows or ids that the store does not have, another number of examples, or an
                empty subset. CorpusError: the table cannot be read.
        """
        if self.column:
            groups = Groups(GroupColumn(self.store, self.column, self.table, self.rows))
            return Subsets(tuple(groups.names), _sparse(groups.of, np.arange(self.rows), len(groups.names), self.rows))
        if self.path.endswith(".jsonl"):
            return self._of_lines()
        bits, examples = read_packed_masks(self.path)
        if examples != self.rows:
            raise DataError(f"{self.path} has masks of {examples} examples; the store has {self.rows}")
        return Subsets(tuple(map(str, range(len(bits)))), PackedMasks(bits, examples))

    def _plan_of_lines(self) -> tuple[Plan, int]:
        count, numbers, longest, by_id = 0, 0, 0, False
        for number, line in enumerate(_lines(self.path)):
            record = _record(line, self.path, number)
            count, numbers = count + 1, numbers + len(record["rows"] if "rows" in record else record["ids"])
            longest, by_id = max(longest, len(line)), by_id or "ids" in record
        several = self.rows * ID_BYTES * by_id
        return Plan.of(
            Part("subsets", _NUMBER_BYTES * numbers + _NAME_BYTES * count),
            Part("a line of subsets", 30 * longest),
            Part("rows of ids", several),
        ), count

    def _of_lines(self) -> Subsets:
        names, lists = [], []
        rows_of_id: dict[str, list[int]] | None = None
        for number, line in enumerate(_lines(self.path)):
            record = _record(line, self.path, number)
            if "ids" in record and rows_of_id is None:
                rows_of_id = rows_by_id(self.store, self.rows)
            names.append(str(record.get("name", number)))
            subset = f"{self.path}: subset {names[-1]}"
            if "ids" in record and "rows" not in record:
                require_known_ids([scalar_text(name) for name in record["ids"]], rows_of_id or {}, subset, self.store)
            row_list = _rows(record, rows_of_id or {}, self.rows, subset)
            lists.append(np.array(row_list, np.int64))
        subset_of = np.repeat(np.arange(len(lists)), [len(row_list) for row_list in lists])
        return Subsets(tuple(names), _sparse(subset_of, np.concatenate(lists), len(lists), self.rows))


def _sparse(subset_of: Array, rows: Array, subsets: int, examples: int) -> SparseCounts:
    """Counts (S, N) from pairs of a subset and a row."""
    matrix = scipy.sparse.csc_array(
        (np.ones(len(rows)), (subset_of, rows)), (subsets, examples)
    )  # equal indices add up
    return SparseCounts(matrix)


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
    lines = _lines(path)
    first = next(lines)
    rows_of_id = rows_by_id(store, rows)
    names = [name for line in chain([first], lines) if (name := line.strip())]
    require_known_ids(names, rows_of_id, path, store)
    for name in names:
        selected[rows_of_id[name]] = True
    return selected


def union(subsets: Subsets, name: str) -> SubsetCounts:
    """The union of each subset with the one of a name: (S, N), the larger of the two counts.

    Raises:
        SettingsError: no subset has this name.
    """
    if name not in subsets.names:
        raise SettingsError(f"no subset is named {name}: there are {', '.join(subsets.names[:8])}")
    return subsets.counts.united(subsets.names.index(name))


def _lines(path: str) -> Iterator[str]:
    """Lines of a file without those that are empty at its end; of an empty file one empty line."""
    if not Path(path).is_file():
        raise SettingsError(f"{path} does not exist")
    empty, count = 0, 0
    try:
        with Path(path).open(encoding="utf-8") as file:
            for line in file:
                if line == "\n":
                    empty += 1
                    continue
                yield from [""] * empty
                yield line.removesuffix("\n")
                empty, count = 0, count + 1
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not count:
        yield ""


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
        wrong = [row for row in record["rows"] if type(row) is not int or not 0 <= row < rows]
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise DataError(
                f"{subset} names row {wrong[0]}{more}; the store has rows 0 to {rows - 1}",
                hint="correct or remove these rows",
            )
        row_numbers = list(record["rows"])
    else:
        row_numbers = [row for name in record["ids"] for row in rows_of_id[scalar_text(name)]]
    if not row_numbers:
        raise DataError(f"{subset} is empty")
    return row_numbers
