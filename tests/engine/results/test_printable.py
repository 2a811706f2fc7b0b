"""Answers are safe on a terminal and in a spreadsheet, and keep their values."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from headwater.engine.results.printable import printable, printable_json, spreadsheet_cell
from headwater.engine.results.result_files import ResultFile, write_jsonl
from headwater.engine.results.result_tables import VALUE_FIELDS

HOSTILE = 'a\x1b[31m\u202e\x7f\x9b\ud83d\U000e0041 é漢🙂\n\t"\\'


@pytest.mark.parametrize("indent", [None, 1])
def test_json_has_only_printable_characters_and_the_same_value(indent: int | None) -> None:
    value = {HOSTILE: [HOSTILE, 1.5, None]}
    text = printable_json(value, indent)
    assert json.loads(text) == value
    assert all(c.isprintable() or c == "\n" for c in text) and "é漢🙂" in text
    assert text == printable(text)


def test_json_lines_are_safe_too() -> None:
    out = io.StringIO()
    write_jsonl(out, {"text": [HOSTILE]})
    assert json.loads(out.getvalue()) == {"text": HOSTILE}
    assert out.getvalue().removesuffix("\n").isprintable()


@pytest.mark.parametrize("text", ["=1+1", "+1", "@SUM(A1)", "\tx", "-x", "-1+2", "-", "-inf", "-cmd|' /C calc'!A0"])
def test_a_formula_gets_an_apostrophe(text: str) -> None:
    assert spreadsheet_cell(text) == "'" + text


@pytest.mark.parametrize("text", ["", "a=b", "-1", "-1.5e-3", "-.5", "1", " =", "'="])
def test_other_text_stays(text: str) -> None:
    assert spreadsheet_cell(text) == text


def test_csv_of_answers_has_no_formula_and_all_numbers(tmp_path: Path) -> None:
    path = tmp_path / "values.csv"
    with ResultFile(str(path), VALUE_FIELDS) as file:
        file.write(
            {"example_id": ["=1", "-7"], "score": [-2.5, 3.0], "row": [0, 1], "source": ["@a", "b"], "line": [-1, 2]}
        )
    with path.open(newline="") as lines:
        rows = list(csv.reader(lines))
    assert rows[1:] == [["'=1", "-2.5", "0", "'@a", "-1"], ["-7", "3.0", "1", "b", "2"]]
