"""Estimates the number of records of a corpus from the first megabyte of each file, only for progress. Knows formats by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...store.errors import HeadwaterError
from ..data.decompression import split_suffix
from ..data.sources import Source, read_source
from ..data.urls import is_url
from .examples import Place

_SAMPLE = 2000


def estimate_records(sources: Sequence[Source]) -> list[float]:
    """Estimated number of records of each source; 0 if there is no estimate, as of a file that cannot be read."""
    return [_estimate_or_zero(source) for source in sources]


def _estimate_or_zero(source: Source) -> float:
    try:
        return _estimate(source)
    except (HeadwaterError, OSError, ValueError):  # pyarrow's errors are ValueErrors; reading the corpus reports them
        return 0.0


def _estimate(source: Source) -> float:
    if source.content is not None:
        return float(source.size)
    if is_url(source.path):  # each look takes requests
        return 0.0
    if source.format == "parquet":
        import pyarrow.parquet as pq

        return float(pq.ParquetFile(source.path).metadata.num_rows)
    if source.format in ("npz", "zarr", "json", "absent"):
        return 0.0
    with Path(source.path).open("rb") as file:
        return _estimated_records(file.read(1 << 20), source)


def _estimated_records(sample: bytes, source: Source) -> float:
    """Number of records of a file, extrapolated from the line ends in `sample`. A compressed file is read instead: the number is
    exact below `_SAMPLE` records, and 0 (no estimate) from there on.
    """
    if split_suffix(source.path)[1]:
        count = sum(1 for _, _ in zip(read_source(source, 0, ()), range(_SAMPLE), strict=False))
        return float(count) if count < _SAMPLE else 0.0
    lines = sample.count(b"\n\n") if source.format == "text" else sample.count(b"\n")
    return (lines + 1) * source.size / max(1, len(sample))


def fraction(place: Place, estimates: Sequence[float]) -> float | None:
    """Fraction of the corpus before a place; None without an estimate."""
    if not all(estimates) or not estimates:
        return None
    before = sum(estimates[: place.source]) + min(place.record + 1, estimates[place.source])
    return min(1.0, before / sum(estimates))
