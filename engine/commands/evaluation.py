"""`evaluate` and `ground-truth`: whether scores are right. Knows nothing of how that is computed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click

from .options import FIELDS, OUTCOMES, TELLING


@click.command("ground-truth")
@click.argument("corpus", nargs=-1, required=True)
@click.option("--queries", required=True, metavar="FILE", help="Queries, whose losses are the outcomes.")
@click.option(
    "--model-config", "model", required=True, metavar="PATH", help="Folder of a small model's config and tokenizer."
)
@click.option("-o", "--output", "folder", required=True, metavar="DIR", help="Where it goes.")
@click.option("--subsets", default=64, show_default=True, type=click.IntRange(1), help="Subsets of the corpus.")
@click.option("--fraction", default=0.5, show_default=True, help="Share of the corpus in each.")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1), help="Trainings of each subset.")
@click.option(
    "--clusters",
    default=0,
    type=click.IntRange(0),
    metavar="N",
    help="Draw whole clusters of like texts, of so many, not examples.",
)
@click.option("--masks", default="", metavar="FILE", help="Take these subsets: (subsets, examples) of 0 and 1.")
@click.option(
    "--without",
    default="",
    metavar="FILE",
    help="Scores: take away each query's best examples, and as many others by chance.",
)
@click.option(
    "--top", default=10, show_default=True, type=click.IntRange(1), metavar="K", help="How many --without takes away."
)
@click.option("--seed", default=0, show_default=True, help="Of the subsets.")
@click.option("--epochs", default=3.0, show_default=True, help="Passes over a subset.")
@click.option("--batch", default=16, show_default=True, type=click.IntRange(1), help="Examples of a step.")
@click.option("--learning-rate", default=1e-3, show_default=True, help="At its highest.")
@click.option("--pretrained", is_flag=True, help="Start from the folder's weights instead of random ones.")
@click.option("--max-length", type=int, metavar="TOKENS", help="Longest example; longer texts are cut.")
@click.option(
    "--processes",
    default=0,
    type=click.IntRange(0),
    metavar="N",
    help="Trainings beside each other. [default: the processors]",
)
@FIELDS
def ground_truth(**options: Any) -> None:
    """Train a small model on many subsets of CORPUS, and note what each does to every query: masks, outcomes, the ceiling.

    Running it again goes on where it stopped, at the (subset, seed).

    \b
    headwater ground-truth corpus.jsonl --queries questions.jsonl --model-config ./small -o truth
    headwater evaluate lds --scores scores.zarr --masks truth/masks.npy --outcomes truth/outcomes.npy
    headwater ground-truth corpus.jsonl --queries q.jsonl --model-config ./small --without scores.zarr --top 20 -o without
    """
    from ..arrays.scan.scan_loop import cores
    from ..data.documents import Template
    from ..retraining.retraining_job import GroundTruthJob, prepare_ground_truth
    from ..retraining.training_loop import RetrainingRecipe
    from ..runtime.cancellation import StopRequest
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run

    o = options
    template = Template(o.pop("text_field"), o.pop("prompt_field"), o.pop("completion_field"))
    recipe = RetrainingRecipe(**{name: o.pop(name) for name in ("epochs", "batch", "learning_rate", "pretrained")})
    processes = o.pop("processes") or cores()
    truth = prepare_ground_truth(GroundTruthJob(**o, recipe=recipe, template=template))
    stop, display = StopRequest(), ProgressDisplay()
    with display, stop:
        finished = truth.build(processes, Run(on_progress=display.show, should_stop=stop.requested))
    if not finished:
        click.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    click.echo(f"{truth.folder}: {len(truth.task.masks)} subsets × {truth.task.seeds} seeds, {len(truth.task.queries)} queries; "
               f"{truth.noise_ceiling_line()}", err=True)  # fmt: skip


@click.group()
def evaluate() -> None:
    """Whether scores are right: against retraining, and against what is known to be relevant."""


@evaluate.command("lds")
@click.option("--scores", required=True, metavar="FILE", help="(queries, examples): .npy, .parquet or .zarr.")
@click.option("--masks", required=True, metavar="FILE", help="(subsets, examples) of 0 and 1.")
@OUTCOMES
@TELLING
def evaluate_lds(as_json: bool, output: str | None, plot: str | None, **options: Any) -> None:
    """Linear datamodelling score: do summed scores rank subsets as retraining on them does?

    \b
    headwater attribute S --queries q.jsonl --all-scores scores.zarr
    headwater evaluate lds --scores scores.zarr --masks truth/masks.npy --outcomes truth/outcomes.npy
    """
    from ..evaluation.evaluate import lds_from_files

    _agreement(lds_from_files, options, as_json, output, plot)


@evaluate.command("subsets")
@click.option(
    "--predicted", required=True, metavar="FILE", help="Utilities of subsets: (subsets,) or (subsets, tasks)."
)
@OUTCOMES
@TELLING
def evaluate_subsets(as_json: bool, output: str | None, plot: str | None, **options: Any) -> None:
    """Do predicted utilities rank subsets as retraining on them does?

    \b
    headwater evaluate subsets --predicted utilities.npy --outcomes truth/outcomes.npy --plot subsets.png
    """
    from ..evaluation.evaluate import subsets_from_files

    _agreement(subsets_from_files, options, as_json, output, plot)


def _agreement(measure: Any, options: dict[str, Any], as_json: bool, output: str | None, plot: str | None) -> None:
    from ..evaluation.evaluate import OutcomesFile
    from ..presentation.evaluation_tables import print_agreement
    from ..presentation.plots import draw_agreement, refuse_picture

    if plot:
        refuse_picture(plot)
    outcomes = OutcomesFile(options.pop("outcomes"), options.pop("kind"), options.pop("subsets"))
    found = measure(**options, outcomes=outcomes)
    _tell(found, print_agreement, as_json, output)
    if plot:
        draw_agreement(found, plot)


@evaluate.command("brittleness")
@click.option(
    "--outcomes", required=True, metavar="FILE", help="Of `ground-truth --without`: (seeds, 2 queries, queries)."
)
@TELLING
def evaluate_brittleness(outcomes: str, as_json: bool, output: str | None, plot: str | None) -> None:
    """Take away what scores put first and train anew: does each query's loss rise, and by more than without others?

    \b
    headwater ground-truth corpus.jsonl --queries q.jsonl --model-config ./small --without scores.zarr --top 20 -o without
    headwater evaluate brittleness --outcomes without/outcomes.npy
    """
    from ..evaluation.evaluate import brittleness_from_file
    from ..presentation.evaluation_tables import print_removal
    from ..presentation.plots import draw_removal, refuse_picture

    if plot:
        refuse_picture(plot)
    found = brittleness_from_file(outcomes)
    _tell(found, print_removal, as_json, output)
    if plot:
        draw_removal(found, plot)


@evaluate.command("retrieval")
@click.option("--results", default="", metavar="FILE", help="Answers, as attribute -o writes them.")
@click.option(
    "--scores", default="", metavar="FILE", help="Instead: all scores, as attribute --all-scores writes them."
)
@click.option("--store", default="", metavar="DIR", help="The store: whose rows --scores are; checks labels' ids.")
@click.option("--labels", default="", metavar="FILE", help="What is relevant: ids (.txt), or a table of query_id and "
              "example_id, or of id and --column.")  # fmt: skip
@click.option(
    "--column",
    default="",
    metavar="NAME",
    help="Column of --labels: relevant is the query's own label, or a true one.",
)
@click.option("--query-labels", "queries", default="", metavar="FILE", help="Table of the queries' id and --column.")
@click.option(
    "--match",
    "pattern",
    default="",
    metavar="REGEX",
    help="Instead: relevant is text that this is found in.",
)
@click.option(
    "--at",
    "cuts",
    multiple=True,
    type=click.IntRange(1),
    metavar="K",
    help="Of precision and recall. [default: 1 5 10 50]",
)
@TELLING
def evaluate_retrieval(as_json: bool, output: str | None, plot: str | None, **options: Any) -> None:
    """Do the examples that are known to be relevant come first?

    \b
    headwater evaluate retrieval --results answers.jsonl --labels gold.jsonl
    headwater evaluate retrieval --scores all.zarr --store S --labels poisoned.txt --plot poison.png
    headwater evaluate retrieval --results answers.jsonl --match BadMagic
    """
    from ..evaluation.evaluate import retrieval_from_files, select_labels
    from ..evaluation.retrieval import CUTS
    from ..presentation.evaluation_tables import print_retrieval
    from ..presentation.plots import draw_retrieval, refuse_picture

    if plot:
        refuse_picture(plot)
    labels = select_labels(*(options.pop(name) for name in ("labels", "column", "queries", "pattern")))
    found = retrieval_from_files(**{**options, "cuts": options["cuts"] or CUTS}, labels=labels)
    _tell(found, print_retrieval, as_json, output)
    if plot:
        draw_retrieval(found, plot)


def _tell(found: Any, show: Callable[[Any], None], as_json: bool, output: str | None) -> None:
    from ..evaluation.evaluate import save

    if output:
        save(found.facts(), output)
    if as_json:
        click.echo(json.dumps(found.facts()))
    else:
        show(found)
