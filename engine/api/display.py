"""How answers and tables show themselves: as text in a terminal, as HTML in a notebook. Computes nothing."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Protocol

from ..results.printable import printable

_SHOWN_QUERIES = 5
_SHOWN_CHARACTERS = 300
_WIDTH = 110
_CELL = "text-align:left;vertical-align:top;white-space:pre-wrap"


class DisplayedExample(Protocol):
    """What is shown of one example of an answer."""

    @property
    def rank(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def completion(self) -> str: ...


class DisplayedAnswer(Protocol):
    """What is shown of one query's answer."""

    @property
    def prompt(self) -> str: ...
    @property
    def completion(self) -> str: ...
    @property
    def examples(self) -> Sequence[DisplayedExample]: ...


def answers_text(answers: Sequence[DisplayedAnswer]) -> str:
    """The first answers as lines: a heading per query, and a line per example with its score and completion."""
    blocks = []
    for answer in answers[:_SHOWN_QUERIES]:
        lines = [_cut(f"{answer.prompt} → {answer.completion}" if answer.prompt else answer.completion)]
        width = max((len(example.id) for example in answer.examples), default=0)
        lines += [
            _cut(f"{example.rank:>4}  {example.score:>9.4f}  {example.id:<{min(width, 30)}}  {example.completion}")
            for example in answer.examples
        ]
        blocks.append("\n".join(lines))
    if len(answers) > _SHOWN_QUERIES:
        blocks.append(f"… and {len(answers) - _SHOWN_QUERIES} more queries")
    return "\n\n".join(blocks)


def answers_html(answers: Sequence[DisplayedAnswer], *, whole: bool = False) -> str:
    """Answers as tables, prompt and completion apart; every text is escaped. Without `whole` the first queries, and the start of
    long texts.
    """
    limit = None if whole else _SHOWN_CHARACTERS
    shown = answers if whole else answers[:_SHOWN_QUERIES]
    parts = []
    for answer in shown:
        prompt = f"<span style='opacity:.6'>{_escaped(answer.prompt, limit)}</span>" if answer.prompt else ""
        rows = [
            (str(example.rank), f"{example.score:.4f}", example.id, example.prompt, example.completion)
            for example in answer.examples
        ]
        heading = f"<p style='white-space:pre-wrap'>{prompt}<b>{_escaped(answer.completion, limit)}</b></p>"
        parts.append(heading + table_html(("rank", "score", "id", "prompt", "completion"), rows, limit))
    if len(answers) > len(shown):
        parts.append(f"<p>… and {len(answers) - len(shown)} more queries</p>")
    return "".join(parts)


def table_html(headings: Sequence[str], rows: Iterable[Sequence[str]], limit: int | None = _SHOWN_CHARACTERS) -> str:
    """A table whose cells are escaped and cut to `limit` characters; columns without any text are left out."""
    cells = [list(row) for row in rows]
    shown = [at for at in range(len(headings)) if any(row[at] for row in cells)]
    head = "".join(f"<th style='text-align:left'>{_escaped(headings[at])}</th>" for at in shown)
    body = "".join(
        "<tr>" + "".join(f"<td style='{_CELL}'>{_escaped(row[at], limit)}</td>" for at in shown) + "</tr>"
        for row in cells
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def table_text(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as lines, its columns aligned."""
    cells = [list(headings), *([_on_a_line(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(headings))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _escaped(text: str, limit: int | None = None) -> str:
    shown = text if limit is None or len(text) <= limit else text[:limit] + "…"
    return html.escape(printable(shown))


def _on_a_line(text: str) -> str:
    return printable(text.replace("\n", "⏎"))


def _cut(line: str) -> str:
    joined = _on_a_line(line).rstrip()
    return joined if len(joined) <= _WIDTH else joined[: _WIDTH - 1] + "…"
