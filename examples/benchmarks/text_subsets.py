"""Utility of subsets against real retraining: stories260K on four kinds of text, six ways to draw subsets.

A pool of 480 rows of finance, medicine, maths and instructions, 64 of them sixteen times; 96 subsets of 64 rows a regime, each
trained on from the model's weights (`headwater ground-truth`, Adam, 16 steps), by three seeds. Tasks: each domain, each pair of
domains, all four. The first 48 subsets may calibrate λ, the others are held out, and every figure is of these. The rows that say
what a task is are others than those whose losses are taken.

    python examples/benchmarks/text_subsets.py --out /scratch

Every training is kept as it ends; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import machine
import numpy as np
import subset_figures
import torch

DOMAINS = ("finance", "medical", "maths", "instruct")
MODEL = "models/stories260K"
EACH, CROWD, COPIES, TARGETS = 120, 16, 16, 100
"""Rows of a domain; the first so many of them are there so many times; rows that say what a task is, and as many that judge."""
SIZE, SUBSETS, SEEDS, LENGTH, LETTERS = 64, 96, 3, 96, 100
"""Longest example in tokens, and the letters that texts are cut at, so that none is longer."""
RECIPE = ("--pretrained", "--epochs", "4", "--batch", "16", "--learning-rate", "0.01")
REGIMES = ("random", "clustered", "duplicated", "clustered, duplicated", "20 distinct", "balanced, 20 distinct")
PAIRS = tuple(combinations(range(len(DOMAINS)), 2))
TASKS = ("all", *DOMAINS, *(f"{DOMAINS[one]} + {DOMAINS[other]}" for one, other in PAIRS))
FEATURES = ("grasp", "repsim", "rise", "vectors@head", "vectors@whole", "vectors@tfidf", "vectors@domains")
WIDTH = 4096
"""Buckets of the whole gradient's CountSketch."""


def texts(data: Path) -> dict[str, list[str]]:
    """Every domain's texts, their beginnings."""
    with (data / "finance/banking77_train.csv").open(newline="") as file:
        finance = [row["text"] for row in csv.DictReader(file)]
    medical = json.loads((data / "medical/chatdoctor5k.json").read_text())
    maths = [json.loads(line) for line in (data / "gsm8k/test.jsonl").read_text().splitlines()]
    instruct = json.loads((data / "instruct/instruction-data.json").read_text())
    found = {
        "finance": finance,
        "medical": [f"{row['input']}\n{row['output']}" for row in medical],
        "maths": [f"{row['question']}\n{row['answer']}" for row in maths],
        "instruct": [f"{row['instruction']}\n{row['input']}\n{row['output']}" for row in instruct],
    }
    return {domain: [text[:LETTERS] for text in rows] for domain, rows in found.items()}


def made(data: Path, seed: int, work: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Write pool, targets and judges; the pool's records, and of each the row that it is a copy of (or itself)."""
    chance, pool, targets, judges = np.random.default_rng(seed), [], [], []
    for domain, rows in texts(data).items():
        chosen = [rows[int(at)] for at in chance.permutation(len(rows))[: EACH + 2 * TARGETS]]
        records = [{"id": f"{domain}-{at}", "domain": domain, "text": text} for at, text in enumerate(chosen)]
        pool += records[:EACH]
        targets += records[EACH : EACH + TARGETS]
        judges += records[EACH + TARGETS :]
    origin = [*range(len(pool))]
    for copy in range(1, COPIES):
        for row in crowd():
            pool.append({**pool[row], "id": f"{pool[row]['id']}+{copy}"})
            origin.append(int(row))
    for name, records in (("pool", pool), ("targets", targets), ("judges", judges)):
        (work / f"{name}.jsonl").write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records))
    return pool, np.array(origin)


def crowd() -> np.ndarray:
    """Rows that are there more than once."""
    return np.concatenate([np.arange(CROWD) + EACH * at for at in range(len(DOMAINS))])


def drawn(regime: str, origin: np.ndarray, seed: int) -> np.ndarray:
    """(S, N) boolean, `SIZE` rows each."""
    chance, masks = np.random.default_rng(seed), np.zeros((SUBSETS, len(origin)), bool)
    singles, domain = np.arange(len(DOMAINS) * EACH), np.arange(len(DOMAINS) * EACH) // EACH
    for mask in masks:
        shares = np.full(len(DOMAINS), 1 / len(DOMAINS))
        if "clustered" in regime:  # one to four domains, in any shares
            inside = chance.permutation(len(DOMAINS))[: chance.integers(1, len(DOMAINS) + 1)]
            shares = np.zeros(len(DOMAINS))
            shares[inside] = chance.dirichlet(np.ones(len(inside)))
        if regime in ("random", "clustered"):
            own = singles if regime == "random" else _shared(shares, singles, domain, SIZE, chance)
            mask[chance.choice(own, SIZE, replace=False)] = True
            continue
        many = 20 if "20" in regime else int(chance.integers(4, SIZE + 1))
        if "balanced" in regime:
            for at in range(len(DOMAINS)):
                few = chance.choice(crowd()[domain[crowd()] == at], many // len(DOMAINS), replace=False)
                mask |= _repeated(few, SIZE // len(DOMAINS), origin, chance)
        else:
            few = _shared(shares, crowd(), domain[crowd()], many, chance) if "clustered" in regime else crowd()
            mask |= _repeated(chance.choice(few, min(many, len(few)), replace=False), SIZE, origin, chance)
    assert (masks.sum(1) == SIZE).all()
    return masks


def _shared(shares: np.ndarray, rows: np.ndarray, domain: np.ndarray, count: int, chance: Any) -> np.ndarray:
    """About `count` rows, of every domain its share; where a domain has too few, all that it has, and others' in their place."""
    wanted = chance.multinomial(count, shares)
    own = [chance.permutation(rows[domain == at])[:number] for at, number in enumerate(wanted)]
    found = np.concatenate(own)
    rest = chance.permutation(np.setdiff1d(rows[shares[domain] > 0], found))
    return np.concatenate([found, rest[: count - len(found)]])


def _repeated(few: np.ndarray, size: int, origin: np.ndarray, chance: Any) -> np.ndarray:
    """(N,) mask of `size` rows: each of these once at least, the rest copies of them."""
    copies = np.setdiff1d(np.flatnonzero(np.isin(origin, few)), few)
    mask = np.zeros(len(origin), bool)
    mask[few] = True
    mask[chance.choice(copies, size - len(few), replace=False)] = True
    return mask


def train_on_subset(regime: int, masks: np.ndarray, data: Path, work: Path) -> np.ndarray:
    """(seeds, S, T): each task's loss after training on each subset, by the command line; progress goes to stderr."""
    folder = work / f"truth-{regime}"
    np.save(work / f"masks-{regime}.npy", masks)
    words = ["ground-truth", "pool.jsonl", "--queries", "judges.jsonl", "--model-config", str(data / MODEL), *RECIPE]
    more = ["--masks", f"masks-{regime}.npy", "--seeds", str(SEEDS), "--max-length", str(LENGTH), "-o", str(folder)]
    subprocess.run([*machine.headwater(), *words, *more], cwd=work, check=True)  # what was trained is not trained again
    return by_task(np.load(folder / "outcomes.npy"))


def by_task(losses: np.ndarray) -> np.ndarray:
    """(…, Q) losses of the judges, or (…, domains · n) anything of rows in their order → (…, T) means."""
    own = losses.reshape(*losses.shape[:-1], len(DOMAINS), -1).mean(-1)
    pairs = [own[..., list(pair)].mean(-1) for pair in PAIRS]
    return np.concatenate([own.mean(-1, keepdims=True), own, np.stack(pairs, -1)], -1)


class Gradients:
    """Exact gradients of each example's mean loss: the head's own, and a CountSketch of all parameters'."""

    def __init__(self, path: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model, self.tokens = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
        self.weights = [one for one in self.model.parameters() if one.requires_grad]
        count, chance = sum(one.numel() for one in self.weights), np.random.default_rng(0)
        self.buckets = torch.from_numpy(chance.integers(0, WIDTH, count))
        self.signs = torch.from_numpy(chance.choice([-1.0, 1.0], count).astype(np.float32))

    def of(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """(V · d,) and (WIDTH,), both minus the gradient: the way the example goes."""
        ids = torch.tensor([self.tokens(text)["input_ids"]])
        read = self.model.model(ids).last_hidden_state[0, :-1]
        logits = read @ self.model.lm_head.weight.T
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
        (error,) = torch.autograd.grad(loss, logits, retain_graph=True)
        whole = torch.cat([one.flatten() for one in torch.autograd.grad(loss, self.weights)])
        sketch = torch.zeros(WIDTH).index_add_(0, self.buckets, whole * self.signs)
        return -(error.T @ read).detach().flatten().numpy(), -sketch.numpy()


def ingested(data: Path, work: Path) -> dict[str, Path]:
    """Stores: the model's methods in one pass, and vectors made here, each with its targets as a file."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    stores = {kind: work / f"{kind}.store" for kind in ("model", "head", "whole", "tfidf", "domains")}
    files = {name: machine.records(work / f"{name}.jsonl") for name in ("pool", "targets")}
    words = ["ingest", str(work / "pool.jsonl"), "--model", str(data / MODEL), "--max-length", str(LENGTH)]
    methods = [part for name in ("grasp", "repsim", "rise") for part in ("--method", name)]
    machine.run([*machine.headwater(), *words, *methods, "--store", str(stores["model"])], work)
    if not stores["head"].exists():  # the first of those made of vectors
        gradients = Gradients(data / MODEL)
        index = TfidfVectorizer(sublinear_tf=True).fit(one["text"] for one in files["pool"])
        kinds = np.eye(len(DOMAINS), dtype=np.float32)
        for name, records in files.items():
            both = [gradients.of(one["text"]) for one in records]
            vectors = {"head": np.stack([one for one, _ in both]), "whole": np.stack([one for _, one in both]),
                       "tfidf": index.transform([one["text"] for one in records]).toarray().astype(np.float32),
                       "domains": np.stack([kinds[DOMAINS.index(one["domain"])] for one in records])}  # fmt: skip
            for kind, rows in vectors.items():
                np.savez(work / f"{name}.{kind}.npz", vectors=rows)
    for kind in ("head", "whole", "tfidf", "domains"):
        words = ["ingest", str(work / f"pool.{kind}.npz"), "--method", "vectors", "--store", str(stores[kind])]
        machine.run([*machine.headwater(), *words], work)
    return stores


def features(data: Path, work: Path) -> dict[str, subset_figures.Feature]:
    """Each feature's means of subsets and vectors of tasks."""
    from headwater.engine.models.language_model import ModelChoice
    from headwater.engine.selection.linear_features import LinearFeatures
    from headwater.engine.selection.targets import TaskFile, read_targets
    from headwater.store.feature_store import FeatureStore

    stores, found = ingested(data, work), {}
    for name in FEATURES:
        method, _, kind = name.partition("@")
        rows = LinearFeatures(FeatureStore.open(str(stores[kind or "model"])), method)
        if kind:
            own = np.load(work / f"targets.{kind}.npz")["vectors"].astype(float)
            tasks = by_task(own.T).T
        else:
            choice = ModelChoice(str(data / MODEL), "cpu")
            read = read_targets(rows, TaskFile(str(work / "targets.jsonl"), "domain", choice))
            assert read.names == DOMAINS
            tasks = by_task(read.vectors.T).T
        found[name] = subset_figures.Feature(rows, tasks)
    return found


def run(data: Path, work: Path, seed: int) -> dict[str, Any]:
    """Every regime: train, predict, judge."""
    _, origin = made(data, seed, work)
    truths = []
    for at, regime in enumerate(REGIMES):
        masks = drawn(regime, origin, seed * 100 + at)
        truths.append((regime, masks, train_on_subset(at, masks, data, work)))
    known, found = features(data, work), {}
    for regime, masks, outcomes in truths:
        different = subset_figures.distinct(masks, origin)
        found[regime] = subset_figures.judged(known, masks, outcomes, TASKS, different, work / f"{regime}.npz")
        print(f"{regime}: {subset_figures.line(found[regime])}", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, predict, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--data")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = machine.data_folder(given.data, MODEL, *DOMAINS[:2], "gsm8k", "instruct").resolve()
    work = given.out.resolve() / f"text-subsets-{given.seed}"
    work.mkdir(parents=True, exist_ok=True)
    found = run(data, work, given.seed)
    told = {"machine": machine.describe(), "found": found}
    machine.save(given.out, f"text_subsets-{given.seed}", told, subset_figures.table([found]))
    subset_figures.draw(work, REGIMES, given.out / f"text_subsets-{given.seed}.png")
    return found


if __name__ == "__main__":
    main()
