"""One training of a small model on one subset, by Hugging Face's own loop, and its loss on every query.

Deterministic given its seed, which draws the weights (where they are drawn) and the order of examples: one thread, no
dropout left to chance beyond it. Knows no files but the model's.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...store.errors import SettingsError
from ...store.layout import Array
from ..models.language_model import ModelChoice, init_from_config, load_trainable
from .token_sets import TokenSet

_TOKENS = 8192  # of a batch in which losses are taken


@dataclass(frozen=True, slots=True)
class RetrainingRecipe:
    """How each subset is trained on."""

    epochs: float = 3.0
    """Passes over the subset."""
    batch: int = 16
    """Examples of a step."""
    learning_rate: float = 1e-3
    """At its highest; it falls to nothing in a straight line, after a tenth of the steps to warm up."""
    weight_decay: float = 0.0
    pretrained: bool = False
    """Start from the model's weights instead of random ones."""


class _Examples(torch.utils.data.Dataset[dict[str, list[int]]]):
    """A subset, as the loop wants it."""

    def __init__(self, tokens: TokenSet, rows: Sequence[int]) -> None:
        self._tokens, self._rows = tokens, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: int) -> dict[str, list[int]]:
        ids, first = self._tokens.example(self._rows[at])
        return {"input_ids": ids.tolist(), "labels": [-100] * first + ids[first:].tolist()}


def padded(batch: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A batch, padded on the right; what is padded counts neither as input nor as label."""
    width = max(len(item["input_ids"]) for item in batch)
    fill = {"input_ids": 0, "labels": -100}
    found = {name: torch.tensor([item[name] + [value] * (width - len(item[name])) for item in batch])
             for name, value in fill.items()}  # fmt: skip
    lengths = torch.tensor([len(item["input_ids"]) for item in batch])
    return {**found, "attention_mask": (torch.arange(width)[None] < lengths[:, None]).long()}


def retrained(path: str, tokens: TokenSet, rows: Sequence[int], recipe: RetrainingRecipe, seed: int) -> Any:
    """The model at `path`, trained on these examples.

    Raises:
        SettingsError: Hugging Face's loop is not installed.
    """
    try:
        import accelerate  # noqa: F401 - the loop stands on it
        from transformers import PrinterCallback, Trainer, TrainingArguments
    except ImportError:
        raise SettingsError("training needs accelerate: pip install 'headwater[truth]'") from None
    model = load_trainable(ModelChoice(path, "cpu")) if recipe.pretrained else init_from_config(path, seed)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = TrainingArguments(
            output_dir=scratch, num_train_epochs=recipe.epochs, per_device_train_batch_size=recipe.batch,
            learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay, lr_scheduler_type="linear",
            warmup_steps=0.1, seed=seed, data_seed=seed, save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, use_cpu=True, dataloader_num_workers=0, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=_Examples(tokens, rows), data_collator=padded)
        trainer.remove_callback(PrinterCallback)  # stdout is for results
        trainer.train()
    return model.eval()


def losses(model: Any, tokens: TokenSet) -> Array:
    """(N,) float64: the mean negative log-likelihood of each example's counted tokens, in nats."""
    found = np.zeros(len(tokens))
    examples, order = _Examples(tokens, range(len(tokens))), np.argsort(np.diff(tokens.ends, prepend=0), kind="stable")
    for rows in _batches(tokens, order):
        batch = padded([examples[at] for at in rows])
        with torch.inference_mode():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
        labels = batch["labels"][:, 1:]
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
        found[rows] = (each.sum(1) / (labels >= 0).sum(1).clamp(min=1)).double().numpy()
    return found


def _batches(tokens: TokenSet, order: Array) -> list[Array]:
    """Rows in batches of `_TOKENS` padded tokens, in the order of their lengths."""
    lengths = np.diff(tokens.ends, prepend=0)
    found: list[list[int]] = [[]]
    for at in order:
        if found[-1] and (len(found[-1]) + 1) * lengths[at] > _TOKENS:
            found.append([])
        found[-1].append(int(at))
    return [np.array(rows) for rows in found]
