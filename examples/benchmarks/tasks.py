"""The shared tasks of the comparison: each makes a corpus, queries and a model, and says how answers are judged.

| task | corpus | model | judged by |
|---|---|---|---|
| backdoor | 450 clean and 50 poisoned reviews | stories260K, fine-tuned on them | average precision of the poisoned rows |
| domains | finance, medical, maths, code | stories260K | area under the curve of the full ranking |
| facts | statements about invented people | 1.2 M parameters, trained on them | reciprocal rank of the facts asked for |
| lds | first names | 0.1 M parameters, retrained on 64 subsets, 5 seeds each | LDS |

Knows the data; knows no method. What is made stays, and is not made again.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import backdoor
import machine
import numpy as np


@dataclass(frozen=True, slots=True)
class Task:
    """One task, made."""

    name: str
    corpus: str
    queries: str
    model: str
    fields: tuple[str, ...]
    """Options that name the records' fields."""
    judge: dict[str, str]
    """What scores are judged by: `masks` and `outcomes`, or `labels` with the options that belong to them."""
    figure: str
    """Which of its figures is the task's."""


def _jsonl(path: Path, records: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
    return str(path)


def made(name: str, seed: int, data: Path, work: Path) -> Task:
    """The task, from its folder if it was made before."""
    folder = work / f"{name}-{seed}"
    told = folder / "task.json"
    if not told.exists():
        folder.mkdir(parents=True, exist_ok=True)
        task = MAKERS[name](seed, data, folder)
        hidden = folder / "task.json.part"
        hidden.write_text(json.dumps(asdict(task)))
        hidden.replace(told)
    found = json.loads(told.read_text())
    return Task(**{key: tuple(value) if isinstance(value, list) else value for key, value in found.items()})


def _backdoor(seed: int, data: Path, folder: Path) -> Task:
    drawn = backdoor.draw(data, seed, (450, 50, 30))
    training = backdoor.Training("completion", 3, 1e-3, 8)
    backdoor.fine_tune(data / backdoor.MODEL, drawn.rows, training, seed, folder / "model")
    corpus, queries = _jsonl(folder / "rows.jsonl", drawn.rows), _jsonl(folder / "queries.jsonl", drawn.queries)
    (folder / "poisoned.txt").write_text("".join(f"rows.jsonl:{line + 1}\n" for line in np.flatnonzero(drawn.poisoned)))
    judge = {"labels": str(folder / "poisoned.txt")}
    return Task(
        "backdoor", corpus, queries, str(folder / "model"), tuple(backdoor.TEMPLATE), judge, "average precision"
    )


def _domains(seed: int, data: Path, folder: Path) -> Task:
    """300 rows and 15 queries of each domain; a row is relevant for a query of its own domain."""
    import csv

    with (data / "finance/banking77_train.csv").open(newline="") as file:
        finance = [row["text"] for row in csv.DictReader(file)]
    medical = [f"{r['input']}\n{r['output']}" for r in json.loads((data / "medical/chatdoctor5k.json").read_text())]
    maths = [json.loads(line)["question"] for line in (data / "gsm8k/test.jsonl").read_text().splitlines()]
    with gzip.open(data / "humaneval/HumanEval.jsonl.gz", "rt") as file:
        code = [json.loads(line)["prompt"] for line in file]
    chance, corpus, queries = np.random.default_rng(seed), [], []
    for domain, texts in (("finance", finance), ("medical", medical), ("maths", maths), ("code", code)):
        short = [text[:600] for text in texts]
        chosen = chance.permutation(len(short))[:315].tolist()
        rows = [{"id": f"{domain}-{at}", "domain": domain, "text": short[at]} for at in chosen]
        queries += rows[:15]
        corpus += rows[15:]
    files = [_jsonl(folder / f"{name}.jsonl", rows) for name, rows in (("corpus", corpus), ("queries", queries))]
    judge = {"labels": files[0], "column": "domain", "queries": files[1]}
    return Task("domains", *files, str(data / backdoor.MODEL), (), judge, "AUC")


def _facts(seed: int, data: Path, folder: Path) -> Task:
    """300 people with four facts each, told in one way; 100 of the facts asked for in another.

    A statement's prompt is what comes before the fact: names are drawn by chance, and what a model makes of them says nothing
    of what it knows (attributed whole, no method that reads the model finds more than one fact in twenty).
    """
    names = {path.stem: path.read_text().splitlines() for path in (data / "facts/names").glob("*.txt")}
    told = {path.stem: path.read_text().splitlines() for path in (data / "facts/templates").glob("*.txt")}
    chance, corpus, questions = np.random.default_rng(seed), [], []
    pick: Callable[[list[str]], str] = lambda items: items[int(chance.integers(len(items)))]  # noqa: E731
    for person in range(300):
        known = {"first_name": pick(names["first_name"]), "last_name": pick(names["last_name"]),
                 "birthplace": pick(names["town"]), "employer": pick(names["employer"]),
                 "university": pick(names["university"]),
                 "birthdate": f"{chance.integers(1, 29)}.{chance.integers(1, 13)}.{chance.integers(1930, 2005)}"}  # fmt: skip
        for kind, ways in told.items():
            one, other = (ways[int(at)].format(**known) for at in chance.choice(len(ways), 2, replace=False))
            cuts = [text.rfind(known[kind]) for text in (one, other)]
            if min(cuts) > 0:
                gold = f"{person}-{kind}"
                corpus.append({"id": gold, "prompt": one[: cuts[0]], "completion": one[cuts[0] :]})
                question = {"id": f"q{gold}", "prompt": other[: cuts[1]], "completion": other[cuts[1] :]}
                questions.append((question, gold))
    chosen = [questions[int(at)] for at in chance.choice(len(questions), 100, replace=False)]
    files = [_jsonl(folder / "corpus.jsonl", corpus), _jsonl(folder / "queries.jsonl", [q for q, _ in chosen])]
    gold = _jsonl(folder / "gold.jsonl", [{"query_id": q["id"], "example_id": g} for q, g in chosen])
    model = _small(folder / "model", data, hidden=128, layers=4, context=96)
    train(model, [record["prompt"] + record["completion"] for record in corpus], folder / "trained", seed, epochs=25)
    judge = {"labels": gold}
    return Task("facts", *files, str(folder / "trained"), (), judge, "reciprocal rank")


def _lds(seed: int, data: Path, folder: Path) -> Task:
    """Names of eight initials; 30 held-out ones as queries; 64 subsets of half of 600 names, 5 trainings each. Further seeds are
    other trainings of the model on the same names; the truth stays.
    """
    if seed:
        first = made("lds", 0, data, folder.parent)
        names = [record["text"] for record in machine.records(Path(first.corpus))]
        train(Path(first.model).parent / "model", names, folder / "trained", seed, epochs=6)
        return replace(first, model=str(folder / "trained"))
    names = (data / "names/names.txt").read_text().split()
    chance = np.random.default_rng(seed)
    chosen = [names[at] for at in chance.permutation(len(names))[:630].tolist()]
    files = [_jsonl(folder / "corpus.jsonl", [{"text": name} for name in chosen[30:]]),
             _jsonl(folder / "queries.jsonl", [{"text": name} for name in chosen[:30]])]  # fmt: skip
    model = _small(folder / "model", data, hidden=48, layers=2, context=32)
    truth = folder / "truth"
    words = ["ground-truth", files[0], "--queries", files[1], "--model-config", str(model), "-o", str(truth)]
    more = ["--subset-count", "64", "--seeds", "5", "--epochs", "6", "--batch", "16", "--learning-rate", "2e-3"]
    machine.run([*machine.headwater(), *words, *more], folder)
    train(model, chosen[30:], folder / "trained", seed, epochs=6)
    judge = {name: str(truth / f"{name}.npy") for name in ("masks", "outcomes")}
    return Task("lds", *files, str(folder / "trained"), (), judge, "lds")


def _small(folder: Path, data: Path, *, hidden: int, layers: int, context: int) -> Path:
    """A Llama's config of these sizes, with stories260K's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained(data / backdoor.MODEL)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=context, bos_token_id=1, eos_token_id=2,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train(model: Path, texts: Sequence[str], out: Path, seed: int, epochs: float) -> None:
    """Train from random weights on all texts, as each retraining is."""
    from headwater.engine.ingest.examples import TextPayload
    from headwater.engine.retraining.token_sets import concatenate_tokens
    from headwater.engine.retraining.training_loop import RetrainingRecipe, train_on_subset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    context = json.loads((model / "config.json").read_text())["max_position_embeddings"]
    ids = [tokenizer(text)["input_ids"][:context] for text in texts]
    trained = train_on_subset(
        str(model),
        concatenate_tokens(TextPayload(one, 1) for one in ids),
        range(len(ids)),
        RetrainingRecipe(epochs=epochs, batch=16, learning_rate=2e-3, seed=seed),
    )
    trained.save_pretrained(out)
    tokenizer.save_pretrained(out)


MAKERS: dict[str, Callable[[int, Path, Path], Task]] = {
    "backdoor": _backdoor, "domains": _domains, "facts": _facts, "lds": _lds,
}  # fmt: skip
