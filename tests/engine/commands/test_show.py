"""`show` prints examples as the model reads them, and `info` how well the model predicts them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from running import done, headwater


@pytest.fixture(scope="module")
def store(model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, folder = model_folder("Llama"), tmp_path_factory.mktemp("show")
    lines = [{"prompt": f"Review {i}: a dull film.", "completion": " Negative\x1b[31m"} for i in range(5)]
    (folder / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done("ingest", folder / "c.jsonl", "--store", folder / "S", "--model", model, "--method", "repsim")
    return folder / "S"


@pytest.fixture(params=["there", "missing", "another"])
def tokenizer(request: pytest.FixtureRequest, model_folder: Callable[..., Path]) -> Iterator[str]:
    """What became of the tokenizer of the store's model."""
    file = model_folder("Llama") / "tokenizer.json"
    before = file.read_bytes()
    if request.param == "missing":
        file.unlink()
    if request.param == "another":
        file.write_bytes(before.replace(b'"add_prefix_space": false', b'"add_prefix_space": true', 1))
    yield request.param
    file.write_bytes(before)


def test_targets_are_marked(store: Path, tokenizer: str) -> None:
    ended = done("show", store, "--rows", "1,3-4")
    notes = {"there": "", "missing": "has no tokenizer", "another": "has another tokenizer now"}
    assert notes[tokenizer] in ended.stderr
    assert (ended.stderr == "") == (tokenizer == "there") and ended.stderr.count("note: texts are shown as") <= 1
    printed = ended.stdout
    assert printed.count("⟦ Negative") == 3 and "Review 1: a dull film.⟦" in printed and "\x1b" not in printed
    rows = [json.loads(line) for line in done("show", store, "--rows", "1,3-4", "--json").stdout.splitlines()]
    assert [row["row"] for row in rows] == [1, 3, 4]
    assert all(row["parts"][1][1] and row["target_count"] < row["tokens"] for row in rows)


@pytest.mark.parametrize("rows", ["5", "2-1", "a", "1-", ",", "0,9"])
def test_rows_that_are_not_there_are_refused(store: Path, rows: str) -> None:
    refused = headwater("show", store, "--rows", rows)
    assert refused.exit_code == 1 and refused.stderr.startswith("error: --rows") and refused.stderr.count("\n") <= 2


def test_the_mean_loss_counts_tokens(store: Path) -> None:
    group = zarr.open_group(str(store / "shards/0/examples"), mode="r")
    loss, counted = np.asarray(group["loss"]), np.asarray(group["counted"])
    facts = json.loads(done("info", store, "--json").stdout)
    assert facts["mean_loss"] == pytest.approx(float((loss * counted).sum() / counted.sum()), rel=1e-6)
    assert "nats per target token" in done("info", store).stdout


def test_a_store_of_two_arrays_is_shown(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", hidden=np.ones((2, 3, 8), np.float32), labels=np.zeros((2, 3), int),
             weight=np.ones((5, 8), np.float32))  # fmt: skip
    done("ingest", tmp_path / "a.npz", "--store", tmp_path / "S", "--method", "repsim")
    assert [json.loads(line)["row"] for line in done("show", tmp_path / "S", "--json").stdout.splitlines()] == [0, 1]
