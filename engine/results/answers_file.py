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
from ...store.json_values import JsonFields, ParsedJson
from .answers_origin import KEY, Origin, compared, compared_short
from .result_files import SEVERAL, format_of

_TAIL_BYTES = 1 << 20
_SCRIPT = re.compile(r'<script type="application/json" id="headwater">(.*?)</script>', re.DOTALL)


def relation(path: str, store: FeatureStore) -> JsonFields:
    """How the answers in a file relate to a store as it is now: `method`, `relation`, and `origin` if the file says it in full;
    `methods`, the same of each, if it has the answers of several.

    Raises:
        DataError: the file is missing, or names no origin. SettingsError: it is of no format of answers.
    """
    read = _zarr if Path(path).suffix == ".zarr" else _READERS[format_of(path)]
    try:
        said = read(Path(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, AttributeError, ValueError, KeyError, TypeError, StopIteration, pa.ArrowException):
        raise DataError(
            f"{path} does not say which store its answers are of",
            hint="headwater attribute -o FILE writes files that do",
        ) from None
    if not isinstance(said, tuple):
        return {"answers": path, "method": said["method"], "relation": compared_short(said["store"], store)}
    each: list[JsonFields] = [
        {"method": origin.method, "relation": compared(origin, store), "origin": origin.to_json()} for origin in said
    ]
    return {"answers": path, **each[0]} if len(each) == 1 else {"answers": path, SEVERAL: each}


def _origins(values: ParsedJson) -> tuple[Origin, ...]:
    """The origins of one method's answers or of several."""
    return tuple(Origin.from_json(origin) for origin in values.get(SEVERAL, [values]))


def _zarr(path: Path) -> tuple[Origin, ...]:
    """That of all scores, as `--all-scores` writes them."""
    return _origins(json.loads((path / "zarr.json").read_bytes())["attributes"][KEY])


def _parquet(path: Path) -> tuple[Origin, ...]:
    return _origins(json.loads(pq.read_schema(path).metadata[KEY.encode()]))


def _json(path: Path) -> tuple[Origin, ...]:
    """The object of the first line; that of the whole file if another program has laid it out."""
    with path.open(encoding="utf-8") as file:
        first = file.readline().removeprefix(f'{{"{KEY}": ').rstrip().removesuffix(",")
    try:
        return _origins(json.loads(first))
    except (AttributeError, ValueError, KeyError, TypeError):
        return _origins(json.loads(path.read_bytes())[KEY])


def _html(path: Path) -> tuple[Origin, ...]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        tail = file.read().decode("utf-8", "replace")
    (*_, data) = _SCRIPT.findall(tail)
    return _origins(json.loads(data))


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


_READERS: dict[str, Callable[[Path], tuple[Origin, ...] | Mapping[str, str]]] = {
    "parquet": _parquet, "json": _json, "html": _html, "jsonl": _jsonl, "csv": _csv,
}  # fmt: skip
