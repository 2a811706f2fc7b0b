"""Progress in a notebook: one output, updated in place and emptied at the end; none for short work; none outside of a kernel."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from headwater.engine.runtime.notebook_line import in_notebook
from notebooks import execute

WORK = """
import time
from headwater.engine.runtime.progress import ProgressDisplay
from headwater.engine.runtime.run import Progress

with ProgressDisplay(interval=0.0) as display:
    for done in range(51):
        display.show(Progress("rows <read>", done, 50, "rows"))
        time.sleep({pause})
"""
LISTEN = """
from ipykernel.zmqshell import ZMQDisplayPublisher

sent = []
publish = ZMQDisplayPublisher.publish


def recorded(self, data, *rest, update=False, **more):
    sent.append((update, data))
    return publish(self, data, *rest, update=update, **more)


ZMQDisplayPublisher.publish = recorded
"""
REPORT = """
print(len(sent), sent[0][0], all(update for update, _ in sent[1:]), sent[-2][1]["text/plain"])
print(sent[-2][1]["text/html"])
"""


def test_long_work_has_one_output_that_is_updated_and_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [LISTEN, WORK.format(pause=0.03), REPORT, WORK.format(pause=0)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    _, long, report, short = (cell.outputs for cell in execute(notebook, tmp_path, monkeypatch).cells)
    assert [output.output_type for output in long] == ["display_data"]  # and no line on stderr
    assert set(long[0].data.values()) == {""}
    facts, html = report[0].text.splitlines()
    count, first_is_update, rest_are_updates, last = facts.split(" ", 3)
    assert (first_is_update, rest_are_updates) == ("False", "True")
    assert 5 <= int(count) <= 20  # of 51 reports in a second and a half
    assert last.startswith("rows <read>: ") and "rows &lt;read&gt;: " in html and '<progress max="1" value="' in html
    assert short == []


def test_a_plain_process_is_no_notebook() -> None:
    assert not in_notebook()
