"""`ground-truth`: trains on subsets of a corpus. Knows nothing of how that is done."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

import click

from .corpus_options import FIELDS, FieldArguments
from .grouped_help import command
from .options import MEMORY, budget_of, command_of, echo, options, print_left_out_files


@dataclass(frozen=True, kw_only=True)
class GroundTruthArguments(FieldArguments):
    """Arguments of `ground-truth`."""

    corpus: tuple[str, ...]
    queries: str
    model: str
    folder: str
    subsets: int
    fraction: float
    seeds: int
    clusters: int
    masks: str
    without: str
    top: int
    seed: int
    epochs: float
    batch: int
    learning_rate: float
    pretrained: bool
    max_length: int | None
    boundary: Literal["joined", "apart"]
    processes: int
    memory: str | None


_SUBSETS = (
    click.option("--subset-count", "subsets", default=64, show_default=True, type=click.IntRange(1), help="Number of subsets."),
    click.option("--fraction", default=0.5, show_default=True, help="Fraction of the corpus in each subset."),
    click.option("--seeds", default=5, show_default=True, type=click.IntRange(1),
                 help="Number of seeds, each with a training on every subset."),
    click.option("--clusters", default=0, type=click.IntRange(0), metavar="N",
                 help="Draw whole clusters, of N clusters of similar texts, instead of single examples."),
    click.option("--masks", default="", metavar="FILE", help="Subsets, (subsets, examples) of 0 and 1. [default: drawn]"),
    click.option("--without", default="", metavar="FILE", help="Scores: leave out each query's top examples, and as many "
                 "random ones in another training."),
    click.option("--top", default=10, show_default=True, type=click.IntRange(1), metavar="K",
                 help="Number of top examples, for each query, that --without leaves out."),
    click.option("--seed", default=0, show_default=True, help="Seed of the subsets."),
)  # fmt: skip
_TRAINING = (
    click.option("--epochs", default=3.0, show_default=True, help="Passes over a subset."),
    click.option("--batch", default=16, show_default=True, type=click.IntRange(1), help="Examples per step."),
    click.option("--learning-rate", default=1e-3, show_default=True, help="Peak learning rate."),
    click.option("--pretrained", is_flag=True, help="Start from the model's weights instead of random ones."),
    click.option("--max-length", type=int, metavar="TOKENS", help="Tokens of the longest example; longer texts are truncated."),
    click.option("--boundary", type=click.Choice(["joined", "apart"]), default="joined", show_default=True,
                 help="Tokenise a prompt and its completion joined as one text, or apart."),
    click.option("--processes", default=0, type=click.IntRange(0), metavar="N",
                 help="Trainings that run at a time. [default: the number of cores, or fewer to fit --memory]"),
    MEMORY,
)  # fmt: skip


@command("ground-truth")
@click.argument("corpus", nargs=-1, required=True)
@click.option("--queries", required=True, metavar="FILE", help="Queries, whose losses are the outcomes.")
@click.option("--model-config", "model", required=True, metavar="PATH",
              help="Folder with the config and tokenizer of a small model.")  # fmt: skip
@click.option("-o", "--output", "folder", required=True, metavar="DIR", help="Output folder, for masks and outcomes.")
@options(*_SUBSETS, *_TRAINING)
@FIELDS
@command_of(GroundTruthArguments)
def ground_truth(arguments: GroundTruthArguments) -> None:
    """Train on many subsets, record all queries' losses.

    Each subset of CORPUS is trained on from scratch, with several seeds. The folder then holds masks, outcomes and the noise
    ceiling. Running it again continues with the trainings that are missing.

    \b
    headwater ground-truth corpus.jsonl --queries questions.jsonl --model-config ./small -o truth
    headwater evaluate lds --scores scores.zarr --masks truth/masks.npy --outcomes truth/outcomes.npy
    headwater ground-truth corpus.jsonl --queries q.jsonl --model-config ./small --without scores.zarr --top 20 -o without
    """
    from ..arrays.scan.scan_loop import cores
    from ..results.output_path import refuse_output
    from ..retraining.builder import written_files
    from ..retraining.retraining_job import GroundTruthJob, prepare_ground_truth
    from ..retraining.training_loop import RetrainingRecipe
    from ..runtime.cancellation import StopRequest
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run

    a = arguments
    refuse_output(a.folder, (*a.corpus, a.queries, a.model))
    for file in written_files(a.folder):
        refuse_output(file, (*a.corpus, a.queries, a.masks, a.without))
    print_left_out_files(a.corpus)
    truth = prepare_ground_truth(GroundTruthJob(
        corpus=a.corpus, queries=a.queries, model=a.model, folder=a.folder, subsets=a.subsets, fraction=a.fraction,
        seeds=a.seeds, clusters=a.clusters, masks=a.masks, without=a.without, top=a.top, seed=a.seed,
        recipe=RetrainingRecipe(epochs=a.epochs, batch=a.batch, learning_rate=a.learning_rate, pretrained=a.pretrained),
        template=a.template, max_length=a.max_length, boundary=a.boundary, processes=a.processes or cores(),
    ), Run(budget_of(a.memory)))  # fmt: skip
    stop, display = StopRequest(), ProgressDisplay()
    with display, stop:
        finished = truth.build(truth.processes, Run(on_progress=display.show, should_stop=stop.requested))
    if not finished:
        echo("stopped; run the same command again to continue", err=True)
        sys.exit(130)
    echo(f"{truth.folder}: {len(truth.task.masks)} subsets × {truth.task.seeds} seeds, {len(truth.task.queries)} queries; "
               f"{truth.noise_ceiling_line()}", err=True)  # fmt: skip
