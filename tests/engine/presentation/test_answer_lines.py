"""Answers on a terminal: headings, completion first, prompts on demand, a limit of queries, a pager, no colour in a pipe."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from headwater.engine.presentation.answer_lines import AnswerView, answer_lines, group_lines
from running import done
from small import save_model


def table(query: int, rows: int, **further: Any) -> dict[str, list[Any]]:
    """A table of one query's answers."""
    return {
        "query_id": [f"q{query}"] * rows,
        "rank": list(range(1, rows + 1)),
        "example_id": [f"corpus.jsonl:{row}" for row in range(rows)],
        "score": [1 / (1 + row) for row in range(rows)],
        "completion": [f"answer\n{row}" for row in range(rows)],
        "prompt": ["who?", *[""] * (rows - 1)],
        "query_prompt": ["what is it? "] * rows,
        "query_completion": ["a \x1b[2Jsea"] * rows,
        **{name: [value] * rows for name, value in further.items()},
    }


def test_a_table_has_headings_and_the_completion_first() -> None:
    lines = list(answer_lines([table(1, 2)], AnswerView(1)))
    assert lines == [
        "",
        "q1  what is it? → a [2Jsea",
        " rank     score  example         completion",
        "    1    1.0000  corpus.jsonl:0  answer 0",
        "    2    0.5000  corpus.jsonl:1  answer 1",
    ]


def test_prompts_stand_on_lines_of_their_own() -> None:
    lines = list(answer_lines([table(1, 2)], AnswerView(1, prompts=True)))
    assert [line.strip() for line in lines[4:5]] == ["who?"] and len(lines) == 6


def test_errors_and_ranks_have_their_headings() -> None:
    lines = list(answer_lines([table(1, 1, standard_error=0.25, rank_low=1, rank_high=3)], AnswerView(1)))
    assert re.search(r"rank +score +error +ranks +example +completion", lines[2])
    assert lines[2].index("example") == lines[3].index("corpus.jsonl:0") and "± 0.2500  1 to 3" in lines[3]
    assert "tie" in list(answer_lines([table(1, 1, tie=True)], AnswerView(1)))[3]


def test_only_the_first_queries_are_read_and_the_rest_is_counted() -> None:
    read = []

    def parts() -> Iterator[dict[str, list[Any]]]:
        for query in range(750):
            read.append(query)
            yield table(query, 3)

    lines = list(answer_lines(parts(), AnswerView(750, limit=10)))
    assert lines[-1] == "… 740 more queries: -o FILE writes them all, --limit N shows more"
    assert len(read) == 11 and sum("what is it?" in line for line in lines) == 10
    assert list(answer_lines([table(0, 1), table(1, 1)], AnswerView(2, limit=1)))[-1].startswith("… 1 more query: ")


def test_a_part_may_hold_the_end_of_one_query_and_the_start_of_another() -> None:
    first, second = table(1, 2), table(2, 2)
    joined = {name: [*first[name], *second[name]] for name in first}
    cut = [{name: values[:1] for name, values in joined.items()}, {name: values[1:] for name, values in joined.items()}]
    assert list(answer_lines(cut, AnswerView(2))) == list(answer_lines([joined], AnswerView(2)))


def test_colour_is_for_terminals_alone() -> None:
    plain = "\n".join(answer_lines([table(1, 2)], AnswerView(1, prompts=True)))
    coloured = "\n".join(answer_lines([table(1, 2)], AnswerView(1, prompts=True, colour=True)))
    assert "\x1b" not in plain and re.sub(r"\x1b\[\d+m", "", coloured) == plain != coloured


def test_groups_have_a_limit_too() -> None:
    columns = {"rank": [1, 2], "mean": [1.0, 0.5], "total": [2.0, 1.0], "examples": [2, 2], "group": ["a", "b"],
               "best": [1.0, 0.5], "best_example": ["e", "f"],
               "query_prompt": ["what? "] * 2, "query_completion": ["it"] * 2}  # fmt: skip
    tables = [{"query_id": [f"q{query}"] * 2, **columns} for query in range(5)]
    lines = list(group_lines(tables, 1, AnswerView(5, limit=2)))
    assert lines[-1].startswith("… 3 more queries") and sum("  what? → it" in line for line in lines[:-1]) == 2
    assert not any(re.search(r" b +0\.5", line) for line in lines)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown")
    rows = [{"id": f"e{at}", "prompt": f"number {at}? ", "completion": f"it is {at}"} for at in range(30)]
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done(
        "ingest",
        folder / "c.jsonl",
        "--store",
        folder / "S",
        "--model",
        save_model(folder / "model"),
        "--method",
        "repsim",
    )
    return folder


def test_attribute_prints_ten_queries_and_writes_all(place: Path) -> None:
    words = ["attribute", place / "S", "--queries", place / "c.jsonl", "--method", "repsim", "--top", 2]
    output = done(*words).stdout
    assert "… 20 more queries: -o FILE" in output and output.count(" → it is ") == 10 and "\x1b" not in output
    assert done(*words, "--limit", 30).stdout.count(" → it is ") == 30
    assert len(done(*words, "--json").stdout.splitlines()) == 60
    assert "number 1?" in done("value", *words[1:], "--prompts").stdout


@pytest.mark.parametrize(("count", "paged"), [(5, False), (500, True)])
def test_more_than_a_screen_goes_through_the_pager(count: int, paged: bool) -> None:
    master, slave = pty.openpty()
    script = f"from headwater.engine.presentation.paging import show\nshow(f'line {{n}}' for n in range({count}))"
    environment = {**os.environ, "PAGER": "sed -e s/^/PAGED:/", "LINES": "20", "COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", script], stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    out = b""
    try:
        while chunk := os.read(master, 65536):
            out += chunk
    except OSError:  # the other end is closed
        pass
    assert process.wait(60) == 0
    os.close(master)
    lines = out.decode().split()
    assert lines.count("PAGED:line") == (count if paged else 0) and f"{count - 1}" in lines
