"""Opens the arrays of an .npz file, whose rows are read by ranges; a damaged file is one line. Knows no array by name."""

from __future__ import annotations

import weakref
import zipfile
from collections import Counter
from contextlib import AbstractContextManager
from typing import IO

import numpy as np

from ...store.errors import CorpusError, DataError
from ...store.layout import Array
from .decompression import open_binary
from .stored_arrays import Arrays, reading
from .urls import is_url, shown

_ENCRYPTED, _PATCHED = 0x1 | 0x40, 0x20  # bits of a member's flags: APPNOTE.TXT 4.4.4 of PKWARE's description of .zip
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def open_npz(path: str) -> tuple[Arrays, str]:
    """The arrays of a file or URL by name, each of which stays open while it is in use; and a text that identifies the file.

    Raises:
        CorpusError: the file is missing or damaged, or a member is encrypted or compressed in a way that Python does not read.
        DataError: two arrays have one name, or one holds Python objects.
    """
    opened = open_binary(path, places=True) if is_url(path) else path
    path = shown(path)
    with _reading(path), zipfile.ZipFile(opened) as archive:  # the file itself is closed with its last member
        members = archive.infolist()
        names = Counter(_array_name(member) for member in members)
        if duplicate := next((name for name, count in names.items() if count > 1), None):
            raise DataError(f"{path}: array {duplicate} appears twice: rename one of them")
        arrays: Arrays = {}
        for member in members:
            _require_readable(path, member)
            arrays[_array_name(member)] = _NpzArray(archive.open(member), f"{path}: {member.filename}")
        return arrays, "".join(f"{member.filename}{member.CRC:x}{member.file_size}" for member in members)


def _array_name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _require_readable(path: str, member: zipfile.ZipInfo) -> None:
    """Raise CorpusError for a member that Python's zipfile does not read."""
    if member.flag_bits & _ENCRYPTED:
        raise CorpusError(f"{path}: {member.filename} is encrypted: save it again with numpy.savez")
    if member.flag_bits & _PATCHED or member.compress_type not in _COMPRESSIONS:
        raise CorpusError(f"{path}: {member.filename} has an unknown compression: save it again with numpy.savez")


def _reading(name: str) -> AbstractContextManager[None]:
    return reading(name, CorpusError, ": save it again with numpy.savez")


class _NpzArray:
    """One member of an .npz. Rows are read by ranges; an array in Fortran order (a fitted weight) is read whole."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        """Read the header. `name`: file and member, for messages."""
        self._stream, self._name = stream, name
        weakref.finalize(self, stream.close)
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran_order, self.dtype = read_header(stream)
        if self.dtype.hasobject:
            raise DataError(f"{name} holds Python objects; expected a numeric array: save it with numpy.savez")
        self.fortran = fortran_order and len(self.shape) > 1
        self._start = stream.tell()

    def __getitem__(self, rows: slice) -> Array:
        begin, end, _ = rows.indices(self.shape[0])
        row_bytes = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        with _reading(self._name):
            self._stream.seek(self._start + begin * row_bytes)
            data = self._stream.read((end - begin) * row_bytes)
        if len(data) < (end - begin) * row_bytes:
            raise CorpusError(
                f"{self._name} ends before row {end}, but its header says {self.shape[0]}: save it again with numpy.savez"
            )
        values = np.frombuffer(data, self.dtype)
        return values.reshape(self.shape, order="F") if self.fortran else values.reshape(end - begin, *self.shape[1:])
