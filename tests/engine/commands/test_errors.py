"""Errors in one style: `error:`, and on a second line `hint:` with what to run or to correct; exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from headwater.store.errors import HeadwaterError, StoreMissing
from running import headwater


@pytest.mark.parametrize(
    ("words", "code", "error", "hint"),
    [
        (("atribute",), 2, "no such command 'atribute'", "did you mean attribute?"),
        (("attribute", "S", "--querys", "q"), 2, "no such option '--querys'", "did you mean --quer"),
        (("attribute",), 2, "missing argument 'STORE'", "headwater attribute --help lists options and examples"),
        (("evaluate", "lds", "--at", "x"), 2, "no such option '--at'", ""),
        (("attribute", "S", "--queries", "q", "--all-scores", "a.zarr", "--json"), 2, "--all-scores writes all scores",
         "leave out -o, --json, --by and --bottom"),
        (("select", "S", "--queries", "q", "--count", 1, "-o", "o.jsonl", "--distinct", "--copies"), 2,
         "give either --distinct or --copies", "headwater select --help"),
        (("ingest", "c", "--store", "S", "--method", "rize"), 1, "no method rize; installed: bm25, ", "did you mean rise?"),
        (("ingest", "c", "--store", "S", "--set", "rise.taw", 1), 1, "method rise: no setting taw; the settings are kr, ",
         "did you mean tau?"),
        (("attribute", "none", "--queries", "q"), 1, "none is not a headwater store: it has no zarr.json",
         "headwater ingest CORPUS --store none --model MODEL makes one"),
        (("info", "none"), 1, "none is not a headwater store", "headwater ingest CORPUS --store none"),
        (("ingest", "none.jsonl", "--store", "S", "--model", "./none"), 1, "no such f", ""),
        (("attribute", "S", "--queries", "q", "--memory", "much"), 1, "'much' is not an amount of memory",
         "write 512MB, 2GB or 1.5GiB"),
        (("attribute", "S", "--queries", "q", "-o", "a.xls"), 1, "a.xls: results can only be written as .jsonl", ""),
    ],
)  # fmt: skip
def test_an_error_is_a_line_and_its_hint_another(
    words: tuple[object, ...], code: int, error: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = headwater(*words)
    assert done.exit_code == code and done.stdout == ""
    first, *second = done.stderr.splitlines()
    assert first.startswith("error: ") and error in first, done.stderr
    assert len(second) <= 1 and all(line.startswith("hint: ") for line in second)
    assert hint in "".join(second) and not first.endswith(".")


def test_a_hint_is_no_part_of_the_text_and_a_traceback_shows_it() -> None:
    error = StoreMissing("S is not there", hint="make it")
    assert (str(error), error.hint, error.__notes__) == ("S is not there", "make it", ["hint: make it"])
    assert isinstance(error, FileNotFoundError) and HeadwaterError("x").hint == ""
    assert not hasattr(HeadwaterError("x"), "__notes__")


def test_a_hint_has_no_control_characters(tmp_path: Path) -> None:
    done = headwater("attribute", "\x1b[2J", "--queries", "q")
    assert "\x1b" not in done.stderr and done.stderr.count("\n") == 2


def test_exit_codes_are_in_the_help_and_hold() -> None:
    assert "Exit codes: 0 done, 1 an error, 2 wrong usage, 130 stopped" in " ".join(headwater("--help").stdout.split())
    names = [[], ["--help"], ["info", "/none"], ["info"]]
    runs = [subprocess.run([sys.executable, "-m", "headwater", *words], capture_output=True) for words in names]
    assert [run.returncode for run in runs] == [2, 0, 1, 2]
    assert runs[0].stderr.startswith(b"Usage: ") and b"error: " not in runs[0].stderr


def test_bases_are_refused_with_a_hint() -> None:
    done = headwater("fit", "S", "--bases", "a/x,b/x")
    assert (
        done.stderr == "error: --bases has two models of one name\nhint: fit each by --method NAME@MEMBER --base PATH\n"
    )
