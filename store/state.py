"""Arrays kept beside a store's rows, such as a method's statistics: a file of them appears whole or not at all.

A state is a Zarr v3 group whose `zarr.json` is the commit: it names the version, and in the folder of that name lies each array,
one chunk with its CRC32C. The version is a digest of everything in the state, so that an array of another state, or an edited
value, is found when it is read. A new version is written beside the old one, then named, then the old one is removed: a kill
leaves one of them whole. Knows nothing of what the arrays mean.

    <state>/zarr.json             attributes.headwater: state, version, arrays, values
    <state>/<version>/<array>/    zarr.json and the chunk
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .checksums import checksum_bytes, crc32c
from .errors import DataError, StoreDamaged, StoreMissing
from .files import make_folder, read_json, refuse_links, write_file, write_json
from .layout import CHECKSUM_BYTES, Array, group_metadata
from .locks import locked
from .names import require_name
from .store_record import METHODS

ROOT = "zarr.json"
UNFINISHED = "unfinished-"
"""The names of states that are work in progress begin with it."""
_LAYOUT = 1
_ATTEMPTS = 3  # at reading a state that others replace meanwhile


@dataclass(frozen=True, slots=True)
class State:
    """What one state holds."""

    values: Mapping[str, Any]
    """JSON values."""
    arrays: Mapping[str, Array] = field(default_factory=dict)
    """Arrays of numbers, of any shape."""


def read_state(folder: Path) -> State | None:
    """A state, every checksum compared; None where there is none.

    Raises:
        StoreDamaged: there is one, and it is not what was written.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return _read(folder)
        except StoreMissing:
            return None
        except StoreDamaged:
            if attempt + 1 == _ATTEMPTS:
                raise
    raise AssertionError


def whole_state(folder: Path) -> State | None:
    """A state; None if it is missing or damaged. For states that can be computed again."""
    with suppress(StoreDamaged):
        return read_state(folder)
    return None


def write_state(folder: Path, values: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
    """Put a state in place of the one that is there, in one step.

    Raises:
        DataError: an array that is not of numbers, or a name that cannot be a folder.
        StoreFull, StoreError: it cannot be written; the state is the one from before.
    """
    checked = {require_name(name, "array"): _numbers(name, array) for name, array in (arrays or {}).items()}
    version = _version(values, checked)
    _refuse_links(folder)
    _make_groups(folder)
    with locked(folder):
        for name, array in checked.items():
            _write_array(folder / version / name, array)
        if checked:
            write_json(folder / version / ROOT, group_metadata({}))
        state = {"state": _LAYOUT, "version": version, "arrays": list(checked), "values": dict(values)}
        write_json(folder / ROOT, group_metadata({"headwater": state}))
        for other in folder.iterdir():
            if other.is_dir() and other.name != version:
                shutil.rmtree(other, ignore_errors=True)


def remove_state(folder: Path) -> None:
    """Remove a state, if there is one; its `zarr.json` first, so that a kill leaves no half of it."""
    _refuse_links(folder)
    (folder / ROOT).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def has_state(folder: Path) -> bool:
    """Whether a state was written there. Only reading it tells whether it is undamaged."""
    return (folder / ROOT).is_file()


def is_unfinished(folder: Path) -> bool:
    """Whether a state is work in progress, which a later run continues or drops."""
    return folder.name.startswith(UNFINISHED)


def state_folders(folder: Path) -> Iterator[Path]:
    """The states in a folder and below it, those that are damaged included."""
    try:
        metadata = read_json(folder / ROOT)
    except StoreMissing:
        metadata = group_metadata({})  # a folder that no state was finished in
    except StoreDamaged:
        yield folder
        return
    if metadata != group_metadata({}):
        yield folder
        return
    for below in sorted(folder.iterdir()) if folder.is_dir() else ():
        if below.is_dir() and not _is_array(below):
            yield from state_folders(below)


def _is_array(folder: Path) -> bool:
    """Whether a folder is an array of a state that is not finished, or not named any more."""
    return (folder / "c").exists()


def _read(folder: Path) -> State:
    metadata = read_json(folder / ROOT)
    try:
        record = metadata["attributes"]["headwater"]
        version, names, values = record["version"], record["arrays"], record["values"]
        known = {"state": _LAYOUT, "version": version, "arrays": names, "values": values}
        named = all(isinstance(name, str) for name in (version, *names))
        if metadata != group_metadata({"headwater": known}) or not isinstance(values, dict) or not named:
            raise ValueError(folder)
        arrays = {require_name(name, "array"): _read_array(folder / require_name(version, "version") / name)
                  for name in names}  # fmt: skip
    except (KeyError, TypeError, ValueError):  # a DataError is a ValueError
        raise StoreDamaged(f"{folder}/{ROOT} describes no state of a store") from None
    if version != _version(values, arrays):
        raise StoreDamaged(f"{folder} does not hold what its digest says: it was edited, or mixed with another state")
    return State(values, arrays)


def _numbers(name: str, array: Array) -> Array:
    numbers = np.asarray(array, order="C")
    if numbers.dtype.kind not in "biuf":
        raise DataError(f"array {name} of a state is of {numbers.dtype}, not of numbers")
    return numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)


def _version(values: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    """Digest of all that a state holds."""
    digest = hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=12)
    for name, array in arrays.items():
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _metadata(shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """The `zarr.json` of an array that is one chunk."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, size) for size in shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if dtype == "bool" else 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "attributes": {},
        "storage_transformers": [],
    }


def _chunk(folder: Path, shape: tuple[int, ...]) -> Path:
    return folder.joinpath("c", *("0" for _ in shape))


def _write_array(folder: Path, array: Array) -> None:
    if array.size:
        data = array.reshape(-1).view(np.uint8)
        write_file(_chunk(folder, array.shape), [data.data, checksum_bytes(crc32c(data))])
    write_json(folder / ROOT, _metadata(array.shape, array.dtype.name))


def _read_array(folder: Path) -> Array:
    """An array whose checksum was compared.

    Raises:
        StoreDamaged: a file is missing, or not what was written.
    """
    try:
        metadata = read_json(folder / ROOT)
        shape, dtype = tuple(metadata["shape"]), np.dtype(metadata["data_type"]).newbyteorder("<")
        if metadata != _metadata(shape, dtype.name):
            raise ValueError(shape)
        if 0 in shape:
            return np.zeros(shape, dtype)
        data = bytearray(_chunk(folder, shape).read_bytes())
        array = np.frombuffer(memoryview(data)[:-CHECKSUM_BYTES], dtype).reshape(shape)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreDamaged(f"{folder} is missing, or no array of a state: {error}") from None
    if checksum_bytes(crc32c(array)) != bytes(data[-CHECKSUM_BYTES:]):
        raise StoreDamaged(f"{folder} differs from its checksum")
    return array


def _refuse_links(folder: Path) -> None:
    """Refuse a state whose folder is a link, or lies below one within the store's `methods`."""
    above = [place for place in folder.parents if place.name == METHODS]
    refuse_links(above[0].parent if above else folder.parent, folder)


def _make_groups(folder: Path) -> None:
    """The folder, and a group's metadata in those between it and the nearest group above: a Zarr group holds groups. They are
    written from above, so that the nearest group is whole after a kill, too.
    """
    above = list(folder.parents)
    groups = [place for place in above if (place / ROOT).exists()]
    make_folder(folder)
    for place in reversed(above[: above.index(groups[0])] if groups else []):
        write_json(place / ROOT, group_metadata({}))
