"""Reads the `zarr.json` of groups and arrays, in a folder or at a URL that fsspec supports. Knows nothing of what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import StoreDamaged, StoreMissing
from .files import read_json

ROOT = "zarr.json"
KEY = "headwater"
"""The attribute under which headwater keeps its facts about a group."""
_GROUP_KEYS = {"zarr_format", "node_type", "attributes", "consolidated_metadata"}
"""All that zarr takes in a group's metadata."""


def is_url(place: str) -> bool:
    """Whether a store is at a URL."""
    return "://" in place


def group_attributes(place: str) -> Any:
    """The attributes of a group.

    Raises:
        StoreMissing: there is no group. StoreDamaged: its metadata cannot be read.
    """
    if not is_url(place):
        metadata = read_json(Path(place) / ROOT)
        if metadata.get("node_type") == "group" and not metadata.keys() <= _GROUP_KEYS:
            unknown = min(metadata.keys() - _GROUP_KEYS)
            raise StoreDamaged(f"{place}/{ROOT} is not the metadata of a Zarr group: it has the key {unknown!r}")
        return metadata.get("attributes", {})
    import zarr

    try:
        return zarr.open_group(place, mode="r").attrs.asdict()
    except (OSError, ValueError, ImportError) as error:
        raise StoreMissing(f"{place} is not a headwater store: {error}") from None


def array_metadata_at(place: str) -> dict[str, Any]:
    """The metadata of an array; they may differ from what headwater wrote, if another tool rewrote the array.

    Raises:
        StoreDamaged: they are missing, or cannot be read.
    """
    if not is_url(place):
        try:
            return read_json(Path(place) / ROOT)
        except StoreMissing:
            raise StoreDamaged(f"{place}/{ROOT} is missing", hint="run headwater verify") from None
    import zarr

    try:
        metadata: dict[str, Any] = zarr.open_array(place, mode="r").metadata.to_dict()
    except (OSError, ValueError) as error:
        raise StoreDamaged(f"{place} cannot be opened: {error}") from None
    return metadata
