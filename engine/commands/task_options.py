"""Options of the commands that predict, calibrate and select: a task and subsets of the store's examples. Knows no command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from .options import COLUMNS, FIELDS, MODEL_PATH, RUN, FieldArguments, RunArguments, echo, options

if TYPE_CHECKING:
    from ..runtime.run import Run
    from ..selection.linear_features import LinearFeatures
    from ..selection.subsets import SubsetSource
    from ..selection.targets import Targets, TaskFile

TASK = options(
    click.argument("store"),
    click.option("--queries", required=True, metavar="FILE", help="Examples of the task (100 or more), in any corpus format."),
    click.option("--by", default="", metavar="COLUMN", help="Several tasks: one per value of a column of the queries."),
    click.option("--features", "--method", "method", default="grasp", show_default=True, metavar="METHOD",
                 help="Method whose stored rows are the examples' features."),
    MODEL_PATH,
    FIELDS,
    RUN,
)  # fmt: skip
SUBSETS = options(
    click.option("--subsets", default="", metavar="FILE", help="Subsets: masks (.npy, .parquet, .zarr), or .jsonl with `rows` or "
                 "`ids`."),
    click.option("--subsets-by", default="", metavar="COLUMN", help="Instead: one subset per value of `source`, or of a column "
                 "of --columns."),
    COLUMNS,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TaskArguments(RunArguments, FieldArguments):
    """Values of the options that describe a task."""

    store: str
    queries: str
    by: str
    method: str
    partial: bool = False


@dataclass(frozen=True, kw_only=True)
class SubsetArguments(TaskArguments):
    """A task, and subsets."""

    subsets: str
    subsets_by: str
    columns: str


def features_of(arguments: TaskArguments, run: Run) -> tuple[LinearFeatures, TaskFile]:
    """The features, and where the tasks are read."""
    from ...store.feature_store import FeatureStore
    from ..selection.linear_features import LinearFeatures
    from ..selection.targets import TaskFile

    features = LinearFeatures(FeatureStore.open(arguments.store), arguments.method, run, partial=arguments.partial)
    for line in features.notes:
        echo(line, err=True)
    return features, TaskFile(arguments.queries, arguments.by, arguments.model_choice, arguments.template)


def targets_of(features: LinearFeatures, task: TaskFile) -> Targets:
    """The tasks; warns about tasks with few examples."""
    from ..selection.targets import FEW, read_targets

    targets = read_targets(features, task)
    if targets.few:
        some = ", ".join(f"{name} ({targets.counts[targets.names.index(name)]})" for name in targets.few[:5])
        echo(f"warning: fewer than {FEW} examples of task {some}: its direction is uncertain", err=True)
    return targets


def subsets_of(arguments: SubsetArguments, features: LinearFeatures) -> SubsetSource:
    """Where the subsets are read."""
    from ..selection.subsets import SubsetSource

    if bool(arguments.subsets) == bool(arguments.subsets_by):
        raise click.UsageError("give either --subsets FILE or --subsets-by COLUMN")
    a = arguments
    return SubsetSource(features.store, features.rows, a.subsets, a.subsets_by, a.columns)
