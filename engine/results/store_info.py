"""The contents of a store (`info`), as JSON values. Knows no method."""

from __future__ import annotations

from ...store.feature_store import EXAMPLES, FeatureStore, method_group, precision_group
from ...store.json_values import JsonFields
from ..fitting.fit_record import fits_of


def store_facts(path: str) -> JsonFields:
    """The contents of a store, as JSON values."""
    store = FeatureStore.open(path)
    return {
        "store": store.url,
        "version": store.version,
        "provenance": store.provenance,
        "examples": store.rows(EXAMPLES) if EXAMPLES in store.groups else 0,
        "complete": all(record.complete for name, record in store.groups.items() if not name.startswith("forms/")),
        "methods": {name: _method_facts(store, name) for name in store.methods},
        "fits": fits_of(store),
    }


def _method_facts(store: FeatureStore, name: str) -> JsonFields:
    group = method_group(name)
    columns = store.columns(group)
    return {
        "rows": store.rows(group),
        "bytes_per_example": sum(column.row_bytes for column in columns),
        "columns": {column.name: {"shape": list(column.shape), "dtype": column.dtype} for column in columns},
        "settings": store.groups[group].settings,
        "precisions": {copy: _copy_facts(store, precision_group(name, copy)) for copy in store.forms(name)},
    }


def _copy_facts(store: FeatureStore, group: str) -> JsonFields:
    return {"rows": store.rows(group), "bytes_per_example": sum(column.row_bytes for column in store.columns(group))}
