"""The columns that a method's rows have in the store: as declared, in the precision of its settings. Knows no method by name."""

from __future__ import annotations

from ..arrays.precision.precisions import Precision, precision_of
from ..interface.method import Method, Similarity
from ..interface.model_view import ModelShape


def precisions_of(method: Method, model_shape: ModelShape) -> dict[str, Precision]:
    """Column name → the precision of its stored rows: by the setting `precision` of a `Similarity`, else as declared.

    Raises:
        SettingsError: no such precision.
    """
    precision, bits = (method.precision, method.bits) if isinstance(method, Similarity) else ("auto", 8192)
    return {column.name: precision_of(precision, column, bits) for column in method.columns(model_shape)}
