"""Arguments of commands that ask a store queries, and the query session that they open. Knows no command."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from .comma_lists import parts_of
from .corpus_options import QUERY_FIELDS
from .options import COLUMNS, MODEL_PATH, PARTIAL, WrongUsage, echo, method_names, options
from .questions import QUESTIONS, WHERE, QuestionArguments, question_data

if TYPE_CHECKING:
    from ...store.feature_store import FeatureStore
    from ..attribution.query_session import QuerySession
    from ..results.example_table import Columns, PartSize
    from ..results.result_tables import About
    from ..results.results import Results
    from ..results.table_plan import Output
    from ..runtime.progress import ProgressDisplay

METHODS = click.option("--method", "methods", multiple=True, metavar="NAME", shell_complete=method_names,
                       help="Attribution method; `attribute` takes several, side by side. [default: the store's only one, or "
                       "rise]")  # fmt: skip
QUERIES = options(
    click.argument("store"),
    METHODS,
    QUESTIONS,
    WHERE,
    PARTIAL,
    MODEL_PATH,
    QUERY_FIELDS,
)
EXAMPLES_PER_QUERY = click.option(
    "--top",
    default=10,
    show_default=True,
    type=click.IntRange(1),
    metavar="K",
    help="Number of top examples, for each query.",
)
LIMIT = click.option(
    "--limit",
    default=10,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="Number of queries to print; files and --json have all.",
)
SEARCH = options(
    click.option("--scan", "precision", default="", metavar="PRECISION", help="Scan the copy in this precision first, such as "
                 "int8 or sign8192 (`headwater compress` makes it), then score the best candidates again from the rows as "
                 "ingested."),
    click.option("--candidates", type=click.IntRange(1), metavar="N", help="Rows per query that are scored again. "
                 "[default: 2 x --top, at least 100; for sign bits 10 x --top, at least 1000]"),
    click.option("--certify", is_flag=True,
                 help="Scan the int8 copy, then score every row again that may be among the best: the answer is exact."),
)  # fmt: skip
GROUPING = options(
    click.option("--members", default="", metavar="LABELS", help="Combine the scores of several members of the method (seeds, "
                 "settings, checkpoints): all, or labels such as early,late,1. Scores get standard errors, and each example the "
                 "range of ranks consistent with all members."),
    click.option("--combine", type=click.Choice(["mean", "sum"]), default="mean", show_default=True,
                 help="mean: of scores on a common scale (the guide on trust says which), or as they are if members differ by "
                 "their seed alone. sum: of the scores as they are."),
    click.option("--by", default="", metavar="COLUMN", help="Sum scores by `source`, or by a column of --columns' file."),
    COLUMNS,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class QueryArguments(QuestionArguments):
    """Arguments of `attribute`, `value` and `plan attribute`; options that a command does not have are at their defaults."""

    methods: tuple[str, ...]
    members: str
    combine: Literal["mean", "sum"]
    by: str
    top: int
    as_json: bool
    limit: int = 10
    prompts: bool = False
    output: str | None = None
    all_scores: str | None = None
    precision: str = ""
    candidates: int | None = None
    certify: bool = False
    partial: bool = False

    @property
    def grouped(self) -> bool:
        """Whether scores are summed by group."""
        return bool(self.by or (self.columns and not self.where))

    @property
    def several(self) -> bool:
        """Whether several methods are asked."""
        return len(self.methods) > 1

    @property
    def per_query(self) -> int:
        """Number of examples of each query's answer."""
        return self.bottom or self.top


@dataclass(frozen=True, slots=True)
class MethodAnswer:
    """The answer of one method, without its session, whose model and scores take memory."""

    name: str
    """The method's name."""
    store: FeatureStore
    results: Results
    parts: PartSize
    """Size of the parts in which results become tables."""
    about: About
    """The queries, and the origin of the scores."""
    notes: tuple[str, ...]
    """Remarks for the user, one line each."""

    @classmethod
    def of(cls, session: QuerySession) -> MethodAnswer:
        """The best examples of a session."""
        from ..results.result_tables import About

        results = session.attribute()
        about = About(session.queries, session.origin)
        return cls(session.name, session.store, results, session.parts, about, tuple(session.notes))

    def rows(self) -> Iterator[Columns]:
        """The results as tables, with texts."""
        from ..results.result_tables import result_rows

        return result_rows(self.results, self.store, self.parts, self.about)


def session_of_groups(
    arguments: QueryArguments, display: ProgressDisplay | None, *, together: bool = False
) -> QuerySession:
    """A session whose plan has the memory of groups. Labels are counted for it only if somebody reads the plan."""
    from ..results.groups import group_tables

    if not arguments.by:
        raise WrongUsage("--columns FILE needs --by COLUMN")
    counted = arguments.budget is not None or display is None
    output = group_tables(arguments.by, arguments.columns, together=together, counted=counted)
    return open_query_session(arguments, 1, display, output, all_scores=True)


def open_query_session(
    arguments: QueryArguments, top: int, display: ProgressDisplay | None, output: Output | None = None, *,
    all_scores: bool = False,
) -> QuerySession:  # fmt: skip
    """Open the query session of a command that asks one method.

    Raises:
        click.UsageError: several methods are named.
    """
    if arguments.several:
        raise WrongUsage("several methods", "name one: attribute alone prints several side by side")
    (session,) = open_query_sessions(arguments, top, display, output, all_scores=all_scores)
    return session


def open_query_sessions(
    arguments: QueryArguments, top: int, display: ProgressDisplay | None, output: Output | None = None, *,
    all_scores: bool = False,
) -> Iterator[QuerySession]:  # fmt: skip
    """Open the query session of each method of a command, one after the other; the model is loaded once."""
    from ...store.feature_store import FeatureStore
    from ..api.model_holder import ModelHolder
    from ..api.opening import chosen_method
    from ..attribution.open_session import open_session
    from ..attribution.query_options import MemberChoice, QueryOptions, SearchOptions
    from ..runtime.run import Run, silent

    if (a := arguments).combine != "mean" and not a.members:
        raise WrongUsage("--combine needs --members")
    run = Run(a.budget, a.device, silent if display is None else display.show)
    store, model = FeatureStore.open(a.store), ModelHolder(a.model_choice)
    data = question_data(a, model.loaded(store) if a.generate else a.model_choice)
    members = MemberChoice(parts_of("--members", a.members), a.combine)
    search = SearchOptions(a.precision, a.candidates, a.certify, all_scores, members, a.partial)
    for name in a.methods or (chosen_method(store, None),):
        choice = model.for_method(store, name) if a.several or a.generate or a.minus else model.choice
        asked = QueryOptions(
            top, choice, a.query_text, search, output, a.minus or None, a.bottom is not None, a.row_filter
        )
        yield open_session(a.store, name, data, asked, run)


def answered(arguments: QueryArguments) -> Iterator[MethodAnswer]:
    """The answers of each method of `attribute`, with progress; notes on them are printed to stderr."""
    from ..runtime.progress import ProgressDisplay

    with ProgressDisplay() as display:  # map: no session outlives its answer
        answers = list(map(MethodAnswer.of, open_query_sessions(arguments, arguments.per_query, display)))
    for answer in answers:
        of, results = f"{answer.name}: " if arguments.several else "", answer.results
        if not results.exact:
            recall = "" if math.isnan(results.recall) else f"; expected recall {results.recall:.4f}"
            what = "the examples were chosen by scores of compressed rows, which are estimates"
            echo(f"{of}approximate: {what}{recall}", err=True)
        for line in answer.notes:
            echo(f"{of}{line}", err=True)
        yield answer
