"""`info`, `show`, `verify`, `compress`, `upgrade` and `methods`: what is there. Knows nothing of what rows mean."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import click

from ...store.json_values import ParsedJson
from ..results.printable import printable, printable_json
from .grouped_help import command
from .options import JSON, JSON_LINES, MEMORY, PARTIAL, WrongUsage, budget_of, command_of, echo, method_names


@dataclass(frozen=True, kw_only=True)
class CompressArguments:
    """Arguments of `compress`."""

    store: str
    method: str
    precision: str
    bits: int
    partial: bool
    memory: str | None


@command()
@click.argument("store")
@click.option(
    "--method",
    default="rise",
    show_default=True,
    metavar="NAME",
    shell_complete=method_names,
    help="Attribution method, whose rows are compressed.",
)
@click.option("--precision", required=True, type=click.Choice(["float16", "bf16", "int8", "sign"]),
              help="Precision of the copy.")  # fmt: skip
@click.option("--bits", default=8192, show_default=True, help="Sign bits per row, with --precision sign.")
@PARTIAL
@MEMORY
@command_of(CompressArguments)
def compress(arguments: CompressArguments) -> None:
    """Store a copy of a method's rows in fewer bits.

    `attribute --scan` and `--certify` read it. Running it again continues where it stopped, and compresses rows that
    `ingest --append` added.

    \b
    headwater compress S --precision int8
    headwater compress S --precision sign --bits 8192
    """
    from ...store.feature_store import FeatureStore
    from ..arrays.scan.compress import TargetPrecision, compression
    from ..runtime.cancellation import StopRequest
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run

    target = TargetPrecision(arguments.precision, arguments.bits)
    store, budget = FeatureStore.open(arguments.store), budget_of(arguments.memory)
    planned = compression(store, arguments.method, target, budget, partial=arguments.partial)
    for line in planned.notes:
        echo(line, err=True)
    total = planned.source.rows
    stop, display = StopRequest(), ProgressDisplay()
    with display, stop:
        rows = planned.run(Run(on_progress=display.show, should_stop=stop.requested).stage("compress", total))
    echo(f"{arguments.store}: {rows:,} of {total:,} rows of {arguments.method} as {planned.name}", err=True)
    if rows < total:
        echo("stopped; run the same command again to continue", err=True)
        sys.exit(130)


@command()
@click.argument("name", default="", metavar="[NAME]", shell_complete=method_names)
@JSON_LINES
def methods(name: str, as_json: bool) -> None:
    """List the installed attribution methods, or describe one.

    A method whose module or class is missing is listed with the reason. With a NAME: when to use it, what it needs, its settings.

    \b
    headwater methods
    headwater methods rise
    """
    from dataclasses import asdict

    from ..interface.registry import list_methods

    if name:
        _print_method(name, as_json)
        return
    for method in list_methods():
        if as_json:
            echo(printable_json(asdict(method)))
        else:
            summary = f"BROKEN: {method.fault}" if method.fault else method.about
            echo(f"{method.name:<12} {method.distribution:<24} {summary}")


def _print_method(name: str, as_json: bool) -> None:
    from ..interface.method_description import description
    from ..presentation.terminal import print_method

    facts = description(name)
    echo(printable_json(facts)) if as_json else print_method(facts)


@command()
@click.argument("paths", nargs=-1, required=True, metavar="[ANSWERS] STORE")
@JSON
def info(paths: tuple[str, ...], as_json: bool) -> None:
    """Show what a store holds, or what answers are of.

    With a file that `attribute -o` has written it says whether the store would give these answers again, and exits with 1 if
    not.

    \b
    headwater info S
    headwater info answers.parquet S
    """
    from ..presentation.terminal import print_info
    from ..results.store_info import store_facts

    if len(paths) > 2:
        raise WrongUsage(f"info takes a store, or a file of answers and a store, not {len(paths)} paths")
    if len(paths) == 2:
        _print_relation(*paths, as_json)
        return
    facts = store_facts(paths[0])
    echo(printable_json(facts, indent=1)) if as_json else print_info(facts)


def _print_relation(answers: str, store: str, as_json: bool) -> None:
    from ...store.feature_store import FeatureStore
    from ..results.answers_file import relation
    from ..results.answers_origin import STILL_RIGHT
    from ..results.result_files import SEVERAL

    facts: ParsedJson = relation(answers, FeatureStore.open(store))
    each = facts.get(SEVERAL, [facts])
    if as_json:
        echo(printable_json(facts, indent=1))
    else:
        for one in each:
            _print_origin(answers, one)
    sys.exit(0 if all(one["relation"].startswith(STILL_RIGHT) for one in each) else 1)


def _print_origin(answers: str, facts: ParsedJson) -> None:
    """Print how the answers of one method relate to a store, and what they were computed from."""
    from ..results.answers_origin import Origin

    echo(f"{answers}: answers of {facts['method']}, {facts['relation']}")
    if origin := facts.get("origin"):
        for name, value in Origin.from_json(origin).derivation():
            echo(f"{name:<8} {printable(value)}")
        some = "" if origin["complete"] else f", a part of its corpus: {origin['rows']:,} examples"
        echo(f"computed by headwater {origin['version']} from {origin['store']}, digest {origin['digest']}{some}")
        echo(f"settings {printable_json(origin['settings'])}")
        echo(f"model    {origin['model'] or 'none'}")


@command()
@click.argument("store")
@click.option(
    "--rows",
    default="",
    metavar="ROWS",
    help="Row numbers and ranges, such as 0,5,10-12. [default: the first three]",
)
@JSON_LINES
@click.option("--trust-remote-code", is_flag=True, help="Run the Python code that ships with the model.")
def show(store: str, rows: str, as_json: bool, trust_remote_code: bool) -> None:
    """Print examples as the model reads them.

    The target tokens are marked.

    \b
    headwater show S
    headwater show S --rows 0,5,10-12 --json
    """
    from dataclasses import asdict

    from ...store.errors import ModelError
    from ...store.feature_store import EXAMPLES, FeatureStore
    from ..models.language_model import tokenizer_of
    from ..presentation.terminal import print_examples
    from ..results.shown_examples import row_ranges, shown_examples

    opened = FeatureStore.open(store)
    ranges = row_ranges(rows, opened.rows(EXAMPLES))
    tokenizer, path = None, str(opened.provenance.get("model_path", ""))
    if path:
        try:
            tokenizer = tokenizer_of(path, trust_remote_code, str(opened.provenance.get("tokenizer")))
        except ModelError as error:
            echo(f"note: texts are shown as they are stored, without tokens: {error}", err=True)
    examples = shown_examples(opened, ranges, tokenizer)
    if as_json:
        for example in examples:
            echo(printable_json(asdict(example)))
    else:
        print_examples(examples)


@command()
@click.argument("store")
def verify(store: str) -> None:
    """Compare all chunks of a store with their checksums.

    Exits with 1 if a chunk is damaged.

    \b
    headwater verify S
    """
    from ...store.feature_store import FeatureStore
    from ...store.verify import chunk_count
    from ...store.verify import verify as check
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run

    opened = FeatureStore.open(store)
    total, damaged = chunk_count(opened), 0
    with ProgressDisplay() as display:
        stage = Run(on_progress=display.show).stage("verify", total, "chunks")
        for done, damage in enumerate(check(opened), 1):
            stage.report(done)
            if damage:
                damaged += 1
                echo(str(damage))
    result = (
        f"{damaged} damaged: restore these files from a copy, or ingest into a new store" if damaged else "all intact"
    )
    echo(f"{store}: {total} chunks and states, {result}", err=True)
    sys.exit(1 if damaged else 0)


@command()
@click.argument("store")
def upgrade(store: str) -> None:
    """Bring an older store to the newest format, in place.

    Every chunk is read once; nothing is copied where the file system has hard links. It may be stopped and run again.

    \b
    headwater upgrade S
    """
    from ...store.feature_store import FeatureStore
    from ...store.upgrade import upgrade as bring_up
    from ...store.verify import chunk_count
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Progress

    total = chunk_count(FeatureStore.open(store))
    with ProgressDisplay() as display:
        done = bring_up(store, lambda chunks: display.show(Progress("upgrade", chunks, total, "chunks")))
    now = FeatureStore.open(store).root.format
    if done.before == now:
        echo(f"{store} has format {now} already: nothing to do", err=True)
    else:
        echo(f"{store}: format {done.before} is now {now}, {done.chunks} chunks were read and are whole", err=True)
    if done.dropped:
        count = len(done.dropped)
        echo(
            f"{count} files of old statistics and fits were removed; statistics are computed again when needed",
            err=True,
        )
    for name in sorted({file.split("/")[1] for file in done.dropped if file.endswith("/state/fit.json")}):
        echo(
            f"the fit of {name} cannot be read any more: headwater fit {store} --method {name} makes it again", err=True
        )
