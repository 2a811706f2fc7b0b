"""The columns that rows have in a store: a method's, in the precision of its settings; and of examples, which of them the store
has. Knows no method by name.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...store.errors import SettingsError, StoreMismatch
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.names import require_name
from ..arrays.precision.precisions import Precision, precision_of
from ..data.kept_columns import kept_columns_of
from ..interface.method import Method, Similarity
from ..interface.model_view import ModelShape
from .examples import BUILT_IN, TOKEN_IDS, StoredFields


def precisions_of(method: Method, model_shape: ModelShape) -> dict[str, Precision]:
    """Column name → the precision of its stored rows: by the setting `precision` of a `Similarity`, else as declared.

    Raises:
        SettingsError: no such precision.
    """
    precision, bits = (method.precision, method.bits) if isinstance(method, Similarity) else ("auto", 8192)
    return {column.name: precision_of(precision, column, bits) for column in method.columns(model_shape)}


def stored_fields_of(store: FeatureStore) -> StoredFields:
    """What a store holds of its examples."""
    tokens = any(column.name == TOKEN_IDS for column in store.columns(EXAMPLES))
    return StoredFields(bool(store.provenance.get("text")), tokens, kept_columns_of(store.provenance))


def columns_to_keep(asked: Sequence[str], store: FeatureStore | None) -> tuple[str, ...]:
    """The columns that an ingestion keeps: those asked for, of an existing store its own.

    Raises:
        SettingsError: a column's name cannot be one of a store. StoreMismatch: the store keeps other columns.
    """
    keep = tuple(dict.fromkeys(asked))
    if store is not None:
        stored = kept_columns_of(store.provenance)
        if keep and set(keep) != set(stored):
            raise StoreMismatch(
                f"{store.path} keeps {', '.join(stored) or 'no columns'}, this run {', '.join(keep)}",
                hint="columns are chosen when a store is made: leave out --keep, or ingest into a new store",
            )
        return stored
    for name in keep:
        if name in BUILT_IN:
            raise SettingsError(f"--keep {name}: a store has a column {name} of its own", hint="rename the corpus's")
        require_name(name, "column to keep")
    return keep
