"""What a store holds (`info`), as JSON values. Knows no method."""

from __future__ import annotations

from ...store.feature_store import EXAMPLES, FeatureStore, method_group, precision_group
from ...store.files import JsonObject
from ..fitting.fit_record import fits_of
from ..ingest.corpus_statistics import unseen_rows


def store_facts(path: str) -> JsonObject:
    """What a store holds, as JSON values."""
    store = FeatureStore.open(path)
    return {
        "store": store.url,
        "version": store.version,
        "provenance": store.provenance,
        "examples": store.rows(EXAMPLES) if EXAMPLES in store.groups else 0,
        "complete": all(
            store.is_complete(name) for name in store.groups if name == EXAMPLES or name.startswith("methods/")
        ),
        "methods": {name: _method_facts(store, name) for name in store.methods},
        "fits": fits_of(store),
    }


def _method_facts(store: FeatureStore, name: str) -> JsonObject:
    group = method_group(name)
    columns, unseen = store.columns(group), unseen_rows(store, name)
    return {
        "rows": store.rows(group),
        "bytes_per_example": sum(column.row_bytes for column in columns),
        "columns": {column.name: {"shape": list(column.shape), "dtype": column.dtype} for column in columns},
        "settings": store.groups[group].settings,
        "forms": {form: _form_facts(store, precision_group(name, form)) for form in store.forms(name)},
        **({} if unseen is None else {"rows_after_statistics": unseen}),
    }


def _form_facts(store: FeatureStore, group: str) -> JsonObject:
    return {"rows": store.rows(group), "bytes_per_example": sum(column.row_bytes for column in store.columns(group))}
