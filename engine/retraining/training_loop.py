"""One training of a small model on one subset, with Hugging Face's loop, and its loss on every query.

Deterministic for a seed, which draws the initial weights (unless pretrained), the order of examples and dropout; one thread.
Knows no files but the model's.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...store.errors import SettingsError
from ...store.layout import Array
from ..models.language_model import ModelChoice, init_from_config, load_trainable
from ..models.training_recipe import TrainingRecipe
from ..models.transformers_types import HfModel
from .token_sets import TokenSet

LOSS_BATCH_TOKENS = 8192
"""Padded tokens of a batch whose losses are computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingRecipe(TrainingRecipe):
    """Hyperparameters of each training. The learning rate rises linearly over a tenth of the steps, then decays linearly to 0."""

    epochs: float = 3.0
    """Epochs over the subset."""
    weight_decay: float = 0.0
    pretrained: bool = False
    """Start from the model's weights instead of random ones."""


class _Examples(torch.utils.data.Dataset[dict[str, list[int]]]):
    """A subset as a torch data set, with labels of -100 for tokens that are no targets."""

    def __init__(self, tokens: TokenSet, rows: Sequence[int]) -> None:
        self._tokens, self._rows = tokens, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, list[int]]:
        ids, is_target = self._tokens.example(self._rows[row])
        return {"input_ids": ids.tolist(), "labels": np.where(is_target, ids, -100).tolist()}


def pad_batch(batch: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A batch padded on the right; padding has attention 0 and label -100."""
    width = max(len(item["input_ids"]) for item in batch)
    fill = {"input_ids": 0, "labels": -100}
    padded_batch = {name: torch.tensor([item[name] + [value] * (width - len(item[name])) for item in batch])
             for name, value in fill.items()}  # fmt: skip
    lengths = torch.tensor([len(item["input_ids"]) for item in batch])
    return {**padded_batch, "attention_mask": (torch.arange(width)[None] < lengths[:, None]).long()}


def train_on_subset(path: str, tokens: TokenSet, rows: Sequence[int], recipe: RetrainingRecipe) -> HfModel:
    """Train the model at `path` on the rows of `tokens`; returns it in evaluation mode.

    Raises:
        SettingsError: accelerate is not installed.
    """
    try:
        import accelerate  # noqa: F401 - Trainer requires it
        from transformers import PrinterCallback, Trainer, TrainingArguments
    except ImportError:
        raise SettingsError("training needs accelerate: pip install 'headwater[truth]'") from None
    seed = recipe.seed
    model = load_trainable(ModelChoice(path, "cpu")) if recipe.pretrained else init_from_config(path, seed)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = TrainingArguments(
            output_dir=scratch, num_train_epochs=recipe.epochs, per_device_train_batch_size=recipe.batch,
            learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay, lr_scheduler_type="linear",
            warmup_steps=0.1, seed=seed, data_seed=seed, save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, use_cpu=True, dataloader_num_workers=0, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=_Examples(tokens, rows), data_collator=pad_batch)
        trainer.remove_callback(PrinterCallback)  # stdout is for results
        trainer.train()
    return model.eval()


def query_losses(model: HfModel, tokens: TokenSet) -> Array:
    """(N,) float64: mean negative log-likelihood of each example's target tokens, in nats."""
    means = np.zeros(len(tokens))
    examples, order = _Examples(tokens, range(len(tokens))), np.argsort(np.diff(tokens.ends, prepend=0), kind="stable")
    for rows in _batches(tokens, order):
        batch = pad_batch([examples[row] for row in rows])
        with torch.inference_mode():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
        labels = batch["labels"][:, 1:]
        token_losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=-100, reduction="none"
        )
        means[rows] = (token_losses.sum(1) / (labels >= 0).sum(1).clamp(min=1)).double().numpy()
    return means


def _batches(tokens: TokenSet, order: Array) -> list[Array]:
    """Batches of rows of at most `LOSS_BATCH_TOKENS` padded tokens, in the order of their lengths."""
    lengths = np.diff(tokens.ends, prepend=0)
    batches: list[list[int]] = [[]]
    for row in order:
        if batches[-1] and (len(batches[-1]) + 1) * lengths[row] > LOSS_BATCH_TOKENS:
            batches.append([])
        batches[-1].append(int(row))
    return [np.array(rows) for rows in batches]
