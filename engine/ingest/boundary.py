"""Measures which token boundary a model was trained with: prompts and completions joined before they are tokenised, or apart.

The first examples whose tokens differ are read both ways. The reading with the lower loss is the one that the model knows. Knows
texts and a model; no store and no method.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ...store.layout import Array
from ..data.documents import RecordErrors
from ..interface.model_view import OutputSpec
from ..sketches.residual import Loss
from .examples import Example, Place
from .outputs import BATCH_TOKENS, batching_for, outputs
from .text_provider import TextProvider
from .text_settings import Boundary

READ = 512
"""Examples that are tokenised both ways."""
COMPARED = 64
"""Examples whose losses are compared, of those with different tokens."""
_CLEARLY = 2.0  # standard errors by which the mean loss differs


@dataclass(frozen=True, slots=True)
class BoundaryLosses:
    """Losses of both readings, over the same examples."""

    joined: float
    """Mean loss per target token, in nats, of prompt and completion tokenised as one text."""
    apart: float
    """Mean loss per target token, in nats, of both tokenised on their own."""
    examples: int
    """Number of compared examples; 0: no tokens differ."""
    clear: bool
    """Whether the losses differ by more than two standard errors of the examples' differences, and by 2 %."""

    @property
    def better(self) -> Boundary:
        """The boundary with the clearly lower loss; joined if none is."""
        return "apart" if self.clear and self.apart < self.joined else "joined"


def with_better_boundary(provider: TextProvider, asked: Boundary | None, tokens: int) -> TextProvider:
    """The provider, with the boundary that the model's losses favour unless `asked` names one; where the losses differ clearly, a
    note gives both. `tokens`: most tokens of a batch, padding included.

    Raises:
        CorpusError: a file cannot be read. DataError: a loss is not finite.
    """
    losses = boundary_losses(provider, tokens)
    if not losses.clear:
        return provider
    if asked in (None, "auto") and losses.better != provider.settings.boundary:
        settings = replace(provider.settings, boundary=losses.better)
        provider = TextProvider(provider.model, provider.sources, settings, provider.record_errors)
    provider.notes.append(
        f"prompts and completions are tokenised {provider.settings.boundary}: the first {losses.examples} whose tokens depend "
        f"on this have a mean loss per token of {losses.joined:.3f} joined, {losses.apart:.3f} apart (lower: --boundary "
        f"{losses.better})"
    )
    return provider


def boundary_losses(provider: TextProvider, tokens: int = BATCH_TOKENS) -> BoundaryLosses:
    """Compare both readings of the first examples with a prompt, in batches of at most `tokens` tokens, padding included.

    Raises:
        CorpusError: a file cannot be read. DataError: a loss is not finite.
    """
    joined_reading, apart_reading = _examples(provider, "joined"), _examples(provider, "apart")
    both = [(example, apart_reading[place]) for place, example in joined_reading.items() if place in apart_reading]
    different = [pair for pair in both if pair[0].payload != pair[1].payload]
    pairs = [pair for pair in different if all(example.target_count for example in pair)][:COMPARED]
    if not pairs:
        return BoundaryLosses(0.0, 0.0, 0, clear=False)
    joined, apart = (_summed_losses(provider, [pair[side] for pair in pairs], tokens) for side in (0, 1))
    counts = np.array([[example.target_count for example in pair] for pair in pairs], float)
    difference = joined / counts[:, 0] - apart / counts[:, 1]
    error = float(np.std(difference, ddof=1)) / len(pairs) ** 0.5 if len(pairs) > 1 else float("inf")
    means = float(joined.sum() / counts[:, 0].sum()), float(apart.sum() / counts[:, 1].sum())
    clear = abs(difference.mean()) > max(_CLEARLY * error, 0.02 * max(means))
    return BoundaryLosses(*means, len(pairs), bool(clear))


def _examples(provider: TextProvider, boundary: Boundary) -> dict[Place, Example]:
    """The first examples with a prompt, read with a boundary, by their places. Bad records are left out: the ingestion reports
    them.
    """
    settings = replace(provider.settings, boundary=boundary, truncate=True)
    reading = TextProvider(provider.model, provider.sources, settings, RecordErrors("skip"))
    return {example.place: example for example in islice(reading.examples(Place()), READ) if example.prompt}


def _summed_losses(provider: TextProvider, examples: list[Example], tokens: int) -> Array:
    """(n,) float64: the sum of each example's losses, in nats."""
    losses = np.zeros(len(examples))
    batching = batching_for(examples, tokens, noun="example")
    for batch, values in outputs(
        provider, examples, OutputSpec(reductions=(Loss(),)), lambda batch: batch.losses().cpu().numpy(), batching
    ):
        losses[batch] = values
    sums: Array = losses * np.array([example.target_count for example in examples])
    return sums
