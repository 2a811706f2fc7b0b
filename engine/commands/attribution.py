"""`attribute`, `value` and `plan attribute`. Knows nothing of how scores are computed."""

from __future__ import annotations

from itertools import chain

import click

from ..results.printable import printable_json
from .answer_output import (
    ALL_VALUES,
    about_answers,
    merged_about,
    print_groups,
    print_notes,
    print_results,
    print_side_by_side,
    refuse_outputs,
    view_of,
    write_parts,
)
from .grouped_help import command
from .options import EXAMPLES_PRINTED, JSON, JSON_LINES, PROMPTS, RUN, WrongUsage, command_of, echo
from .query_arguments import (
    EXAMPLES_PER_QUERY,
    GROUPING,
    LIMIT,
    QUERIES,
    SEARCH,
    QueryArguments,
    answered,
    open_query_session,
    session_of_groups,
)
from .questions import VIEW


@command()
@QUERIES
@EXAMPLES_PER_QUERY
@VIEW
@LIMIT
@PROMPTS
@SEARCH
@GROUPING
@click.option(
    "-o", "--output", metavar="FILE", help="Output file: the answers, as .jsonl, .json, .csv, .parquet or .html."
)
@click.option(
    "--all-scores",
    metavar="DIR.zarr",
    help="Write the scores of all examples for all queries, instead of the best examples: a float32 array (examples, queries).",
)
@JSON_LINES
@RUN
@command_of(QueryArguments)
def attribute(arguments: QueryArguments) -> None:
    """Rank training examples by influence on each completion.

    Each query is a prompt with the completion that the model gave, or a text.

    \b
    headwater attribute S --queries questions.jsonl --top 5
    headwater attribute S --queries questions.jsonl --memory 2GB -o answers.parquet
    headwater attribute S --queries questions.jsonl --scan sign8192 --candidates 1000
    headwater attribute S --queries questions.jsonl --by source
    headwater attribute S --queries questions.jsonl --members all
    headwater attribute S --prompt "What is 45 km in m?" --completion 450
    headwater attribute S --prompt "What is 45 km in m?" --generate
    headwater attribute S --query "a bare text" --bottom 10 --where source=web.jsonl
    headwater attribute S --queries questions.jsonl --method rise --method bm25
    """
    refuse_outputs(arguments)
    refuse_both_ends(arguments)
    _refuse_lowest_groups(arguments)
    if arguments.all_scores and (arguments.output or arguments.as_json or arguments.grouped or arguments.bottom):
        raise WrongUsage("--all-scores writes all scores", "leave out -o, --json, --by and --bottom")
    if arguments.grouped:
        _by_group(arguments, together=False)
        return
    if arguments.all_scores:
        _export(arguments, arguments.all_scores)
        return
    if arguments.several and arguments.as_json is False and not arguments.output:
        print_side_by_side(answered(arguments), arguments)
    else:
        _print_or_write(arguments)


def _refuse_lowest_groups(arguments: QueryArguments) -> None:
    """Raise WrongUsage if groups are asked for, and the lowest examples, which groups do not have."""
    if arguments.grouped and arguments.bottom:
        raise WrongUsage("--by sums the scores of all examples, lowest and highest", "leave out --bottom")


def refuse_both_ends(arguments: QueryArguments) -> None:
    """Refuse --top beside --bottom: an answer has one end of the ranking."""
    top = click.get_current_context().get_parameter_source("top")
    if arguments.bottom and top is not click.core.ParameterSource.DEFAULT:
        raise WrongUsage("--top and --bottom are two ends of the ranking", "give one of them")


def _print_or_write(arguments: QueryArguments) -> None:
    """Print the answers of each method, or write all to one file."""
    from ..results.result_tables import merged_fields, padded

    answers = list(answered(arguments))
    about = merged_about(answers)
    rows = [answer.rows() for answer in answers]
    if not arguments.output:
        view = view_of(len(about.queries), limit=arguments.limit, prompts=arguments.prompts)
        print_results(chain.from_iterable(rows), arguments.as_json, view)
        return
    fields = merged_fields(answer.results for answer in answers)
    write_parts(arguments.output, fields, (padded(part, fields) for part in chain.from_iterable(rows)), about)
    counts = f"{len(about.queries)} queries, {answers[0].results.rows.shape[1]} examples each"
    by = f", by {', '.join(answer.name for answer in answers)}" if arguments.several else ""
    echo(f"{arguments.output}: {counts}{by}", err=True)


def _export(arguments: QueryArguments, path: str) -> None:
    from ..results.score_export import refuse_path
    from ..runtime.progress import ProgressDisplay

    refuse_path(path)
    with ProgressDisplay() as display:
        session = open_query_session(arguments, 1, display, all_scores=True)
        session.export(path)
    print_notes(session.notes)
    echo(f"{path}: {session.rows:,} examples × {len(session.query_ids)} queries", err=True)


@command()
@QUERIES
@ALL_VALUES
@EXAMPLES_PRINTED
@PROMPTS
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

    refuse_outputs(arguments)
    if arguments.grouped:
        _by_group(arguments, together=True)
        return
    with ProgressDisplay() as display:
        session = open_query_session(arguments, arguments.top, display, all_values if arguments.output else None)
        if arguments.output:
            about = about_answers(session, together=True)
            values = value_rows(session.value(), session.store, session.parts, about)
            write_parts(arguments.output, VALUE_FIELDS, values, about)
        else:
            results = session.most_valuable()
    print_notes(session.notes)
    if arguments.output:
        echo(f"{arguments.output}: {session.rows:,} examples", err=True)
    else:
        rows = result_rows(results, session.store, session.parts, about_answers(session, together=True))
        print_results(rows, arguments.as_json, view_of(1, prompts=arguments.prompts))


def _by_group(arguments: QueryArguments, *, together: bool) -> None:
    """Print or write scores summed by group, for each query or for all together."""
    from ..attribution.query_session import TOGETHER
    from ..results.group_labels import GroupColumn
    from ..results.groups import GROUP_FIELDS, Groups
    from ..runtime.progress import ProgressDisplay

    with ProgressDisplay() as display:
        session = session_of_groups(arguments, display, together=together)
        groups = Groups(GroupColumn(session.store, arguments.by, arguments.columns, session.rows))
        if together:
            sums = groups.sums(((first, part[:, None]) for first, part in session.value()), 1)
        else:
            sums = groups.sums(session.scores(), len(session.query_ids))
    print_notes(session.notes)
    about = about_answers(session, together=together)
    tables = groups.tables(sums, [TOGETHER] if together else session.query_ids, session.parts, about)
    if arguments.output:
        write_parts(arguments.output, GROUP_FIELDS, tables, about)
        echo(f"{arguments.output}: {len(groups.names)} groups", err=True)
        return
    count = 1 if together else len(session.query_ids)
    print_groups(tables, arguments, view_of(count, limit=arguments.limit))


@command("attribute")
@QUERIES
@EXAMPLES_PER_QUERY
@VIEW
@SEARCH
@GROUPING
@JSON
@RUN
@command_of(QueryArguments)
def plan_attribute(arguments: QueryArguments) -> None:
    """Print the memory plan of `attribute`, and a forecast.

    It takes the same options, but for those of the output. The forecast says how many bytes the search reads, and how long that
    takes. The queries and the model are loaded for it.

    \b
    headwater plan attribute S --queries questions.jsonl --memory 2GB
    headwater plan attribute S --queries answers.jsonl --minus others.jsonl
    """
    from ..presentation.terminal import plan_facts, print_plan, show_forecast

    _refuse_lowest_groups(arguments)
    session = (
        session_of_groups(arguments, None)
        if arguments.grouped
        else open_query_session(arguments, arguments.per_query, None)
    )
    plan, shape = session.plan, session.shape
    print_notes(session.notes)
    forecast = session.forecast() if "forecast" in session.capabilities else None
    if arguments.as_json:
        echo(printable_json(plan_facts(plan, arguments.budget, shape, forecast), indent=1))
        return
    print_plan(plan, arguments.budget, f"blocks of {shape.block_rows:,} rows, {shape.workers} workers")
    echo(show_forecast(forecast))
