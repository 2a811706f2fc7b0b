"""Which examples of a store are equal: the model reads the same tokens with the same targets.

Examples are compared by 128-bit hashes: of their token ids and target positions; of prompt and text in a store without token
ids; of the method's rows in one without either. Hashes of one part of their range are in memory at a time, with a pass over the
examples for each part. Knows no method by name.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import Array
from ...store.ragged import open_ragged
from ..arrays.scan.stored_rows import StoredRows
from ..ingest.examples import TARGET_POSITIONS, TOKEN_IDS
from ..results.example_table import Examples
from ..runtime.run import Stage

PASSES = (1, 4, 16, 64)
"""Candidate numbers of passes."""
_WINDOW, _WINDOW_TOKENS = 256, 1 << 16  # most rows, and most tokens of more than one row, that are read together
_HASH = np.dtype("V16")  # sorted bytewise, four times as fast as two integers
_TOKEN_BYTES = 64  # of a token while it is read, as number or as text


def equal_texts_bytes(rows: int, longest: int, row_bytes: int, passes: int) -> int:
    """Memory of :func:`equal_texts` beside its result. longest: most tokens of an example; row_bytes: of the method's row."""
    window = _window(longest)
    return 128 * (rows // passes + 1) + window * max(_TOKEN_BYTES * longest, 2 * row_bytes) + (1 << 20)


def _window(longest: int) -> int:
    """Number of rows that are read together, of at most so many tokens each."""
    return max(1, min(_WINDOW, _WINDOW_TOKENS // max(1, longest)))


def equal_texts(rows: tuple[StoredRows, str], longest: int, passes: int, stage: Stage) -> Array:
    """(N,) int32: a number that equal examples among a method's N rows have in common; -1 for an example that no other equals.

    rows: the method's, and the column that is compared if the store has neither texts nor token ids. longest: most tokens of an
    example.

    Raises:
        StoreDamaged: a chunk differs from its checksum.
    """
    total, read = rows[0].rows, _contents(*rows)
    numbers, count = np.full(total, -1, np.int32), 0
    for part in range(passes):
        hashes, own_rows = _hashes(_windows(total, _window(longest)), read, (part, passes), stage)
        _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        repeated = counts > 1
        of_hash = np.where(repeated, np.cumsum(repeated) - 1 + count, -1)
        numbers[own_rows], count = of_hash[inverse.reshape(-1)], count + int(repeated.sum())
    return numbers


def _windows(total: int, size: int) -> Iterator[Array]:
    """Row numbers 0 to `total`, in windows of consecutive rows."""
    return (np.arange(first, min(total, first + size)) for first in range(0, total, size))


def _hashes(
    windows: Iterable[Array], read: Callable[[Array], Iterator[bytes]], part: tuple[int, int], stage: Stage
) -> tuple[Array, Array]:
    """Hashes (n,) in one part of their range, and their rows (n,) int64; `part`: (its number, number of parts)."""
    number, parts = part
    hashes, rows = bytearray(), list[Array]()
    for window in windows:
        digests = [hashlib.blake2b(content, digest_size=16).digest() for content in read(window)]
        is_own = [digest[0] * parts >> 8 == number for digest in digests]
        hashes += b"".join(itertools.compress(digests, is_own))
        rows.append(window[is_own])
        stage.report(int(window[-1]) + 1)
    return np.frombuffer(hashes, _HASH), np.concatenate(rows)


def _contents(stored: StoredRows, column: str) -> Callable[[Array], Iterator[bytes]]:
    """A function that gives what is compared of each of some rows (n,)."""
    store = stored.store
    names = {declared.name for declared in store.columns(EXAMPLES)} if EXAMPLES in store.groups else set()
    if TOKEN_IDS in names:
        return _tokens_of(store)
    if "text" in names and store.provenance.get("kind") == "text":
        return _texts_of(store)
    readers = stored.scanned(column)

    def rows_of(rows: Array) -> Iterator[bytes]:
        columns = [reader.gather(rows) for reader in readers]
        return (b"".join(values[at].tobytes() for values in columns) for at in range(len(rows)))

    return rows_of


def _tokens_of(store: FeatureStore) -> Callable[[Array], Iterator[bytes]]:
    columns = [open_ragged(store, EXAMPLES, name) for name in (TOKEN_IDS, TARGET_POSITIONS)]

    def tokens_of(rows: Array) -> Iterator[bytes]:
        ids, positions = (column.gather(rows) for column in columns)
        return (
            len(own).to_bytes(8, "little") + own.tobytes() + at.tobytes()
            for own, at in zip(ids, positions, strict=True)
        )

    return tokens_of


def _texts_of(store: FeatureStore) -> Callable[[Array], Iterator[bytes]]:
    examples = Examples(store)

    def texts_of(rows: Array) -> Iterator[bytes]:
        prompts, texts = (examples.strings(name, rows) for name in ("prompt", "text"))
        encoded = ([one.encode("utf-8", "surrogatepass") for one in pair] for pair in zip(prompts, texts, strict=True))
        return (len(prompt).to_bytes(8, "little") + prompt + text for prompt, text in encoded)

    return texts_of
