"""Does choosing pay? stories260K trained on a tenth of a mixed corpus, chosen in ten ways, beside all of it.

A corpus of 2,000 rows: finance, medicine, maths and instructions, 25 rows of each there nine times, and a third of it off domain
(names, code). The task: held-out rows of three of the four domains, 100 each, and as many others to judge. A tenth is chosen by
`headwater select` (greedy, or the best by themselves), or by chance, and trained on by `headwater ground-truth`, from the model's
weights, for four epochs: so all of it is trained on in ten times the steps. Every draw of the data has a corpus, targets and
judges of its own. Each way is there with copies (`--copies`), among distinct texts (`--distinct`, the default), which is what
removing copies does by itself, and GRASP's and TF-IDF's greedy ones without near copies, too (`--distinct 0.98`).

    python examples/benchmarks/curation.py --out /scratch

Every training is kept as it ends; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import machine
import numpy as np
import text_subsets
import torch

TASK = ("finance", "medical", "instruct")
EACH, CROWD, COPIES, OFF, TARGETS = 133, 25, 9, 668, 100
"""Rows of a domain; the first so many there so many times; rows off domain; rows that say what the task is, and that judge."""
CHOSEN, LENGTH = 200, 96
RECIPE = ("--pretrained", "--epochs", "4", "--batch", "16", "--learning-rate", "0.01", "--seeds", "1")
WAYS = {
    "GRASP, copies": ("model", "grasp", ("--copies",)), "GRASP": ("model", "grasp", ("--distinct",)),
    "GRASP, no near copies": ("model", "grasp", ("--distinct", "0.98")),
    "GRASP, additive, copies": ("model", "grasp", ("--additive", "--copies")),
    "GRASP, additive": ("model", "grasp", ("--additive", "--distinct")),
    "GRASP, additive, no near copies": ("model", "grasp", ("--additive", "--distinct", "0.98")),
    "RISE, additive, copies": ("model", "rise", ("--additive", "--copies")),
    "RISE, additive": ("model", "rise", ("--additive", "--distinct")),
    "TF-IDF, additive, copies": ("tfidf", "vectors", ("--additive", "--copies")),
    "TF-IDF, additive": ("tfidf", "vectors", ("--additive", "--distinct")),
    "TF-IDF, copies": ("tfidf", "vectors", ("--copies",)), "TF-IDF": ("tfidf", "vectors", ("--distinct",)),
    "TF-IDF, no near copies": ("tfidf", "vectors", ("--distinct", "0.98")),
}  # fmt: skip


def made(data: Path, seed: int, work: Path) -> int:
    """Write corpus, targets and judges; the number of rows."""
    chance, corpus, targets, judges = np.random.default_rng(seed), [], [], []
    for domain, rows in text_subsets.texts(data).items():
        chosen = [rows[int(at)] for at in chance.permutation(len(rows))[: EACH + 2 * TARGETS]]
        corpus += chosen[:EACH] + chosen[:CROWD] * (COPIES - 1)
        if domain in TASK:
            targets += chosen[EACH : EACH + TARGETS]
            judges += chosen[EACH + TARGETS :]
    with gzip.open(data / "humaneval/HumanEval.jsonl.gz", "rt") as file:
        off = [json.loads(line)["prompt"][: text_subsets.LETTERS] for line in file]
    names = (data / "names/names.txt").read_text().split()
    while len(off) < OFF:
        off.append(", ".join(names[int(at)] for at in chance.integers(0, len(names), 12))[: text_subsets.LETTERS])
    mixed = [(corpus + off)[int(at)] for at in chance.permutation(len(corpus) + OFF)]
    for name, texts in (("corpus", mixed), ("targets", targets), ("judges", judges)):
        (work / f"{name}.jsonl").write_text(
            "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        )
    return len(mixed)


def ingested(data: Path, work: Path) -> None:
    """A store of the model's methods, and one of TF-IDF."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    model = [
        "--model",
        str(data / text_subsets.MODEL),
        "--max-length",
        str(LENGTH),
        "--method",
        "grasp",
        "--method",
        "rise",
    ]
    texts = {name: [one["text"] for one in machine.records(work / f"{name}.jsonl")] for name in ("corpus", "targets")}
    index = TfidfVectorizer(sublinear_tf=True).fit(texts["corpus"])
    for name, own in texts.items():
        np.savez(work / f"{name}.npz", vectors=index.transform(own).toarray().astype(np.float32))
    for file, store, words in (("corpus.jsonl", "model", model), ("corpus.npz", "tfidf", ["--method", "vectors"])):
        more = ["--store", str(work / f"{store}.store")]
        machine.run([*machine.headwater(), "ingest", str(work / file), *words, *more], work)


def chosen(rows: int, seed: int, work: Path) -> tuple[np.ndarray, list[int]]:
    """(ways + 3, rows) boolean: each way's choice, two by chance, and all; and how many distinct texts each holds."""
    texts = [one["text"] for one in machine.records(work / "corpus.jsonl")]
    first = {text: row for row, text in reversed(list(enumerate(texts)))}
    distinct, found = np.isin(np.arange(rows), list(first.values())), []
    for store, features, more in WAYS.values():
        queries = work / ("targets.jsonl" if store == "model" else "targets.npz")
        words = ["select", str(work / f"{store}.store"), "--queries", str(queries), "--method", features, *more]
        machine.run([*machine.headwater(), *words, "--count", str(CHOSEN), "-o", str(work / "chosen.jsonl")], work)
        own = [one["row"] for one in machine.records(work / "chosen.jsonl")]
        found.append(np.isin(np.arange(rows), own))
    chance = np.random.default_rng(seed)
    for among in (np.arange(rows), np.flatnonzero(distinct)):
        found.append(np.isin(np.arange(rows), chance.choice(among, CHOSEN, replace=False)))
    masks = np.array([*found, np.ones(rows, bool)])
    return masks, [len({texts[int(at)] for at in np.flatnonzero(mask)}) for mask in masks]


def draw(data: Path, seed: int, work: Path) -> dict[str, float]:
    """One draw of the data: the judges' mean loss after each way's training, in nats."""
    work.mkdir(parents=True, exist_ok=True)
    rows, names = made(data, seed, work), [*WAYS, "by chance", "by chance, distinct", "all of it"]
    if not (work / "masks.npy").exists():
        ingested(data, work)
        masks, distinct = chosen(rows, seed, work)
        (work / "distinct.json").write_text(json.dumps(dict(zip(names, distinct, strict=True))))
        np.save(work / "masks.npy", masks)
    words = [
        "ground-truth",
        "corpus.jsonl",
        "--queries",
        "judges.jsonl",
        "--model-config",
        str(data / text_subsets.MODEL),
    ]
    more = [*RECIPE, "--masks", "masks.npy", "--max-length", str(LENGTH), "-o", "truth"]
    subprocess.run([*machine.headwater(), *words, *more], cwd=work, check=True)
    (losses,) = np.load(work / "truth/outcomes.npy").mean(-1)
    return dict(zip(names, losses.tolist(), strict=True))


def show(found: Sequence[dict[str, float]], distinct: Sequence[dict[str, int]]) -> str:
    """A row a way: distinct texts, the mean loss over draws with its interval, and how far GRASP is ahead, paired by draws."""
    from headwater.engine.evaluation.metrics import bootstrap

    rows, own = [], np.array([one["GRASP"] for one in found])
    for name in found[0]:
        losses = np.array([one[name] for one in found])
        mean, apart = bootstrap(losses), bootstrap(losses - own)
        texts = f"{np.mean([one[name] for one in distinct]):.0f}"
        rows.append([name, texts, f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})",
                     f"{apart.value:+.3f} ({apart.low:+.3f} to {apart.high:+.3f})"])  # fmt: skip
    return machine.markdown(["trained on", "distinct texts", "held-out loss, nats (95 %)", "above GRASP's"], rows)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, float]]:
    """Choose, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--data")
    parser.add_argument("--draws", type=int, default=5)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    needed = (text_subsets.MODEL, "finance", "medical", "gsm8k", "instruct", "names", "humaneval")
    data = machine.data_folder(given.data, *needed).resolve()
    found, distinct = [], []
    for seed in range(given.draws):
        work = given.out.resolve() / f"curation-{seed}"
        found.append(draw(data, seed, work))
        distinct.append(json.loads((work / "distinct.json").read_text()))
        print({name: round(loss, 3) for name, loss in found[-1].items()}, flush=True)
    results = {"machine": machine.describe(), "found": found, "distinct": distinct}
    machine.save(given.out, "curation", results, show(found, distinct))
    return found


if __name__ == "__main__":
    main()
