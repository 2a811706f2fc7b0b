"""`select`: chooses examples to train on. Knows nothing of how they are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ...store.json_values import ParsedJson
from ..results.printable import printable_json
from .grouped_help import command
from .options import COLUMNS, JSON, PARTIAL, WrongUsage, command_of, echo
from .questions import WHERE
from .tasks import PENALTY, TASK, TaskArguments, features_of, targets_of

if TYPE_CHECKING:
    from ..selection.linear_features import LinearFeatures
    from ..selection.selection import GreedySelection, SelectionResult
    from ..selection.selection_request import SelectionRequest


@dataclass(frozen=True, kw_only=True)
class SelectArguments(TaskArguments):
    """Arguments of `select`."""

    count: str | None
    tokens: int | None
    penalty: float | None
    additive: bool
    per_step: int
    distinct: float | None
    copies: bool
    quotas: tuple[str, ...]
    columns: str
    among: str
    exclude: str
    where: tuple[str, ...]
    task: str
    records: bool
    corpus: tuple[str, ...]
    output: str
    as_json: bool


@command()
@TASK
@PARTIAL
@click.option("--count", metavar="N", help="Number of examples to select, or a part of all such as 10%.")
@click.option("--tokens", type=int, metavar="N", help="Instead: number of tokens to select.")
@PENALTY
@click.option("--additive", is_flag=True, help="Select by single scores, without redundancy: λ = 0, for comparison.")
@click.option("--per-step", default=1, show_default=True, metavar="N",
              help="Examples chosen per step; above 1 it is faster, and no longer exact.")  # fmt: skip
@click.option("--distinct", type=click.FloatRange(0, 1, min_open=True), is_flag=False, flag_value=1.0, default=None,
              metavar="[COSINE]", help="Choose equal texts once, as is the default; with a cosine below 1, such as 0.98, "
              "leave out near copies, too: examples whose feature is that similar to a chosen one's.")  # fmt: skip
@click.option("--copies", is_flag=True, help="Choose a text as often as it stands in the corpus.")
@click.option("--quota", "quotas", multiple=True, metavar="COLUMN=VALUE:SHARE",
              help="Largest share of the count, such as source=a.jsonl:0.3.")  # fmt: skip
@WHERE
@COLUMNS
@click.option("--among", default="", metavar="FILE", help="Select among these only: ids (.txt) or a mask (.npy).")
@click.option("--exclude", default="", metavar="FILE", help="Do not select these: ids (.txt) or a mask (.npy).")
@click.option("--task", default="", metavar="NAME", help="With --tasks-by: the task. [default: the mean of all tasks]")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    help="Output file: the selected examples as .jsonl, ready for training.",
)
@click.option("--records", is_flag=True, help="Write the corpus's own records, all fields, each once; the field `headwater` "
              "adds order, gain, row and id.")  # fmt: skip
@click.option("--corpus", multiple=True, metavar="FILE", help="Path of a corpus file, if it moved; for --records.")
@JSON
@command_of(SelectArguments)
def select(arguments: SelectArguments) -> None:
    """Select training examples for a task.

    Examples are chosen one after the other, each by what it adds to those before it: exact greedy selection, from a store of any
    size. Of examples that the model reads alike one is chosen.

    \b
    headwater select S --queries task.jsonl --count 1000 -o chosen.jsonl
    headwater select S --queries task.jsonl --tokens 1000000 --exclude held-out.txt -o chosen.jsonl
    headwater select S --queries task.jsonl --count 500 --quota source=web.jsonl:0.5 -o chosen.jsonl
    headwater select S --queries task.jsonl --count 1000 --distinct 0.98 -o chosen.jsonl
    headwater select S --queries task.jsonl --count 1000 --records -o chosen.jsonl
    """
    from ..runtime.cancellation import StopRequest
    from ..runtime.progress import ProgressDisplay
    from ..runtime.run import Run
    from ..selection.selection import GreedySelection

    a = arguments
    _check(a)
    stop, display = StopRequest(), ProgressDisplay()
    with display:
        features, task = features_of(a, Run(a.budget, on_progress=display.show, should_stop=stop.requested))
        request = _request(a, features)
        selection = GreedySelection(features, request)
        with stop:
            selected = selection.run(targets_of(features, task).vector(a.task))
    _write(a, selection, selected)
    _print_selected(a, selected.facts, None if stop.requested() else request.count)
    if stop.requested():
        echo("stopped: these are the first examples of the selection", err=True)
        raise SystemExit(130)


def _check(arguments: SelectArguments) -> None:
    """Refuse options that exclude each other, and outputs that cannot be written, before anything is computed."""
    from ..results.output_path import refuse_output
    from ..selection.selection import refuse_training

    a = arguments
    if a.copies and a.distinct is not None:
        raise WrongUsage("give either --distinct or --copies")
    if a.corpus and not a.records:
        raise WrongUsage("--corpus is read for --records alone", "give both")
    refuse_output(a.output, (a.queries, a.columns, a.among, a.exclude, *a.corpus), a.store)
    refuse_training(a.output)


def _request(arguments: SelectArguments, features: LinearFeatures) -> SelectionRequest:
    """How many examples to choose, and which may be chosen."""
    from ..results.row_filter import RowFilter
    from ..selection.prediction import penalty_of
    from ..selection.selection_request import SelectionRequest, count_of

    a = arguments
    return SelectionRequest(
        count_of(a.count, features.rows), a.tokens, 0.0 if a.additive else penalty_of(features, a.penalty), a.per_step,
        tuple(map(_quota, a.quotas)), a.columns, RowFilter.parsed(a.where, a.columns), a.among, a.exclude,
        None if a.copies else a.distinct or 1.0,
    )  # fmt: skip


def _write(arguments: SelectArguments, selection: GreedySelection, selected: SelectionResult) -> None:
    """Write the chosen examples, or with --records the corpus's own records."""
    from ..selection.original_records import write_records
    from ..selection.selection import write_training

    a, choice = arguments, selected.choice
    if not a.records:
        write_training(a.output, selection.rows(selected))
        return
    for note in write_records(a.output, selection.store, choice.rows, choice.gains, a.corpus).notes:
        echo(f"note: {note}", err=True)


def _print_selected(arguments: SelectArguments, facts: ParsedJson, asked: int | None) -> None:
    """Print the figures of a selection, and why it has fewer examples than the number asked for, if there is one."""
    if arguments.as_json:
        echo(printable_json(facts))
    else:
        figures = ", ".join(f"{name} {value:,.6g}" for name, value in facts.items())
        echo(f"{arguments.output}: {figures}", err=True)
    if asked and int(facts["examples"]) < asked:
        count = f"{facts['examples']} of {asked}"
        echo(
            f"{count}: every other example is a copy of a chosen one, left out by a file, or beyond its quota", err=True
        )


def _quota(text: str) -> tuple[str, str, float]:
    column, equals, rest = text.partition("=")
    value, colon, number = rest.rpartition(":")
    try:
        share = float(number)
    except ValueError:
        share = -1
    if not (equals and colon and column and value and 0 < share <= 1):
        raise WrongUsage(f"--quota {text} is no quota", "write COLUMN=VALUE:SHARE, such as source=a.jsonl:0.3")
    return column, value, share
