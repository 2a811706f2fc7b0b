"""The one loop that runs a model over examples: batches, outputs, non-finite values reported by example. Ingestion, queries,
fits and tasks all read through it. Knows no method and no store.
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
"""Padded tokens of a batch, unless an example is longer."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batching:
    """How examples are put into batches, and what is looked at in each."""

    tokens: int = BATCH_TOKENS
    """Padded tokens of a batch."""
    noun: str = "example"
    """What errors call an example: `example` or `query`."""
    logits: bool = True
    """Whether the head is applied and its logits are checked; without it hidden states are read alone, and checked."""


def batching_for(
    examples: Sequence[Example], tokens: int = BATCH_TOKENS, *, noun: str, logits: bool = True
) -> Batching:
    """Batches of `tokens`, or as wide as the longest of these examples."""
    return Batching(max([tokens, *(example.length for example in examples)]), noun, logits)


def outputs(
    provider: Provider,
    examples: Sequence[Example],
    spec: OutputSpec,
    compute: Callable[[PackedOutputs], T],
    batching: Batching,
) -> Iterator[tuple[list[int], T]]:
    """Run the model over examples, longest first: (indices into `examples`, what `compute` makes of the batch's outputs).

    `compute` is called inside inference mode, and no two batches' outputs are in memory at once: an iterator that handed
    outputs out would keep the last batch alive while the next one is read, and the caller's thread in inference mode.

    Raises:
        DataError: NaN or Inf in the logits of an example (without logits: in its last hidden states); the example is named.
    """
    for batch in batches(list(examples), batching.tokens):
        yield batch, _computed(provider, [examples[i] for i in batch], spec, compute, batching)


def _computed(
    provider: Provider,
    batch: list[Example],
    spec: OutputSpec,
    compute: Callable[[PackedOutputs], T],
    batching: Batching,
) -> T:
    """What `compute` makes of one batch."""
    with torch.inference_mode():
        read = provider.read(batch, spec)
        if batching.logits:
            try:
                read.losses()
            except NonFiniteLogits as error:
                raise DataError(f"NaN or Inf in the logits of {batching.noun} {named(batch[error.example])}") from None
        else:
            _refuse_nonfinite(read, batch, batching.noun)
        return compute(read)


def _refuse_nonfinite(read: PackedOutputs, batch: list[Example], noun: str) -> None:
    finite = torch.isfinite(read.hidden().float().sum(1))
    if not finite.all():
        example = batch[int(read.example_ids[int(finite.int().argmin())])]
        raise DataError(f"a hidden state of {noun} {named(example)} is not finite")


def named(example: Example) -> str:
    """An example's id with its place in the corpus, once where they are the same."""
    place = f"{example.source}:{example.line}"
    return example.id if example.id == place or not example.source else f"{example.id} ({place})"
