"""Tasks with ground truth for methods of the head, as arrays: MNIST, and first names by two language models.

| task | corpus | head (V × D) | ground truth |
|---|---|---|---|
| mnist | 5,000 images | 10 × 784, logistic regression | 100 halves, 2 trainings each; 500 test images |
| names | 600 first names in word pieces | 512 × 48, `lds` of `tasks.py` | 64 halves, 5 trainings each; 30 names |
| characters | 600 first names in characters | 27 × 100, one hidden layer | 64 halves, 5 trainings each; 30 names |

What is made stays, and is not made again. Knows no method.
"""

from __future__ import annotations

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
LETTERS, STEPS = 27, 300


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
    makers = {"mnist": _mnist, "names": _names, "characters": _characters}
    return makers[name](data, work)


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


def _names(data: Path, work: Path) -> HeadTask:
    """The task `lds` of `tasks.py`."""
    task = tasks.made("lds", 0, data, work)
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


class CharacterModel(torch.nn.Module):
    """The next character of a name from the three before it: embeddings of 10, a hidden layer of 100, a head without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden = torch.nn.Embedding(LETTERS, 10), torch.nn.Linear(3 * 10, 100)
        self.head = torch.nn.Linear(100, LETTERS, bias=False)

    def states(self, context: torch.Tensor) -> torch.Tensor:
        """(P, 3) characters → (P, 100) hidden states."""
        return torch.tanh(self.hidden(self.embedding(context).flatten(1)))


def _characters(data: Path, work: Path) -> HeadTask:
    """A network of characters: 600 names, 64 halves of them trained five times each, 30 held-out names."""
    folder = work / "characters"
    folder.mkdir(parents=True, exist_ok=True)
    names = (data / "names/names.txt").read_text().split()
    chosen = [names[at] for at in np.random.default_rng(1).permutation(len(names))[:630].tolist()]
    corpus, queries = _windows(chosen[30:]), _windows(chosen[:30])
    truth = folder / "truth.npz"
    if not truth.exists():
        chance = np.random.default_rng(0)
        masks = np.stack([_half(600, chance) for _ in range(64)])
        outcomes = np.stack(
            [np.stack([_name_losses(_trained(corpus, mask, seed), queries) for mask in masks]) for seed in range(5)]
        )
        np.savez(truth, masks=masks, outcomes=outcomes)
    model, parts = _trained(corpus, np.ones(600, bool), 0), []
    weight = model.head.weight.detach().numpy()
    for part, (context, targets, ids) in (("corpus", corpus), ("queries", queries)):
        hidden = model.states(context).detach().numpy()
        parts.append(Positions(hidden, targets.numpy(), ids.numpy(), int(ids[-1]) + 1))
        np.savez(folder / f"{part}.npz", weight=weight, **_padded(parts[-1]))
    with np.load(truth) as file:
        masks, outcomes = file["masks"], file["outcomes"]
    files = str(folder / "corpus.npz"), str(folder / "queries.npz")
    return HeadTask(weight, parts[0], parts[1], masks, outcomes, (files[0],), ("--queries", files[1]))


def _windows(names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Contexts (P, 3), next characters (P,) and the names' numbers (P,); 0 stands before and after a name."""
    context, targets, ids = [], [], []
    for number, name in enumerate(names):
        letters = [0, 0, 0, *(ord(letter) - 96 for letter in name), 0]
        for at in range(3, len(letters)):
            context.append(letters[at - 3 : at])
            targets.append(letters[at])
            ids.append(number)
    return torch.tensor(context), torch.tensor(targets), torch.tensor(ids)


def _trained(corpus: tuple[torch.Tensor, torch.Tensor, torch.Tensor], mask: Array, seed: int) -> CharacterModel:
    """The network after 300 steps of AdamW on the names of a subset."""
    context, targets, ids = corpus
    own = torch.from_numpy(mask)[ids]
    context, targets = context[own], targets[own]
    torch.manual_seed(seed)
    model = CharacterModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    for step in range(STEPS):
        rows = torch.randint(len(targets), (256,))
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / STEPS)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model.head(model.states(context[rows])), targets[rows]).backward()
        optimizer.step()
    return model


def _name_losses(model: CharacterModel, queries: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> Array:
    """(Q,): each name's summed loss."""
    context, targets, ids = queries
    with torch.inference_mode():
        each = torch.nn.functional.cross_entropy(model.head(model.states(context)), targets, reduction="none")
    return np.bincount(ids.numpy(), each.numpy())


def _padded(positions: Positions) -> dict[str, Array]:
    """Hidden states (N, T, D) and labels (N, T), -1 behind each example."""
    counts = np.bincount(positions.example_ids)
    within = np.arange(len(positions.targets)) - (counts.cumsum() - counts)[positions.example_ids]
    hidden = np.zeros((positions.examples, counts.max(), positions.hidden.shape[1]), np.float32)
    labels = np.full(hidden.shape[:2], -1, np.int64)
    hidden[positions.example_ids, within], labels[positions.example_ids, within] = positions.hidden, positions.targets
    return {"hidden": hidden, "labels": labels}
