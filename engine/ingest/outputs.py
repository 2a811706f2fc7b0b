"""The one loop that runs a model over examples: makes batches, computes outputs, and reports non-finite values by example.
Ingestion, queries, fits and tasks use it. Knows no method and no store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from ...store.errors import DataError
from ..interface.model_view import OutputSpec
from ..models.batch_outputs import NonFiniteLogits, PackedOutputs
from .examples import Example, batches
from .provider import Provider

BATCH_TOKENS = 4096
"""Largest number of tokens of a batch, padding included, unless one example is longer."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batching:
    """How examples are batched, and which outputs are checked."""

    tokens: int = BATCH_TOKENS
    """Largest number of tokens of a batch, padding included."""
    noun: str = "example"
    """Name of an example in errors: `example` or `query`."""
    logits: bool = True
    """Whether the head is applied and its logits are checked; otherwise only the hidden states are checked."""


def batching_for(
    examples: Sequence[Example], tokens: int = BATCH_TOKENS, *, noun: str, logits: bool = True
) -> Batching:
    """Batches of at most `tokens` tokens, padding included, or of as many as the longest example has, if it has more."""
    return Batching(max([tokens, *(example.length for example in examples)]), noun, logits)


def outputs(
    provider: Provider,
    examples: Sequence[Example],
    spec: OutputSpec,
    compute: Callable[[PackedOutputs], T],
    batching: Batching,
) -> Iterator[tuple[list[int], T]]:
    """Run the model over examples, longest first; yields for each batch (indices into `examples`, result of `compute`).

    `compute` is called in inference mode, and the outputs of one batch are freed before the next. (An iterator over outputs would
    keep a batch in memory while the next one is read, and would leave the caller's thread in inference mode.)

    Raises:
        DataError: NaN or Inf in the logits of an example (without logits: in its last hidden states); the example is named.
    """
    for batch in batches(list(examples), batching.tokens):
        yield batch, _compute_batch(provider, [examples[i] for i in batch], spec, compute, batching)


def _compute_batch(
    provider: Provider,
    batch: list[Example],
    spec: OutputSpec,
    compute: Callable[[PackedOutputs], T],
    batching: Batching,
) -> T:
    """The result of `compute` for one batch."""
    with torch.inference_mode():
        batch_outputs = provider.read(batch, spec)
        if batching.logits:
            try:
                batch_outputs.losses()
            except NonFiniteLogits as error:
                raise DataError(f"NaN or Inf in the logits of {batching.noun} {named(batch[error.example])}") from None
        else:
            _require_finite_states(batch_outputs, batch, batching.noun)
        return compute(batch_outputs)


def _require_finite_states(batch_outputs: PackedOutputs, batch: list[Example], noun: str) -> None:
    finite = torch.isfinite(batch_outputs.hidden().float().sum(1))
    if not finite.all():
        example = batch[int(batch_outputs.example_ids[int(finite.int().argmin())])]
        raise DataError(f"a hidden state of {noun} {named(example)} is not finite")


def named(example: Example) -> str:
    """An example's id with its file and line; the id alone if it consists of these."""
    place = f"{example.source}:{example.line}"
    return example.id if example.id == place or not example.source else f"{example.id} ({place})"
