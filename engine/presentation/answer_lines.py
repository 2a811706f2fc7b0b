"""Lines of a table of answers or groups, for a terminal or a pipe: headings, the completion first. Knows no method and computes
nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import click

from ...store.json_values import JsonFields, ParsedJson
from ...store.layout import Array
from ..results.example_table import Cell, Columns
from ..results.printable import printable
from ..results.result_files import starts_query
from ..results.results import shared

_NAME_WIDTH = 40


@dataclass(frozen=True, slots=True)
class AnswerView:
    """What is shown of answers."""

    queries: int
    """Number of all queries."""
    limit: int = 10
    """Most queries that are shown."""
    prompts: bool = False
    """Whether the examples' prompts are shown, on a line of their own."""
    colour: bool = False
    """Whether headings are bold and prompts grey, for a terminal."""

    def bold(self, line: str) -> str:
        """A line as a heading."""
        return click.style(line, bold=True) if self.colour else line

    def grey(self, line: str) -> str:
        """A line that is read last."""
        return click.style(line, dim=True) if self.colour else line


def answer_lines(parts: Iterable[Columns], view: AnswerView) -> Iterator[str]:
    """Lines of tables of `RESULT_FIELDS`: a heading per query, prompt → completion, and a line per example. Texts are cut to the
    terminal's width. Tables of further queries are not read.
    """
    width, shown = _width(), 0
    for columns in parts:
        names = min(_NAME_WIDTH, max(len(_on_a_line(name)) for name in (*columns["example_id"], "example")))
        for row in (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)):
            if starts_query(row):
                shown += 1
                if shown > view.limit:
                    yield from _further(view)
                    return
                yield from ("", view.bold(_cut(_query(row), width)), view.grey(_cut(_headings(row, names), width)))
            yield _cut(_answer(row, names), width)
            if view.prompts and row["prompt"]:
                yield view.grey(_cut(f"{'':>17}{_on_a_line(row['prompt'])}", width))


def _further(view: AnswerView) -> Iterator[str]:
    """What is said of the queries that are not shown."""
    if view.queries > view.limit:
        count = view.queries - view.limit
        yield ""
        yield f"… {count:,} more {'query' if count == 1 else 'queries'}: -o FILE writes them all, --limit N shows more"


def _query(row: ParsedJson) -> str:
    prompt, completion = _on_a_line(row["query_prompt"]), _on_a_line(row["query_completion"])
    return f"{_on_a_line(row['query_id'])}  {prompt}{' → ' if prompt else ''}{completion}"


def _headings(row: JsonFields, names: int) -> str:
    noise = f"   {'error':<6}  {'ranks':<9}" if "standard_error" in row else ""
    return f"{'rank':>5}  {'score':>8}{noise}  {'example':<{names}}  completion"


def _answer(row: ParsedJson, names: int) -> str:
    noise = ""
    if "standard_error" in row:
        span = f"{row['rank_low']} to {row['rank_high']}" if row["rank_low"] < row["rank_high"] else ""
        noise = f" ± {row['standard_error']:.4f}  {span:<9}"
    score = "tie" if row.get("tie") else f"{row['score']:.4f}"  # a recovered weight of zero
    name = _on_a_line(row["example_id"])
    return f"{row['rank']:>5}  {score:>8}{noise}  {name:<{names}}  {_on_a_line(row['completion'])}"


def overlap_lines(rows: Mapping[str, Array]) -> Iterator[str]:
    """Lines of a table: the share of each pair of methods' examples that both have, mean over queries; rows: name → (Q, k)."""
    names, k = list(rows), min(part.shape[1] for part in rows.values())
    width = max(len(name) for name in names)
    yield from ("", f"share of the first {k} examples that two methods have in common, mean over queries:")
    yield f"{'':<{width}}  " + "  ".join(f"{name:>{max(6, len(name))}}" for name in names)
    for first in names:
        cells = [f"{shared(rows[first], rows[second]):>{max(6, len(second))}.2f}" for second in names]
        yield f"{first:<{width}}  " + "  ".join(cells)


def group_lines(tables: Iterable[Columns], top: int, view: AnswerView) -> Iterator[str]:
    """Lines of tables of `GROUP_FIELDS`: a heading per query, and a line for each of its first `top` groups."""
    width, shown = _width(), 0
    for columns in tables:
        first, count = int(columns["rank"][0] or 1), len(columns["rank"])
        names = min(_NAME_WIDTH, max(len(_on_a_line(name)) for name in columns["group"]))
        if first == 1:
            shown += 1
            if shown > view.limit:
                yield from _further(view)
                return
            yield from ("", view.bold(_cut(_query({name: values[0] for name, values in columns.items()}), width)))
            yield view.grey(f"{'':>5}  {'mean':>8}  {'total':>10}  {'examples':>8}  {'group':<{names}}  best")
        for number in range(min(top - first + 1, count)):
            row = {key: values[number] for key, values in columns.items()}
            best = f"{row['best']:.4f} {_on_a_line(row['best_example'])}"
            yield _cut(f"{row['rank']:>5}  {row['mean']:>8.4f}  {row['total']:>10.4f}  {row['examples']:>8}  "
                       f"{_on_a_line(row['group']):<{names}}  {best}", width)  # fmt: skip


def _width() -> int:
    return max(60, shutil.get_terminal_size((120, 24)).columns)


def _cut(line: str, width: int) -> str:
    line = line.rstrip()
    return line if len(line) <= width else line[: width - 1] + "…"


def _on_a_line(text: Cell) -> str:
    return " ".join(printable(str(text)).split())
