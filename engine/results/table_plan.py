"""The memory of what becomes of scores: tables of examples, read and written in parts, or an export. Knows no method.

An `Output` is handed to a session, which adds its memory to the plan of the computation before anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from ...store.feature_store import FeatureStore
from ..runtime.memory import Part, Plan
from .example_table import PART_SIZES, ROW_ARROW_BYTES, ROW_BYTES, TEXT_COPIES, TEXTS, Examples, PartSize
from .result_files import ROW_GROUP_BYTES
from .score_export import export_parts

_INDEX_BYTES = 40_000  # of a Parquet file's index: one row group
_GROUP_COPIES = 8  # of a row group, while it is encoded
_ALLOCATOR_BYTES = 1 << 20  # of the libraries' pools, which keep what a part has given back
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scored:
    """What is scored, as far as the memory of its output depends on it."""

    store: FeatureStore
    rows: int
    """N: number of scored examples."""
    queries: int
    """Q."""
    block: int
    """Most rows whose scores are computed together."""
    budget: int | None
    """Bytes of the memory budget."""


PartsPlan: TypeAlias = Callable[[PartSize], Plan]
"""The memory of an output whose tables have parts of a size."""
Output: TypeAlias = Callable[[Scored], PartsPlan]
"""What becomes of scores."""


def best_results(top: int) -> Output:
    """A table of the `top` best examples of each query."""
    return lambda scored: table_plan(scored, scored.queries * min(top, scored.rows))


def all_values(scored: Scored) -> PartsPlan:
    """A table of a value of each example."""
    return table_plan(scored, scored.rows, ("id", "source"))


def exported(scored: Scored) -> PartsPlan:
    """An array of all scores of all queries."""
    plan = export_parts(scored.queries, scored.rows)
    return lambda most: plan


def no_output(scored: Scored) -> PartsPlan:
    """Nothing that this plan should count."""
    return lambda most: Plan(())


def with_output(plans: Iterable[tuple[Plan, T]], output: PartsPlan) -> Iterator[tuple[Plan, tuple[T, PartSize]]]:
    """Candidate plans of a computation, each with each candidate size of the output's parts."""
    for plan, shape in plans:
        for size in PART_SIZES:
            yield plan + output(size), (shape, size)


def table_plan(scored: Scored, rows: int, texts: Sequence[str] = TEXTS) -> PartsPlan:
    """The memory of a table of `rows` rows with some columns of `texts`.

    If there is a budget, and texts may be longer than a part's, all texts are read once, one at a time, for the length of the
    longest one.

    Raises:
        StoreDamaged: a chunk of texts differs from its checksum.
    """
    examples = Examples(scored.store)
    all_texts = examples.text_bytes(texts)

    def plan(most: PartSize) -> Plan:
        if not rows:
            return Plan(())
        longest = examples.longest(texts, None if scored.budget is None else most.text_bytes)
        text_bytes = min(max(most.text_bytes, longest), rows * longest)
        file_bytes = rows * ROW_ARROW_BYTES + min(rows * longest, scored.queries * all_texts)
        groups = min(rows, 1 + file_bytes // ROW_GROUP_BYTES)
        return Plan.of(
            Part("rows of a table", min(rows, most.rows) * (ROW_BYTES + 4 * ROW_ARROW_BYTES)),
            Part("texts of a table", TEXT_COPIES * text_bytes),
            Part("row group of a file", _GROUP_COPIES * min(ROW_GROUP_BYTES, file_bytes) + groups * _INDEX_BYTES),
            Part("allocator", _ALLOCATOR_BYTES),
            Part("reading of examples", examples.scratch_bytes(texts)),
        )

    return plan
