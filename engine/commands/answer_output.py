"""Prints or writes tables of answers and values, and refuses outputs that cannot be written. Knows no command."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...store.json_values import JsonObject
from .options import echo

if TYPE_CHECKING:
    from ..attribution.query_session import QuerySession
    from ..results.example_table import Columns
    from ..results.result_files import Fields, Sink
    from ..results.result_tables import About
    from .query_arguments import QueryArguments

ALL_VALUES = click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Output file: all scores, in the store's order, as .jsonl, .json, .csv, .parquet or .html.",
)


def refuse_outputs(arguments: QueryArguments) -> None:
    """Refuse to write over an input, inside a store, or in an unknown format."""
    from ..results.output_path import refuse_output
    from ..results.result_files import format_of

    inputs = (arguments.queries, arguments.columns)
    for path in (arguments.output, arguments.all_scores):
        refuse_output(path, inputs, arguments.store)
    if arguments.output:
        format_of(arguments.output)


def print_notes(notes: Iterable[str]) -> None:
    """Print notes on results to stderr."""
    for line in notes:
        echo(line, err=True)


def about_answers(session: QuerySession, *, together: bool = False) -> About:
    """What files of a session's answers say of their queries, unless these are asked together, and of their origin."""
    from ..results.answers_origin import origin_of
    from ..results.result_tables import About

    return About(() if together else session.queries, origin_of(session.store, session.name, session.rows))


def write_parts(path: str, fields: Fields, parts: Iterable[Columns], about: About) -> None:
    """Write tables to a file in the format of its suffix; it appears whole or not at all."""
    from ..results.result_files import ResultFile

    origin = about.origin.to_json() if about.origin else {}
    with ResultFile(path, fields, origin, {"html": _page}) as file:
        for part in parts:
            file.write(part)


def _page(path: Path, fields: Fields, origin: JsonObject) -> Sink:
    """Open a page, whose library is imported for it alone."""
    from ..presentation.html_page import HtmlPage

    return HtmlPage(path, fields, origin)


def print_results(parts: Iterable[Columns], as_json: bool) -> None:
    from ..presentation.terminal import print_results
    from ..results.result_files import write_jsonl

    for part in parts:
        if as_json:
            write_jsonl(sys.stdout, part)
        else:
            print_results(part)
