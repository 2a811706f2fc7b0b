"""`fit` and `plan fit`: fits a subset method to a store's examples. Knows nothing of how operators are trained."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from .options import RUN, budget, method_settings, options

if TYPE_CHECKING:
    from ..fitting.fit_job import FitRun

FITTING = options(
    click.argument("store"),
    click.option("--method", default="stride", show_default=True, metavar="NAME", help="Method that is fitted."),
    click.option("-o", "settings", nargs=2, multiple=True, metavar="NAME.SETTING VALUE",
                 help="The method's setting, such as -o stride.subsets 300."),
    click.option("--model", default="", metavar="PATH", help="Where the store's model is now, if it has moved."),
    click.option("--corpus", multiple=True, metavar="FILE", help="Where the corpus's files are now: of arrays, and of stores "
                 "without texts."),
    click.option("--again", is_flag=True, help="Begin anew where there is a fit with other settings, or of other examples."),
)  # fmt: skip


@click.command()
@FITTING
@click.option(
    "--commit-seconds",
    type=click.FloatRange(0),
    default=15.0,
    show_default=True,
    help="A kill loses at most so much work.",
)
@RUN
def fit(commit_seconds: float, **options: Any) -> None:
    """Fit a method to all examples of STORE, for `attribute` and `value` to ask.

    Running it again goes on where it stopped. How answers are recovered (solver, regularization, held_out, tolerance) may be
    changed at any time, and costs nothing.

    \b
    headwater fit S --method stride
    headwater fit S --method stride -o stride.subsets 300 -o stride.omega example
    headwater fit S --method stride -o stride.bases early,middle,late
    headwater fit S --method stride -o stride.states_from forward
    headwater fit S --method stride -o stride.solver ridge
    """
    _run(_prepared(options, commit_seconds))


@click.command("fit")
@FITTING
@RUN
def plan_fit(**options: Any) -> None:
    """The memory of a fit: the same options as `headwater fit`."""
    from ..presentation.terminal import print_plan

    prepared = _prepared(options, 0.0)
    print_plan(prepared.plan, budget(options["memory"]), "; ".join([f"{prepared.rows:,} examples", *prepared.notes]))


def _prepared(o: Mapping[str, Any], commit_seconds: float) -> FitRun:
    from ..fitting.fit_job import FitJob, prepare_fit
    from ..models.language_model import ModelChoice
    from ..runtime.run import Run

    given = method_settings((o["method"],), o["settings"])[o["method"]]
    choice = ModelChoice(o["model"], o["device"], o["dtype"], o["trust_remote_code"])
    job = FitJob(o["store"], o["method"], given, o["corpus"], choice, o["again"], commit_seconds)
    return prepare_fit(job, Run(budget(o["memory"])))


def fit_ingested(options: Mapping[str, Any], name: str) -> None:
    """Fit a method that `ingest` was asked for; leaves with 130 where it was stopped."""
    o = {**options, "method": name, "again": False}
    own = tuple((key, value) for key, value in o["settings"] if key.partition(".")[0] == name)
    _run(_prepared({**o, "settings": own}, o["commit_seconds"]))


def _run(prepared: FitRun) -> None:
    """With progress; leaves with 130 where it was stopped."""
    from ..runtime.cancellation import StopRequest
    from ..runtime.progress import ProgressDisplay, clock
    from ..runtime.run import Run

    for line in prepared.notes:
        click.echo(f"note: {line}", err=True)
    stop, display = StopRequest(), ProgressDisplay()
    with stop, display:
        finished = prepared.run(Run(on_progress=display.show, should_stop=stop.requested))
    if not finished:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    took = f" in {clock(time.monotonic() - display.started)}" if display.started else ": nothing was left to do"
    click.echo(f"{prepared.store.url}: {prepared.job.method} fitted to {prepared.rows:,} examples{took}", err=True)


def fitted_among(names: Sequence[str]) -> list[str]:
    """Those of the methods that are fitted, and store no rows."""
    from ..interface.registry import load
    from ..interface.subset_method import SubsetMethod

    return [name for name in names if issubclass(load(name), SubsetMethod)]


def check_settings(name: str, given: Mapping[str, Any], appended: str) -> None:
    """Raise SettingsError for settings of a fitted method that cannot be, before a corpus is read for it; and where `appended`, a
    store that is to grow, has a fit.
    """
    from pathlib import Path

    from ...store.errors import SettingsError
    from ..fitting.fit_record import recovery_of
    from ..interface.registry import load
    from ..interface.subset_method import SubsetMethod

    try:
        method = load(name).from_settings(given)
        assert isinstance(method, SubsetMethod)
        recovery_of(method)
    except SettingsError as error:
        raise SettingsError(f"method {name}: {error}") from None
    if appended and (Path(appended) / "methods" / name / "state").exists():
        raise SettingsError(
            f"a fit of {name} is of all examples: leave --method {name}, then headwater fit {appended} --again"
        )
