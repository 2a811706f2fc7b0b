"""Tasks with ground truth for methods of the head, as arrays: MNIST by logistic regression, first names by two language models.

| task | corpus | head (V × D) | ground truth |
|---|---|---|---|
| mnist | 5,000 images | 10 × 784, logistic regression | 100 halves, 2 trainings each; 500 test images |
| names | 600 first names in word pieces | 512 × 48, `lds` of `tasks.py` | 64 halves, 5 trainings each; 30 names |
| characters | 600 first names in characters | 29 × 64, a Llama of 2 layers | 64 halves, 5 trainings each; 30 names |

What is made stays, and is not made again. Knows no method.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import machine
import numpy as np
import tasks
import torch

Array: TypeAlias = np.ndarray[Any, Any]
IMAGES, TEST_IMAGES, HALVES, TRAININGS = 5000, 500, 100, 2
RATE, BATCH, EPOCHS = 0.01, 64, 20


@dataclass(frozen=True, slots=True)
class Positions:
    """The target positions of some examples, packed."""

    hidden: Array
    """(P, D) float32."""
    targets: Array
    """(P,) int64."""
    example_ids: Array
    """(P,) int64, ascending."""
    examples: int
    """Number of examples."""


@dataclass(frozen=True, slots=True)
class HeadTask:
    """A head with its corpus, its queries and the outcomes of real retraining."""

    weight: Array
    """(V, D) float32."""
    corpus: Positions
    queries: Positions
    masks: Array
    """(S, N) bool."""
    outcomes: Array
    """(trainings, S, Q): losses of the queries."""
    ingest: tuple[str, ...]
    """Arguments of `headwater ingest` for the corpus."""
    ask: tuple[str, ...]
    """Arguments of `headwater attribute` for the queries."""


def made(name: str, data: Path, work: Path) -> HeadTask:
    """A task by its name."""
    return _mnist(data, work) if name == "mnist" else _language(name, data, work)


def _mnist(data: Path, work: Path) -> HeadTask:
    """The protocol of dattri's benchmark for logistic regression."""
    folder = work / "mnist"
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data / "mnist/mnist.npz") as file:
        pixels = ((file["images"].astype(np.float32) / 255 - 0.1307) / 0.3081)[[*range(IMAGES), *range(60000, 60500)]]
        labels = file["labels"].astype(np.int64)[[*range(IMAGES), *range(60000, 60500)]]
    truth = folder / "truth.npz"
    if not truth.exists():
        chance = np.random.default_rng(0)
        masks = np.stack([_half(IMAGES, chance) for _ in range(HALVES)])
        outcomes = np.zeros((TRAININGS, HALVES, TEST_IMAGES), np.float32)
        for seed in range(TRAININGS):
            for at, mask in enumerate(masks):
                weight = _regression(pixels[:IMAGES][mask], labels[:IMAGES][mask], seed)
                outcomes[seed, at] = _losses(weight, pixels[IMAGES:], labels[IMAGES:])
        weight = _regression(pixels[:IMAGES], labels[:IMAGES], 0).numpy()
        np.savez(truth, masks=masks, outcomes=outcomes, weight=weight)
    with np.load(truth) as file:
        masks, outcomes, weight = file["masks"], file["outcomes"], file["weight"]
    parts = []
    for part, start, stop in (("corpus", 0, IMAGES), ("queries", IMAGES, IMAGES + TEST_IMAGES)):
        hidden, targets = pixels[start:stop], labels[start:stop]
        np.savez(folder / f"{part}.npz", hidden=hidden, labels=targets, weight=weight)
        parts.append(Positions(hidden, targets, np.arange(stop - start), stop - start))
    files = str(folder / "corpus.npz"), str(folder / "queries.npz")
    return HeadTask(weight, *parts, masks, outcomes, (files[0],), ("--queries", files[1]))


def _half(examples: int, chance: np.random.Generator) -> Array:
    mask = np.zeros(examples, bool)
    mask[chance.permutation(examples)[: examples // 2]] = True
    return mask


def _regression(pixels: Array, labels: Array, seed: int) -> torch.Tensor:
    """The weight (10, 784) after SGD from 0."""
    chance, x, y = torch.Generator().manual_seed(seed), torch.from_numpy(pixels), torch.from_numpy(labels)
    weight = torch.zeros(10, x.shape[1])
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=chance).split(BATCH):
            residual = torch.softmax(x[rows] @ weight.T, 1)
            residual[torch.arange(len(rows)), y[rows]] -= 1
            weight -= RATE / len(rows) * (residual.T @ x[rows])
    return weight


def _losses(weight: torch.Tensor, pixels: Array, labels: Array) -> Array:
    logits, targets = torch.from_numpy(pixels) @ weight.T, torch.from_numpy(labels)
    result: Array = torch.nn.functional.cross_entropy(logits, targets, reduction="none").numpy()
    return result


def _language(name: str, data: Path, work: Path) -> HeadTask:
    task = tasks.made("lds" if name == "names" else name, 0, data, work) if name == "names" else _characters(data, work)
    parts = [_read(Path(task.model), machine.records(Path(path))) for path in (task.corpus, task.queries)]
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(task.model, dtype=torch.float32)
    weight = model.get_output_embeddings().weight.detach().numpy()
    masks, outcomes = (np.load(task.judge[part]) for part in ("masks", "outcomes"))
    ingest = task.corpus, "--model", task.model
    return HeadTask(weight, *parts, masks.astype(bool), outcomes, ingest, ("--queries", task.queries))


def _read(folder: Path, records: Sequence[dict[str, Any]]) -> Positions:
    """Hidden states before the head and next tokens, text by text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    hidden, targets, ids = [], [], []
    with torch.inference_mode():
        for number, record in enumerate(records):
            tokens = torch.tensor(tokenizer(record["text"])["input_ids"])
            hidden.append(model.model(tokens[None]).last_hidden_state[0, :-1].numpy())
            targets.append(tokens[1:].numpy())
            ids.append(np.full(len(tokens) - 1, number))
    return Positions(np.concatenate(hidden), np.concatenate(targets), np.concatenate(ids), len(records))


def _characters(data: Path, work: Path) -> tasks.Task:
    """As `names`, in characters."""
    folder = work / "characters"
    record = folder / "task.json"
    if record.exists():
        return tasks.Task(**json.loads(record.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    names = (data / "names/names.txt").read_text().split()
    chosen = [names[at] for at in np.random.default_rng(1).permutation(len(names))[:630].tolist()]
    files = []
    for part, texts in (("corpus", chosen[30:]), ("queries", chosen[:30])):
        files.append(str(folder / f"{part}.jsonl"))
        Path(files[-1]).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    model = _character_model(folder / "model")
    truth = folder / "truth"
    command = ["ground-truth", files[0], "--queries", files[1], "--model-config", str(model), "-o", str(truth)]
    training = ["--subsets", "64", "--seeds", "5", "--epochs", "10", "--batch", "16", "--learning-rate", "2e-3"]
    machine.run([*machine.headwater(), *command, *training], folder)
    tasks.train(model, chosen[30:], folder / "trained", 0, epochs=10)
    judge = {part: str(truth / f"{part}.npy") for part in ("masks", "outcomes")}
    values = {"name": "characters", "corpus": files[0], "queries": files[1], "model": str(folder / "trained"),
              "fields": (), "judge": judge, "figure": "lds"}  # fmt: skip
    record.write_text(json.dumps(values))
    return tasks.Task(**values)


def _character_model(folder: Path) -> Path:
    """A Llama's config and a tokenizer of letters, which begins and ends a name by a mark."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    letters = {symbol: at for at, symbol in enumerate(["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz"])}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    LlamaConfig(
        vocab_size=len(letters), hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=32, bos_token_id=1, eos_token_id=2, architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    return folder
