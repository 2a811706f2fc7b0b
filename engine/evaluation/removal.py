"""`evaluate brittleness`: how each query's loss rises when its top examples are removed before training.

The counterfactual test of attribution (Ilyas et al. 2022, section 3; Park et al. 2023, section 4): if these examples did it,
without them it does not happen, or less. What taking away as many others does stands beside it. Knows no store and no method.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ...store.errors import DataError
from ...store.files import JsonObject
from ...store.layout import Array
from .metrics import Estimate, bootstrap


@dataclass(frozen=True, slots=True)
class Removal:
    """What taking examples away did."""

    rise: Estimate
    """Of a query's loss without its best examples, over its loss without others, in nats; mean over queries, which alone are
    resampled: all of them are compared with the same trainings."""
    beyond: Estimate
    """Share of the other removals that its own removal exceeds; 0.5 is chance."""
    rises: Array
    """(Q,) of every query."""
    by_chance: Array
    """(C · Q,) rises by each of the C removals of others, over the rest of them."""
    queries: int
    seeds: int
    """Trainings of each removal, averaged."""

    def facts(self) -> JsonObject:
        """JSON values."""
        return {
            "measure": "brittleness", "rise": asdict(self.rise), "beyond": asdict(self.beyond), "each": self.rises.tolist(),
            "queries": self.queries, "seeds": self.seeds,
        }  # fmt: skip


def removals(scores: Array, top: int, seed: int = 0) -> Array:
    """(2Q, N) boolean subsets: for each query all examples but its `top` best, then as many times all but others by chance.

    scores (Q, N); of equal scores the lower row is taken away first.

    Raises:
        DataError: fewer examples than are to be taken away, and one more; or fewer than two queries.
    """
    queries, examples = scores.shape
    if queries < 2:
        raise DataError("one query's removals have nothing to be compared with: two queries at least")
    if not 0 < top < examples:
        raise DataError(f"{top} of {examples} examples cannot be taken away: from 1 to {examples - 1}")
    chance, masks = np.random.default_rng(seed), np.ones((2 * queries, examples), bool)
    scores = scores.astype(np.float64)
    for query in range(queries):
        masks[query, np.argsort(-scores[query], kind="stable")[:top]] = False
        masks[queries + query, chance.choice(examples, top, replace=False)] = False
    return masks


def brittleness(outcomes: Array) -> Removal:
    """outcomes (seeds, 2Q, Q) or (2Q, Q): losses of the queries after training on the subsets of :func:`removals`.

    Raises:
        DataError: another shape, or fewer than two queries.
    """
    by_seed = outcomes[None] if outcomes.ndim == 2 else outcomes
    if by_seed.ndim != 3 or by_seed.shape[1] != 2 * by_seed.shape[2] or by_seed.shape[2] < 2:
        raise DataError(
            f"outcomes are {outcomes.shape}; those of removals are (seeds, 2 Q, Q), for two queries at least"
        )
    losses, queries = by_seed.mean(0), by_seed.shape[2]
    own, others = np.diagonal(losses[:queries]), losses[queries:]  # (Q,), (C, Q)
    rises = own - others.mean(0)
    beyond = ((others < own).mean(0) + (others <= own).mean(0)) / 2
    rest = (others.sum(0) - others) / (queries - 1)
    return Removal(bootstrap(rises), bootstrap(beyond), rises, (others - rest).ravel(), queries, len(by_seed))
