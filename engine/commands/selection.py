"""`predict`, `calibrate` and `select`: sets of examples. Knows nothing of how their utility is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import click

from ..results.printable import printable_json
from .options import COLUMNS, JSON_LINES, PARTIAL, command_of, echo
from .task_options import SUBSETS, TASK, SubsetArguments, TaskArguments, features_of, subsets_of, targets_of

_PENALTY = click.option(
    "--lambda",
    "penalty",
    type=click.FloatRange(0),
    metavar="λ",
    help="Weight of redundancy. [default: the calibrated value, or 1]",
)


@dataclass(frozen=True, kw_only=True)
class PredictArguments(SubsetArguments):
    """Arguments of `predict`."""

    given: str
    penalty: float | None
    output: str | None
    as_json: bool


@click.command()
@TASK
@PARTIAL
@SUBSETS
@click.option("--given", default="", metavar="NAME", help="Predict what each subset adds to this one.")
@_PENALTY
@click.option(
    "-o", "--output", metavar="FILE", help="Write (subsets, tasks) as .npy, or a table as .jsonl, .csv, .parquet."
)
@JSON_LINES
@command_of(PredictArguments)
def predict(arguments: PredictArguments) -> None:
    """Predict the utility of subsets for a task.

    The utility says how much training on a subset helps the task. Redundant examples count less.

    \b
    headwater predict S --queries task.jsonl --subsets masks.npy -o utilities.npy
    headwater predict S --queries task.jsonl --subsets-by source
    headwater predict S --queries task.jsonl --subsets two.jsonl --given first
    """
    from ..presentation.selection_tables import print_utilities
    from ..results.output_path import refuse_output
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run
    from ..selection.prediction import Prediction, refuse_table, write_utilities

    a = arguments
    refuse_output(a.output, (a.queries, a.subsets, a.columns), a.store)
    if a.output:
        refuse_table(a.output)
    with ProgressDisplay() as display:
        features, task = features_of(a, Run(a.budget, on_progress=display.show))
        prediction = Prediction(features, subsets_of(a, features), task.tasks(), a.penalty)
        utilities = prediction.run(targets_of(features, task), a.given)
    if a.output:
        write_utilities(a.output, utilities)
        counts = f"{len(utilities.subsets)} subsets, {len(utilities.tasks)} tasks"
        echo(f"{a.output}: {counts}, λ = {utilities.penalty:g}", err=True)
    elif a.as_json:
        for line in utilities.lines():
            echo(printable_json(line))
    else:
        print_utilities(utilities)


@dataclass(frozen=True, kw_only=True)
class CalibrateArguments(SubsetArguments):
    """Arguments of `calibrate`."""

    outcomes: str
    kind: Literal["loss", "gain"]
    first: int | None
    grid: tuple[float, ...]
    as_json: bool


@click.command()
@TASK
@SUBSETS
@click.option("--outcomes", required=True, metavar="FILE", help="Outcomes of training on each subset for each task: (subsets,), "
              "(subsets, tasks) or (seeds, subsets, tasks).")  # fmt: skip
@click.option("--outcome", "kind", type=click.Choice(["loss", "gain"]), default="loss", show_default=True,
              help="Whether outcomes are losses, which fall where training helps, or gains, which rise.")  # fmt: skip
@click.option("--calibrate", "first", type=int, metavar="N", help="Choose λ by the first N subsets, and evaluate it on the "
              "others. [default: all]")  # fmt: skip
@click.option("--candidate", "grid", multiple=True, type=float, metavar="λ", help="Candidates. [default: 0, 1/16, … 4]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@command_of(CalibrateArguments)
def calibrate(arguments: CalibrateArguments) -> None:
    """Choose λ by subsets that were really trained on.

    λ weighs redundancy in a utility. `predict` and `select` use the calibrated value by default.

    \b
    headwater ground-truth corpus.jsonl --queries task.jsonl --model-config ./small -o truth
    headwater calibrate S --queries task.jsonl --subsets truth/masks.npy --outcomes truth/outcomes.npy
    """
    from ..presentation.selection_tables import print_calibration
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run
    from ..selection.calibration import FEW
    from ..selection.calibration_run import CalibrationRun, Outcomes

    a = arguments
    with ProgressDisplay() as display:
        features, task = features_of(a, Run(a.budget, on_progress=display.show))
        outcomes = Outcomes(a.outcomes, a.kind, a.first, a.grid)
        calibration = CalibrationRun(features, subsets_of(a, features), task.tasks(), outcomes)
        count = calibration.count if a.first is None else a.first
        if count < FEW:
            echo(f"warning: λ is chosen by {count} subsets; with fewer than {FEW}, λ usually stays 1", err=True)
        result = calibration.run(targets_of(features, task))
    if a.as_json:
        echo(printable_json(result.facts()))
    else:
        print_calibration(result)


@dataclass(frozen=True, kw_only=True)
class SelectArguments(TaskArguments):
    """Arguments of `select`."""

    count: int | None
    tokens: int | None
    penalty: float | None
    additive: bool
    batch: int
    quotas: tuple[str, ...]
    columns: str
    candidates: str
    exclude: str
    task: str
    output: str
    as_json: bool


@click.command()
@TASK
@PARTIAL
@click.option("--count", type=int, metavar="N", help="Number of examples to select.")
@click.option("--tokens", type=int, metavar="N", help="Instead: number of tokens to select.")
@_PENALTY
@click.option("--additive", is_flag=True, help="Select by single scores, without redundancy: λ = 0, for comparison.")
@click.option("--batch", default=1, show_default=True, metavar="B",
              help="Examples chosen per step; above 1 it is faster, and no longer exact.")  # fmt: skip
@click.option("--quota", "quotas", multiple=True, metavar="COLUMN=VALUE:SHARE",
              help="Largest share of the count, such as source=a.jsonl:0.3.")  # fmt: skip
@COLUMNS
@click.option("--candidates", default="", metavar="FILE", help="Select among these only: ids (.txt) or a mask (.npy).")
@click.option("--exclude", default="", metavar="FILE", help="Do not select these: ids (.txt) or a mask (.npy).")
@click.option("--task", default="", metavar="NAME", help="With --by: the task. [default: the mean of all tasks]")
@click.option(
    "-o", "--output", required=True, metavar="FILE.jsonl", help="Write the selected examples, ready for training."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@command_of(SelectArguments)
def select(arguments: SelectArguments) -> None:
    """Select training examples for a task.

    Examples are chosen one after the other, each by what it adds to those before it: exact greedy selection, from a store of any
    size.

    \b
    headwater select S --queries task.jsonl --count 1000 -o chosen.jsonl
    headwater select S --queries task.jsonl --tokens 1000000 --exclude held-out.txt -o chosen.jsonl
    headwater select S --queries task.jsonl --count 500 --quota source=web.jsonl:0.5 -o chosen.jsonl
    """
    from ..results.output_path import refuse_output
    from ..runtime.cancellation import StopRequest
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run
    from ..selection.prediction import penalty_of
    from ..selection.selection import Selection, SelectionRequest, refuse_training, write_training

    a = arguments
    refuse_output(a.output, (a.queries, a.columns, a.candidates, a.exclude), a.store)
    refuse_training(a.output)
    stop, display = StopRequest(), ProgressDisplay()
    with display:
        features, task = features_of(a, Run(a.budget, on_progress=display.show, should_stop=stop.requested))
        quotas = tuple(map(_quota, a.quotas))
        penalty = 0.0 if a.additive else penalty_of(features, a.penalty)
        request = SelectionRequest(a.count, a.tokens, penalty, a.batch, quotas, a.columns, a.candidates, a.exclude)
        selection = Selection(features, request)
        with stop:
            selected = selection.run(targets_of(features, task).vector(a.task))
    write_training(a.output, selection.rows(selected))
    if a.as_json:
        echo(printable_json(selected.facts))
    else:
        figures = ", ".join(f"{name} {value:,.6g}" for name, value in selected.facts.items())
        echo(f"{a.output}: {figures}", err=True)
    if stop.requested():
        echo("stopped: these are the first examples of the selection", err=True)
        raise SystemExit(130)


def _quota(text: str) -> tuple[str, str, float]:
    column, equals, rest = text.partition("=")
    value, colon, number = rest.rpartition(":")
    try:
        share = float(number)
    except ValueError:
        share = -1
    if not (equals and colon and column and value and 0 < share <= 1):
        raise click.UsageError(f"--quota {text}: write COLUMN=VALUE:SHARE, such as source=a.jsonl:0.3")
    return column, value, share
