"""Windows: ranges of a batch's target positions, each summed separately. Knows no method; imports torch only when called."""

from __future__ import annotations

from dataclasses import dataclass

from .model_view import BatchOutputs


@dataclass(frozen=True, slots=True)
class Windows:
    """W ranges of target positions, in the examples' order. Each lies within one example; they may overlap."""

    examples: int
    """n, examples of the batch."""
    example_ids: tuple[int, ...]
    """(W,) ascending: the example in the batch that a window belongs to. Each of the n examples has a window."""
    bounds: tuple[tuple[int, int], ...]
    """(W,) start and stop of each window among the batch's target positions."""

    @property
    def counts(self) -> list[int]:
        """(W,) target positions of each window."""
        return [stop - start for start, stop in self.bounds]


def example_bounds(outputs: BatchOutputs) -> list[tuple[int, int]]:
    """(n,) start and stop of each example among the batch's target positions."""
    import torch

    ends = torch.cumsum(torch.bincount(outputs.example_ids, minlength=outputs.examples), 0).tolist()
    return list(zip([0, *ends], ends, strict=False))


def whole_examples(outputs: BatchOutputs) -> Windows:
    """Each example as one window."""
    return Windows(outputs.examples, tuple(range(outputs.examples)), tuple(example_bounds(outputs)))
