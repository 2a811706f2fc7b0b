"""`fit`: what a method learns of the whole corpus at once. Knows nothing of how operators are trained."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from .options import RUN, budget, method_settings


@click.command()
@click.argument("store")
@click.option("--method", default="stride", show_default=True, metavar="NAME", help="Method that is fitted.")
@click.option("-o", "settings", nargs=2, multiple=True, metavar="NAME.SETTING VALUE",
              help="The method's setting, such as -o stride.subsets 300.")  # fmt: skip
@click.option("--model", default="", metavar="PATH", help="Where the store's model is now, if it has moved.")
@click.option("--corpus", multiple=True, metavar="FILE", help="Where the corpus's files are now: of arrays, and of stores "
              "without texts.")  # fmt: skip
@click.option(
    "--again", is_flag=True, help="Begin anew where there is a fit with other settings, or of other examples."
)
@click.option("--commit-seconds", type=click.FloatRange(0), default=15.0, show_default=True,
              help="A kill loses at most so much work.")  # fmt: skip
@RUN
def fit(settings: tuple[tuple[str, str], ...], **options: Any) -> None:
    """Fit a method to all examples of STORE, for `attribute` and `value` to ask.

    Running it again goes on where it stopped. How answers are recovered (solver, share, held_out, tolerance) may be changed
    at any time, and costs nothing.

    \b
    headwater fit S --method stride
    headwater fit S --method stride -o stride.subsets 300 -o stride.omega example
    headwater fit S --method stride -o stride.bases early,middle,late
    headwater fit S --method stride -o stride.solver ridge
    """
    from ..intake.model import ModelChoice

    o = options
    given = method_settings((o["method"],), settings)[o["method"]]
    choice = ModelChoice(o["model"], o["device"], o["dtype"], o["trust_remote_code"])
    more = {"corpus": o["corpus"], "again": o["again"], "commit_seconds": o["commit_seconds"]}
    run_fit(o["store"], o["method"], given, choice, o["memory"], more)


def run_fit(
    store: str, method: str, given: Mapping[str, Any], choice: Any, memory: str | None, more: Mapping[str, Any]
) -> None:
    """Fit a method, with progress; leaves with 130 where it was stopped. `more`: the other fields of a `FitJob`."""
    from ..console import Stages, StopRequest, clock
    from ..fitting.fit import FitJob, prepare_fit

    prepared = prepare_fit(FitJob(store, method, given, model=choice, memory=budget(memory), **more))
    stop, stages = StopRequest(), Stages()
    with stop, stages:
        finished = prepared.run(stages.tell, stop.asked)
    if not finished:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    took = f" in {clock(time.monotonic() - stages.begun)}" if stages.begun else ": nothing was left to do"
    click.echo(f"{store}: {method} fitted to {prepared.rows:,} examples{took}", err=True)


def fitted_among(names: Sequence[str]) -> list[str]:
    """Those of the methods that are fitted, and store no rows."""
    from ..method import Measured
    from ..registry import load

    return [name for name in names if issubclass(load(name), Measured)]
