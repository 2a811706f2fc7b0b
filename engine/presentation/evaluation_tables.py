"""Tables of evaluation results for a terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from ..evaluation.agreement import Agreement
from ..evaluation.metrics import Estimate
from ..evaluation.removal import Removal
from ..evaluation.retrieval import Retrieval


def print_agreement(found: Agreement) -> None:
    """The mean with its interval, what chance gives, and the ceiling."""
    table = _table("figure", "value", "95 %", "queries")
    name = "LDS" if found.measure == "lds" else "Spearman over subsets"
    _add(table, name, found.mean)
    _add(table, "the same, subsets shuffled", found.shuffled)
    if math.isfinite(found.ceiling):
        table.add_row("two retrainings of a subset agree", f"{found.between:.4f}", "", "")
        table.add_row("a perfect prediction would reach", f"{found.ceiling:.4f}", "", "")
    console = Console(highlight=False)
    console.print(table)
    seeds = f"{found.seeds} retrainings each" if found.seeds > 1 else "one outcome each: the ceiling is not known"
    console.print(f"{found.subsets} subsets, {seeds}")


def print_retrieval(found: Retrieval) -> None:
    """A line a figure."""
    table = _table("figure", "mean", "95 %", "queries")
    for name, one in found.means().items():
        _add(table, name, one)
    console = Console(highlight=False)
    console.print(table)
    skipped = f"; {found.skipped} left out, for which nothing is relevant" if found.skipped else ""
    console.print(
        f"{len(found.queries)} queries, {found.relevant:.1f} relevant of {found.examples} examples ranked{skipped}"
    )


def print_removal(found: Removal) -> None:
    """How much losses rose, and how often by more than chance."""
    table = _table("figure", "mean", "95 %", "queries")
    _add(table, "rise of the loss (nats)", found.rise)
    _add(table, "share of other removals exceeded (chance 0.5)", found.beyond)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{found.queries} queries, {found.seeds} trainings of each removal")


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number else "left")
    return table


def _add(table: Table, name: str, one: Estimate) -> None:
    if one.count:
        table.add_row(name, f"{one.value:.4f}", f"{one.low:.4f} to {one.high:.4f}", str(one.count))
    else:
        table.add_row(name, "not defined", "", "0")
