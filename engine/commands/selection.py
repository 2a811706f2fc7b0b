"""`predict`, `calibrate` and `select`: sets of examples. Knows nothing of how their utility is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import click

from .options import FIELDS, RUN, budget, options

if TYPE_CHECKING:
    from ..runtime.run import Run
    from ..selection.linear_features import LinearFeatures
    from ..selection.subsets import Subsets
    from ..selection.targets import Targets

_TASK = options(
    click.argument("store"),
    click.option("--queries", required=True, metavar="FILE", help="Examples of the task (100 or more), in any corpus format."),
    click.option("--by", default="", metavar="COLUMN", help="Several tasks: one for each value of a column of the queries."),
    click.option("--features", "--method", "method", default="grasp", show_default=True, metavar="METHOD",
                 help="Whose stored rows stand for examples: any method's will do."),
    click.option("--model", default="", metavar="PATH", help="Where the store's model is now, if it has moved."),
    FIELDS,
    RUN,
)  # fmt: skip
_SUBSETS = options(
    click.option("--subsets", default="", metavar="FILE", help="Masks (.npy, .parquet, .zarr), or .jsonl: `rows` or `ids`."),
    click.option("--subsets-by", default="", metavar="COLUMN", help="Instead: a subset for each value of `source`, or of a "
                 "column of --columns."),
    click.option("--columns", default="", metavar="FILE", help="Table of the examples' id and COLUMN, such as the corpus."),
)  # fmt: skip


@click.command()
@_TASK
@_SUBSETS
@click.option("--given", default="", metavar="NAME", help="What does each subset add once this one is in?")
@click.option("--lambda", "penalty", type=click.FloatRange(0), metavar="λ", help="[default: what was calibrated, or 1]")
@click.option(
    "-o", "--output", metavar="FILE", help="Write (subsets, tasks) as .npy, or a table as .jsonl, .csv, .parquet."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a table.")
def predict(given: str, penalty: float | None, output: str | None, as_json: bool, **o: Any) -> None:
    """The utility of subsets of the corpus for a task: what training on each would do, redundancy counted.

    \b
    headwater predict S --queries task.jsonl --subsets masks.npy -o utilities.npy
    headwater predict S --queries task.jsonl --subsets-by source
    headwater predict S --queries task.jsonl --subsets two.jsonl --given first
    """
    from ..presentation.selection_tables import print_utilities
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run
    from ..selection.prediction import Prediction, refuse_table, write_utilities

    if output:
        refuse_table(output)
    with ProgressDisplay() as display:
        features, targets = _task(o, Run(budget(o["memory"]), on_progress=display.show))
        found = Prediction(features, targets, _subsets(o, features), penalty).run(given)
    if output:
        write_utilities(output, found)
        click.echo(f"{output}: {len(found.subsets)} subsets, {len(found.tasks)} tasks, λ = {found.penalty:g}", err=True)
        return
    if as_json:
        for line in found.lines():
            click.echo(json.dumps(line))
    else:
        print_utilities(found)


@click.command()
@_TASK
@_SUBSETS
@click.option("--outcomes", required=True, metavar="FILE", help="What training on each subset did to each task: (subsets,), "
              "(subsets, tasks) or (seeds, subsets, tasks).")  # fmt: skip
@click.option("--outcome", "kind", type=click.Choice(["loss", "gain"]), default="loss", show_default=True,
              help="A loss falls where training helps; a gain rises.")  # fmt: skip
@click.option("--calibrate", "first", type=int, metavar="N", help="Choose by the first N subsets, score the others once. "
              "[default: all]")  # fmt: skip
@click.option("--candidate", "grid", multiple=True, type=float, metavar="λ", help="Candidates. [default: 0, 1/16, … 4]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def calibrate(
    outcomes: str, kind: Literal["loss", "gain"], first: int | None, grid: tuple[float, ...], as_json: bool, **o: Any
) -> None:
    """Choose λ by subsets that were really trained on; what is chosen holds from then on.

    \b
    headwater ground-truth corpus.jsonl --queries task.jsonl --model-config ./small -o truth
    headwater calibrate S --queries task.jsonl --subsets truth/masks.npy --outcomes truth/outcomes.npy
    """
    from ..presentation.selection_tables import print_calibration
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run
    from ..selection.calibration import FEW
    from ..selection.prediction import Outcomes
    from ..selection.prediction import calibrate as run_calibration

    with ProgressDisplay() as display:
        features, targets = _task(o, Run(budget(o["memory"]), on_progress=display.show))
        subsets = _subsets(o, features)
        number = len(subsets.names) if first is None else first
        if number < FEW:
            click.echo(
                f"warning: {number} subsets to choose by; below {FEW} the incumbent λ = 1 will usually stay", err=True
            )
        found = run_calibration(features, targets, subsets, Outcomes(outcomes, kind, first), grid)
    if as_json:
        click.echo(json.dumps(found.facts()))
    else:
        print_calibration(found)


@click.command()
@_TASK
@click.option("--count", type=int, metavar="N", help="Examples to choose.")
@click.option("--tokens", type=int, metavar="N", help="Or so many tokens.")
@click.option("--lambda", "penalty", type=float, metavar="λ", help="[default: what was calibrated, or 1]")
@click.option("--additive", is_flag=True, help="The best by themselves, for comparison: λ = 0.")
@click.option(
    "--batch", default=1, show_default=True, metavar="B", help="Choose so many at once: faster, and no longer exact."
)
@click.option(
    "--quota",
    "quotas",
    multiple=True,
    metavar="COLUMN=VALUE:SHARE",
    help="Share of the count, such as source=a.jsonl:0.3.",
)
@click.option("--columns", default="", metavar="FILE", help="Table of the examples' id and COLUMN, such as the corpus.")
@click.option("--candidates", default="", metavar="FILE", help="Choose among these alone: ids (.txt) or a mask (.npy).")
@click.option("--exclude", default="", metavar="FILE", help="Never choose these.")
@click.option("--task", default="", metavar="NAME", help="With --by: the task. [default: all of them alike]")
@click.option("-o", "--output", required=True, metavar="FILE.jsonl", help="What is chosen, ready for training.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def select(output: str, as_json: bool, penalty: float | None, additive: bool, **o: Any) -> None:
    """Choose examples to train on for a task: by what each adds to those before it, exactly, from a store of any size.

    \b
    headwater select S --queries task.jsonl --count 1000 -o chosen.jsonl
    headwater select S --queries task.jsonl --tokens 1000000 --exclude held-out.txt -o chosen.jsonl
    headwater select S --queries task.jsonl --count 500 --quota source=web.jsonl:0.5 -o chosen.jsonl
    """
    from ..runtime.cancellation import StopRequest
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run
    from ..selection.prediction import penalty_of
    from ..selection.selection import Selection, SelectionRequest, refuse_training, write_training

    refuse_training(output)
    stop, display = StopRequest(), ProgressDisplay()
    with display:
        features, targets = _task(o, Run(budget(o["memory"]), on_progress=display.show, should_stop=stop.requested))
        quotas = tuple(map(_quota, o["quotas"]))
        chosen_penalty = 0.0 if additive else penalty_of(features, penalty)
        request = SelectionRequest(o["count"], o["tokens"], chosen_penalty, o["batch"], quotas, o["columns"],
                                   o["candidates"], o["exclude"])  # fmt: skip
        selection = Selection(features, request)
        with stop:
            chosen = selection.run(targets.vector(o["task"]))
    write_training(output, selection.rows(chosen))
    if as_json:
        click.echo(json.dumps(chosen.facts))
    else:
        click.echo(f"{output}: " + ", ".join(f"{name} {value:,.6g}" for name, value in chosen.facts.items()), err=True)
    if stop.requested():
        click.echo("stopped; these are the first of what was asked for", err=True)
        raise SystemExit(130)


def _task(o: Mapping[str, Any], run: Run) -> tuple[LinearFeatures, Targets]:
    """The features and the tasks; says which tasks have few examples."""
    from ...store.feature_store import FeatureStore
    from ..data.documents import Template
    from ..models.language_model import ModelChoice
    from ..selection.linear_features import LinearFeatures
    from ..selection.targets import FEW, read_targets

    features = LinearFeatures(FeatureStore.open(o["store"]), o["method"], run)
    template = Template(o["text_field"], o["prompt_field"], o["completion_field"])
    choice = ModelChoice(o["model"], o["device"], o["dtype"], o["trust_remote_code"])
    targets = read_targets(features, o["queries"], o["by"], choice, template)
    if targets.few:
        some = ", ".join(f"{name} ({targets.counts[targets.names.index(name)]})" for name in targets.few[:5])
        click.echo(f"warning: fewer than {FEW} examples of task {some}: its direction is uncertain", err=True)
    return features, targets


def _subsets(o: Mapping[str, Any], features: LinearFeatures) -> Subsets:
    from ..selection.subsets import read_subsets, subsets_by

    if bool(o["subsets"]) == bool(o["subsets_by"]):
        raise click.UsageError("give either --subsets FILE or --subsets-by COLUMN")
    if o["subsets"]:
        return read_subsets(o["subsets"], features.store, features.rows)
    return subsets_by(features.store, o["subsets_by"], o["columns"])


def _quota(text: str) -> tuple[str, str, float]:
    column, equals, rest = text.partition("=")
    value, colon, share = rest.rpartition(":")
    try:
        found = float(share)
    except ValueError:
        found = -1
    if not (equals and colon and column and value and 0 < found <= 1):
        raise click.UsageError(f"--quota {text}: write COLUMN=VALUE:SHARE, such as source=a.jsonl:0.3")
    return column, value, found
