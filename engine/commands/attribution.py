"""`attribute`, `value` and `plan attribute`. Knows nothing of how scores are computed."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from ..results.printable import printable_json
from .comma_lists import parts_of
from .options import (
    COLUMNS,
    EXAMPLES_PRINTED,
    JSON_LINES,
    QUERIES,
    RUN,
    SEARCH,
    FieldArguments,
    RunArguments,
    command_of,
    echo,
    options,
)

if TYPE_CHECKING:
    from ..attribution.query_session import QuerySession
    from ..results.example_table import Columns
    from ..results.result_tables import Fields
    from ..results.table_plan import Output
    from ..runtime.progress import ProgressDisplay

ALL_VALUES = click.option(
    "-o", "--output", metavar="FILE", help="Output file: all scores, in the store's order, as .jsonl, .csv or .parquet."
)
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


@click.command()
@QUERIES
@click.option(
    "--top",
    default=10,
    show_default=True,
    type=click.IntRange(1),
    metavar="K",
    help="Number of top examples, for each query.",
)
@SEARCH
@GROUPING
@click.option("-o", "--output", metavar="FILE", help="Output file: the answers, as .jsonl, .csv or .parquet.")
@click.option(
    "--all-scores",
    metavar="DIR.zarr",
    help="Write the scores of all examples for all queries, instead of the best examples: a float32 array (examples, queries).",
)
@JSON_LINES
@RUN
@command_of(QueryArguments)
def attribute(arguments: QueryArguments) -> None:
    """Rank the training examples by their influence on each query's completion.

    \b
    headwater attribute S --queries questions.jsonl --top 5
    headwater attribute S --queries questions.jsonl --memory 2GB -o answers.parquet
    headwater attribute S --queries questions.jsonl --scan sign8192 --candidates 1000
    headwater attribute S --queries questions.jsonl --by source
    headwater attribute S --queries questions.jsonl --members all
    """
    from ..results.result_tables import fields_of, result_rows
    from ..runtime.progress import ProgressDisplay

    _refuse_output(arguments)
    if arguments.all_scores and (arguments.output or arguments.as_json or arguments.grouped):
        raise click.UsageError("--all-scores writes all scores: leave out -o, --json and --by")
    if arguments.grouped:
        _by_group(arguments, together=False)
        return
    if arguments.all_scores:
        _export(arguments, arguments.all_scores)
        return
    with ProgressDisplay() as display:
        session = _session(arguments, arguments.top, display)
        results = session.attribute()
    if not results.exact:
        recall = "" if math.isnan(results.recall) else f"; expected recall {results.recall:.4f}"
        echo(
            f"approximate: the examples were chosen by scores of compressed rows, which are estimates{recall}", err=True
        )
    print_notes(session.notes)
    if arguments.output:
        write_parts(arguments.output, fields_of(results), result_rows(results, session.store, session.parts))
        counts = f"{len(results.queries)} queries, {results.rows.shape[1]} examples each"
        echo(f"{arguments.output}: {counts}", err=True)
    else:
        print_results(session.queries, result_rows(results, session.store, session.parts), arguments.as_json)


def _refuse_output(arguments: QueryArguments) -> None:
    """Refuse to write over an input, inside a store, or in an unknown format."""
    from ..results.output_path import refuse_output
    from ..results.result_tables import format_of

    inputs = (arguments.queries, arguments.columns)
    for path in (arguments.output, arguments.all_scores):
        refuse_output(path, inputs, arguments.store)
    if arguments.output:
        format_of(arguments.output)


def print_notes(notes: Iterable[str]) -> None:
    """Print notes on results to stderr."""
    for line in notes:
        echo(line, err=True)


def _export(arguments: QueryArguments, path: str) -> None:
    from ..results.score_export import refuse_path
    from ..runtime.progress import ProgressDisplay

    refuse_path(path)
    with ProgressDisplay() as display:
        session = _session(arguments, 1, display, all_scores=True)
        session.export(path)
    print_notes(session.notes)
    echo(f"{path}: {session.rows:,} examples × {len(session.query_ids)} queries", err=True)


def write_parts(path: str, fields: Fields, parts: Iterable[Columns]) -> None:
    from ..results.result_tables import ResultFile

    with ResultFile(path, fields) as file:
        for part in parts:
            file.write(part)


def print_results(queries: Mapping[str, str], parts: Iterable[Columns], as_json: bool) -> None:
    from ..presentation.terminal import print_results
    from ..results.result_tables import write_jsonl

    for part in parts:
        if as_json:
            write_jsonl(sys.stdout, part)
        else:
            print_results(part, queries)


@click.command()
@QUERIES
@ALL_VALUES
@EXAMPLES_PRINTED
@JSON_LINES
@GROUPING
@RUN
@command_of(QueryArguments)
def value(arguments: QueryArguments) -> None:
    """Score each example by its mean score over all queries.

    \b
    headwater value S --queries task.jsonl -o values.parquet
    headwater value S --queries task.jsonl --by author --columns corpus.jsonl
    """
    from ..results.result_tables import VALUE_FIELDS, result_rows, value_rows
    from ..results.table_plan import all_values
    from ..runtime.progress import ProgressDisplay

    _refuse_output(arguments)
    if arguments.grouped:
        _by_group(arguments, together=True)
        return
    with ProgressDisplay() as display:
        session = _session(arguments, arguments.top, display, all_values if arguments.output else None)
        if arguments.output:
            values = value_rows(session.value(), session.store, session.parts)
            write_parts(arguments.output, VALUE_FIELDS, values)
        else:
            results = session.most_valuable()
    print_notes(session.notes)
    if arguments.output:
        echo(f"{arguments.output}: {session.rows:,} examples", err=True)
    else:
        print_results(session.queries, result_rows(results, session.store, session.parts), arguments.as_json)


def _by_group(arguments: QueryArguments, *, together: bool) -> None:
    """Print or write scores summed by group, for each query or for all together."""
    from ..attribution.query_session import TOGETHER
    from ..presentation.terminal import print_groups
    from ..results.group_labels import GroupColumn
    from ..results.groups import GROUP_FIELDS, Groups
    from ..results.result_tables import write_jsonl
    from ..runtime.progress import ProgressDisplay

    with ProgressDisplay() as display:
        session = _session_of_groups(arguments, display, together=together)
        groups = Groups(GroupColumn(session.store, arguments.by, arguments.columns, session.rows))
        if together:
            sums = groups.sums(((first, part[:, None]) for first, part in session.value()), 1)
        else:
            sums = groups.sums(session.scores(), len(session.query_ids))
    print_notes(session.notes)
    tables = groups.tables(sums, [TOGETHER] if together else session.query_ids, session.parts)
    if arguments.output:
        write_parts(arguments.output, GROUP_FIELDS, tables)
        echo(f"{arguments.output}: {len(groups.names)} groups", err=True)
        return
    for table in tables:
        write_jsonl(sys.stdout, table) if arguments.as_json else print_groups(table, arguments.top)


def _session_of_groups(
    arguments: QueryArguments, display: ProgressDisplay | None, *, together: bool = False
) -> QuerySession:
    """A session whose plan has the memory of groups. Labels are counted for it only if somebody reads the plan."""
    from ..results.groups import group_tables

    if not arguments.by:
        raise click.UsageError("--columns FILE needs --by COLUMN")
    counted = arguments.budget is not None or display is None
    output = group_tables(arguments.by, arguments.columns, together=together, counted=counted)
    return _session(arguments, 1, display, output, all_scores=True)


def _session(
    arguments: QueryArguments, top: int, display: ProgressDisplay | None, output: Output | None = None, *,
    all_scores: bool = False,
) -> QuerySession:  # fmt: skip
    """Open the query session of a command."""
    from ..attribution.open_session import open_session
    from ..attribution.query_options import MemberChoice, QueryOptions, SearchOptions
    from ..runtime.run import Run, silent

    if (a := arguments).combine != "mean" and not a.members:
        raise click.UsageError("--combine needs --members")
    members = MemberChoice(parts_of("--members", a.members), a.combine)
    search = SearchOptions(a.precision, a.candidates, a.certify, all_scores, members, a.partial)
    asked = QueryOptions(top, a.model_choice, a.query_text, search, output)
    run = Run(a.budget, a.device, silent if display is None else display.show)
    return open_session(a.store, a.method, a.queries, asked, run)


@click.command("attribute")
@QUERIES
@click.option(
    "--top",
    default=10,
    show_default=True,
    type=click.IntRange(1),
    metavar="K",
    help="Number of top examples, for each query.",
)
@SEARCH
@GROUPING
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object.")
@RUN
@command_of(QueryArguments)
def plan_attribute(arguments: QueryArguments) -> None:
    """Print the memory plan of `attribute`, and a forecast.

    It takes the same options. The forecast says how many bytes the search reads, and how long that takes. The queries and the
    model are loaded for it.

    \b
    headwater plan attribute S --queries questions.jsonl --memory 2GB
    """
    from ..presentation.terminal import plan_facts, print_plan, show_forecast

    session = _session_of_groups(arguments, None) if arguments.grouped else _session(arguments, arguments.top, None)
    plan, shape = session.plan, session.shape
    print_notes(session.notes)
    forecast = session.forecast() if "forecast" in session.capabilities else None
    if arguments.as_json:
        echo(printable_json(plan_facts(plan, arguments.budget, shape, forecast), indent=1))
        return
    print_plan(plan, arguments.budget, f"blocks of {shape.block_rows:,} rows, {shape.workers} workers")
    echo(show_forecast(forecast))
