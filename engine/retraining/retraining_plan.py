"""The memory of `ground-truth`: of the process that reads the corpus, and of each training process. Knows no file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays.scan.stored_rows import first_plan_within_budget
from ..models.language_model import LanguageModel
from ..runtime.memory import Part, Plan
from .token_sets import TokenSet
from .training_loop import LOSS_BATCH_TOKENS

_WEIGHT_COPIES = 7  # weights, gradients, two moments of Adam, and what a step of Adam computes
_LAYER_COPIES = 3  # of a layer's widest tensors, which the backward pass needs
_LOGIT_COPIES = 6  # logits as the model gives them and in float32, shifted, their log-softmax and gradients


@dataclass(frozen=True, slots=True)
class Retraining:
    """What is trained, as far as its memory depends on it."""

    model: LanguageModel
    examples: TokenSet
    queries: TokenSet
    subsets: int
    batch: int
    """Examples per step."""

    def planned(self, processes: int, budget: int | None) -> tuple[Plan, int]:
        """The memory plan, and the number of training processes: `processes`, or as many as the budget allows.

        Raises:
            BudgetError: not even one process fits.
        """
        counts = range(max(1, processes), 0, -1)
        plans = ((Plan.of(*(Part(p.name, count * p.bytes) for p in self.training().parts)), count) for count in counts)
        return first_plan_within_budget(plans, self._reading(), budget)

    def training(self) -> Plan:
        """The memory of one training process."""
        sizes, layers = self.model.memory, self.model.head.model_shape.layers
        vocabulary = self.model.head.model_shape.vocabulary
        longest = max(_longest(self.examples), _longest(self.queries))
        trained, measured = self.batch * longest, max(LOSS_BATCH_TOKENS, _longest(self.queries))
        backward = _LAYER_COPIES * max(1, layers) * sizes["activations"] * trained
        logits = 4 * vocabulary * _LOGIT_COPIES
        return Plan.of(
            Part("weights and optimizer", _WEIGHT_COPIES * sizes["weights"]),
            Part("activations", max(backward, _LAYER_COPIES * sizes["activations"] * measured)),
            Part("logits", logits * max(trained, measured)),
            Part("tokens", 3 * (self.examples.nbytes + self.queries.nbytes)),
            Part("rows of a subset", 50 * len(self.examples)),
        )

    def _reading(self) -> Plan:
        return Plan.of(
            Part("tokens of the corpus", 3 * (self.examples.nbytes + self.queries.nbytes)),
            Part("masks", 3 * self.subsets * len(self.examples)),
            Part("weights for reading", self.model.memory["weights"]),
        )


def _longest(tokens: TokenSet) -> int:
    return int(np.diff(tokens.ends, prepend=0).max(initial=0))
