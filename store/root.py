"""Creates, reads and replaces the root's `zarr.json`, the one file that says what a store is. Knows the root alone, no shard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import HeadwaterError, StoreDamaged, StoreMismatch, StoreMissing
from .files import hidden_name, make_folder, write_json
from .layout import FORMAT, group_metadata
from .locks import locked
from .metadata import KEY, ROOT, group_attributes
from .store_record import StoreRecord, is_sealed


def read_root(store: str) -> tuple[Mapping[str, Any], StoreRecord]:
    """All attributes of the root of `store`, a folder or a URL; and the one that is headwater's record, parsed.

    Raises:
        StoreMissing: there is no store. StoreMismatch: the store's format is newer than this version can read.
        StoreDamaged: the record lacks a required entry, or differs from its seal.
    """
    attributes = group_attributes(store)
    values = attributes.get(KEY) if isinstance(attributes, dict) else None
    if values is None:
        raise StoreMissing(f"{store} is a Zarr group, but not a headwater store")
    if not isinstance(values, dict) or type(values.get("format")) is not int:
        raise StoreDamaged(f"{store}/{ROOT} has no 'format' entry: it does not describe a store")
    if values["format"] > FORMAT:
        raise StoreMismatch(
            f"{store} has format {values['format']}; this version reads up to {FORMAT}",
            hint=f"upgrade headwater (the store was made by {values.get('version')})",
        )
    try:
        if not is_sealed(values):
            raise StoreDamaged(f"{store}/{ROOT} differs from its seal: it was edited", hint="restore it from a backup")
        return attributes, StoreRecord.from_json(values)
    except (KeyError, TypeError, ValueError, AttributeError):  # ValueError includes DataError
        raise StoreDamaged(f"{store}/{ROOT} does not describe a store's groups and where they came from") from None


def create_root(folder: Path, record: StoreRecord) -> None:
    """Make a folder an empty store; it is made if it does not exist.

    Raises:
        StoreMismatch: the folder exists and holds something else, or lies inside another store.
    """
    if folder.exists() and not folder.is_dir():
        raise StoreMismatch(f"{folder} is a file", hint="name another place for the store")
    outer = store_around(folder.absolute().parent)
    if outer is not None:
        raise StoreMismatch(f"{folder} lies inside the store {outer}", hint="name another place for the new one")
    make_folder(folder)
    with locked(folder):
        if (folder / ROOT).is_file():
            raise StoreMismatch(f"{folder} holds a store already", hint="name another place for a new one")
        if any(file != hidden_name(folder / ROOT) for file in folder.iterdir()):
            raise StoreMismatch(
                f"{folder} exists and is not a headwater store", hint="name another place for the store"
            )
        write_root(folder, {}, record)


def write_root(folder: Path, attributes: Mapping[str, Any], record: StoreRecord) -> None:
    """Replace the root's record in one step; attributes that other tools have set are kept."""
    write_json(folder / ROOT, group_metadata({**attributes, KEY: record.to_json()}), compact=True)


def store_around(path: Path) -> Path | None:
    """The store that a path is, or lies in; None if there is none."""
    resolved = Path(os.path.realpath(path))  # Path.resolve raises where links lead in a circle
    for folder in (resolved, *resolved.parents):
        if os.path.isfile(folder / ROOT) and _is_store(folder):  # noqa: PTH113 — Path.is_file raises where access is denied
            return folder
    return None


def _is_store(folder: Path) -> bool:
    """Whether the Zarr group in a folder is a store; one whose metadata cannot be read counts as a store."""
    try:
        attributes = group_attributes(str(folder))
    except HeadwaterError:
        return True
    return isinstance(attributes, dict) and "format" in (attributes.get(KEY) or {})
