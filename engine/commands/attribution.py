"""`attribute`, `value`, `self-influence` and `plan attribute`. Knows nothing of how scores are computed."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import click

from .options import ASKING, RUN, SEARCHING, TRUSTING, budget


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
def attribute(
    output: str | None, all_scores: str | None, as_json: bool, top: int, by: str, columns: str, **options: Any
) -> None:
    """The examples that did most for each query's completion, best first.

    \b
    headwater attribute S --queries questions.jsonl --top 5
    headwater attribute S --queries questions.jsonl --memory 2GB -o answers.parquet
    headwater attribute S --queries questions.jsonl --scan sign8192 --candidates 1000
    headwater attribute S --queries questions.jsonl --by source
    headwater attribute S --queries questions.jsonl --seeds
    """
    from ..results.result_tables import ResultFile, fields_of, format_of, result_rows
    from ..runtime.progress import ProgressBar

    if output:
        format_of(output)
    if all_scores and (output or as_json or by or columns or options["seeded"]):
        raise click.UsageError(
            "--all-scores writes one method's scores to one place: leave -o, --json, --by and --seeds"
        )
    if by or columns:
        _by_group(options, by, columns, output, as_json, top, together=False)
        return
    if all_scores:
        _export(options, all_scores)
        return
    question = _asked(options, top)
    with ProgressBar("attribute", question.rows) as progress_bar:
        results = question.attribute(lambda rows: progress_bar.update(rows, "examples"))
    if not results.exact:
        share = "" if math.isnan(results.recall) else f"; expected recall {results.recall:.4f}"
        click.echo(f"not exact: chosen by estimates{share}", err=True)
    _remark(question)
    if output:
        with ResultFile(output, fields_of(results)) as file:
            for part in result_rows(results, question.store):
                file.write(part)
        click.echo(f"{output}: {len(results.queries)} queries, {results.rows.shape[1]} examples each", err=True)
    else:
        _print(question, results, as_json)


def _remark(question: Any) -> None:
    """What speaks for the answers, on stderr."""
    for line in question.notes:
        click.echo(line, err=True)


def _export(options: dict[str, Any], path: str) -> None:
    from ..results.score_export import refuse_path
    from ..runtime.progress import ProgressBar

    refuse_path(path)
    question = _asked({**options, "every": True}, 1)
    with ProgressBar("attribute", question.rows) as progress_bar:
        question.export(path, lambda rows: progress_bar.update(rows, "examples"))
    _remark(question)
    click.echo(f"{path}: {question.rows:,} examples × {len(question.queries)} queries", err=True)


def _print(question: Any, results: Any, as_json: bool) -> None:
    from ..presentation.terminal import print_results
    from ..results.result_tables import result_rows, write_jsonl

    for part in result_rows(results, question.store):
        if as_json:
            write_jsonl(sys.stdout, part)
        else:
            print_results(part, question.queries)


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
def value(output: str | None, as_json: bool, top: int, by: str, columns: str, **options: Any) -> None:
    """One score per example against all queries together: the mean of its scores.

    \b
    headwater value S --queries task.jsonl -o values.parquet
    headwater value S --queries task.jsonl --by author --columns corpus.jsonl
    """
    from ..results.result_tables import VALUE_FIELDS, ResultFile, format_of, value_rows
    from ..runtime.progress import ProgressBar

    if output:
        format_of(output)
    if by or columns:
        _by_group(options, by, columns, output, as_json, top, together=True)
        return
    question = _asked(options, top)
    with ProgressBar("value", question.rows) as progress_bar:
        if output:
            with ResultFile(output, VALUE_FIELDS) as file:
                for part in value_rows(
                    question.value(lambda rows: progress_bar.update(rows, "examples")), question.store
                ):
                    file.write(part)
        else:
            results = question.most_valuable(lambda rows: progress_bar.update(rows, "examples"))
    _remark(question)
    if output:
        click.echo(f"{output}: {question.rows:,} examples", err=True)
    else:
        _print(question, results, as_json)


def _by_group(
    options: dict[str, Any], by: str, columns: str, output: str | None, as_json: bool, top: int, *, together: bool
) -> None:
    """Scores added up by group, each query's or those of all together."""
    from ..attribution.stored_scores import require_whole
    from ..presentation.terminal import print_groups
    from ..results.groups import GROUP_FIELDS, Groups
    from ..results.result_tables import ResultFile, write_jsonl
    from ..runtime.progress import ProgressBar

    if not by:
        raise click.UsageError("--columns FILE goes with --by COLUMN")
    question = _asked({**options, "every": True}, 1)
    if options["method"] in question.store.methods:
        require_whole(question.store, options["method"])
    groups, queries = Groups(question.store, by, columns), list(question.queries)
    with ProgressBar("scores", question.rows) as progress_bar:
        if together:
            each = (
                (first, part[:, None])
                for first, part in question.value(lambda rows: progress_bar.update(rows, "examples"))
            )
            parts = list(groups.added(each, ["all queries"]))
        else:
            parts = list(groups.added(question.scores(lambda rows: progress_bar.update(rows, "examples")), queries))
    _remark(question)
    if output:
        with ResultFile(output, GROUP_FIELDS) as file:
            for part in parts:
                file.write(part)
        click.echo(f"{output}: {len(groups.names)} groups", err=True)
        return
    for part in parts:
        write_jsonl(sys.stdout, part) if as_json else print_groups(part, top)


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
    from ..runtime.progress import ProgressBar

    if output:
        format_of(output)
    asked = SelfInfluence(options["store"], options["method"], options["model"], budget(options["memory"]))
    with ProgressBar("self-influence", asked.rows) as progress_bar:
        scores = asked.scores(lambda rows: progress_bar.update(rows, "examples"))
        if output:
            with ResultFile(output, VALUE_FIELDS) as file:
                for part in value_rows(scores, asked.store):
                    file.write(part)
        else:
            best = asked.best(top, scores)
    if asked.alike:
        click.echo(
            f"every example has the same: rows of {options['method']} have one norm, and say nothing here", err=True
        )
    if output:
        click.echo(f"{output}: {asked.rows:,} examples", err=True)
    else:
        _print(asked, best, as_json)


def _question(options: dict[str, Any], top: int) -> Any:
    from ..attribution.open_session import ask
    from ..attribution.stored_scores import SearchOptions
    from ..data.documents import Template
    from ..models.language_model import ModelChoice

    o = options
    template = Template(o["text_field"], o["prompt_field"], o["completion_field"])
    choice = ModelChoice(o["model"], o["device"], o["dtype"], o["trust_remote_code"])
    seeds = o.get("seeded", False)
    search = SearchOptions(
        o.get("form", ""), o.get("candidates"), o.get("certify", False), o.get("every", False), seeds
    )
    return ask(o["store"], o["method"], o["queries"], choice=choice, template=template, top=top,
               memory=budget(o["memory"]), search=search)  # fmt: skip


def _asked(options: dict[str, Any], top: int) -> Any:
    """A question, measured and solved if it is one that is."""
    from ..attribution.recovered_session import RecoveredSession
    from ..runtime.progress import StageProgress

    question = _question(options, top)
    if isinstance(question, RecoveredSession):
        with StageProgress() as stages:
            question.ready(stages.update)
    return question


@click.command("attribute")
@ASKING
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), metavar="K", help="Examples per query.")
@SEARCHING
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@RUN
def plan_attribute(top: int, as_json: bool, **options: Any) -> None:
    """The memory of an attribution, what it reads and how long it takes: the same options as `headwater attribute`."""
    from ..presentation.terminal import plan_facts, print_plan, show_forecast

    question = _question(options, top)
    forecast, shape, allowed = question.forecast(), question.shape, budget(options["memory"])
    if as_json:
        click.echo(json.dumps(plan_facts(question.plan, allowed, shape, forecast), indent=1))
        return
    print_plan(question.plan, allowed, f"blocks of {shape.block_rows:,} rows, {shape.workers} workers")
    click.echo(show_forecast(forecast))
