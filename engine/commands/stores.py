"""`info`, `verify`, `compress` and `methods`: what is there. Knows nothing of what rows mean."""

from __future__ import annotations

import json
import sys

import click

from .options import budget


@click.command()
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
    from ...store.feature_store import FeatureStore
    from ..arrays.scan.compress import TargetPrecision, compression
    from ..runtime.cancellation import StopRequest
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run

    planned = compression(FeatureStore.open(store), method, TargetPrecision(precision, bits), budget(memory))
    stop, display = StopRequest(), ProgressDisplay()
    run = Run(on_progress=display.show, should_stop=stop.asked)
    with display, stop:
        rows = planned.run(run.stage("compress", planned.source.rows))
    click.echo(f"{store}: {rows:,} of {planned.source.rows:,} rows of {method} as {planned.name}", err=True)
    if rows < planned.source.rows:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def methods(as_json: bool) -> None:
    """The attribution methods that are installed, broken ones included."""
    from dataclasses import asdict

    from ..interface.registry import list_methods

    for listed in list_methods():
        if as_json:
            click.echo(json.dumps(asdict(listed)))
        else:
            click.echo(
                f"{listed.name:<12} {listed.distribution:<24} {(listed.fault and 'BROKEN: ' + listed.fault) or listed.about}"
            )


@click.command()
@click.argument("store")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(store: str, as_json: bool) -> None:
    """What a store holds and what it was made from."""
    from ..presentation.terminal import print_info
    from ..results.store_info import store_facts

    facts = store_facts(store)
    click.echo(json.dumps(facts, indent=1)) if as_json else print_info(facts)


@click.command()
@click.argument("store")
def verify(store: str) -> None:
    """Check every chunk against its checksum; exit 1 if any differs."""
    from ...store.feature_store import FeatureStore
    from ...store.verify import chunk_count
    from ...store.verify import verify as check
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Progress

    opened = FeatureStore.open(store)
    total, damaged = chunk_count(opened), 0
    with ProgressDisplay() as display:
        for done, damage in enumerate(check(opened), 1):
            display.show(Progress("verify", done, total, "chunks"))
            if damage:
                damaged += 1
                click.echo(str(damage))
    told = f"{damaged} damaged: restore these files from a copy, or ingest into a new store" if damaged else "all whole"
    click.echo(f"{store}: {total} chunks and states, {told}", err=True)
    sys.exit(1 if damaged else 0)
