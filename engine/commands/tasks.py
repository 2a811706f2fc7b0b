"""Options that describe a task, and reading the task: for `predict`, `calibrate` and `select`. Knows nothing of utilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from .corpus_options import QUERY_FIELDS, FieldArguments
from .options import MODEL_PATH, RUN, RunArguments, echo, method_names, options

if TYPE_CHECKING:
    from ..runtime.run import Run
    from ..selection.linear_features import LinearFeatures
    from ..selection.targets import Targets, TaskFile

TASK = options(
    click.argument("store"),
    click.option("--queries", required=True, metavar="FILE",
                 help="Queries, 100 or more that stand for the task, in any corpus format."),
    click.option("--tasks-by", default="", metavar="COLUMN", help="Several tasks: one per value of a column of the queries."),
    click.option("--method", default="grasp", show_default=True, metavar="NAME", shell_complete=method_names,
                 help="Attribution method, whose stored rows are the examples' features."),
    MODEL_PATH,
    QUERY_FIELDS,
    RUN,
)  # fmt: skip
PENALTY = click.option(
    "--lambda",
    "penalty",
    type=click.FloatRange(0),
    metavar="λ",
    help="Weight of redundancy. [default: the calibrated value, or 1]",
)


@dataclass(frozen=True, kw_only=True)
class TaskArguments(RunArguments, FieldArguments):
    """Values of the options that describe a task."""

    store: str
    queries: str
    tasks_by: str
    method: str
    partial: bool = False


def features_of(arguments: TaskArguments, run: Run) -> tuple[LinearFeatures, TaskFile]:
    """The features, and where the tasks are read."""
    from ...store.feature_store import FeatureStore
    from ..selection.linear_features import LinearFeatures
    from ..selection.targets import TaskFile

    features = LinearFeatures(FeatureStore.open(arguments.store), arguments.method, run, partial=arguments.partial)
    return features, TaskFile(arguments.queries, arguments.tasks_by, arguments.model_choice, arguments.query_text)


def targets_of(features: LinearFeatures, task: TaskFile) -> Targets:
    """The tasks; warns about tasks with few examples."""
    from ..selection.targets import FEW, read_targets

    targets = read_targets(features, task)
    for line in features.notes:
        echo(line, err=True)
    if targets.few:
        some = ", ".join(f"{name} ({targets.counts[targets.names.index(name)]})" for name in targets.few[:5])
        echo(f"warning: fewer than {FEW} examples of task {some}: its direction is uncertain", err=True)
    return targets
