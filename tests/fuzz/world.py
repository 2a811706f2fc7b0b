"""Builds everything that cases damage: models, corpora, stores in every state, and all files that commands write and read.

The folder's content is the same each time, so that a seed means the same case.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from documents import ROOT, blocks, swapped
from headwater.engine.fitting.checkpoint import Checkpoint
from headwater.engine.ingest import outputs
from headwater.store import layout
from places import GOLDEN
from running import done, headwater
from small import WORDS, save_model, sentences, write_corpus

from fuzz.tool_commands import ALL, SMALL, STRIDE, ingest_words

PLUGIN = {
    "METADATA": "Metadata-Version: 2.1\nName: fitted\nVersion: 1.0\n",
    "entry_points.txt": "[headwater.methods]\nfitted_mean = fitted_mean:{kind}\n",
}

OLDER = Path("../older")
"""Earlier versions of files, under the same names."""


def install_plugin(folder: Path) -> None:
    """Write ARCHITECTURE.md's example of a method with corpus statistics to `folder/site`, as an installed package."""
    site = folder / "site"
    info = site / "fitted-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    source = next(code for code in blocks(ROOT / "ARCHITECTURE.md", "python") if "def fit(self" in code)
    kind = next(line.split()[1].split("(")[0] for line in source.splitlines() if "(Similarity)" in line)
    (site / "fitted_mean.py").write_text(source, "utf-8")
    for name, text in PLUGIN.items():
        (info / name).write_text(text.format(kind=kind), "utf-8")


def build(work: Path) -> None:
    """Fill a folder, which becomes the current one, and run every command once, so that all caches are there."""
    os.chdir(work)
    save_model(Path("model"), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    _write_texts()
    _write_arrays()
    with swapped(layout, "NUMBER_CHUNK_ROWS", 32), swapped(layout, "TEXT_CHUNK_ROWS", 32):
        _make_stores()
    with _stopped_at(outputs, "_compute_batch", 3):
        headwater(*ingest_words("P", ["many.jsonl"], ["rise", "grasp"], "--commit-seconds", "0"))
    _write_answers()
    shutil.copytree(GOLDEN / "store_v1", "O1")
    shutil.copytree(GOLDEN / "store_v2", "O2")
    for command in ALL:
        if not command.output and command.verb in (
            "attribute",
            "value",
            "self-influence",
            "select",
            "predict",
            "calibrate",
        ):
            headwater(*command.words)


def _write_texts() -> None:
    texts = sentences(60, seed=1)
    write_corpus(Path("c1.jsonl"), texts[:24])
    write_corpus(Path("c2.jsonl"), texts[24:40])
    lines = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts[40:44])
    packed = {
        "c3.jsonl.gz": gzip.compress(lines, mtime=0),
        "c4.jsonl.zst": zstandard.ZstdCompressor(write_checksum=True).compress(lines),
        "c7.jsonl.xz": lzma.compress(lines),
        "c8.jsonl.bz2": bz2.compress(lines),
    }
    for name, data in packed.items():
        Path(name).write_bytes(data)
    Path("c5.csv").write_text("id,text\n" + "".join(f"row{n},{text}\n" for n, text in enumerate(texts[44:47])), "utf-8")
    pq.write_table(pa.table({"id": ["p1", "p2"], "text": texts[47:49]}), "c6.parquet")
    Path("c9.json").write_text(json.dumps([{"text": text} for text in texts[49:52]]), "utf-8")
    Path("c10.txt").write_text("\n\n".join(texts[52:55]), "utf-8")
    write_corpus(Path("q.jsonl"), sentences(3, seed=2))
    write_corpus(Path("many.jsonl"), [f"{number} {WORDS[number % len(WORDS)]}" for number in range(1100)])
    Path("ids.txt").write_text("c1.jsonl:1\nc1.jsonl:2\n")
    Path("columns.csv").write_text(
        "id,topic\n" + "".join(f"c{1 + (n >= 24)}.jsonl:{n + 1 - 24 * (n >= 24)},{'ab'[n % 2]}\n" for n in range(40))
    )
    gold = [{"query_id": f"q.jsonl:{n}", "example_id": f"c1.jsonl:{m}"} for n in (1, 2, 3) for m in (n, n + 5, n + 9)]
    Path("gold.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in gold))


def _write_arrays() -> None:
    random = np.random.default_rng(0)
    hidden, weight = random.normal(size=(40, 8)).astype(np.float32), random.normal(size=(5, 8)).astype(np.float32)
    np.savez("features.npz", hidden=hidden, labels=random.integers(0, 5, 40), weight=weight)
    np.savez("vectors.npz", vectors=random.normal(size=(30, 8)).astype(np.float32))
    np.savez_compressed("qv.npz", vectors=random.normal(size=(3, 8)).astype(np.float32))
    masks = random.random((12, 40)) < 0.5
    np.save("masks.npy", masks)
    np.save("mask.npy", masks[0])
    pq.write_table(pa.table({"masks": [row.astype(np.int8).tolist() for row in masks]}), "masks.parquet")
    np.save("gains.npy", random.normal(size=(2, 12, 1)))
    np.save("without.npy", random.normal(size=(2, 6, 3)))
    np.save("outcomes.npy", random.normal(size=(2, 12, 3)))
    rows = [{"name": str(n), "rows": np.flatnonzero(row).tolist()} for n, row in enumerate(masks[:5])]
    Path("subsets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _make_stores() -> None:
    done(*ingest_words("S", ["c1.jsonl"], list(SMALL)))
    _keep_older("S")
    done(*ingest_words("S", ["c1.jsonl", "c2.jsonl"], list(SMALL), "--append"))
    for words in (
        "--precision int8",
        "--precision sign --bits 128",
        "--precision bf16 --method headcos",
        "--precision float16 --method graddot",
    ):
        done("compress", "S", *words.split())
    done("fit", "S", *STRIDE, "--set", "stride.seed", "7")
    done("calibrate", "S", *["--queries", "q.jsonl", "--subsets", "masks.npy", "--outcomes", "gains.npy"])
    done("attribute", "S", *["--queries", "q.jsonl", "--method", "headgn"])
    _keep_older("S")
    done("fit", "S", *STRIDE, "--again")
    done(*ingest_words("F", ["c1.jsonl", "c2.jsonl"], ["repsim"]))
    with _stopped_at(Checkpoint, "write", 2):
        headwater("fit", "F", *STRIDE, "--commit-seconds", "0")
    done(
        "ingest",
        "features.npz",
        "--store",
        "A",
        "--method",
        "rise",
        "--set",
        "rise.kr",
        "8",
        "--set",
        "rise.kh",
        "8",
        "--set",
        "rise.kg",
        "4",
    )
    _keep_older("A")
    done("fit", "A", *STRIDE)
    done("ingest", "vectors.npz", "--store", "V", "--method", "vectors")


def _keep_older(store: str) -> None:
    """Copy a store over the older versions of its files."""
    shutil.copytree(store, OLDER / store, dirs_exist_ok=True)


@contextmanager
def _stopped_at(owner: object, name: str, call: int) -> Iterator[None]:
    """Send this process SIGTERM with the n-th call of a function, so that the command stops after its current step."""
    left, method = [call], getattr(owner, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGTERM)
        return method(*arguments, **options)

    with swapped(owner, name, counted):
        yield


def _write_answers() -> None:
    for queries, folder in (("c1.jsonl", OLDER), ("q.jsonl", Path())):
        asked = ("attribute", "S", "--queries", queries, "--top", "5")
        for kind in ("jsonl", "csv", "parquet"):
            done(*asked, "-o", folder / f"answers.{kind}")
        done("attribute", "S", "--queries", queries, "--all-scores", folder / "scores.zarr")
        done("select", "S", "--queries", queries, "--count", 4, "-o", folder / "chosen.jsonl")
        done("predict", "S", "--queries", queries, "--subsets", "masks.npy", "-o", folder / "utilities.npy")
    random = np.random.default_rng(3)
    np.save("scores.npy", random.normal(size=(3, 40)))
    np.save("scores1.npy", random.normal(size=(3, 24)))
    done(*next(command.words for command in ALL if command.words[0] == "ground-truth"))
