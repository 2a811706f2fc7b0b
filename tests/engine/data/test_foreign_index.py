"""Vectors from other tools: arrays, and bergson's gradient index in every dtype and both metadata formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from running import headwater

WIDTHS = {"layers.0.attention": 20, "layers.0.mlp": 12}
ROWS = 70


def written(folder: Path, rows: np.ndarray, kind: str = "float32", *, old: bool = False, **more: Any) -> Path:
    """Write an index in the format of bergson 2.5 (`old`: of versions before `base_dtype`)."""
    folder.mkdir()
    info: dict[str, Any] = {
        "attribute_tokens": False,
        "num_items": len(rows),
        "num_grads": len(rows),
        "grad_sizes": WIDTHS,
    }
    if old:
        formats = [f"({width},)<f4" for width in WIDTHS.values()]
        info["dtype"] = {"names": list(WIDTHS), "formats": formats, "itemsize": 4 * sum(WIDTHS.values())}
    else:
        info["base_dtype"] = kind
    (folder / "info.json").write_text(json.dumps({**info, **more}))
    if kind == "bfloat16":
        data = torch.from_numpy(rows).to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    else:
        data = rows.astype(kind).tobytes()
    (folder / "gradients.bin").write_bytes(data)
    return folder


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, sum(WIDTHS.values()))).astype(np.float32) * 50


@pytest.mark.parametrize(
    ("kind", "old"), [("float32", False), ("float32", True), ("float16", False), ("bfloat16", False)]
)
def test_an_index_is_asked_by_another(tmp_path: Path, vectors: np.ndarray, kind: str, old: bool) -> None:
    corpus, queries = (
        written(tmp_path / "corpus", vectors, kind, old=old),
        written(tmp_path / "queries", vectors[5:9], kind, old=old),
    )
    assert headwater("ingest", corpus, "--store", tmp_path / "S", "--method", "vectors").exit_code == 0
    asked = headwater("attribute", tmp_path / "S", "--method", "vectors", "--queries", queries, "--top", 5, "--json")
    assert asked.exit_code == 0, asked.output
    lines = [json.loads(line) for line in asked.stdout.splitlines()]
    scores = vectors[5:9].astype(np.float64) @ vectors.T.astype(np.float64)
    assert [line["row"] for line in lines] == np.argsort(-scores, 1, kind="stable")[:, :5].reshape(-1).tolist()
    tolerance = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}[kind]
    assert np.allclose(
        [line["score"] for line in lines], np.sort(scores, 1)[:, ::-1][:, :5].reshape(-1), rtol=tolerance
    )
    assert lines[0]["example_id"] == "corpus:5"


def test_vectors_come_as_arrays_too_and_as_cosines(tmp_path: Path, vectors: np.ndarray) -> None:
    np.savez(tmp_path / "corpus.npz", vectors=vectors)
    np.savez(tmp_path / "queries.npz", vectors=vectors[:2])
    done = headwater(
        "ingest",
        tmp_path / "corpus.npz",
        "--store",
        tmp_path / "S",
        "--method",
        "vectors",
        "--set",
        "vectors.unit",
        "true",
    )
    assert done.exit_code == 0, done.output
    asked = headwater(
        "attribute", tmp_path / "S", "--method", "vectors", "--queries", tmp_path / "queries.npz", "--top", 1, "--json"
    )
    assert np.allclose([json.loads(line)["score"] for line in asked.stdout.splitlines()], 1)


def test_vectors_are_for_their_own_method(tmp_path: Path, vectors: np.ndarray) -> None:
    np.savez(tmp_path / "corpus.npz", vectors=vectors)
    for method in ("rise", "grasp"):
        output = headwater("ingest", tmp_path / "corpus.npz", "--store", tmp_path / "S", "--method", method)
        assert output.exit_code == 1 and "--method vectors" in output.stderr


def test_texts_that_the_index_kept_are_shown(tmp_path: Path, vectors: np.ndarray) -> None:
    index = written(tmp_path / "corpus", vectors)
    (index / "data.hf").mkdir()
    parts = [range(40), range(40, ROWS)]
    for number, part in enumerate(parts):
        table = pa.table({"text": [f"text {row}" for row in part], "length": [3 for _ in part]})
        with (
            pa.OSFile(str(index / f"data.hf/data-{number}.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as stream,
        ):
            stream.write_table(table)
    state = {"_data_files": [{"filename": f"data-{number}.arrow"} for number in range(2)]}
    (index / "data.hf/state.json").write_text(json.dumps(state))
    queries = written(tmp_path / "queries", vectors[60:61])
    assert headwater("ingest", index, "--store", tmp_path / "S", "--method", "vectors").exit_code == 0
    asked = headwater("attribute", tmp_path / "S", "--method", "vectors", "--queries", queries, "--top", 1, "--json")
    assert json.loads(asked.stdout)["completion"] == "text 60"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "info.json").unlink(), "no readable info.json"),
        (lambda folder: (folder / "info.json").write_text("{}"), "not what bergson writes"),
        (lambda folder: (folder / "gradients.bin").write_bytes(b"\0" * 100), "has 100 bytes"),
        (
            lambda folder: (folder / "info.json").write_text(
                (folder / "info.json").read_text().replace("float32", "int8")
            ),
            "int8",
        ),
        (
            lambda folder: (folder / "info.json").write_text(
                (folder / "info.json").read_text().replace("false", "true")
            ),
            "gradients of tokens",
        ),
    ],
)
def test_a_bad_index_is_one_line(tmp_path: Path, vectors: np.ndarray, spoil: Any, message: str) -> None:
    index = written(tmp_path / "corpus", vectors)
    spoil(index)
    done = headwater("ingest", index, "--store", tmp_path / "S", "--method", "vectors")
    assert done.exit_code == 1 and message in done.stderr and len(done.stderr.strip().splitlines()) <= 2


def test_queries_of_another_width_are_refused(tmp_path: Path, vectors: np.ndarray) -> None:
    corpus = written(tmp_path / "corpus", vectors)
    assert headwater("ingest", corpus, "--store", tmp_path / "S", "--method", "vectors").exit_code == 0
    np.savez(tmp_path / "queries.npz", vectors=vectors[:2, :8])
    asked = headwater("attribute", tmp_path / "S", "--method", "vectors", "--queries", tmp_path / "queries.npz")
    assert asked.exit_code == 1 and "error: " in asked.stderr


def scored(folder: Path, scores: np.ndarray, *, ended: bool = True) -> Path:
    """Write scores (Q, N) in the format of bergson 2.5: pairs of four bytes and one byte, padded to eight."""
    queries, rows = scores.shape
    names = [f"{part}_{query}" for query in range(queries) for part in ("score", "written")]
    dtype = {"names": names, "formats": ["float32", "bool"] * queries, "itemsize": 8 * queries,
            "offsets": [8 * query + at for query in range(queries) for at in (0, 4)]}  # fmt: skip
    records = np.zeros(rows, np.dtype({**dtype, "formats": ["<f4", "?"] * queries}))
    for query in range(queries):
        records[f"score_{query}"], records[f"written_{query}"] = scores[query], ended
    folder.mkdir()
    (folder / "scores.bin").write_bytes(records.tobytes())
    info = {"attribute_tokens": False, "num_items": rows, "num_rows": rows, "num_scores": queries, "dtype": dtype}
    (folder / "info.json").write_text(json.dumps(info))
    return folder


def test_scores_of_anothers_are_judged_as_ours_are(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    scores, masks = chance.normal(size=(3, 40)).astype(np.float32), chance.random((24, 40)) < 0.5
    np.save(tmp_path / "scores.npy", scores)
    np.save(tmp_path / "masks.npy", masks)
    np.save(tmp_path / "outcomes.npy", -(masks @ scores.T) + chance.normal(size=(24, 3)))
    words = [
        "evaluate",
        "lds",
        "--masks",
        tmp_path / "masks.npy",
        "--outcomes",
        tmp_path / "outcomes.npy",
        "--json",
        "--scores",
    ]
    theirs = headwater(*words, scored(tmp_path / "theirs", scores))
    assert theirs.exit_code == 0, theirs.output
    assert json.loads(theirs.stdout) == json.loads(headwater(*words, tmp_path / "scores.npy").stdout)
    unfinished = headwater(*words, scored(tmp_path / "unfinished", scores, ended=False))
    assert unfinished.exit_code == 1 and "were never written" in unfinished.stderr
    cut = scored(tmp_path / "cut", scores)
    (cut / "scores.bin").write_bytes(b"\0" * 48)
    assert "2 records, expected 40" in headwater(*words, cut).stderr
