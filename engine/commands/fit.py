"""`fit` and `plan fit`: fits a subset method to a store's examples. Knows nothing of how operators are trained."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...store.json_values import JsonFields, JsonObject
from .comma_lists import parts_of
from .grouped_help import command
from .options import MODEL_PATH, RUN, RunArguments, WrongUsage, command_of, echo, method_names, method_settings, options

if TYPE_CHECKING:
    from ..fitting.fit_job import FitRun

FITTING = options(
    click.argument("store"),
    click.option("--method", default="stride", show_default=True, metavar="NAME", shell_complete=method_names,
                 help="Attribution method: a subset method, which is fitted."),
    click.option("--set", "settings", nargs=2, multiple=True, metavar="NAME.SETTING VALUE",
                 help="A setting of a method, such as stride.subsets 300."),
    click.option("--base", default="", metavar="PATH", help="Model of the member (NAME@MEMBER), in place of "
                 "the store's own, or file of arrays. [default: the recorded one]"),
    click.option("--bases", default="", metavar="PATHS", help="Several of these, separated by commas; each member is named after "
                 "its folder or file. A setting of NAME is one of every member, a setting of NAME@MEMBER of this one."),
    MODEL_PATH,
    click.option("--corpus", multiple=True, metavar="FILE", help="Path of a corpus file, if it moved. Only stores of arrays "
                 "and stores without texts read their corpus again."),
    click.option("--again", is_flag=True, help="Replace an existing fit that has other settings or other examples."),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FitArguments(RunArguments):
    """Arguments of `fit` and `plan fit`."""

    store: str
    method: str
    settings: tuple[tuple[str, str], ...]
    corpus: tuple[str, ...] = ()
    again: bool = False
    commit_seconds: float = 15.0
    base: str = ""
    bases: str = ""

    def members(self) -> list[FitArguments]:
        """The arguments of each fit: one for each of `bases`, or these. A setting of the method is one of each member.

        Raises:
            WrongUsage: a path is empty, two members have one name, or a setting is of neither.
        """
        from ..data.array_files import is_array_path

        paths = parts_of("--bases", self.bases)
        if not paths:
            return [self]
        names = [f"{self.method}@{path.stem if is_array_path(str(path)) else path.name}" for path in map(Path, paths)]
        if self.base or "@" in self.method:
            raise WrongUsage("--bases names the members", "give a method without a member, and leave out --base")
        if len(set(names)) < len(names):
            raise WrongUsage("--bases has two models of one name", "fit each by --method NAME@MEMBER --base PATH")
        settings = method_settings((self.method, *names), self.settings)
        return [
            replace(
                self, method=name, base=path, bases="", settings=_pairs(name, settings[self.method] | settings[name])
            )
            for name, path in zip(names, paths, strict=True)
        ]


def _pairs(name: str, settings: JsonFields) -> tuple[tuple[str, str], ...]:
    """Settings as the values of `--set`."""
    return tuple((f"{name}.{key}", json.dumps(value)) for key, value in settings.items())


@command()
@FITTING
@click.option("--commit-seconds", type=click.FloatRange(0), default=15.0, show_default=True,
              help="Seconds between commits; a kill loses at most this much work.")  # fmt: skip
@RUN
@command_of(FitArguments)
def fit(arguments: FitArguments) -> None:
    """Fit a subset method, such as stride, to a store.

    `attribute` and `value` then use the fit. Running it again continues where it stopped. The settings by which weights are
    recovered from a fit (solver, regularization, held_out, tolerance) may be changed at any time, without another fit.

    \b
    headwater fit S --method stride
    headwater fit S --method stride --set stride.subsets 300 --set stride.omega example
    headwater fit S --method stride@early --base ./early-checkpoint
    headwater fit S --method stride --bases early,middle,late
    headwater fit S --method stride --set stride.states_from forward
    headwater fit S --method stride --set stride.solver ridge
    """
    members = arguments.members()
    for member in members if len(members) > 1 else ():
        _prepared(member)  # only for its errors, before another is fitted
    for member in members:
        _run(_prepared(member))


@command("fit")
@FITTING
@RUN
@command_of(FitArguments)
def plan_fit(arguments: FitArguments) -> None:
    """Print the memory plan of `fit`.

    Takes the same arguments and options as `fit`, except --commit-seconds.

    \b
    headwater plan fit S --method stride
    """
    from ..presentation.terminal import print_plan

    for member in arguments.members():
        prepared = _prepared(member)
        print_plan(prepared.plan, arguments.budget, "; ".join([f"{prepared.rows:,} examples", *prepared.notes]))


def _prepared(arguments: FitArguments) -> FitRun:
    from ..fitting.fit_job import prepare_fit
    from ..fitting.fit_request import FitJob
    from ..runtime.run import Run

    settings = method_settings((arguments.method,), arguments.settings)[arguments.method]
    job = FitJob(arguments.store, arguments.method, settings, arguments.corpus, arguments.model_choice, arguments.again,
                 arguments.commit_seconds, arguments.base)  # fmt: skip
    return prepare_fit(job, Run(arguments.budget))


def fit_now(arguments: FitArguments) -> None:
    """Fit a method; exits with 130 if it was stopped."""
    _run(_prepared(arguments))


def _run(prepared: FitRun) -> None:
    """Fit with progress; exits with 130 if it was stopped."""
    from ..runtime.cancellation import StopRequest
    from ..runtime.progress import ProgressDisplay, clock
    from ..runtime.run import Run

    for line in prepared.notes:
        echo(f"note: {line}", err=True)
    stop, display = StopRequest(), ProgressDisplay()
    with stop, display:
        finished = prepared.run(Run(on_progress=display.show, should_stop=stop.requested))
    if not finished:
        echo("stopped; run the same command again to continue", err=True)
        sys.exit(130)
    duration = f" in {clock(time.monotonic() - display.started)}" if display.started else " in an earlier run"
    echo(f"{prepared.store.url}: {prepared.job.method} fitted to {prepared.rows:,} examples{duration}", err=True)


def subset_methods_among(names: Sequence[str]) -> list[str]:
    """The methods among `names` that are subset methods: they need a fit, and store no rows."""
    from ..interface.registry import load
    from ..interface.subset_method import SubsetMethod

    return [name for name in names if issubclass(load(name), SubsetMethod)]


def check_settings(name: str, settings: JsonObject, appended_store: str) -> None:
    """Check a fitted method's settings before its corpus is read.

    Raises:
        SettingsError: a setting is unknown or out of range, or the store that examples are appended to has a fit.
    """
    from ...store.errors import SettingsError
    from ..fitting.fit_record import recovery_of
    from ..interface.registry import load
    from ..interface.subset_method import SubsetMethod

    try:
        method = load(name).from_settings(settings)
        assert isinstance(method, SubsetMethod)
        recovery_of(method)
    except SettingsError as error:
        raise SettingsError(f"method {name}: {error}", hint=error.hint) from None
    if appended_store and (Path(appended_store) / "methods" / name / "state").exists():
        raise SettingsError(
            f"the store has a fit of {name} to all its examples, and appending cannot extend a fit",
            hint=f"append without --method {name}, then run headwater fit {appended_store} --method {name} --again",
        )
