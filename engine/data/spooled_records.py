"""Records that can be read only once, written to a temporary file from which they are read as often as needed.

The file has no name once it is open, so that it ends with the process, whatever ends it. It lies in the system's folder for
temporary files (TMPDIR) and is about as large as the records as JSONL, or as an uncompressed Arrow file.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...store.errors import CorpusError
from .formats import Fields
from .record_values import RecordDigest, json_line

if TYPE_CHECKING:
    import pyarrow as pa

_BUFFER = 1 << 18


def spool(records: Iterable[Fields], digest: RecordDigest) -> Callable[[int], Iterator[Fields]]:
    """Write plain records to a temporary JSONL file and add them to a digest; returns the function that reads them from a 0-based
    number on. One record is in memory at a time.

    Raises:
        CorpusError: the file cannot be written.
    """
    with _writing(), tempfile.TemporaryFile(buffering=_BUFFER) as file:
        for fields in records:
            digest.add(fields)
            file.write(json_line(fields))
        file.flush()
        open_file = _OpenFile(os.dup(file.fileno()))

    def read(start: int) -> Iterator[Fields]:
        for number, line in enumerate(io.BufferedReader(_Reader(open_file), _BUFFER)):
            if number >= start:
                yield json.loads(line)

    return read


def spool_batches(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """Write record batches to a temporary Arrow file; returns them as a table, whose data are mapped from the file.

    Raises:
        CorpusError: the file cannot be written.
    """
    import pyarrow as pa

    with _writing(), tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        path = str(Path(folder) / "records.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return pa.ipc.open_file(pa.memory_map(path)).read_all()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder, reason = tempfile.gettempdir(), error.strerror or error
        raise CorpusError(
            f"records that can be read only once are written to a temporary file in {folder}: {reason}",
            hint="set TMPDIR to another folder",
        ) from error


class _OpenFile:
    """A file without a name, closed when nothing reads it any more."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)


class _Reader(io.RawIOBase):
    """Reads an open file from its start, beside other readers of the same file."""

    def __init__(self, file: _OpenFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = os.pread(self._file.descriptor, len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
