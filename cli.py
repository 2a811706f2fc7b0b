"""The command line: parse, call one engine function, print. Knows nothing of how anything is computed.

Only click is imported here; a command imports what it needs when it runs, so that `--help` and `methods` answer at once.
Every error of ours becomes one line in one place, :class:`_Commands`. Exit codes: 0 done, 1 our error, 2 usage, 130 stopped.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from typing import Any

import click

from .store.errors import HeadwaterError


class _Commands(click.Group):
    """A group that turns headwater's errors, and nobody else's, into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HeadwaterError as error:
            line = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
            click.echo(f"error: {line}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            ctx.exit(130)


def _options(*decorators: Any) -> Callable[[Any], Any]:
    def apply(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


_run = _options(
    click.option("--memory", metavar="BYTES", help="Refuse to start if the plan exceeds this: 512MB, 2GB, 1.5GiB."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i."),
    click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16."),
    click.option("--trust-remote-code", is_flag=True, help="Run the code that ships with the model."),
)
_fields = _options(
    click.option(
        "--text", "text_field", default="", metavar="TEMPLATE", help="Record to text, such as '{title}: {body}'."
    ),
    click.option(
        "--prompt", "prompt_field", default="", metavar="TEMPLATE", help="Record to prompt, such as '{question}\\n'."
    ),
    click.option("--completion", "completion_field", default="", metavar="TEMPLATE", help="Record to completion."),
)
_reading = _options(
    click.argument("corpus", nargs=-1, required=True),
    click.option("--store", required=True, metavar="DIR", help="Folder of the store; made if it is not there."),
    click.option("--model", default="", metavar="PATH", help="Folder or hub id of a causal LM, or of a LoRA adapter."),
    click.option("--method", "methods", multiple=True, default=("rise",), show_default=True, metavar="NAME",
                 help="Attribution method; several share one forward pass."),
    click.option("-o", "settings", nargs=2, multiple=True, metavar="NAME.SETTING VALUE",
                 help="A method's setting, such as -o rise.tau 1.0."),
    _fields,
    click.option("--max-length", type=int, metavar="TOKENS", help="Longest example; longer texts are cut. "
                 "[default: the model's context, at most 1024]"),
    click.option("--attribute", type=click.Choice(["completion", "all"]), default=None,
                 help="What counts in a row that has a prompt. [default: completion]"),
    click.option("--truncate", is_flag=True, default=None, help="Cut prompted rows that are too long, prompt first."),
    click.option("--lines", is_flag=True, default=None, help="In plain text, a line is a document (not a paragraph)."),
    click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True,
                 help="What a bad record does; skipped ones are counted and shown."),
    click.option("--no-text", is_flag=True, default=None, help="Keep references to the texts only."),
    click.option("--append", is_flag=True, help="Add files that are new to an existing store."),
    click.option("--batch-tokens", type=click.IntRange(1), metavar="N",
                 help="Padded tokens of a batch. [default: 4096, less if memory asks]"),
    click.option("--commit-seconds", type=click.FloatRange(0), default=15.0, show_default=True,
                 help="A kill loses at most so much work."),
)  # fmt: skip
_asking = _options(
    click.argument("store"),
    click.option("--method", default="rise", show_default=True, metavar="NAME", help="Method whose rows are asked."),
    click.option("--queries", required=True, metavar="FILE", help="Queries, in any corpus format."),
    click.option("--model", default="", metavar="PATH", help="Where the store's model is now, if it has moved."),
    _fields,
)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="headwater")
def main() -> None:
    """Trace what a language model does back to the training examples that caused it.

    \b
    headwater demo
    headwater ingest corpus.jsonl --store S --model MODEL
    headwater attribute S --queries questions.jsonl
    """


@main.command()
@_reading
@_run
def ingest(**options: Any) -> None:
    """Read CORPUS once and store a small sketch of every example.

    Running it again goes on where it stopped, adds a method that is new, or (with --append) documents that are new.

    \b
    headwater ingest data/*.jsonl.zst --store S --model EleutherAI/pythia-1b
    headwater ingest train.csv --store S --model ./tuned --prompt '{q}\\n' --completion '{a}'
    headwater ingest features.npz --store S
    """
    from .engine.console import StopRequest, Ticker, clock
    from .engine.intake.estimate import estimate_records, fraction

    prepared = _prepared(options)
    ingestion = prepared.open()
    estimates = estimate_records(prepared.provider.sources)
    stop = StopRequest()
    with Ticker("ingest") as ticker, stop:
        outcome = ingestion.run(
            lambda p: ticker.tell(p.rows, f"examples · {p.tokens / max(p.seconds, 1e-9):,.0f} tokens/s",
                                  fraction(p.place, estimates)),
            stop.asked,
        )  # fmt: skip
    faults = prepared.provider.faults
    for line in faults.first:
        click.echo(f"skipped: {line}", err=True)
    if faults.count:
        click.echo(f"skipped {faults.count} bad records", err=True)
    rate = outcome.tokens / max(outcome.seconds, 1e-9)
    click.echo(f"{options['store']}: {outcome.rows:,} examples, {outcome.added:,} read now in {clock(outcome.seconds)} "
               f"({outcome.tokens:,} tokens, {rate:,.0f}/s)", err=True)  # fmt: skip
    if not outcome.finished:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)


def _prepared(options: dict[str, Any]) -> Any:
    from .engine.intake.corpus import Template
    from .engine.intake.job import IngestJob, prepare
    from .engine.intake.model import ModelChoice
    from .engine.intake.providers import Reading

    o = options
    template = Template(o["text_field"], o["prompt_field"], o["completion_field"])
    reading = Reading(template, o["on_error"], o["max_length"], o["attribute"], o["truncate"], o["lines"])
    with_text = None if o["no_text"] is None else not o["no_text"]
    choice = ModelChoice(o["model"], o["device"], o["dtype"], o["trust_remote_code"])
    methods = _method_settings(o["methods"], o["settings"])
    return prepare(IngestJob(o["corpus"], o["store"], choice, methods, reading, _bytes(o["memory"]), o["batch_tokens"],
                             with_text, o["append"], o["commit_seconds"]))  # fmt: skip


def _method_settings(names: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> dict[str, dict[str, Any]]:
    settings: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, text in pairs:
        name, dot, setting = key.partition(".")
        if not dot or name not in settings:
            raise click.UsageError(f"-o {key}: write NAME.SETTING with one of --method {', '.join(names)}")
        try:
            settings[name][setting] = json.loads(text)
        except ValueError:
            settings[name][setting] = text
    return settings


def _bytes(text: str | None) -> int | None:
    from .engine.memory import parse_bytes

    return None if text is None else parse_bytes(text)


_searching = _options(
    click.option("--scan", "form", default="", metavar="FORM", help="Scan this form (see `headwater compress`), then score "
                 "the best candidates again as stored."),
    click.option("--candidates", type=click.IntRange(1), metavar="N", help="Rows a query that are scored again. "
                 "[default: int8, bf16: 2 K, at least 100; sign: 10 K, at least 1000]"),
    click.option("--certify", is_flag=True, help="Scan the form int8, and take the candidates that the exact answer needs."),
)  # fmt: skip


@main.command()
@_asking
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), metavar="K", help="Examples per query.")
@_searching
@click.option("-o", "--output", metavar="FILE", help="Write .jsonl, .csv or .parquet.")
@click.option(
    "--all-scores", metavar="DIR.zarr", help="Write every example's score for every query instead: (N, Q) float32."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a table.")
@_run
def attribute(output: str | None, all_scores: str | None, as_json: bool, top: int, **options: Any) -> None:
    """The examples that did most for each query's completion, best first.

    \b
    headwater attribute S --queries questions.jsonl --top 5
    headwater attribute S --queries questions.jsonl --memory 2GB -o answers.parquet
    headwater attribute S --queries questions.jsonl --scan sign8192 --candidates 1000
    """
    from .engine.answers.scores import RESULT_FIELDS, ResultFile, format_of, result_rows
    from .engine.console import Ticker

    if output:
        format_of(output)
    if all_scores and (output or as_json):
        raise click.UsageError("--all-scores writes one place: leave -o and --json")
    if all_scores:
        _export(options, all_scores)
        return
    question = _question(options, top)
    with Ticker("attribute", question.rows) as ticker:
        results = question.attribute(lambda rows: ticker.tell(rows, "examples"))
    if not results.exact:
        share = "" if math.isnan(results.recall) else f"; expected recall {results.recall:.4f}"
        click.echo(f"not exact: chosen by estimates{share}", err=True)
    if output:
        with ResultFile(output, RESULT_FIELDS) as file:
            for part in result_rows(results, question.store):
                file.write(part)
        click.echo(f"{output}: {len(results.queries)} queries, {results.rows.shape[1]} examples each", err=True)
    else:
        _print(question, results, as_json)


def _export(options: dict[str, Any], path: str) -> None:
    from .engine.answers.export import refuse_path
    from .engine.console import Ticker

    refuse_path(path)
    question = _question({**options, "every": True}, 1)
    with Ticker("attribute", question.rows) as ticker:
        question.export(path, lambda rows: ticker.tell(rows, "examples"))
    click.echo(f"{path}: {question.rows:,} examples × {len(question.queries)} queries", err=True)


def _print(question: Any, results: Any, as_json: bool) -> None:
    from .engine.answers.report import print_results
    from .engine.answers.scores import result_rows, write_jsonl

    for part in result_rows(results, question.store):
        if as_json:
            write_jsonl(sys.stdout, part)
        else:
            print_results(part, question.queries)


@main.command()
@_asking
@click.option(
    "-o", "--output", metavar="FILE", help="Write all scores, in the corpus's order: .jsonl, .csv or .parquet."
)
@click.option(
    "--top", default=10, show_default=True, type=click.IntRange(1), metavar="K", help="Examples printed without -o."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a table.")
@_run
def value(output: str | None, as_json: bool, top: int, **options: Any) -> None:
    """One score per example against all queries together: the mean of its scores.

    \b
    headwater value S --queries task.jsonl -o values.parquet
    """
    from .engine.answers.scores import VALUE_FIELDS, ResultFile, format_of, value_rows
    from .engine.console import Ticker

    if output:
        format_of(output)
    question = _question(options, top)
    with Ticker("value", question.rows) as ticker:
        if output:
            with ResultFile(output, VALUE_FIELDS) as file:
                for part in value_rows(question.value(lambda rows: ticker.tell(rows, "examples")), question.store):
                    file.write(part)
        else:
            results = question.most_valuable(lambda rows: ticker.tell(rows, "examples"))
    if output:
        click.echo(f"{output}: {question.rows:,} examples", err=True)
    else:
        _print(question, results, as_json)


def _question(options: dict[str, Any], top: int) -> Any:
    from .engine.answers.attribution import Search
    from .engine.answers.question import ask
    from .engine.intake.corpus import Template
    from .engine.intake.model import ModelChoice

    o = options
    template = Template(o["text_field"], o["prompt_field"], o["completion_field"])
    choice = ModelChoice(o["model"], o["device"], o["dtype"], o["trust_remote_code"])
    search = Search(o.get("form", ""), o.get("candidates"), o.get("certify", False), o.get("every", False))
    return ask(o["store"], o["method"], o["queries"], choice=choice, template=template, top=top,
               memory=_bytes(o["memory"]), search=search)  # fmt: skip


@main.command()
@click.argument("store")
@click.option("--method", default="rise", show_default=True, metavar="NAME", help="Method whose rows are made smaller.")
@click.option(
    "--precision", required=True, type=click.Choice(["float16", "bf16", "int8", "sign"]), help="Of the new form."
)
@click.option("--bits", default=8192, show_default=True, help="Sign bits of a row, for --precision sign.")
@click.option("--memory", metavar="BYTES", help="Refuse to start if the plan exceeds this: 512MB, 2GB, 1.5GiB.")
def compress(store: str, method: str, precision: str, bits: int, memory: str | None) -> None:
    """Make a smaller form of stored rows, beside them, for `attribute --scan` and `--certify`.

    Run it again to go on where it stopped, or after `ingest --append`.

    \b
    headwater compress S --precision int8
    headwater compress S --precision sign --bits 8192
    """
    from .engine.arrays.compress import compression
    from .engine.console import StopRequest, Ticker
    from .store.feature_store import FeatureStore

    planned = compression(FeatureStore.open(store), method, precision, bits, _bytes(memory))
    stop = StopRequest()
    with Ticker("compress", planned.source.rows) as ticker, stop:
        rows = planned.run(lambda done: ticker.tell(done, "examples"), stop.asked)
    click.echo(f"{store}: {rows:,} of {planned.source.rows:,} rows of {method} as {planned.name}", err=True)
    if rows < planned.source.rows:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def methods(as_json: bool) -> None:
    """The attribution methods that are installed, broken ones included."""
    from dataclasses import asdict

    from .engine.registry import list_methods

    for listed in list_methods():
        if as_json:
            click.echo(json.dumps(asdict(listed)))
        else:
            click.echo(
                f"{listed.name:<12} {listed.distribution:<24} {(listed.fault and 'BROKEN: ' + listed.fault) or listed.about}"
            )


@main.command()
@click.argument("store")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(store: str, as_json: bool) -> None:
    """What a store holds and what it was made from."""
    from .engine.answers.report import print_info, store_facts

    facts = store_facts(store)
    click.echo(json.dumps(facts, indent=1)) if as_json else print_info(facts)


@main.command()
@click.argument("store")
def verify(store: str) -> None:
    """Check every chunk against its checksum; exit 1 if any differs."""
    from .engine.console import Ticker
    from .store.feature_store import FeatureStore
    from .store.verify import chunk_count
    from .store.verify import verify as check

    opened = FeatureStore.open(store)
    total, damaged = chunk_count(opened), 0
    with Ticker("verify", total) as ticker:
        for done, damage in enumerate(check(opened), 1):
            ticker.tell(done, "chunks")
            if damage:
                damaged += 1
                click.echo(str(damage))
    told = f"{damaged} damaged: restore these files from a copy, or ingest into a new store" if damaged else "all whole"
    click.echo(f"{store}: {total} chunks, {told}", err=True)
    sys.exit(1 if damaged else 0)


@main.group(cls=_Commands)
def plan() -> None:
    """What a run would take; answers nothing and writes nothing."""


@plan.command("ingest")
@_reading
@_run
def plan_ingest(**options: Any) -> None:
    """The memory of an ingestion: the same options as `headwater ingest`."""
    from .engine.answers.report import print_plan

    prepared = _prepared(options)
    print_plan(prepared.plan, _bytes(options["memory"]), f"batches of {prepared.tokens:,} tokens")


@plan.command("attribute")
@_asking
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), metavar="K", help="Examples per query.")
@_searching
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_run
def plan_attribute(top: int, as_json: bool, **options: Any) -> None:
    """The memory of an attribution, what it reads and how long it takes: the same options as `headwater attribute`."""
    from .engine.answers.report import plan_facts, print_plan, show_forecast

    question = _question(options, top)
    forecast, shape, budget = question.forecast(), question.shape, _bytes(options["memory"])
    if as_json:
        click.echo(json.dumps(plan_facts(question.plan, budget, shape, forecast), indent=1))
        return
    print_plan(question.plan, budget, f"blocks of {shape.block_rows:,} rows, {shape.workers} workers")
    click.echo(show_forecast(forecast))


@main.command("ground-truth")
@click.argument("corpus", nargs=-1, required=True)
@click.option("--queries", required=True, metavar="FILE", help="Queries, whose losses are the outcomes.")
@click.option(
    "--model-config", "model", required=True, metavar="PATH", help="Folder of a small model's config and tokenizer."
)
@click.option("-o", "--output", "folder", required=True, metavar="DIR", help="Where it goes.")
@click.option("--subsets", default=64, show_default=True, type=click.IntRange(1), help="Subsets of the corpus.")
@click.option("--fraction", default=0.5, show_default=True, help="Share of the corpus in each.")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1), help="Trainings of each subset.")
@click.option(
    "--clusters",
    default=0,
    type=click.IntRange(0),
    metavar="N",
    help="Draw whole clusters of like texts, of so many, not examples.",
)
@click.option("--masks", default="", metavar="FILE", help="Take these subsets: (subsets, examples) of 0 and 1.")
@click.option("--seed", default=0, show_default=True, help="Of the subsets.")
@click.option("--epochs", default=3.0, show_default=True, help="Passes over a subset.")
@click.option("--batch", default=16, show_default=True, type=click.IntRange(1), help="Examples of a step.")
@click.option("--learning-rate", default=1e-3, show_default=True, help="At its highest.")
@click.option("--pretrained", is_flag=True, help="Start from the folder's weights instead of random ones.")
@click.option("--max-length", type=int, metavar="TOKENS", help="Longest example; longer texts are cut.")
@click.option(
    "--processes",
    default=0,
    type=click.IntRange(0),
    metavar="N",
    help="Trainings beside each other. [default: the processors]",
)
@_fields
def ground_truth(**options: Any) -> None:
    """Train a small model on many subsets of CORPUS, and note what each does to every query: masks, outcomes, the ceiling.

    Running it again goes on where it stopped, at the (subset, seed).

    \b
    headwater ground-truth corpus.jsonl --queries questions.jsonl --model-config ./small -o truth
    headwater evaluate lds --scores scores.zarr --masks truth/masks.npy --outcomes truth/outcomes.npy
    """
    from .engine.arrays.scan import cores
    from .engine.console import StopRequest, Ticker
    from .engine.intake.corpus import Template
    from .engine.truth.job import TruthJob, prepare_truth
    from .engine.truth.retraining import Recipe

    o = options
    template = Template(o.pop("text_field"), o.pop("prompt_field"), o.pop("completion_field"))
    recipe = Recipe(o.pop("epochs"), o.pop("batch"), o.pop("learning_rate"), pretrained=o.pop("pretrained"))
    processes = o.pop("processes") or cores()
    truth = prepare_truth(TruthJob(**o, recipe=recipe, template=template))
    stop, total = StopRequest(), truth.task.seeds * len(truth.task.masks)
    with Ticker("ground-truth", total) as ticker, stop:
        finished = truth.build(processes, lambda done: ticker.tell(done, "trainings"), stop.asked)
    if not finished:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    click.echo(f"{truth.folder}: {len(truth.task.masks)} subsets × {truth.task.seeds} seeds, {len(truth.task.queries)} queries; "
               f"{truth.told()}", err=True)  # fmt: skip


@main.group(cls=_Commands)
def evaluate() -> None:
    """Whether scores are right: against retraining, and against what is known to be relevant."""


_telling = _options(
    click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table."),
    click.option("-o", "--output", metavar="FILE.json", help="Write all figures, each query's too."),
    click.option("--plot", metavar="FILE", help="Draw them: .png, .svg or .pdf."),
)
_outcomes = _options(
    click.option("--outcomes", required=True, metavar="FILE",
                 help="What training did: (subsets, queries) or (seeds, subsets, queries); .npy, .parquet or .zarr."),
    click.option("--outcome", "kind", type=click.Choice(["loss", "gain"]), default="loss", show_default=True,
                 help="A loss falls where training helps; a gain rises."),
    click.option("--subsets", default="", metavar="FROM:TO", help="Only these subsets, such as 80:100."),
    click.option("--resamples", type=click.IntRange(1), default=1000, show_default=True, help="Of the bootstrap."),
)  # fmt: skip


@evaluate.command("lds")
@click.option("--scores", required=True, metavar="FILE", help="(queries, examples): .npy, .parquet or .zarr.")
@click.option("--masks", required=True, metavar="FILE", help="(subsets, examples) of 0 and 1.")
@_outcomes
@_telling
def evaluate_lds(as_json: bool, output: str | None, plot: str | None, **options: Any) -> None:
    """Linear datamodelling score: do summed scores rank subsets as retraining on them does?

    \b
    headwater attribute S --queries q.jsonl --all-scores scores.zarr
    headwater evaluate lds --scores scores.zarr --masks truth/masks.npy --outcomes truth/outcomes.npy
    """
    from .engine.evaluation.evaluate import lds_of

    _agreement(lds_of, options, as_json, output, plot)


@evaluate.command("subsets")
@click.option(
    "--predicted", required=True, metavar="FILE", help="Utilities of subsets: (subsets,) or (subsets, tasks)."
)
@_outcomes
@_telling
def evaluate_subsets(as_json: bool, output: str | None, plot: str | None, **options: Any) -> None:
    """Do predicted utilities rank subsets as retraining on them does?

    \b
    headwater evaluate subsets --predicted utilities.npy --outcomes truth/outcomes.npy --plot subsets.png
    """
    from .engine.evaluation.evaluate import subsets_of

    _agreement(subsets_of, options, as_json, output, plot)


def _agreement(measure: Any, options: dict[str, Any], as_json: bool, output: str | None, plot: str | None) -> None:
    from .engine.evaluation.pictures import draw_agreement, refuse_picture
    from .engine.evaluation.report import print_agreement

    if plot:
        refuse_picture(plot)
    found = measure(**options)
    _tell(found, print_agreement, as_json, output)
    if plot:
        draw_agreement(found, plot)


@evaluate.command("retrieval")
@click.option("--results", default="", metavar="FILE", help="Answers, as attribute -o writes them.")
@click.option(
    "--scores", default="", metavar="FILE", help="Instead: all scores, as attribute --all-scores writes them."
)
@click.option("--store", default="", metavar="DIR", help="The store: whose rows --scores are; checks labels' ids.")
@click.option("--labels", default="", metavar="FILE", help="What is relevant: ids (.txt), or a table of query_id and "
              "example_id, or of id and --column.")  # fmt: skip
@click.option(
    "--column",
    default="",
    metavar="NAME",
    help="Column of --labels: relevant is the query's own label, or a true one.",
)
@click.option("--query-labels", "queries", default="", metavar="FILE", help="Table of the queries' id and --column.")
@click.option(
    "--match",
    "pattern",
    default="",
    metavar="REGEX",
    help="Instead: relevant is text that this is found in.",
)
@click.option(
    "--at",
    "cuts",
    multiple=True,
    type=click.IntRange(1),
    metavar="K",
    help="Of precision and recall. [default: 1 5 10 50]",
)
@_telling
def evaluate_retrieval(as_json: bool, output: str | None, plot: str | None, **options: Any) -> None:
    """Do the examples that are known to be relevant come first?

    \b
    headwater evaluate retrieval --results answers.jsonl --labels gold.jsonl
    headwater evaluate retrieval --scores all.zarr --store S --labels poisoned.txt --plot poison.png
    headwater evaluate retrieval --results answers.jsonl --match BadMagic
    """
    from .engine.evaluation.evaluate import labels_of, retrieval_of
    from .engine.evaluation.pictures import draw_retrieval, refuse_picture
    from .engine.evaluation.report import print_retrieval
    from .engine.evaluation.retrieval import CUTS

    if plot:
        refuse_picture(plot)
    labels = labels_of(*(options.pop(name) for name in ("labels", "column", "queries", "pattern")))
    found = retrieval_of(**{**options, "cuts": options["cuts"] or CUTS}, labels=labels)
    _tell(found, print_retrieval, as_json, output)
    if plot:
        draw_retrieval(found, plot)


def _tell(found: Any, show: Callable[[Any], None], as_json: bool, output: str | None) -> None:
    from .engine.evaluation.evaluate import save

    if output:
        save(found.facts(), output)
    if as_json:
        click.echo(json.dumps(found.facts()))
    else:
        show(found)


@main.command()
@click.option(
    "--workdir", default="demo", show_default=True, metavar="DIR", help="Where the corpus, model and store are kept."
)
@click.option("--short", is_flag=True, help="A smaller model and corpus: a minute, and weaker answers.")
def demo(workdir: str, short: bool) -> None:
    """The whole job, offline: a corpus, a model trained on it, a store, and answers. Minutes on two cores."""
    from .engine.demo.tour import tour

    # The dense residual weighed by its own norm: on a model this small and unsure it points to the right module in 65 of
    # 100 questions, where RISE's published temperature of 0.1 and unit norms do in 49.
    tour(workdir, "rise", short, {"kr": 96, "kh": 64, "kg": 32, "tau": 1.0, "floor": 1.0})
