"""The contents of a store (`info`), as JSON values. Knows no method."""

from __future__ import annotations

import numpy as np

from ...store.completeness import finishing_command, is_whole
from ...store.feature_store import EXAMPLES, FeatureStore, method_group, precision_group
from ...store.json_values import JsonFields
from ...store.reader import open_column
from ..fitting.fit_record import FitRecord, fits_of
from ..ingest.corpus_statistics import unseen_rows

_ROWS_AT_ONCE = 1 << 16


def store_facts(path: str) -> JsonFields:
    """The contents of a store, as JSON values."""
    store = FeatureStore.open(path)
    complete = is_whole(store) and all(is_whole(store, name) for name in store.methods)
    return {
        "store": store.url,
        "version": store.version,
        "provenance": store.provenance,
        "examples": store.rows(EXAMPLES) if EXAMPLES in store.groups else 0,
        "complete": complete,
        "to_finish": None if complete else finishing_command(store),
        "mean_loss": mean_loss(store),
        "methods": {name: _method_facts(store, name) for name in store.methods},
        "fits": {name: _fit_facts(record) for name, record in fits_of(store).items()},
    }


def mean_loss(store: FeatureStore) -> float | None:
    """Mean loss per target token over all examples, in nats; None if there are no target tokens."""
    if EXAMPLES not in store.groups:
        return None
    total, tokens = 0.0, 0
    columns = [open_column(store, EXAMPLES, name) for name in ("loss", "counted")]
    for first in range(0, columns[0].rows, _ROWS_AT_ONCE):
        stop = min(columns[0].rows, first + _ROWS_AT_ONCE)
        loss, count = np.empty(stop - first, np.float32), np.empty(stop - first, np.int32)
        for column, values in zip(columns, (loss, count), strict=True):
            column.read(first, stop, values)
        total, tokens = total + float(loss.astype(np.float64) @ count), tokens + int(count.sum())
    return total / tokens if tokens else None


def _fit_facts(record: FitRecord) -> JsonFields:
    return {
        "settings": record["settings"],
        "examples": record["examples"],
        "corpus": record["corpus"],
        "model": record["model"],
        "base": record["base"],
        "made": record["made"],
        "draw": record["draw"],
        "done": record["done"],
    }


def _method_facts(store: FeatureStore, name: str) -> JsonFields:
    group = method_group(name)
    columns, unseen = store.columns(group), unseen_rows(store, name)
    return {
        "rows": store.rows(group),
        "complete": is_whole(store, name),
        "bytes_per_example": sum(column.row_bytes for column in columns),
        "columns": {column.name: {"shape": list(column.shape), "dtype": column.dtype} for column in columns},
        "settings": store.groups[group].settings,
        **({"model": model} if (model := store.groups[group].model) else {}),
        "precisions": {copy: _copy_facts(store, precision_group(name, copy)) for copy in store.copies(name)},
        **({} if unseen is None else {"rows_after_statistics": unseen}),
    }


def _copy_facts(store: FeatureStore, group: str) -> JsonFields:
    return {"rows": store.rows(group), "bytes_per_example": sum(column.row_bytes for column in store.columns(group))}
