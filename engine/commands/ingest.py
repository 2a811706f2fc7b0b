"""`ingest` and `plan ingest`. Knows nothing of how rows are made."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from .fit import check_settings, fit_ingested, fitted_among
from .options import READING, RUN, budget, method_settings

if TYPE_CHECKING:
    from ..ingest.ingest_job import PreparedIngest


@click.command()
@READING
@RUN
def ingest(**options: Any) -> None:
    """Read CORPUS once and store a small sketch of every example.

    Running it again goes on where it stopped, adds a method that is new, or (with --append) documents that are new.

    \b
    headwater ingest data/*.jsonl.zst --store S --model EleutherAI/pythia-1b
    headwater ingest train.csv --store S --model ./tuned --prompt '{q}\\n' --completion '{a}'
    headwater ingest features.npz --store S
    headwater ingest corpus.jsonl --store S --model M --method rise --method stride
    """
    from ..runtime.cancellation import StopRequest
    from ..runtime.progress import ProgressDisplay, clock
    from ..runtime.run import Run

    prepared = _prepared(options)
    for line in prepared.notes:
        click.echo(f"note: {line}", err=True)
    ingestion = prepared.open()
    stop, display = StopRequest(), ProgressDisplay()
    with display, stop:
        outcome = ingestion.run(Run(on_progress=display.show, should_stop=stop.requested))
    record_errors = prepared.provider.record_errors
    for line in record_errors.first:
        click.echo(f"skipped: {line}", err=True)
    if record_errors.count:
        click.echo(f"skipped {record_errors.count} bad records", err=True)
    rate = outcome.tokens / max(outcome.seconds, 1e-9)
    click.echo(f"{options['store']}: {outcome.rows:,} examples, {outcome.added:,} read now in {clock(outcome.seconds)} "
               f"({outcome.tokens:,} tokens, {rate:,.0f}/s)", err=True)  # fmt: skip
    if not outcome.finished:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    for name in fitted_among(options["methods"]):
        fit_ingested(options, name)


def _prepared(options: dict[str, Any]) -> PreparedIngest:
    from ..data.documents import Template
    from ..ingest.ingest_job import IngestJob, prepare
    from ..ingest.text_settings import TextSettings
    from ..models.language_model import ModelChoice
    from ..runtime.run import Run

    o = options
    template = Template(o["text_field"], o["prompt_field"], o["completion_field"])
    settings = TextSettings(template, o["on_error"], o["max_length"], o["attribute"], o["truncate"], o["lines"])
    with_text = None if o["no_text"] is None else not o["no_text"]
    with_tokens = None if o["no_tokens"] is None else not o["no_tokens"]
    choice = ModelChoice(o["model"], o["device"], o["dtype"], o["trust_remote_code"])
    fits = fitted_among(o["methods"])
    given = method_settings(o["methods"], o["settings"])
    for name in fits:
        check_settings(name, given[name], o["store"] if o["append"] else "")
    methods = {name: settings for name, settings in given.items() if name not in fits}
    job = IngestJob(o["corpus"], o["store"], choice, methods, settings, o["batch_tokens"], with_text, with_tokens, o["append"],
                    o["seeds"], o["commit_seconds"])  # fmt: skip
    return prepare(job, Run(budget(o["memory"])))


@click.command("ingest")
@READING
@RUN
def plan_ingest(**options: Any) -> None:
    """The memory of an ingestion: the same options as `headwater ingest`."""
    from ..presentation.terminal import print_plan

    prepared = _prepared(options)
    print_plan(prepared.plan, budget(options["memory"]), f"batches of {prepared.tokens:,} tokens")
