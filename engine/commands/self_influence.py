"""`self-influence`: scores of examples against themselves. Knows nothing of how scores are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from .answer_output import ALL_VALUES, print_notes, print_results, view_of, write_parts
from .grouped_help import command
from .options import EXAMPLES_PRINTED, JSON_LINES, PARTIAL, PROMPTS, RUN, RunArguments, command_of, echo, method_names

if TYPE_CHECKING:
    from ..attribution.self_influence import SelfInfluence


@dataclass(frozen=True, kw_only=True)
class SelfInfluenceArguments(RunArguments):
    """Arguments of `self-influence`."""

    store: str
    method: str
    partial: bool
    output: str | None
    top: int
    prompts: bool
    as_json: bool


@command("self-influence")
@click.argument("store")
@click.option("--method", default="graddot", show_default=True, metavar="NAME", shell_complete=method_names,
              help="Attribution method. "
              "If the store has no rows of it, they are computed by a pass of the model over the store's examples.")  # fmt: skip
@click.option("--model", default="", metavar="PATH", help="Model, if the store's has moved: its folder, or an array file of the "
              "corpus. [default: its path at ingestion]")  # fmt: skip
@PARTIAL
@ALL_VALUES
@EXAMPLES_PRINTED
@PROMPTS
@JSON_LINES
@RUN
@command_of(SelfInfluenceArguments)
def self_influence(arguments: SelfInfluenceArguments) -> None:
    """Score each example against itself, to find wrong labels.

    Self-influence is high for wrong labels and outliers. With rows of unit norm (rise, gradcos, headcos, repsim) it is the same
    for all examples.

    \b
    headwater self-influence S
    headwater self-influence S --method logra
    headwater self-influence S --method graddot -o self.parquet
    """
    from ..attribution.self_influence import SelfInfluence
    from ..results.answers_origin import origin_of
    from ..results.output_path import refuse_output
    from ..results.result_files import format_of
    from ..results.result_tables import VALUE_FIELDS, About, result_rows, value_rows
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run

    refuse_output(arguments.output, (), arguments.store)
    if arguments.output:
        format_of(arguments.output)
    with ProgressDisplay() as display:
        run = Run(arguments.budget, arguments.device, display.show)
        choice = arguments.model_choice
        influence = SelfInfluence(arguments.store, arguments.method, choice, run, partial=arguments.partial)
        scores = influence.scores()
        about = About(origin=origin_of(influence.store, influence.name, influence.rows))
        if arguments.output:
            write_parts(
                arguments.output, VALUE_FIELDS, value_rows(scores, influence.store, influence.parts, about), about
            )
        else:
            best = influence.best(arguments.top, scores)
    print_notes(_notes(influence))
    if arguments.output:
        echo(f"{arguments.output}: {influence.rows:,} examples", err=True)
    else:
        view = view_of(1, prompts=arguments.prompts)
        print_results(result_rows(best, influence.store, influence.parts, about), arguments.as_json, view)


def _notes(influence: SelfInfluence) -> list[str]:
    """What the user should know of the scores."""
    if not influence.all_equal:
        return influence.notes
    equal = f"all examples have the same self-influence: rows of {influence.name} have unit norm"
    return [*influence.notes, f"{equal}; without --method, graddot tells them apart"]
