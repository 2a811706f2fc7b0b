"""Recall@100 of every precision against float32, on real sketches of two models, and what the searches in two stages find.

gsm8k and instruct (9,892 rows) are ingested with `rise.precision float32` by stories260K and by the demo's model; 200 rows are
held out as queries. `headwater compress` makes the other forms. For each: recall@100 of its scan alone, then of its
candidates scored again; what the engine itself expected; the certified search against brute force; seconds.

    python examples/benchmarks/recall.py --out /scratch          # the stores are kept there: 2 GB, and half an hour to make
    python examples/benchmarks/recall.py --rows 500 --queries 50
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
import real_corpora

K = 100
FORMS = (("float16", 0), ("bf16", 0), ("int8", 0), ("sign", 16_384), ("sign", 8192), ("sign", 4096), ("sign", 2048))
CANDIDATES = (200, 500, 1000, 2000)
SETTINGS = ("rise.tau", "0.1")


def make(name: str, model: Path, data: Path, rows: int | None, queries: int, work: Path) -> tuple[Path, Path]:
    """The store of one model, with all its forms, and the queries; what is there stays."""
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    maths, instruct = real_corpora.corpora(data, rows, folder)
    kept, asked = _held_out([maths, instruct], queries)
    corpus, questions = real_corpora._write(folder / "c.jsonl", kept), real_corpora._write(folder / "q.jsonl", asked)
    store = folder / "store"
    words = ["ingest", str(corpus), "--store", str(store), "--model", str(model), "--truncate"]
    machine.run([*machine.headwater(), *words, "--set", "rise.precision", "float32", "--set", *SETTINGS], folder)
    for precision, bits in FORMS:
        made = ["compress", str(store), "--precision", precision, *(["--bits", str(bits)] if bits else [])]
        machine.run([*machine.headwater(), *made], folder)
    return store, questions


def _held_out(files: Sequence[Path], count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(corpus, queries): queries are short rows drawn from all, so that no context cuts them."""
    records = [
        {"prompt": r["prompt"], "completion": r["completion"]} if "prompt" in r else
        {"prompt": r["instruction"] + (f"\n{r['input']}" if r["input"] else "") + "\n", "completion": r["output"]}
        for file in files for r in real_corpora._records(file)
    ]  # fmt: skip
    short = [i for i, r in enumerate(records) if r["completion"] and len(r["prompt"] + r["completion"]) < 500]
    chosen = set(np.random.default_rng(0).permutation(short)[:count].tolist())
    return [r for i, r in enumerate(records) if i not in chosen], [records[i] for i in sorted(chosen)]


def measure(store: Path, questions: Path, model: Path) -> dict[str, Any]:
    """Recall of every form and every search."""
    from headwater.engine.arrays.scan.scan_loop import ScanShape
    from headwater.engine.arrays.scan.scorers import scorer_of
    from headwater.engine.arrays.scan.stored_rows import StoredRows
    from headwater.engine.arrays.scan.top_k import top_k
    from headwater.engine.attribution.queries import read_queries
    from headwater.engine.attribution.stored_scores import StoredScores
    from headwater.engine.ingest.open_provider import query_provider
    from headwater.engine.ingest.text_settings import TextSettings
    from headwater.engine.models.language_model import ModelChoice
    from headwater.engine.runtime.run import SILENT_STAGE
    from headwater.store.feature_store import FeatureStore, method_group, precision_group

    opened = FeatureStore.open(store)
    attribution = StoredScores(opened, "rise")
    provider = query_provider(str(questions), opened, ModelChoice(str(model)), TextSettings())
    matrix = attribution.prepare(provider, read_queries(provider)).matrix
    fine, shape = StoredRows(opened, method_group("rise")), ScanShape(64, 2)
    exact = np.vstack([_brute(fine, matrix[start : start + 50]) for start in range(0, len(matrix), 50)])
    lines = []
    for precision, bits in FORMS:
        name = precision + (str(bits) if bits else "")
        small = StoredRows(opened, precision_group("rise", name))
        begun = time.process_time()
        alone = top_k(
            small.scanned("signature"), scorer_of(small.precisions["signature"], matrix), K, shape, SILENT_STAGE
        ).rows
        line: dict[str, Any] = {
            "form": name,
            "alone": _recall(alone, exact),
            "cpu_seconds": time.process_time() - begun,
        }
        line["bytes"] = sum(c.row_bytes for c in small.precisions["signature"].columns)
        lines.append(line | _stages(small, fine, matrix, exact, shape))
    return {"rows": fine.rows, "queries": len(matrix), "forms": lines, **_certified(opened, fine, matrix, exact, shape)}


def _brute(fine: Any, matrix: np.ndarray) -> np.ndarray:
    """(Q, K) rows by float64 scores, ties by row."""
    (column,) = fine.scanned("signature")
    parts = [
        matrix.astype(np.float64) @ column.gather(range(at, min(at + 1000, fine.rows))).astype(np.float64).T
        for at in range(0, fine.rows, 1000)
    ]
    scores = np.hstack(parts)
    return np.lexsort((np.broadcast_to(np.arange(fine.rows), scores.shape), -scores), axis=1)[:, :K]


def _stages(small: Any, fine: Any, matrix: np.ndarray, exact: np.ndarray, shape: Any) -> dict[str, Any]:
    from headwater.engine.arrays.scan.two_stage import CompressedColumn, SearchDepth, two_stage
    from headwater.engine.runtime.run import SILENT_STAGE

    column = CompressedColumn(small, fine, "signature")
    found: dict[str, Any] = {}
    for candidates in CANDIDATES:
        got = two_stage(column, matrix, SearchDepth(K, candidates), shape, SILENT_STAGE)
        found[str(candidates)] = _recall(got.best.rows, exact)
        found[f"expected {candidates}"] = got.recall
    return found


def _certified(opened: Any, fine: Any, matrix: np.ndarray, exact: np.ndarray, shape: Any) -> dict[str, Any]:
    """How many queries' certified answers are the scan's own, and how many rows the bound could not rule out."""
    from headwater.engine.arrays.scan import certified as certify
    from headwater.engine.arrays.scan.scorers import scorer_of
    from headwater.engine.arrays.scan.stored_rows import StoredRows
    from headwater.engine.arrays.scan.top_k import top_k
    from headwater.engine.arrays.scan.two_stage import CompressedColumn
    from headwater.engine.runtime.run import SILENT_STAGE
    from headwater.store.feature_store import precision_group

    small = StoredRows(opened, precision_group("rise", "int8"))
    scan = top_k(fine.scanned("signature"), scorer_of(fine.precisions["signature"], matrix), K, shape, SILENT_STAGE)
    equal, kept = 0, []
    for at in range(len(matrix)):
        one = matrix[at : at + 1]
        workers = certify.scan(
            small.open(c.name for c in small.precisions["signature"].columns), shape,
            lambda one=one: certify._BoundWorker(certify._ScoreBounds(small.precisions["signature"], one), K, fine.rows),
            SILENT_STAGE,
        )  # fmt: skip
        floor = certify.merged([worker.heaps for worker in workers])[0][:, -1]
        kept.append(certify._candidates(workers, floor).shape[1])
        best = certify.certified(CompressedColumn(small, fine, "signature"), one, K, shape, SILENT_STAGE).best
        equal += np.array_equal(best.rows[0], scan.rows[at]) and np.array_equal(best.scores[0], scan.scores[at])
    return {"certified_equal": int(equal), "candidates_median": float(np.median(kept)), "candidates_most": max(kept),
            "scan_recall": _recall(scan.rows, exact)}  # fmt: skip


def _recall(rows: np.ndarray, exact: np.ndarray) -> float:
    return float(np.mean([len({*found} & {*true}) / len(true) for found, true in zip(rows, exact, strict=True)]))


def table(name: str, found: dict[str, Any]) -> str:
    """One model's."""
    header = ["form", "bytes a row", "scan alone", *(f"rescored {c:,} (expected)" for c in CANDIDATES)]
    lines = [
        [f["form"], f"{f['bytes']:,}", f"{f['alone']:.4f}",
         *(f"{f[str(c)]:.4f} ({f[f'expected {c}']:.4f})" for c in CANDIDATES)]
        for f in found["forms"]
    ]  # fmt: skip
    return (
        f"{name}: {found['rows']:,} rows, {found['queries']} queries, recall@{K} against float64 scores of float32 rows\n\n"
        f"{machine.markdown(header, lines)}\n\nCertified int8: {found['certified_equal']} of {found['queries']} answers equal to "
        f"the float32 scan's to the last bit; {found['candidates_median']:,.0f} candidates a query at the median, "
        f"{found['candidates_most']:,} at most"
    )


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run, print, write; returns what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="folder of the real data [../shared/data beside the checkout]")
    parser.add_argument("--out", type=Path, default=machine.OUT, help="where tables and stores go")
    parser.add_argument("--rows", type=int, help="the first so many rows of each corpus [all]")
    parser.add_argument("--queries", type=int, default=200)
    given = parser.parse_args(arguments)
    about = machine.describe()
    data = machine.data_folder(given.data, real_corpora.INSTRUCT, real_corpora.MODEL)
    work = given.out.resolve() / "recall"
    demo = work / "demo"
    if not (demo / "model" / "config.json").exists():
        machine.run([*machine.headwater(), "demo", "--short", "--workdir", str(demo)], work)
    models = {"stories260K": data / real_corpora.MODEL, "demo model": demo / "model"}
    found = {}
    for name, model in models.items():
        store, questions = make(name.replace(" ", "-"), model, data, given.rows, given.queries, work)
        found[name] = measure(store, questions, model)
    text = "\n\n".join(table(name, result) for name, result in found.items())
    machine.save(given.out, "recall", {"machine": about, "models": found}, text)
    return found


if __name__ == "__main__":
    main()
