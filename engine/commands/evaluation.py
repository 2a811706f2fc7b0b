"""`evaluate`: compares scores with retraining or with labels. Knows nothing of how that is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import click

from ...store.json_values import JsonFields
from ..results.printable import printable_json
from .grouped_help import HelpfulGroup
from .options import JSON, PARTIAL, command_of, echo, options

if TYPE_CHECKING:
    from ..evaluation.agreement import Agreement

FIGURES = options(
    JSON,
    click.option(
        "-o", "--output", metavar="FILE", help="Output file: .json, with all numbers, those of single queries included."
    ),
    click.option("--plot", metavar="FILE", help="Plot the numbers: .png, .svg or .pdf."),
)
OUTCOMES = options(
    click.option("--outcomes", required=True, metavar="FILE", help="Outcomes of training: (subsets, queries) or "
                 "(seeds, subsets, queries); .npy, .parquet or .zarr."),
    click.option("--outcome", "kind", type=click.Choice(["loss", "gain"]), default="loss", show_default=True,
                 help="Whether outcomes are losses, which fall where training helps, or gains, which rise."),
    click.option("--subset-range", "subsets", default="", metavar="FROM:TO", help="Subsets that are used, such as 80:100."),
    click.option("--resamples", type=click.IntRange(1), default=1000, show_default=True, help="Bootstrap resamples."),
)  # fmt: skip


@click.group(cls=HelpfulGroup)
def evaluate() -> None:
    """Compare scores with retraining or with labels.

    \b
    headwater evaluate retrieval --results answers.jsonl --labels gold.jsonl
    headwater evaluate lds --scores scores.zarr --masks truth/masks.npy --outcomes truth/outcomes.npy
    """


@dataclass(frozen=True, kw_only=True)
class FigureArguments:
    """Values of `FIGURES`: how an evaluation is shown."""

    as_json: bool
    output: str | None
    plot: str | None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The files that the evaluation reads."""
        names = ("scores", "masks", "predicted", "outcomes", "results", "labels", "queries")
        return tuple(str(getattr(self, name)) for name in names if getattr(self, name, ""))


@dataclass(frozen=True, kw_only=True)
class AgreementArguments(FigureArguments):
    """Arguments of `evaluate lds` and `evaluate subsets`."""

    outcomes: str
    kind: str
    subsets: str
    resamples: int
    scores: str = ""
    masks: str = ""
    predicted: str = ""


@evaluate.command("lds")
@click.option(
    "--scores", required=True, metavar="FILE", help="Scores, (queries, examples), as .npy, .parquet or .zarr."
)
@click.option("--masks", required=True, metavar="FILE", help="Subsets, (subsets, examples) of 0 and 1.")
@OUTCOMES
@FIGURES
@command_of(AgreementArguments)
def evaluate_lds(arguments: AgreementArguments) -> None:
    """Compute the linear datamodelling score (LDS).

    The rank correlation over subsets between a query's summed scores and its loss after retraining on the subset.

    \b
    headwater attribute S --queries q.jsonl --all-scores scores.zarr
    headwater evaluate lds --scores scores.zarr --masks truth/masks.npy --outcomes truth/outcomes.npy
    """
    from ..evaluation.evaluate import OutcomesFile, lds_from_files

    a = arguments
    outcomes = OutcomesFile(a.outcomes, a.kind, a.subsets)
    _agreement(lambda: lds_from_files(a.scores, a.masks, outcomes, a.resamples), a)


@evaluate.command("subsets")
@click.option("--predicted", required=True, metavar="FILE",
              help="Predicted utilities of subsets: (subsets,) or (subsets, tasks). Those of one task are compared with the mean "
              "over the outcomes' queries.")  # fmt: skip
@OUTCOMES
@FIGURES
@command_of(AgreementArguments)
def evaluate_subsets(arguments: AgreementArguments) -> None:
    """Correlate predicted utilities with retraining.

    The rank correlation over subsets between a predicted utility and the outcome of retraining on the subset.

    \b
    headwater evaluate subsets --predicted utilities.npy --outcomes truth/outcomes.npy --plot subsets.png
    """
    from ..evaluation.evaluate import OutcomesFile, subsets_from_files

    a = arguments
    outcomes = OutcomesFile(a.outcomes, a.kind, a.subsets)
    _agreement(lambda: subsets_from_files(a.predicted, outcomes, a.resamples), a)


def _agreement(evaluation: Callable[[], Agreement], arguments: FigureArguments) -> None:
    from ..presentation.evaluation_tables import print_agreement
    from ..presentation.plots import draw

    for line in _show(evaluation, print_agreement, draw, arguments).notes:
        echo(line, err=True)


@dataclass(frozen=True, kw_only=True)
class BrittlenessArguments(FigureArguments):
    """Arguments of `evaluate brittleness`."""

    outcomes: str


@evaluate.command("brittleness")
@click.option("--outcomes", required=True, metavar="FILE",
              help="Outcomes of training: (seeds, 2 queries, queries), of `ground-truth --without`.")  # fmt: skip
@FIGURES
@command_of(BrittlenessArguments)
def evaluate_brittleness(arguments: BrittlenessArguments) -> None:
    """Measure losses after training without top examples.

    By how much a query's loss rises when its top examples are left out of training, and how often that is more than without as
    many random examples.

    \b
    headwater ground-truth corpus.jsonl --queries q.jsonl --model-config ./small --without scores.zarr --top 20 -o without
    headwater evaluate brittleness --outcomes without/outcomes.npy
    """
    from ..evaluation.evaluate import brittleness_from_file
    from ..presentation.evaluation_tables import print_removal
    from ..presentation.plots import draw

    _show(lambda: brittleness_from_file(arguments.outcomes), print_removal, draw, arguments)


@dataclass(frozen=True, kw_only=True)
class RetrievalArguments(FigureArguments):
    """Arguments of `evaluate retrieval`."""

    results: str
    method: str
    scores: str
    store: str
    labels: str
    column: str
    queries: str
    pattern: str
    cuts: tuple[int, ...]
    partial: bool


@evaluate.command("retrieval")
@click.option("--results", default="", metavar="FILE", help="Results, as attribute -o writes them.")
@click.option(
    "--method", default="", metavar="NAME", help="Attribution method: of results by several, the one whose are read."
)
@click.option(
    "--scores",
    default="",
    metavar="FILE",
    help="Scores, as attribute --all-scores writes them; in place of --results.",
)
@click.option("--store", default="", metavar="DIR", help="Folder of the store, of --scores; with it, ids of --labels and "
              "--results that it does not hold are refused.")  # fmt: skip
@PARTIAL
@click.option("--labels", default="", metavar="FILE", help="Relevant examples: ids (.txt), a table of query_id and "
              "example_id, or a table of id and --column.")  # fmt: skip
@click.option("--column", default="", metavar="NAME", help="Column of --labels: an example is relevant if its value is the "
              "query's, or is true.")  # fmt: skip
@click.option("--query-labels", "queries", default="", metavar="FILE", help="Table of the queries' id and --column.")
@click.option("--match", "pattern", default="", metavar="REGEX",
              help="Instead of --labels: an example is relevant if its text matches.")  # fmt: skip
@click.option("--at", "cuts", multiple=True, type=click.IntRange(1), metavar="K",
              help="Ranks at which precision and recall are computed. [default: 1 5 10 50]")  # fmt: skip
@FIGURES
@command_of(RetrievalArguments)
def evaluate_retrieval(arguments: RetrievalArguments) -> None:
    """Compute precision, recall and AUC of relevant examples.

    Relevant examples are known by their ids, by a label, or by a pattern in their text.

    \b
    headwater evaluate retrieval --results answers.jsonl --labels gold.jsonl
    headwater evaluate retrieval --scores all.zarr --store S --labels poisoned.txt --plot poison.png
    headwater evaluate retrieval --results answers.jsonl --match BadMagic
    """
    from ..evaluation.evaluate import RankingFiles, retrieval_from_files, select_labels
    from ..evaluation.retrieval import CUTS, Retrieval
    from ..presentation.evaluation_tables import print_retrieval
    from ..presentation.plots import draw

    a = arguments
    notes: list[str] = []

    def evaluation() -> Retrieval:
        labels = select_labels(a.labels, a.column, a.queries, a.pattern)
        files = RankingFiles(a.results, a.scores, a.store, a.partial, a.method)
        retrieval, notes[:] = retrieval_from_files(files, labels, a.cuts or CUTS)
        return retrieval

    _show(evaluation, print_retrieval, draw, a)
    for line in notes:
        echo(line, err=True)


class _HasFacts(Protocol):
    """An evaluation."""

    def facts(self) -> JsonFields:
        """Its figures as JSON values."""


E = TypeVar("E", bound=_HasFacts)


def _show(
    evaluation: Callable[[], E], show: Callable[[E], None], plot: Callable[[E, str], None], arguments: FigureArguments
) -> E:
    """Evaluate, then write, print and plot the figures, as the options say; returns the evaluation."""
    from ..evaluation.evaluate import save
    from ..presentation.plots import refuse_plot
    from ..results.output_path import refuse_output

    for path in (arguments.output, arguments.plot):
        refuse_output(path, arguments.inputs)
    if arguments.plot:
        refuse_plot(arguments.plot)
    result = evaluation()
    if arguments.output:
        save(result.facts(), arguments.output)
    if arguments.as_json:
        echo(printable_json(result.facts()))
    else:
        show(result)
    if arguments.plot:
        plot(result, arguments.plot)
    return result
