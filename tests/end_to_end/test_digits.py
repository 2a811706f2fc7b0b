"""A classifier of images on the same path: scikit-learn's digits, a small network, arrays in place of text and a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from headwater.cli import main
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

TRAIN = 1200


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.npz and test.npz: hidden states, labels and readout weights of a network of 32 units."""
    folder = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    images, labels = digits.data / 16.0, digits.target
    net = MLPClassifier((32,), max_iter=120, random_state=0, tol=0.0, n_iter_no_change=200)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        net.fit(images[:TRAIN], labels[:TRAIN])
    hidden = np.maximum(images @ net.coefs_[0] + net.intercepts_[0], 0).astype(np.float32)
    for name, part in (("train", slice(0, TRAIN)), ("test", slice(TRAIN, None))):
        np.savez_compressed(
            folder / f"{name}.npz", hidden=hidden[part], labels=labels[part], weight=net.coefs_[1].T,
            bias=net.intercepts_[1], text=np.array([f"a {digit}" for digit in labels[part]]),
        )  # fmt: skip
    return folder


def test_images_are_traced_to_their_like(arrays: Path) -> None:
    store = arrays / "store"
    done = CliRunner().invoke(
        main, ["ingest", str(arrays / "train.npz"), "--store", str(store), "--set", "rise.tau", "1.0"]
    )
    assert done.exit_code == 0, done.output
    words = ["attribute", str(store), "--queries", str(arrays / "test.npz"), "--top", "10", "--json"]
    rows = [json.loads(line) for line in CliRunner().invoke(main, words).stdout.splitlines()]
    labels = load_digits().target
    asked = [labels[TRAIN + int(row["query_id"].split(":")[1])] for row in rows]
    neighbours = [int(row["completion"].split()[1]) for row in rows]
    assert len(rows) == 10 * (len(labels) - TRAIN)
    assert np.mean(np.equal(asked, neighbours)) > 0.8  # chance is 0.1


def test_an_image_finds_itself(arrays: Path) -> None:
    store = arrays / "again"
    words = ["ingest", str(arrays / "test.npz"), "--store", str(store), "--set", "rise.tau", "1.0"]
    assert CliRunner().invoke(main, words).exit_code == 0
    words = ["attribute", str(store), "--queries", str(arrays / "test.npz"), "--top", "5", "--json"]
    rows = [json.loads(line) for line in CliRunner().invoke(main, words).stdout.splitlines()]
    best = {row["query_id"]: row["score"] for row in rows if row["rank"] == 1}
    own = {row["query_id"]: row["score"] for row in rows if row["query_id"] == row["example_id"]}
    assert own.keys() == best.keys()
    assert all(own[query] == pytest.approx(best[query], abs=1e-3) for query in own)  # ties are possible


def test_another_network_is_refused(arrays: Path, tmp_path: Path) -> None:
    with np.load(arrays / "test.npz") as loaded:
        np.savez(tmp_path / "other.npz", **{**loaded, "weight": loaded["weight"] + 1})
    store = arrays / "store"
    done = CliRunner().invoke(main, ["attribute", str(store), "--queries", str(tmp_path / "other.npz")])
    assert done.exit_code == 1
    assert "does not match this run: model is" in done.stderr


def test_text_is_no_query_to_a_store_of_arrays(arrays: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"text": "three"}\n')
    done = CliRunner().invoke(main, ["attribute", str(arrays / "store"), "--queries", str(tmp_path / "q.jsonl")])
    assert done.exit_code == 1 and "q.jsonl is not a file of arrays" in done.stderr
