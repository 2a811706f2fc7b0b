"""Training examples chosen for a task, as a table that shows itself. Chooses nothing itself: see `engine/selection`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore
from ...store.json_values import JsonFields, ParsedJson
from ...store.layout import Array
from ..data.record_source import Data
from ..results.output_path import refuse_output
from ..runtime.run import Run
from ..selection.linear_features import LinearFeatures
from ..selection.mask_array import MaskArray
from ..selection.original_records import write_records
from ..selection.prediction import Prediction, penalty_of
from ..selection.selection import CHOSEN_FIELDS, GreedySelection, refuse_training, write_training
from ..selection.selection_request import SelectionRequest, count_of
from ..selection.subsets import SubsetSource
from ..selection.targets import FEW, Targets, TaskFile, read_targets
from .arguments import PathLike, array_of
from .attributions import as_pandas
from .display import table_html, table_text
from .model_holder import ModelHolder
from .opening import chosen_method, filter_of

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

    from ..results.example_table import Cell, Columns

_SHOWN = 10


class SelectKeywords(TypedDict, total=False):
    """Further options of a selection."""

    tokens: int
    """Instead of `count`: number of tokens."""
    by: str
    """Column of the task's records whose values are several tasks; the mean of all is used."""
    where: str | Sequence[str] | Mapping[str, str | Sequence[str]]
    """Choose among these examples only: "source=a.jsonl", or {"source": "a.jsonl"}."""
    columns: PathLike
    """A file with each example's id and the columns of `where` and `quotas`, if they are not the store's."""
    quotas: Mapping[str, float]
    """Largest share of the count by "COLUMN=VALUE", such as {"source=a.jsonl": 0.3}."""
    penalty: float
    """λ, weight of redundancy; default: the calibrated value, or 1."""
    distinct: float
    """Leave out examples whose feature has at least this cosine with a chosen one's."""
    copies: bool
    """Whether equal texts may be chosen several times."""
    partial: bool
    """Whether an unfinished store is accepted."""


class Selection:
    """Chosen examples, in the order of their choice."""

    def __init__(
        self, store: FeatureStore, columns: Mapping[str, Sequence[Cell]], facts: ParsedJson, notes: Sequence[str]
    ) -> None:
        self._store = store
        self._columns = {name: list(values) for name, values in columns.items()}
        self.facts: JsonFields = dict(facts)
        """Numbers of examples and tokens, the set's utility, λ."""
        self.notes = list(notes)
        """Remarks on the selection, one line each."""

    def __len__(self) -> int:
        return len(self._columns["row"])

    @property
    def rows(self) -> Array:
        """(n,) int64 row numbers in the store."""
        return np.array(self._columns["row"], np.int64)

    @property
    def ids(self) -> list[str]:
        """The examples' ids."""
        return [str(name) for name in self._columns["id"]]

    def records(self) -> list[dict[str, Cell]]:
        """The examples as records for training: `text`, or `prompt` and `completion`, with id, order, gain, row and source."""
        records = []
        for values in zip(*self._columns.values(), strict=True):
            record = dict(zip(self._columns, values, strict=True))
            empty = ("text",) if record["prompt"] else ("prompt", "completion")
            records.append({name: value for name, value in record.items() if name not in empty})
        return records

    def save(self, path: PathLike, *, original: bool = False) -> None:
        """Write the records to a .jsonl file. `original`: the corpus's own records with all their fields, read from its files at
        their recorded paths, with order, gain, row and id in the field `headwater`.

        Raises:
            SettingsError: another suffix, or original records of a store of arrays.
        """
        refuse_training(str(path))
        refuse_output(str(path), (), self._store.url)
        if original:
            gains = np.array(self._columns["gain"], np.float64)
            self.notes += write_records(str(path), self._store, self.rows, gains).notes
        else:
            write_training(str(path), iter([self._columns]))

    def to_arrow(self) -> pa.Table:
        """A pyarrow.Table with a row per chosen example."""
        import pyarrow as pa

        return pa.table(self._columns, pa.schema(list(CHOSEN_FIELDS.items())))

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas.DataFrame with a row per chosen example."""
        return as_pandas(self.to_arrow())

    def _rows(self) -> list[tuple[str, ...]]:
        names = ("order", "id", "gain", "completion", "text")
        rows = list(zip(*(self._columns[name] for name in names), strict=True))[:_SHOWN]
        return [
            (str(order), str(name), f"{gain:.4g}", str(completion or text))
            for order, name, gain, completion, text in rows
        ]

    def __repr__(self) -> str:
        lines = [(order, name, gain, text[:60].replace("\n", " ")) for order, name, gain, text in self._rows()]
        return f"{len(self):,} chosen examples\n" + table_text(("order", "id", "gain", "text"), lines)

    def _repr_html_(self) -> str:
        return table_html(("order", "id", "gain", "text"), self._rows())


def selected(
    store: FeatureStore, model: ModelHolder, task: Data, count: int | str | None, method: str | None,
    options: SelectKeywords, run: Run,
) -> Selection:  # fmt: skip
    """Choose examples for a task: see :meth:`Store.select`."""
    features = features_of(store, method, run, partial=options.get("partial", False))
    penalty = penalty_of(features, options.get("penalty"))
    selection = GreedySelection(features, request_of(count, features.rows, penalty, options))
    targets = targets_of(features, model, task, options.get("by", ""))
    result = selection.run(targets.vector())
    parts: list[Columns] = list(selection.rows(result))
    columns = {name: [cell for part in parts for cell in part[name]] for name in CHOSEN_FIELDS}
    return Selection(store, columns, result.facts, features.notes)


def predicted(
    features: LinearFeatures, model: ModelHolder, task: Data, subsets: Any, penalty: float | None
) -> Array:  # fmt: skip
    """Utilities of subsets for a task: see :meth:`Store.predict`."""
    source: SubsetSource | MaskArray = (
        SubsetSource(features.store, features.rows, str(subsets))
        if isinstance(subsets, PathLike)
        else MaskArray(array_of(subsets, "masks"), features.rows)
    )
    prediction = Prediction(features, source, 1, penalty)
    values: Array = prediction.run(targets_of(features, model, task, "")).values[:, 0]
    return values


def targets_of(features: LinearFeatures, model: ModelHolder, task: Data, by: str) -> Targets:
    """The vectors of a task, or of several; a note says which have few examples."""
    targets = read_targets(features, TaskFile(task, by, model.for_method(features.store, features.name)))
    if targets.few:
        few = ", ".join(f"{name} ({targets.counts[targets.names.index(name)]})" for name in targets.few[:5])
        features.notes.append(f"fewer than {FEW} examples of task {few}: its direction is uncertain")
    return targets


def features_of(store: FeatureStore, method: str | None, run: Run, *, partial: bool) -> LinearFeatures:
    """The rows of a method as features; `grasp` by default if the store has it."""
    name = method or ("grasp" if "grasp" in store.methods else chosen_method(store, None))
    return LinearFeatures(store, name, run, partial=partial)


def request_of(count: int | str | None, rows: int, penalty: float, options: SelectKeywords) -> SelectionRequest:
    """What to choose.

    Raises:
        SettingsError: `count` is neither a number nor a part such as "10%".
    """
    if options.get("copies") and "distinct" in options:
        raise SettingsError("select: give either distinct or copies")
    similarity = None if options.get("copies") else options.get("distinct", 1.0)
    quotas = tuple((*_condition(name), share) for name, share in options.get("quotas", {}).items())
    if bad := next((share for *_, share in quotas if not 0 < share <= 1), None):
        raise SettingsError(f"select: a quota is {bad}, expected a part of the count above 0 and at most 1")
    return SelectionRequest(
        count_of(count, rows), options.get("tokens"), penalty, quotas=quotas, columns=str(options.get("columns", "")),
        similarity=similarity, where=filter_of(options.get("where", ()), options.get("columns", "")),
    )  # fmt: skip


def _condition(text: str) -> tuple[str, str]:
    (condition,) = filter_of(text).conditions
    return condition
