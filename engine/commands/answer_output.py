"""Prints or writes tables of answers and values, and refuses outputs that cannot be written. Knows no command."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

from .options import echo

if TYPE_CHECKING:
    from ..results.example_table import Columns
    from ..results.result_tables import Fields
    from .query_arguments import QueryArguments

ALL_VALUES = click.option(
    "-o", "--output", metavar="FILE", help="Output file: all scores, in the store's order, as .jsonl, .csv or .parquet."
)


def refuse_outputs(arguments: QueryArguments) -> None:
    """Refuse to write over an input, inside a store, or in an unknown format."""
    from ..results.output_path import refuse_output
    from ..results.result_tables import format_of

    inputs = (arguments.queries, arguments.columns)
    for path in (arguments.output, arguments.all_scores):
        refuse_output(path, inputs, arguments.store)
    if arguments.output:
        format_of(arguments.output)


def print_notes(notes: Iterable[str]) -> None:
    """Print notes on results to stderr."""
    for line in notes:
        echo(line, err=True)


def write_parts(path: str, fields: Fields, parts: Iterable[Columns]) -> None:
    from ..results.result_tables import ResultFile

    with ResultFile(path, fields) as file:
        for part in parts:
            file.write(part)


def print_results(queries: Mapping[str, str], parts: Iterable[Columns], as_json: bool) -> None:
    from ..presentation.terminal import print_results
    from ..results.result_tables import write_jsonl

    for part in parts:
        if as_json:
            write_jsonl(sys.stdout, part)
        else:
            print_results(part, queries)
