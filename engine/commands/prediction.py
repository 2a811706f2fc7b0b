"""`predict` and `calibrate`: utilities of sets of examples. Knows nothing of how utilities are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from ..results.printable import printable_json
from .grouped_help import command
from .options import COLUMNS, JSON, JSON_LINES, PARTIAL, WrongUsage, command_of, echo, options
from .tasks import PENALTY, TASK, TaskArguments, features_of, targets_of

if TYPE_CHECKING:
    from ..selection.linear_features import LinearFeatures
    from ..selection.subsets import SubsetSource

_SUBSETS = options(
    click.option("--subsets", default="", metavar="FILE", help="Subsets: masks (.npy, .parquet, .zarr), or .jsonl with `rows` or "
                 "`ids`."),
    click.option("--subsets-by", default="", metavar="COLUMN", help="Instead: one subset per value of `source`, or of a column "
                 "of --columns."),
    COLUMNS,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SubsetArguments(TaskArguments):
    """A task, and subsets."""

    subsets: str
    subsets_by: str
    columns: str


@dataclass(frozen=True, kw_only=True)
class PredictArguments(SubsetArguments):
    """Arguments of `predict`."""

    given: str
    penalty: float | None
    output: str | None
    as_json: bool


@command()
@TASK
@PARTIAL
@_SUBSETS
@click.option("--given", default="", metavar="NAME", help="Predict what each subset adds to this one.")
@PENALTY
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Output file: (subsets, tasks) as .npy, or a table as .jsonl, .json, .csv, .parquet.",
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
        prediction = Prediction(features, _subsets(a, features), task.tasks(), a.penalty)
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


@command()
@TASK
@_SUBSETS
@click.option("--outcomes", required=True, metavar="FILE", help="Outcomes of training: (subsets,), "
              "(subsets, tasks) or (seeds, subsets, tasks).")  # fmt: skip
@click.option("--outcome", "kind", type=click.Choice(["loss", "gain"]), default="loss", show_default=True,
              help="Whether outcomes are losses, which fall where training helps, or gains, which rise.")  # fmt: skip
@click.option("--calibrate", "first", type=int, metavar="N", help="Choose λ by the first N subsets, and evaluate it on the "
              "others. [default: all]")  # fmt: skip
@click.option("--grid", multiple=True, type=float, metavar="λ", help="A value of λ to try. [default: 0, 1/16, … 4]")
@JSON
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
        calibration = CalibrationRun(features, _subsets(a, features), task.tasks(), outcomes)
        count = calibration.count if a.first is None else a.first
        if count < FEW:
            echo(f"warning: λ is chosen by {count} subsets; with fewer than {FEW}, λ usually stays 1", err=True)
        result = calibration.run(targets_of(features, task))
    if a.as_json:
        echo(printable_json(result.facts()))
    else:
        print_calibration(result)


def _subsets(arguments: SubsetArguments, features: LinearFeatures) -> SubsetSource:
    """Where the subsets are read."""
    from ..selection.subsets import SubsetSource

    if bool(arguments.subsets) == bool(arguments.subsets_by):
        raise WrongUsage("give either --subsets FILE or --subsets-by COLUMN")
    a = arguments
    return SubsetSource(features.store, features.rows, a.subsets, a.subsets_by, a.columns)
