"""Every example in a docstring of the Python API runs and prints what it says."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import headwater as hw
import pytest
from headwater.engine.api import (
    attributions,
    comparison,
    evaluations,
    ingesting,
    opened_store,
    selections,
    values,
)
from small import save_model, sentences, write_corpus

MODULES = (
    ingesting,
    opened_store,
    attributions,
    values,
    comparison,
    selections,
    evaluations,
)  # in the order of a session


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    save_model(folder / "my-model")
    write_corpus(folder / "corpus.jsonl", sentences(24))
    questions = [{"prompt": "river ", "completion": "stone"}, {"prompt": "paper ", "completion": "winter"}]
    (folder / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    return folder


def test_every_example_runs(session: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(session)
    names: dict[str, object] = {"hw": hw}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    count = 0
    for module in MODULES:
        tests = doctest.DocTestFinder(exclude_empty=True).find(module, globs={})
        for test in sorted(tests, key=lambda test: test.lineno or 0):
            test.globs = names
            runner.run(test, clear_globs=False)
            count += len(test.examples)
    result = runner.summarize(verbose=False)
    assert result.failed == 0, capsys.readouterr().out
    assert count >= 25
