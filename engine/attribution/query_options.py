"""Options of a query session: how queries are read, how rows are searched, how many examples are returned. Knows no method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..data.record_source import Data
from ..ingest.text_settings import TextSettings
from ..models.language_model import ModelChoice
from ..results.row_filter import RowFilter
from ..results.table_plan import Output, best_results, exported


@dataclass(frozen=True, slots=True)
class MemberChoice:
    """Which members of a method answer together, and how their scores are combined."""

    labels: tuple[str, ...] = ()
    """What follows the @ in the members' names, or the method's name for the one without a label; `("all",)`: all members;
    empty: the method named alone.
    """
    rule: Literal["mean", "sum"] = "mean"
    """`mean`: of scores on a common scale. `sum`: of the scores as they are. See `members_session.py`."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How the best rows are searched: by default in one scan of the rows as they are stored."""

    precision: str = ""
    """Precision of the compressed copy that is scanned first, such as int8 or sign8192; empty: no copy is used."""
    candidates: int | None = None
    """Number of rows per query that are scored again from the rows as stored; None: the precision's default."""
    certify: bool = False
    """Whether enough candidates are scored again to prove that the answer is exact; needs the precision int8."""
    all_scores: bool = False
    """Whether the session returns the score of each row, for an export, instead of the best rows."""
    members: MemberChoice = MemberChoice()
    """The members whose scores are combined."""
    partial: bool = False
    """Whether the rows of a store or method that is unfinished are searched; otherwise they are refused."""
    device: int | None = None
    """Index of the GPU that scans the rows as they are stored; None: the CPU. The GPU scan has not been run on a GPU yet."""


ONE_SCAN = SearchOptions()
"""One scan of the rows as they are stored."""


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """Options with which a query session is opened."""

    top: int = 10
    """k: number of examples per query."""
    model: ModelChoice = field(default_factory=lambda: ModelChoice(""))
    """The model that reads the queries; default: the store's model, at its recorded path."""
    text: TextSettings = field(default_factory=TextSettings)
    """How files of texts are read, and whether a bad query stops the run or is skipped; default: as the store's examples were,
    and stop.
    """
    search: SearchOptions = field(default_factory=SearchOptions)
    """How the best rows are searched."""
    further: Output | None = None
    """What becomes of the scores, whose memory is a part of the plan; None: a table of the best examples, or with `all_scores` an
    array of all scores.
    """
    minus: Data | None = None
    """Contrasting queries: a score is that of a query minus that of the contrasting query in its place, or of the only one."""
    lowest: bool = False
    """Whether the examples with the lowest scores are returned, lowest first, in place of those with the highest."""
    where: RowFilter = field(default_factory=RowFilter)
    """Conditions that the ranked examples meet."""

    @property
    def derived(self) -> bool:
        """Whether scores are derived from those of another session: see `derived_session.py`."""
        return self.minus is not None or self.lowest or bool(self.where.conditions)

    @property
    def output(self) -> Output:
        """What becomes of the scores."""
        return self.further or (exported if self.search.all_scores else best_results(self.top))


TEN_BEST = QueryOptions()
"""Ten examples per query, with the store's own model."""
