"""A query whose prompt lacks the end that the store's prompts have is noted."""

from __future__ import annotations

from pathlib import Path

import headwater as hw
import pytest
from small import save_model, sentences

RISE = hw.method("rise", kr=16, kh=16, kg=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ends")
    save_model(place / "model")
    rows = [
        {"instruction": text, "output": "yes and no"} for text in sentences(12)
    ]  # read with a line end between them
    hw.ingest(rows, place / "lines", model=place / "model", methods=RISE, progress=False)
    mixed = [
        {"prompt": text + end, "completion": "yes"} for text, end in zip(sentences(12), [" ", "\n"] * 6, strict=True)
    ]
    hw.ingest(mixed, place / "mixed", model=place / "model", methods=RISE, progress=False)
    return place


def test_a_prompt_without_the_store_s_end_is_noted(folder: Path):
    store = hw.open(folder / "lines", progress=False)
    queries = [{"prompt": "river", "completion": "yes"}, {"prompt": "stone\n", "completion": "no"}]
    (note,) = store.attribute(queries).notes
    assert note.startswith("1 of 2 queries have a prompt that does not end with '\\n'")
    assert store.attribute(queries[1:]).notes == store.attribute("a bare text").notes == []
    assert store.attribute({"instruction": "river", "output": "yes"}).notes == []


def test_prompts_of_many_ends_are_compared_with_none(folder: Path):
    store = hw.open(folder / "mixed", progress=False)
    assert store.attribute({"prompt": "river", "completion": "yes"}).notes == []
