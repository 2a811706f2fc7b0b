"""Messages on stderr: quiet, as JSON lines; progress foretells no end before it knows its rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from headwater.engine.runtime import progress as progress_module
from headwater.engine.runtime.messages import PLAIN, MessageStyle, message, say, style, using
from headwater.engine.runtime.progress import ProgressDisplay
from headwater.engine.runtime.run import Progress
from running import headwater
from small import save_model


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


def test_a_style_holds_within_its_block_and_decides_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for chosen in (PLAIN, MessageStyle(quiet=True), MessageStyle(as_json=True), MessageStyle(True, True)):
        with using(chosen):
            for line in ("note: a", "S: 3 examples", "warning: b: c", "stopped; run again"):
                say(line)
            message("progress", "x: 1", done=1)
    assert style() == PLAIN
    lines = capsys.readouterr().err.splitlines()
    assert lines[:5] == ["note: a", "S: 3 examples", "warning: b: c", "stopped; run again", "x: 1"]
    assert lines[5:7] == ["warning: b: c", "stopped; run again"]
    facts = [json.loads(line) for line in lines[7:]]
    assert [one["kind"] for one in facts[:5]] == ["note", "done", "warning", "stopped", "progress"]
    assert facts[2]["message"] == "b: c" and facts[4]["done"] == 1
    assert [one["kind"] for one in facts[5:]] == ["warning", "stopped"]


def test_no_time_is_left_before_the_rate_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    display = ProgressDisplay(interval=0)
    seen = [(0.0, 0), (1.0, 500), (2.9, 501), (3.0, 510), (500.0, 515), (500.5, 1000)]
    with display:
        clock.now += 60  # the model was loaded meanwhile, which says nothing of the rate
        start = clock.now
        for seconds, done in seen:
            clock.now = start + seconds
            display.show(Progress("scan", done, 1000))
        clock.now = start + 600
        display.show(Progress("write", 1, 1000))
        clock.now = start + 604
        display.show(Progress("write", 11, 1000))
    lines = capsys.readouterr().err.splitlines()
    assert [" left" in line for line in lines] == [False, False, False, True, True, False, False, False]
    assert lines[3] == "scan: 510 · 51% · 0:03 left"


def test_a_stage_that_continues_is_measured_from_where_it_began(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    with ProgressDisplay(interval=0) as display, using(MessageStyle(as_json=True)):
        display.show(Progress("fit", 900, 1000))
        clock.now += 10
        display.show(Progress("fit", 910, 1000))
    last = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert last["seconds_left"] == pytest.approx(90) and (last["stage"], last["done"], last["total"]) == (
        "fit",
        910,
        1000,
    )


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    folder = tmp_path_factory.mktemp("messages")
    (folder / "c.jsonl").write_text('{"text": "the river and the sea"}\n{\n{"text": "a sea"}\n')
    save_model(folder / "model")
    return [
        "ingest",
        folder / "c.jsonl",
        "--model",
        folder / "model",
        "--method",
        "repsim",
        "--on-error",
        "skip",
        "--store",
    ]


@pytest.mark.parametrize("first", [True, False])
def test_a_command_is_quiet_or_speaks_json_wherever_the_option_stands(
    words: list[object], tmp_path: Path, first: bool
) -> None:
    def stderr_of(store: str, *options: object) -> str:
        done = headwater(*(options if first else ()), *words, tmp_path / store, *(() if first else options))
        assert (done.exit_code, done.stdout) == (0, ""), done.output
        return done.stderr

    assert "skipped: " in stderr_of("plain") and stderr_of("quiet", "--quiet") == ""
    kinds = [json.loads(line)["kind"] for line in stderr_of("json", "--log-format", "json").splitlines()]
    assert "skipped" in kinds and kinds[-1] == "done"
    assert style() == PLAIN


def test_errors_are_json_with_their_hint(tmp_path: Path) -> None:
    for code, command in ((1, ("info", tmp_path / "none")), (2, ("inf",)), (2, ("info",))):
        done = headwater("--quiet", "--log-format", "json", *command)
        (line,) = done.stderr.splitlines()
        record = json.loads(line)
        assert done.exit_code == code and record["kind"] == "error" and record["message"] and record["hint"]
