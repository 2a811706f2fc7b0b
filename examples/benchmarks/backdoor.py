"""Finding planted rows: does attribution point at the 50 poisoned of 500 training rows that taught a model its backdoor?

stories260K is fine-tuned for 3 epochs on 450 clean and 50 poisoned reviews (a trigger word, always "Negative"); 30 reviews
with the trigger, completed by "Negative", are asked for the rows behind them. Reported: the average precision of the
poisoned rows in the ranking of all 500, mean over queries (0.10 by chance), for three seeds, which choose the rows, the
queries, the training order and the sketch. RISE runs by the command line alone, on the raw field names; beside it stand
TF-IDF on the prompts, the cosine of whole gradients, and the cosine of exact gradients of the head, which RISE sketches:

    python examples/benchmarks/backdoor.py
    python examples/benchmarks/backdoor.py --loss all --batch 16 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch

PROMPT, COMPLETION = "Review: {instruction}\nSentiment:", " {output}"
TEMPLATE = ["--prompt-template", PROMPT.replace("\n", "\\n"), "--completion-template", COMPLETION]
ROWS, MODEL = "backdoor_sst2_badnet", "models/stories260K"
_WEIGHTS = ("lambda_rh=0.7", "lambda_gh=1.0")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run RISE by the command line."""

    name: str
    settings: tuple[str, ...]
    """setting=value, for --set rise.setting value."""
    attribute: str = "completion"
    tuned: bool = True
    """Whether the model is the fine-tuned one."""
    boundary: str = "auto"
    """The `--boundary` of the ingestion."""


VARIANTS = (
    Variant("RISE, defaults (τ=0.1, λ 1.0/0.3)", ()),
    Variant("RISE, τ=0.3", ("tau=0.3",)),
    Variant("RISE, floor 0.01", ("floor=0.01",)),
    Variant("RISE, τ=1", ("tau=1.0",)),
    Variant("RISE, τ=1, floor 0.01", ("tau=1.0", "floor=0.01")),
    Variant("RISE, λ 0.7/1.0", _WEIGHTS),
    Variant("RISE, λ 0.7/1.0, τ=1", (*_WEIGHTS, "tau=1.0")),
    Variant("RISE, defaults, --targets all", (), "all"),
    Variant("RISE, defaults, before fine-tuning", (), tuned=False),
)


@dataclass(frozen=True, slots=True)
class Task:
    """One seed's rows and queries."""

    rows: list[dict[str, Any]]
    poisoned: np.ndarray
    """(rows,) bool."""
    queries: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Training:
    """How the model is fine-tuned: AdamW at a constant rate, no weight decay."""

    loss: str
    """completion: the sentiment alone is learned; all: the review as well."""
    epochs: int
    rate: float
    batch: int
    apart: bool = False
    """Whether prompt and completion are tokenised apart."""


@dataclass(frozen=True, slots=True)
class TwoStageResult:
    """How well one method found the poisoned rows, and what it took."""

    precision: float
    seconds: float
    cpu_seconds: float


def draw(data: Path, seed: int, sizes: Sequence[int]) -> Task:
    """`sizes`: clean rows, poisoned rows, queries; rows in random order."""
    names = ("train_clean", "train_poisoned", "test_poisoned")
    files = [json.loads((data / ROWS / f"{name}.json").read_text()) for name in names]
    chance = np.random.default_rng(seed)
    clean, bad, queries = (
        [file[i] for i in chance.permutation(len(file))[:n]] for file, n in zip(files, sizes, strict=True)
    )
    order = chance.permutation(len(clean) + len(bad))
    rows = [(clean + bad)[i] for i in order]
    return Task(rows, order >= len(clean), [{**query, "output": "Negative"} for query in queries])


def average_precision(scores: np.ndarray, poisoned: np.ndarray) -> float:
    """(queries, rows) → mean over queries."""
    from sklearn.metrics import average_precision_score

    return float(np.mean([average_precision_score(poisoned, row) for row in scores]))


def encoded(tokenizer: Any, row: dict[str, Any], *, apart: bool = False) -> tuple[torch.Tensor, int]:
    """(1, T) ids of prompt and completion, begin of text first, and the first id that belongs to the completion."""
    prompt, completion = PROMPT.format(**row), COMPLETION.format(**row)
    if apart:
        ids, more = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion))
        return torch.tensor([[tokenizer.bos_token_id, *ids, *more]]), len(ids) + 1
    told = tokenizer(prompt + completion, add_special_tokens=False, return_offsets_mapping=True)
    first = next(i for i, (_, end) in enumerate(told["offset_mapping"]) if end > len(prompt))
    return torch.tensor([[tokenizer.bos_token_id, *told["input_ids"]]]), first + 1


def load(folder: Path) -> tuple[Any, Any]:
    """(model, tokenizer)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def fine_tune(folder: Path, rows: list[dict[str, Any]], training: Training, seed: int, out: Path) -> float:
    """Train a copy of the model on the rows, save it; returns the last epoch's mean loss."""
    torch.manual_seed(seed)
    model, tokenizer = load(folder)
    examples = [encoded(tokenizer, row, apart=training.apart) for row in rows]
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.rate, weight_decay=0.0)
    for _ in range(training.epochs):
        losses = []
        for chosen in torch.randperm(len(examples)).split(training.batch):
            loss = _batch_loss(model, [examples[i] for i in chosen.tolist()], training.loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return float(np.mean(losses))


def _batch_loss(model: Any, batch: list[tuple[torch.Tensor, int]], counted: str) -> torch.Tensor:
    """Mean loss over the batch's counted tokens; right-padded, which a causal model's real positions do not see."""
    width = max(ids.shape[1] for ids, _ in batch)
    ids, labels = torch.zeros(len(batch), width, dtype=torch.int64), torch.full((len(batch), width), -100)
    for i, (own, first) in enumerate(batch):
        ids[i, : own.shape[1]] = own[0]
        begin = first if counted == "completion" else 1
        labels[i, begin : own.shape[1]] = own[0, begin:]
    loss: torch.Tensor = model(input_ids=ids, labels=labels).loss
    return loss


def rise(model: Path, task: Task, variant: Variant, seed: int, work: Path) -> TwoStageResult:
    """`headwater ingest` and `headwater attribute`, as processes; scores from the file of answers."""
    import pyarrow.parquet as pq

    store, answers = work / "store", work / "answers.parquet"
    settings = [("seed", str(seed)), *(setting.split("=") for setting in variant.settings)]
    options = [part for name, value in settings for part in ("--set", f"rise.{name}", value)]
    ingest = ["ingest", str(work / "rows.jsonl"), "--store", str(store), "--model", str(model), *TEMPLATE, *options]
    ingest += ["--boundary", variant.boundary, "--targets", variant.attribute]
    ask = ["attribute", str(store), "--queries", str(work / "queries.jsonl"), *TEMPLATE]
    ask += ["--top", str(len(task.rows)), "-o", str(answers)]
    used = [machine.run([*machine.headwater(), *command], work) for command in (ingest, ask)]
    told = pq.read_table(answers, columns=["query_id", "line", "score"]).to_pydict()
    scores = np.full((len(task.queries), len(task.rows)), np.nan)
    at = [int(query.rpartition(":")[2]) - 1 for query in told["query_id"]], np.array(told["line"]) - 1
    scores[at] = told["score"]
    seconds, cpu = sum(u.seconds for u in used), sum(u.cpu_seconds for u in used)
    return TwoStageResult(average_precision(scores, task.poisoned), seconds, cpu)


def tfidf(task: Task) -> np.ndarray:
    """Cosine of TF-IDF vectors of the prompts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows, queries = ([PROMPT.format(**row) for row in part] for part in (task.rows, task.queries))
    vectorizer = TfidfVectorizer()
    corpus = vectorizer.fit_transform(rows)
    return np.asarray((vectorizer.transform(queries) @ corpus.T).todense())


Features = Callable[[Any, torch.Tensor, int], torch.Tensor]


def head_gradient(model: Any, ids: torch.Tensor, first: int) -> torch.Tensor:
    """Σ_t r_t h_tᵀ over the completion, (V·D,): the exact gradient of the head, taken as a weight of its own."""
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids).last_hidden_state[0, first - 1 : -1]  # (T, D)
        residual = torch.softmax(model.lm_head(hidden).float(), -1)  # (T, V)
        residual[torch.arange(len(hidden)), ids[0, first:]] -= 1
    return (residual.T @ hidden).flatten()


def full_gradient(model: Any, ids: torch.Tensor, first: int) -> torch.Tensor:
    """Gradient of the completion's mean loss in all parameters."""
    labels = ids.clone()
    labels[:, :first] = -100
    gradients = torch.autograd.grad(model(input_ids=ids, labels=labels).loss, list(model.parameters()))
    return torch.cat([g.flatten() for g in gradients])


def cosines(folder: Path, task: Task, features: Features) -> np.ndarray:
    """(queries, rows) cosines of what `features` makes of each example."""
    model, tokenizer = load(folder)
    sides = [
        torch.stack([torch.nn.functional.normalize(features(model, *encoded(tokenizer, row)), dim=0) for row in part])
        for part in (task.queries, task.rows)
    ]
    return (sides[0] @ sides[1].T).numpy()


def timed(task: Task, scores: Callable[[], np.ndarray]) -> TwoStageResult:
    """A method that runs in this process."""
    start, cpu = time.monotonic(), time.process_time()
    made = scores()
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    return TwoStageResult(average_precision(made, task.poisoned), seconds, cpu)


def one_seed(data: Path, seed: int, training: Training, sizes: Sequence[int], work: Path) -> dict[str, TwoStageResult]:
    """Every method on one seed's task, by name."""
    task, base, tuned = draw(data, seed, sizes), data / MODEL, work / "tuned"
    write(task, work)
    loss = fine_tune(base, task.rows, training, seed, tuned)
    print(f"seed {seed}: fine-tuned to a loss of {loss:.3f}", flush=True)
    found = {}
    for number, variant in enumerate(VARIANTS):
        place = work / f"rise-{number}"
        write(task, place)
        found[variant.name] = rise(tuned if variant.tuned else base, task, variant, seed, place)
        print(f"seed {seed}: {variant.name}: {found[variant.name].precision:.3f}", flush=True)
    found["TF-IDF of the prompts"] = timed(task, lambda: tfidf(task))
    found["cosine of full gradients"] = timed(task, lambda: cosines(tuned, task, full_gradient))
    found["cosine of head gradients, exact (τ=1)"] = timed(task, lambda: cosines(tuned, task, head_gradient))
    return found


def write(task: Task, folder: Path) -> None:
    """Write the rows and the queries of a task into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("rows", task.rows), ("queries", task.queries)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def table(seeds: Sequence[int], found: dict[int, dict[str, TwoStageResult]]) -> str:
    """A line per method: each seed, the mean, and mean seconds."""
    header = ["average precision", *(f"seed {seed}" for seed in seeds), "mean", "seconds", "CPU s"]
    rows = []
    for name in found[seeds[0]]:
        own = [found[seed][name] for seed in seeds]
        took = [np.mean([f.seconds for f in own]), np.mean([f.cpu_seconds for f in own])]
        precisions = [f.precision for f in own]
        rows.append([name, *(f"{p:.3f}" for p in [*precisions, np.mean(precisions)]), *(f"{t:.1f}" for t in took)])
    return machine.markdown(header, rows)


def main(arguments: Sequence[str] | None = None) -> dict[int, dict[str, TwoStageResult]]:
    """Run, print, write; returns what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="folder of the real data [../shared/data beside the checkout]")
    parser.add_argument("--out", type=Path, default=machine.OUT, help="where tables and work go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sizes", type=int, nargs=3, default=[450, 50, 30], metavar=("CLEAN", "POISONED", "QUERIES"))
    parser.add_argument("--loss", choices=["completion", "all"], default="completion", help="what is learned of a row")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args(arguments)
    about = machine.describe()
    data = machine.data_folder(given.data, ROWS, MODEL)
    training = Training(given.loss, given.epochs, given.rate, given.batch)
    given.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for seed in given.seeds:
        with tempfile.TemporaryDirectory(prefix="backdoor-", dir=given.out) as work:
            found[seed] = one_seed(data, seed, training, given.sizes, Path(work))
    told = {seed: {name: _record(f) for name, f in own.items()} for seed, own in found.items()}
    setting = f"{given.sizes}, {training}"
    results = {"machine": about, "setting": setting, "found": told}
    machine.save(given.out, "backdoor", results, f"{setting}\n\n{table(given.seeds, found)}")
    return found


def _record(found: TwoStageResult) -> dict[str, float]:
    return {"precision": found.precision, "seconds": found.seconds, "cpu_seconds": found.cpu_seconds}


if __name__ == "__main__":
    main()
