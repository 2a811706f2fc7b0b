"""Arguments of commands that ask a store queries, and the query session that they open. Knows no command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from .comma_lists import parts_of
from .corpus_options import QUERY_FIELDS, FieldArguments
from .options import COLUMNS, MODEL_PATH, PARTIAL, RunArguments, WrongUsage, method_names, options

if TYPE_CHECKING:
    from ..attribution.query_session import QuerySession
    from ..results.table_plan import Output
    from ..runtime.progress import ProgressDisplay

QUERIES = options(
    click.argument("store"),
    click.option(
        "--method",
        default="rise",
        show_default=True,
        metavar="NAME",
        shell_complete=method_names,
        help="Attribution method.",
    ),
    click.option("--queries", required=True, metavar="FILE", help="Queries, in any corpus format."),
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
class QueryArguments(RunArguments, FieldArguments):
    """Arguments of `attribute`, `value` and `plan attribute`; options that a command does not have are at their defaults."""

    store: str
    method: str
    queries: str
    members: str
    combine: Literal["mean", "sum"]
    by: str
    columns: str
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
        return bool(self.by or self.columns)


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
    """Open the query session of a command."""
    from ..attribution.open_session import open_session
    from ..attribution.query_options import MemberChoice, QueryOptions, SearchOptions
    from ..runtime.run import Run, silent

    if (a := arguments).combine != "mean" and not a.members:
        raise WrongUsage("--combine needs --members")
    members = MemberChoice(parts_of("--members", a.members), a.combine)
    search = SearchOptions(a.precision, a.candidates, a.certify, all_scores, members, a.partial)
    asked = QueryOptions(top, a.model_choice, a.query_text, search, output)
    run = Run(a.budget, a.device, silent if display is None else display.show)
    return open_session(a.store, a.method, a.queries, asked, run)
