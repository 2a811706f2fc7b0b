"""Tables of evaluation results for a terminal. Computes no metric."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from ..evaluation.agreement import Agreement
from ..evaluation.metrics import Estimate
from ..evaluation.removal import Removal
from ..evaluation.retrieval import Retrieval


def print_agreement(agreement: Agreement) -> None:
    """Print the mean with its interval, the chance level and the noise ceiling."""
    table = _table("metric", "value", "95 %", "queries")
    name = "LDS" if agreement.measure == "lds" else "Spearman over subsets"
    _add_estimate(table, name, agreement.mean)
    _add_estimate(table, "chance (subsets shuffled)", agreement.shuffled)
    if math.isfinite(agreement.ceiling):
        table.add_row("agreement of two retrainings", f"{agreement.between:.4f}", "", "")
        table.add_row("noise ceiling", f"{agreement.ceiling:.4f}", "", "")
    console = Console(highlight=False)
    console.print(table)
    seeds = (
        f"{agreement.seeds} retrainings each"
        if agreement.seeds > 1
        else "one outcome each: the noise ceiling is not known"
    )
    console.print(f"{agreement.subsets} subsets, {seeds}")


def print_retrieval(retrieval: Retrieval) -> None:
    """Print one line per metric."""
    table = _table("metric", "mean", "95 %", "queries")
    for name, estimate in retrieval.means().items():
        _add_estimate(table, name, estimate)
    console = Console(highlight=False)
    console.print(table)
    skipped = f"; {retrieval.skipped} without a relevant example left out" if retrieval.skipped else ""
    if retrieval.repeated:
        console.print(
            f"several examples have the same id (up to {retrieval.repeated} a query): an id counts once, at its best rank"
        )
    console.print(
        f"{len(retrieval.queries)} queries, {retrieval.relevant:.1f} relevant of {retrieval.examples} examples ranked{skipped}"
    )


def print_removal(removal: Removal) -> None:
    """Print how much losses rose without the top examples, and how often by more than without random examples."""
    table = _table("metric", "mean", "95 %", "queries")
    _add_estimate(table, "rise of the loss (nats)", removal.rise)
    _add_estimate(table, "larger than without random examples (chance 0.5)", removal.beyond)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{removal.queries} queries, {removal.seeds} trainings each")


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number else "left")
    return table


def _add_estimate(table: Table, name: str, estimate: Estimate) -> None:
    if estimate.count:
        table.add_row(name, f"{estimate.value:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}", str(estimate.count))
    else:
        table.add_row(name, "not defined", "", "0")
