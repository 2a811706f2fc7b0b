"""`attribute`, `value`, `self-influence` and `plan attribute`. Knows nothing of how scores are computed."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from .options import ASKING, RUN, SEARCHING, TRUSTING, budget

if TYPE_CHECKING:
    from ...store.feature_store import FeatureStore
    from ..attribution.query_session import QuerySession
    from ..results.groups import Groups
    from ..results.results import Results
    from ..runtime.progress import ProgressDisplay


@click.command()
@ASKING
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), metavar="K", help="Examples per query.")
@SEARCHING
@TRUSTING
@click.option("-o", "--output", metavar="FILE", help="Write .jsonl, .csv or .parquet.")
@click.option(
    "--all-scores", metavar="DIR.zarr", help="Write every example's score for every query instead: (N, Q) float32."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a table.")
@RUN
def attribute(output: str | None, as_json: bool, top: int, **options: Any) -> None:
    """The examples that did most for each query's completion, best first.

    \b
    headwater attribute S --queries questions.jsonl --top 5
    headwater attribute S --queries questions.jsonl --memory 2GB -o answers.parquet
    headwater attribute S --queries questions.jsonl --scan sign8192 --candidates 1000
    headwater attribute S --queries questions.jsonl --by source
    headwater attribute S --queries questions.jsonl --seeds
    """
    from ..results.result_tables import ResultFile, fields_of, format_of, result_rows
    from ..runtime.progress import ProgressDisplay

    if output:
        format_of(output)
    if options["all_scores"] and (output or as_json or options["by"] or options["columns"] or options["seeded"]):
        raise click.UsageError(
            "--all-scores writes one method's scores to one place: leave -o, --json, --by and --seeds"
        )
    if options["by"] or options["columns"]:
        _by_group(options, _Answer(output, as_json, top), together=False)
        return
    if options["all_scores"]:
        _export(options, options["all_scores"])
        return
    with ProgressDisplay() as display:
        session = _session(options, top, display)
        results = session.attribute()
    if not results.exact:
        share = "" if math.isnan(results.recall) else f"; expected recall {results.recall:.4f}"
        click.echo(f"not exact: chosen by estimates{share}", err=True)
    _print_notes(session)
    if output:
        with ResultFile(output, fields_of(results)) as file:
            for part in result_rows(results, session.store):
                file.write(part)
        click.echo(f"{output}: {len(results.queries)} queries, {results.rows.shape[1]} examples each", err=True)
    else:
        _print(session.store, session.queries, results, as_json)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Where an answer goes, and how much of it is printed."""

    output: str | None
    as_json: bool
    top: int


def _print_notes(session: QuerySession) -> None:
    """What a reader of the answers should know, on stderr."""
    for line in session.notes:
        click.echo(line, err=True)


def _export(options: dict[str, Any], path: str) -> None:
    from ..results.score_export import refuse_path
    from ..runtime.progress import ProgressDisplay

    refuse_path(path)
    with ProgressDisplay() as display:
        session = _session(options, 1, display, all_scores=True)
        session.export(path)
    _print_notes(session)
    click.echo(f"{path}: {session.rows:,} examples × {len(session.query_ids)} queries", err=True)


def _print(store: FeatureStore, queries: Mapping[str, str], results: Results, as_json: bool) -> None:
    from ..presentation.terminal import print_results
    from ..results.result_tables import result_rows, write_jsonl

    for part in result_rows(results, store):
        if as_json:
            write_jsonl(sys.stdout, part)
        else:
            print_results(part, queries)


@click.command()
@ASKING
@click.option(
    "-o", "--output", metavar="FILE", help="Write all scores, in the corpus's order: .jsonl, .csv or .parquet."
)
@click.option(
    "--top", default=10, show_default=True, type=click.IntRange(1), metavar="K", help="Examples printed without -o."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a table.")
@TRUSTING
@RUN
def value(output: str | None, as_json: bool, top: int, **options: Any) -> None:
    """One score per example against all queries together: the mean of its scores.

    \b
    headwater value S --queries task.jsonl -o values.parquet
    headwater value S --queries task.jsonl --by author --columns corpus.jsonl
    """
    from ..results.result_tables import VALUE_FIELDS, ResultFile, format_of, value_rows
    from ..runtime.progress import ProgressDisplay

    if output:
        format_of(output)
    if options["by"] or options["columns"]:
        _by_group(options, _Answer(output, as_json, top), together=True)
        return
    with ProgressDisplay() as display:
        session = _session(options, top, display)
        if output:
            with ResultFile(output, VALUE_FIELDS) as file:
                for part in value_rows(session.value(), session.store):
                    file.write(part)
        else:
            results = session.most_valuable()
    _print_notes(session)
    if output:
        click.echo(f"{output}: {session.rows:,} examples", err=True)
    else:
        _print(session.store, session.queries, results, as_json)


def _by_group(options: dict[str, Any], answer: _Answer, *, together: bool) -> None:
    """Scores added up by group, each query's or those of all together."""
    from ..attribution.query_session import TOGETHER
    from ..presentation.terminal import print_groups
    from ..results.groups import GROUP_FIELDS
    from ..results.result_tables import ResultFile, write_jsonl
    from ..runtime.progress import ProgressDisplay

    with ProgressDisplay() as display:
        session, groups = _grouped(options, display)
        if together:
            each = ((first, part[:, None]) for first, part in session.value())
            parts = list(groups.summed(each, [TOGETHER]))
        else:
            parts = list(groups.summed(session.scores(), session.query_ids))
    _print_notes(session)
    if answer.output:
        with ResultFile(answer.output, GROUP_FIELDS) as file:
            for part in parts:
                file.write(part)
        click.echo(f"{answer.output}: {len(groups.names)} groups", err=True)
        return
    for part in parts:
        write_jsonl(sys.stdout, part) if answer.as_json else print_groups(part, answer.top)


def _grouped(options: dict[str, Any], display: ProgressDisplay | None) -> tuple[QuerySession, Groups]:
    """A session whose scores are added up, and the groups; the plans of both fit the budget together."""
    from ..attribution.stored_scores import require_whole
    from ..results.groups import Groups

    if not options["by"]:
        raise click.UsageError("--columns FILE goes with --by COLUMN")
    session = _session(options, 1, display, all_scores=True)
    if options["method"] in session.store.methods:
        require_whole(session.store, options["method"])
    groups = Groups(session.store, options["by"], options["columns"])
    plan = session.plan + groups.plan(len(session.query_ids))
    plan.check(budget(options["memory"]), plan.total)
    return session, groups


@click.command("self-influence")
@click.argument("store")
@click.option("--method", default="graddot", show_default=True, metavar="NAME", help="Method whose rows are asked.")
@click.option("--model", default="", metavar="PATH", help="Where the store's model (or a file of arrays) is now.")
@click.option("--memory", metavar="BYTES", help="Refuse to start if the plan exceeds this: 512MB, 2GB, 1.5GiB.")
@click.option(
    "-o", "--output", metavar="FILE", help="Write all of them, in the corpus's order: .jsonl, .csv or .parquet."
)
@click.option(
    "--top", default=10, show_default=True, type=click.IntRange(1), metavar="K", help="Examples printed without -o."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a table.")
def self_influence(output: str | None, as_json: bool, top: int, **options: Any) -> None:
    """Every example's score for itself: wrong labels and outliers have much of it.

    Methods of unit norm (rise, gradcos, headcos, repsim) give all examples the same.

    \b
    headwater self-influence S --method logra
    headwater self-influence S --method graddot -o self.parquet
    """
    from ..attribution.self_influence import SelfInfluence
    from ..results.result_tables import VALUE_FIELDS, ResultFile, format_of, value_rows
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run

    if output:
        format_of(output)
    with ProgressDisplay() as display:
        run = Run(budget(options["memory"]), on_progress=display.show)
        asked = SelfInfluence(options["store"], options["method"], options["model"], run)
        scores = asked.scores()
        if output:
            with ResultFile(output, VALUE_FIELDS) as file:
                for part in value_rows(scores, asked.store):
                    file.write(part)
        else:
            best = asked.best(top, scores)
    if asked.all_equal:
        click.echo(
            f"every example has the same: rows of {options['method']} have one norm, and say nothing here", err=True
        )
    if output:
        click.echo(f"{output}: {asked.rows:,} examples", err=True)
    else:
        _print(asked.store, {}, best, as_json)


def _session(
    o: Mapping[str, Any], top: int, display: ProgressDisplay | None, *, all_scores: bool = False
) -> QuerySession:
    """The session that a command's options ask for."""
    from ..attribution.open_session import open_session
    from ..attribution.query_options import QueryOptions, SearchOptions
    from ..data.documents import Template
    from ..models.language_model import ModelChoice
    from ..runtime.run import Run, silent

    template = Template(o["text_field"], o["prompt_field"], o["completion_field"])
    choice = ModelChoice(o["model"], o["device"], o["dtype"], o["trust_remote_code"])
    form, candidates, certify = (o.get(name) for name in ("form", "candidates", "certify"))
    search = SearchOptions(form or "", candidates, bool(certify), all_scores, bool(o["seeded"]))
    run = Run(budget(o["memory"]), o["device"], silent if display is None else display.show)
    return open_session(o["store"], o["method"], o["queries"], QueryOptions(top, choice, template, search), run)


@click.command("attribute")
@ASKING
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), metavar="K", help="Examples per query.")
@SEARCHING
@TRUSTING
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@RUN
def plan_attribute(top: int, as_json: bool, **options: Any) -> None:
    """The memory of an attribution, what it reads and how long it takes: the same options as `headwater attribute`."""
    from ..presentation.terminal import plan_facts, print_plan, show_forecast

    if options["by"] or options["columns"]:
        session, groups = _grouped(options, None)
        plan = session.plan + groups.plan(len(session.query_ids))
    else:
        session = _session(options, top, None)
        plan = session.plan
    forecast = session.forecast() if "forecast" in session.capabilities else None
    shape, allowed = session.shape, budget(options["memory"])
    if as_json:
        click.echo(json.dumps(plan_facts(plan, allowed, shape, forecast), indent=1))
        return
    print_plan(plan, allowed, f"blocks of {shape.block_rows:,} rows, {shape.workers} workers")
    click.echo(show_forecast(forecast))
