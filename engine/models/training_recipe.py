"""The hyperparameters that all trainings share: batch, learning rate, seed. Knows no model and no loss.

How long a training runs is not shared: some count steps, some epochs. Each kind of training extends it by what it needs besides.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """Hyperparameters of a training by Adam."""

    batch: int = 16
    """Examples of an optimizer step."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    seed: int = 0
    """Seed of the initial parameters and of the order of examples."""
