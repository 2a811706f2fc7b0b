"""`evaluate brittleness`: how each query's loss rises when its top examples are removed before training.

The counterfactual test of attribution (Ilyas et al. 2022, section 3; Park et al. 2023, section 4): if these examples caused
the output, the loss rises without them. It is compared with removals of as many other examples. Knows no store, no method.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ...store.errors import DataError
from ...store.json_values import ParsedJson
from ...store.layout import Array
from .metrics import Estimate, bootstrap


@dataclass(frozen=True, slots=True)
class Removal:
    """The effect of removing examples on the losses of queries."""

    rise: Estimate
    """Loss of a query without its best examples minus its mean loss after the other removals, in nats; mean over queries. Only
    queries are resampled, because all are compared with the same trainings."""
    beyond: Estimate
    """Fraction of the other removals that have a smaller effect than the query's own; 0.5 is chance."""
    rises: Array
    """(Q,) rise of each query."""
    by_chance: Array
    """(C · Q,) rises by each of the C other removals, relative to the mean of the rest of them."""
    queries: int
    seeds: int
    """Number of trainings of each removal, whose losses are averaged."""

    def facts(self) -> ParsedJson:
        """The figures as JSON values."""
        return {
            "measure": "brittleness", "rise": asdict(self.rise), "beyond": asdict(self.beyond), "each": self.rises.tolist(),
            "queries": self.queries, "seeds": self.seeds,
        }  # fmt: skip


def removal_masks(scores: Array, top: int, seed: int = 0) -> Array:
    """(2Q, N) bool subsets: for each query all examples but its `top` best; then Q subsets without `top` random examples.

    scores (Q, N); ties are broken by the lower row number.

    Raises:
        DataError: `top` is not between 1 and N - 1, or there are fewer than two queries.
    """
    queries, examples = scores.shape
    if queries < 2:
        raise DataError(f"got {queries} query; removals are compared between queries", hint="give two or more")
    if not 0 < top < examples:
        raise DataError(f"{top} of {examples} examples cannot be removed", hint=f"give --top from 1 to {examples - 1}")
    generator, masks = np.random.default_rng(seed), np.ones((2 * queries, examples), bool)
    scores = scores.astype(np.float64)
    for query in range(queries):
        masks[query, np.argsort(-scores[query], kind="stable")[:top]] = False
        masks[queries + query, generator.choice(examples, top, replace=False)] = False
    return masks


def brittleness(outcomes: Array) -> Removal:
    """Effect of removals. outcomes (seeds, 2Q, Q) or (2Q, Q): losses of queries after training on :func:`removal_masks`' subsets.

    Raises:
        DataError: the shape differs, or there are fewer than two queries.
    """
    by_seed = outcomes[None] if outcomes.ndim == 2 else outcomes
    if by_seed.ndim != 3 or by_seed.shape[1] != 2 * by_seed.shape[2] or by_seed.shape[2] < 2:
        raise DataError(
            f"outcomes are {outcomes.shape}; those of removals are (seeds, 2 Q, Q), for two queries at least"
        )
    losses, queries = by_seed.mean(0), by_seed.shape[2]
    own_losses, other_losses = np.diagonal(losses[:queries]), losses[queries:]  # (Q,), (C, Q)
    rises = own_losses - other_losses.mean(0)
    beyond = ((other_losses < own_losses).mean(0) + (other_losses <= own_losses).mean(0)) / 2
    rest_mean = (other_losses.sum(0) - other_losses) / (queries - 1)
    return Removal(
        bootstrap(rises), bootstrap(beyond), rises, (other_losses - rest_mean).ravel(), queries, len(by_seed)
    )
