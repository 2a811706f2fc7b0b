"""What each example is worth for all queries together, as a table that shows itself. Computes no score."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ...store.layout import Array
from ..results.answers_origin import Origin
from ..results.example_table import Columns
from ..results.output_path import refuse_output
from ..results.result_tables import VALUE_FIELDS, About, value_rows
from ..results.score_export import refuse_path
from .arguments import PathLike, at_least
from .attributions import as_pandas, save_tables
from .display import table_html, table_text

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

    from ..attribution.query_session import QuerySession

_SHOWN = 10


class Values:
    """The value of each example: its mean score over the queries. NaN for examples that a filter leaves out."""

    def __init__(self, session: QuerySession, scores: Array) -> None:
        """`scores`: (N,) float32, in the store's order."""
        self._store, self._parts = session.store, session.parts
        self.origin: Origin = session.origin
        """Store, model, method, settings and version that the values are of."""
        self.scores: Array = scores
        """(N,) float32 values, in the store's order."""
        self.method = session.name
        self.notes = list(session.notes)
        """Remarks on the values, one line each."""

    def __len__(self) -> int:
        return len(self.scores)

    def best(self, top: int = _SHOWN) -> Array:
        """(k,) row numbers of the examples with the highest values, highest first."""
        at_least("best", top=(top, 1))
        order: Array = np.argsort(np.where(np.isnan(self.scores), np.inf, -self.scores), kind="stable")[:top]
        return order[~np.isnan(self.scores[order])]

    def to_arrow(self) -> pa.Table:
        """A pyarrow.Table with a row per example that has a value."""
        import pyarrow as pa

        schema = pa.schema(list(VALUE_FIELDS.items()))
        return pa.concat_tables([schema.empty_table(), *(pa.table(dict(part), schema) for part in self._tables())])

    def save(self, path: PathLike) -> None:
        """Write the values to a file: .jsonl, .json, .csv, .parquet or .html.

        Raises:
            SettingsError: another suffix, or the path lies in the store or is one of its corpus's files.
        """
        save_tables(path, VALUE_FIELDS, self._tables(), self.origin)

    def _tables(self) -> Iterator[Columns]:
        return value_rows([(0, self.scores)], self._store, self._parts, About(origin=self.origin))

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas.DataFrame with a row per example that has a value."""
        return as_pandas(self.to_arrow())

    def _rows(self) -> list[tuple[str, str, str]]:
        from ..results.example_table import Examples

        rows = self.best()
        ids = Examples(self._store).strings("id", rows)
        return [(str(row), name, f"{self.scores[row]:.4f}") for row, name in zip(rows.tolist(), ids, strict=True)]

    def __repr__(self) -> str:
        return f"values of {len(self):,} examples by {self.method}\n" + table_text(("row", "id", "value"), self._rows())

    def _repr_html_(self) -> str:
        return table_html(("row", "id", "value"), self._rows())


def exported_scores(session: QuerySession, path: str) -> Any:
    """Write all scores of a session to a Zarr group, and return its array (N, Q), which reads from disk.

    Raises:
        StoreFull: there is no room for it.
    """
    import zarr

    session.export(path)
    return zarr.open_group(path, mode="r")["scores"]


def refuse_scores_path(path: str, store: str) -> None:
    """Raise SettingsError if scores cannot be written to a path: it exists, does not end in .zarr, or lies in a store."""
    refuse_path(path)
    refuse_output(path, (), store)
