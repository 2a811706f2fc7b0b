"""The hyperparameters that all trainings share: batch, learning rate, seed. Knows no model and no loss.

Each kind of training extends this class by what else it needs, and by its length: some count steps, some epochs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """Hyperparameters of a training by Adam."""

    batch: int = 16
    """Examples per optimizer step."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    seed: int = 0
    """Seed of the initial parameters and of the order of examples."""
