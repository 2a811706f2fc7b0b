"""How queries are read and how many examples are answered: what all kinds of sessions are opened with. Knows no method."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data.documents import Template
from ..models.language_model import ModelChoice


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How the best rows are searched for: by default in one scan of the rows as they are stored."""

    form: str = ""
    """The form that is scanned in their place, such as int8 or sign8192 (`headwater compress` makes them)."""
    candidates: int | None = None
    """Rows a query that are scored again as stored; None for the form's default."""
    certify: bool = False
    """Take as many candidates as it needs for the exact answer; the form is int8."""
    all_scores: bool = False
    """Not the best rows but every row's score is wanted, for an export."""
    seeds: bool = False
    """All sketches of the method are asked that the store holds under different seeds, as they are stored."""
    device: int | None = None
    """The GPU that scans the rows as they are stored; None: the processor. Untested."""


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """How a session of queries is opened."""

    top: int = 10
    """k: examples of a query."""
    model: ModelChoice = field(default_factory=lambda: ModelChoice(""))
    """The model that reads the queries; by default the one that the store was made with, where it was then."""
    template: Template = field(default_factory=Template)
    """Which fields of a record are text; by default found by their usual names."""
    search: SearchOptions = field(default_factory=SearchOptions)
    """How the best rows are searched for."""
