"""What a file of answers says of its origin, read back from any format in which answers are written. Knows no score."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ...store.errors import DataError
from ...store.feature_store import FeatureStore
from ...store.json_values import JsonFields
from .answers_origin import KEY, Origin, compared, compared_short
from .result_files import format_of

_TAIL_BYTES = 1 << 20
_SCRIPT = re.compile(r'<script type="application/json" id="headwater">(.*?)</script>', re.DOTALL)


def relation(path: str, store: FeatureStore) -> JsonFields:
    """How the answers in a file relate to a store as it is now: `method`, `relation`, and `origin` if the file says it in full.

    Raises:
        DataError: the file is missing, or names no origin. SettingsError: it is of no format of answers.
    """
    read = _zarr if Path(path).suffix == ".zarr" else _READERS[format_of(path)]
    try:
        origin = read(Path(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, TypeError, StopIteration, pa.ArrowException):
        raise DataError(
            f"{path} does not say which store its answers are of",
            hint="headwater attribute -o FILE writes files that do",
        ) from None
    if isinstance(origin, Origin):
        said = compared(origin, store)
        return {"answers": path, "method": origin.method, "relation": said, "origin": origin.to_json()}
    return {"answers": path, "method": origin["method"], "relation": compared_short(origin["store"], store)}


def _zarr(path: Path) -> Origin:
    """That of all scores, as `--all-scores` writes them."""
    return Origin.from_json(json.loads((path / "zarr.json").read_bytes())["attributes"][KEY])


def _parquet(path: Path) -> Origin:
    return Origin.from_json(json.loads(pq.read_schema(path).metadata[KEY.encode()]))


def _json(path: Path) -> Origin:
    """The object of the first line; that of the whole file if another program has laid it out."""
    with path.open(encoding="utf-8") as file:
        first = file.readline().removeprefix(f'{{"{KEY}": ').rstrip().removesuffix(",")
    try:
        return Origin.from_json(json.loads(first))
    except (ValueError, KeyError, TypeError):
        return Origin.from_json(json.loads(path.read_bytes())[KEY])


def _html(path: Path) -> Origin:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        tail = file.read().decode("utf-8", "replace")
    (*_, data) = _SCRIPT.findall(tail)
    return Origin.from_json(json.loads(data))


def _jsonl(path: Path) -> Mapping[str, str]:
    with path.open(encoding="utf-8") as file:
        return _of_record(json.loads(file.readline()))


def _csv(path: Path) -> Mapping[str, str]:
    with path.open(encoding="utf-8", newline="") as file:
        return _of_record(next(csv.DictReader(file)))


def _of_record(record: Mapping[str, str]) -> Mapping[str, str]:
    if not record["store"]:
        raise ValueError("a record without a store")
    return {name: str(record[name]) for name in ("method", "store")}


_READERS: dict[str, Callable[[Path], Origin | Mapping[str, str]]] = {
    "parquet": _parquet, "json": _json, "html": _html, "jsonl": _jsonl, "csv": _csv,
}  # fmt: skip
