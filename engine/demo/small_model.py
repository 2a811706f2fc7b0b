"""The demo's language model: a byte-level BPE and a small Llama, trained from scratch.

Knows no corpus but the texts it is given, no store, no method.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..models.training_recipe import TrainingRecipe
from ..models.transformers_types import HfModel, HfTokenizer
from ..runtime.output_files import whole_file

END = "<|end|>"
"""The only special token, placed before every text."""
CONTEXT = 512
"""Context length of the model; longer than its training sequences, so that any question of 512 bytes fits."""
SHARES = 2
"""Parts of a batch that are processed in parallel; constant, so that the weights do not depend on the number of cores."""
OnTrainingStep = Callable[[int, float], None]
"""Called with the number of steps done and the running mean of the loss, in nats per token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoModelRecipe(TrainingRecipe):
    """Model size and training hyperparameters; an example of a batch is a packed sequence."""

    vocabulary: int = 2048
    """Maximal vocabulary size of the BPE."""
    width: int = 128
    """Width of the hidden state."""
    layers: int = 4
    """Transformer blocks."""
    heads: int = 4
    """Attention heads per block."""
    inner: int = 384
    """Width of the feed-forward layer."""
    length: int = 128
    """Tokens per packed sequence."""
    steps: int = 500
    """Optimizer steps."""
    warmup: int = 30
    """Steps of linear learning-rate warm-up; then cosine decay to a tenth of the peak."""
    learning_rate: float = 4e-3


SHORT = DemoModelRecipe(vocabulary=1024, width=96, layers=3, inner=256, batch=8, steps=120, warmup=10)
"""A model for a smoke test."""


def build(texts: Sequence[str], folder: Path, recipe: DemoModelRecipe, on_step: OnTrainingStep) -> int:
    """Train a tokenizer and a model and save them to `folder`, atomically; returns the number of parameters.

    The weights are the same for the same texts, recipe, torch version and kind of processor.
    """
    import transformers

    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    model = new_model(len(tokenizer), recipe)
    train(model, packed(texts, tokenizer, recipe), recipe, on_step)
    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()  # it would write a bar to stderr for a file of 5 MB
    with whole_file(folder) as hidden:
        model.save_pretrained(hidden)
        tokenizer.save_pretrained(hidden)
        (hidden / "recipe.json").write_text(json.dumps(asdict(recipe)) + "\n")
    return sum(weights.numel() for weights in model.parameters())


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> HfTokenizer:
    """A byte-level BPE that puts `END` before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, bpe.token_to_id(END))])
    wrapper: Any = PreTrainedTokenizerFast
    return wrapper(tokenizer_object=bpe, bos_token=END, eos_token=END, model_max_length=CONTEXT)


def new_model(vocabulary: int, recipe: DemoModelRecipe) -> HfModel:
    """Build a Llama with random weights and an untied head, whose gradient head-based methods use."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=recipe.width, intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads,
        max_position_embeddings=CONTEXT, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def packed(texts: Sequence[str], tokenizer: HfTokenizer, recipe: DemoModelRecipe) -> Iterator[torch.Tensor]:
    """An endless stream of batches (batch, length + 1): texts in a new order each epoch, joined and cut to length."""
    encoded = [torch.tensor(encoding.ids) for encoding in tokenizer.backend_tokenizer.encode_batch(list(texts))]
    generator = torch.Generator().manual_seed(recipe.seed)
    size = recipe.batch * recipe.length
    stream = torch.zeros(0, dtype=torch.int64)
    while True:
        order = torch.randperm(len(encoded), generator=generator).tolist()
        stream = torch.cat([stream, *(encoded[i] for i in order)])
        while len(stream) > size:
            rows = stream[: size + 1].unfold(0, recipe.length + 1, recipe.length)  # neighbours share a token
            yield rows
            stream = stream[size:]


def train(model: HfModel, batches: Iterator[torch.Tensor], recipe: DemoModelRecipe, on_step: OnTrainingStep) -> None:
    """AdamW with warm-up and cosine, gradients clipped to unit norm.

    Each batch is divided among SHARES threads of one core each, which synchronise once per step. torch's own threads synchronise
    at each of a step's thousand small operations, which takes three to eight times as long on cores that others use too.
    """
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, recipe))
    model.train()
    mean = 0.0
    with single_threaded_pool() as pool:
        for step in range(1, recipe.steps + 1):
            parts = list(pool.map(lambda rows: _gradients(model, weights, rows), next(batches).chunk(SHARES)))
            for index, weight in enumerate(weights):
                weight.grad = torch.stack([gradients[index] for _, gradients in parts]).mean(0)
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            loss = sum(loss for loss, _ in parts) / len(parts)
            mean = loss if step == 1 else 0.9 * mean + 0.1 * loss
            on_step(step, mean)
    model.eval()


@contextmanager
def single_threaded_pool() -> Iterator[ThreadPoolExecutor]:
    """Thread pool in which torch uses one thread per worker; restores the number of torch threads afterwards."""
    previous_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(SHARES, initializer=lambda: torch.set_num_threads(1)) as pool:
            yield pool
    finally:
        torch.set_num_threads(previous_threads)


def _gradients(
    model: HfModel, weights: list[torch.nn.Parameter], rows: torch.Tensor
) -> tuple[float, Sequence[torch.Tensor]]:
    """(sequences, length + 1) → mean loss and its gradients."""
    hidden = model.base_model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state  # (sequences, length, width)
    logits = model.get_output_embeddings()(hidden).flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten())
    return loss.item(), torch.autograd.grad(loss, weights)


def _learning_rate_factor(step: int, recipe: DemoModelRecipe) -> float:
    """Learning rate of a step as a fraction of the peak."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))
