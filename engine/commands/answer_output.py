"""Prints or writes tables of answers and values, and refuses outputs that cannot be written. Knows no command."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...store.json_values import JsonObject
from .options import echo

if TYPE_CHECKING:
    from ..attribution.query_session import QuerySession
    from ..presentation.answer_lines import AnswerView
    from ..results.example_table import Columns
    from ..results.result_files import Fields, Sink
    from ..results.result_tables import About
    from .query_arguments import MethodAnswer, QueryArguments

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

    inputs = (arguments.queries, arguments.minus, arguments.columns)
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
    from ..results.result_tables import About

    return About(() if together else session.queries, session.origin)


def merged_about(answers: Sequence[MethodAnswer]) -> About:
    """What one file of the answers of several methods says of its queries and of the origin of each."""
    first, *others = [answer.about for answer in answers]
    return replace(first, others=tuple(about.origin for about in others if about.origin is not None))


def print_side_by_side(answers: Iterable[MethodAnswer], arguments: QueryArguments) -> None:
    """Print the answers of several methods under their names, then how many examples they share."""
    from ..presentation.answer_lines import answer_lines, overlap_lines
    from ..presentation.paging import show

    listed = list(answers)
    lines: list[Iterable[str]] = []
    for answer in listed:
        view = view_of(len(answer.results.queries), limit=arguments.limit, prompts=arguments.prompts)
        lines += [["", view.bold(f"=== {answer.name} ===")], answer_lines(answer.rows(), view)]
    lines.append(overlap_lines({answer.name: answer.results.rows for answer in listed}))
    show(chain.from_iterable(lines))


def write_parts(path: str, fields: Fields, parts: Iterable[Columns], about: About) -> None:
    """Write tables to a file in the format of its suffix; it appears whole or not at all."""
    from ..results.result_files import ResultFile

    with ResultFile(path, fields, about.to_json(), {"html": _page}) as file:
        for part in parts:
            file.write(part)


def _page(path: Path, fields: Fields, origin: JsonObject) -> Sink:
    """Open a page, whose library is imported for it alone."""
    from ..presentation.html_page import HtmlPage

    return HtmlPage(path, fields, origin)


def print_results(parts: Iterable[Columns], as_json: bool, view: AnswerView) -> None:
    """Print tables of examples, as JSON lines or as lines for people."""
    from ..presentation.answer_lines import answer_lines
    from ..presentation.paging import show
    from ..results.result_files import write_jsonl

    if not as_json:
        show(answer_lines(parts, view))
        return
    for part in parts:
        write_jsonl(sys.stdout, part)


def print_groups(tables: Iterable[Columns], arguments: QueryArguments, view: AnswerView) -> None:
    """Print tables of groups, as JSON lines or as lines for people."""
    from ..presentation.answer_lines import group_lines
    from ..presentation.paging import show
    from ..results.result_files import write_jsonl

    if not arguments.as_json:
        show(group_lines(tables, arguments.top, view))
        return
    for table in tables:
        write_jsonl(sys.stdout, table)


def view_of(queries: int, *, limit: int = 1, prompts: bool = False) -> AnswerView:
    """What is printed of answers to so many queries."""
    from ..presentation.answer_lines import AnswerView
    from ..presentation.paging import is_terminal

    return AnswerView(queries, limit, prompts, is_terminal())
