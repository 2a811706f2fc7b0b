"""`ingest` and `plan ingest`. Knows nothing of how rows are made."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from .corpus_options import CORPUS, FieldArguments
from .fit import FitArguments, check_settings, fit_now, subset_methods_among
from .grouped_help import command
from .options import RUN, RunArguments, command_of, echo, method_settings

if TYPE_CHECKING:
    from ..ingest.ingest_job import PreparedIngest
    from ..ingest.ingestion import IngestResult


@dataclass(frozen=True, kw_only=True)
class IngestArguments(RunArguments, FieldArguments):
    """Arguments of `ingest` and `plan ingest`. None stands for the store's setting, or for the default if the store is new."""

    corpus: tuple[str, ...]
    store: str
    methods: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    seeds: int
    base: str
    max_length: int | None
    attribute: Literal["completion", "all"] | None
    truncate: bool | None
    lines: bool | None
    boundary: Literal["joined", "apart", "auto"] | None
    on_error: Literal["fail", "skip"]
    no_text: bool | None
    no_tokens: bool | None
    keep: tuple[str, ...]
    append: bool
    batch_tokens: int | None
    commit_seconds: float

    def fit(self, method: str) -> FitArguments:
        """Arguments of `fit` for a subset method that is named by --method."""
        settings = tuple((key, value) for key, value in self.settings if key.rpartition(".")[0] == method)
        return FitArguments(
            store=self.store, method=method, settings=settings, corpus=self.corpus, base=self.base,
            commit_seconds=self.commit_seconds, model=self.model, memory=self.memory, device=self.device, dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
        )  # fmt: skip


@command()
@CORPUS
@RUN
@command_of(IngestArguments)
def ingest(arguments: IngestArguments) -> None:
    """Read CORPUS once; store a small sketch per example.

    Running it again continues where it stopped, adds a method, or (with --append) adds documents.

    \b
    headwater ingest data/*.jsonl.zst --store S --model EleutherAI/pythia-1b
    headwater ingest train.csv --store S --model ./tuned --prompt-template '{q}\\n' --completion-template '{a}'
    headwater ingest features.npz --store S
    headwater ingest corpus.jsonl --store S --model M --method rise --method stride
    headwater ingest corpus.jsonl --store S --method rise@early --base ./early-checkpoint
    """
    arguments = with_methods(arguments)
    run_ingestion(_prepared(arguments))
    for name in subset_methods_among(arguments.methods):
        fit_now(arguments.fit(name))


def with_methods(arguments: IngestArguments) -> IngestArguments:
    """The arguments, with those methods of the store, or the default of a new one, if none is named."""
    from ..ingest.requested_methods import default_methods

    return arguments if arguments.methods else replace(arguments, methods=tuple(default_methods(arguments.store)))


def run_ingestion(prepared: PreparedIngest) -> None:
    """Ingest with progress, and print the result; exits with 130 if it was stopped."""
    from ...store.completeness import rows_missing
    from ..ingest.equal_ids import equal_ids_note
    from ..runtime.cancellation import StopRequest
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run

    for line in prepared.notes:
        echo(f"note: {line}", err=True)
    ingestion = prepared.open()
    for line in ingestion.provider.notes:
        echo(f"note: {line}", err=True)
    stop, display = StopRequest(), ProgressDisplay()
    with display, stop:
        result = ingestion.run(Run(on_progress=display.show, should_stop=stop.requested))
    _print_result(prepared.job.store, prepared, result)
    if result.added and (note := equal_ids_note(ingestion.store)):
        echo(f"note: {note}", err=True)
    for line in rows_missing(ingestion.store) if result.finished else ():
        echo(f"note: {line}", err=True)
    if not result.finished:
        echo("stopped; run the same command again to continue", err=True)
        sys.exit(130)


def _print_result(store: str, prepared: PreparedIngest, result: IngestResult) -> None:
    from ..runtime.progress import clock

    record_errors = prepared.provider.record_errors
    for line in record_errors.first:
        echo(f"skipped: {line}", err=True)
    if record_errors.count:
        echo(f"skipped {record_errors.count} bad records in all", err=True)
    for part, count in sorted(record_errors.left_out.items()):
        echo(f"note: {count:,} conversations are read without a part: {part}", err=True)
    rate = result.tokens / max(result.seconds, 1e-9)
    echo(f"{store}: {result.rows:,} examples, {result.added:,} read in this run, in {clock(result.seconds)} "
               f"({result.tokens:,} tokens, {rate:,.0f}/s)", err=True)  # fmt: skip


def _prepared(arguments: IngestArguments) -> PreparedIngest:
    from ..ingest.ingest_job import IngestJob, prepare
    from ..ingest.text_settings import TextSettings
    from ..runtime.run import Run

    a = arguments
    text_settings = TextSettings(a.template, a.on_error, a.max_length, a.attribute, a.truncate, a.lines, a.boundary)
    with_text = None if a.no_text is None else not a.no_text
    with_tokens = None if a.no_tokens is None else not a.no_tokens
    fitted = subset_methods_among(a.methods)
    settings = method_settings(a.methods, a.settings)
    for name in fitted:
        check_settings(name, settings[name], a.store if a.append else "")
    _check_base(a, fitted)
    methods = {name: own for name, own in settings.items() if name not in fitted}
    job = IngestJob(a.corpus, a.store, a.model_choice, methods, text_settings, a.batch_tokens, with_text, with_tokens,
                    a.append, a.seeds, a.base, a.commit_seconds, a.keep)  # fmt: skip
    return prepare(job, Run(a.budget))


def _check_base(arguments: IngestArguments, fitted: list[str]) -> None:
    """Check that --base can be the model of the fitted methods, before a row is read.

    Raises:
        SettingsError: one of them is no member, or nothing else is ingested and the store's own model is not given.
    """
    from ...store.errors import SettingsError

    base, store = arguments.base, arguments.store
    unlabelled = [name for name in fitted if "@" not in name]
    if base and unlabelled:
        raise SettingsError("--base is the model of a member", hint=f"name it, such as --method {unlabelled[0]}@early")
    if base and len(fitted) == len(arguments.methods) and not arguments.model:
        fit = shlex.join(["headwater", "fit", store, "--method", fitted[0], "--base", base])
        raise SettingsError(
            f"--base is the model of {fitted[0]}, and the store's own reads the corpus",
            hint=f"give it by --model, or, if the corpus is ingested, run {fit}",
        )


@command("ingest")
@CORPUS
@RUN
@command_of(IngestArguments)
def plan_ingest(arguments: IngestArguments) -> None:
    """Print the memory plan of `ingest`.

    Takes the same arguments and options as `ingest`.

    \b
    headwater plan ingest corpus.jsonl --store S --model MODEL
    """
    from ..presentation.terminal import print_plan

    prepared = _prepared(with_methods(arguments))
    for line in prepared.notes:
        echo(f"note: {line}", err=True)
    print_plan(prepared.plan, arguments.budget, f"batches of {prepared.tokens:,} tokens")
    for line in prepared.remarks:
        echo(line)
