"""The loop that runs a model over examples: batches, names of what is not finite, inference mode inside and not outside."""

from pathlib import Path

import numpy as np
import pytest
import torch
from headwater.engine.data.documents import RecordErrors
from headwater.engine.ingest.array_provider import ArrayProvider
from headwater.engine.ingest.examples import Example, Place
from headwater.engine.ingest.outputs import Batching, outputs
from headwater.engine.interface.model_view import OutputSpec
from headwater.engine.models.batch_outputs import PackedOutputs, merge_specs
from headwater.store.errors import DataError

SPEC = merge_specs([OutputSpec()])


def arrays(folder: Path, bad_row: int = -1) -> tuple[ArrayProvider, list[Example]]:
    """Seven examples of three positions over five classes; one row of hidden states may be NaN."""
    random = np.random.default_rng(0)
    hidden = random.standard_normal((7, 3, 4)).astype(np.float32)
    if bad_row >= 0:
        hidden[bad_row, 1] = np.nan
    np.savez(
        folder / "rows.npz", hidden=hidden, labels=random.integers(0, 5, (7, 3)), weight=random.standard_normal((5, 4))
    )
    provider = ArrayProvider([str(folder / "rows.npz")], torch.device("cpu"), RecordErrors("fail"))
    return provider, list(provider.examples(Place()))


@pytest.mark.parametrize("tokens", [3, 6, 100])
def test_every_example_is_computed_once_whatever_the_batch(tmp_path: Path, tokens: int) -> None:
    provider, examples = arrays(tmp_path)
    losses = np.zeros(len(examples))
    for batch, values in outputs(provider, examples, SPEC, lambda read: read.losses().numpy(), Batching(tokens)):
        assert len(batch) <= max(1, tokens // 3) and (losses[batch] == 0).all()
        losses[batch] = values
    head = provider.head.weight.numpy().astype(np.float64)
    for example, loss in zip(examples, losses, strict=True):
        logits = example.payload[0].astype(np.float64) @ head.T
        own = np.log(np.exp(logits).sum(1)) - logits[np.arange(3), example.payload[1]]
        assert loss == pytest.approx(own.mean(), rel=1e-5)


@pytest.mark.parametrize(("logits", "what"), [(True, "NaN or Inf in the logits of"), (False, "a hidden state of")])
@pytest.mark.parametrize("noun", ["example", "query"])
def test_a_number_that_is_not_finite_is_named_by_its_example(
    tmp_path: Path, noun: str, logits: bool, what: str
) -> None:
    provider, examples = arrays(tmp_path, bad_row=5)
    with pytest.raises(DataError, match=rf"{what} {noun} rows\.npz:5"):
        list(outputs(provider, examples, SPEC, lambda read: read.counts, Batching(6, noun, logits)))


def test_inference_mode_is_on_inside_and_off_outside_even_when_the_loop_is_left(tmp_path: Path) -> None:
    provider, examples = arrays(tmp_path)

    def inside(read: PackedOutputs) -> bool:
        return torch.is_inference_mode_enabled()

    loop = outputs(provider, examples, SPEC, inside, Batching(3))
    assert next(loop)[1] is True and not torch.is_inference_mode_enabled()


def test_outputs_of_one_batch_are_gone_before_the_next_is_read(tmp_path: Path) -> None:
    import weakref

    provider, examples = arrays(tmp_path)
    alive: list[weakref.ref[PackedOutputs]] = []

    def remember(read: PackedOutputs) -> int:
        assert all(earlier() is None for earlier in alive)
        alive.append(weakref.ref(read))
        return read.examples

    assert sum(count for _, count in outputs(provider, examples, SPEC, remember, Batching(3))) == 7 == len(alive)
