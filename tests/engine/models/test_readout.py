"""Outputs of a batch: an example's row does not depend on its batch, padding, tiles of logits or other reductions."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from headwater.engine.data.documents import RecordErrors, Template
from headwater.engine.data.sources import find_sources
from headwater.engine.ingest.examples import Example, Place
from headwater.engine.ingest.text_provider import TextProvider
from headwater.engine.ingest.text_settings import TextSettings
from headwater.engine.interface.model_view import ModelShape, OutputSpec
from headwater.engine.models import batch_outputs as readout_module
from headwater.engine.models.batch_outputs import (
    FurtherOutputs,
    LinearHead,
    NonFiniteLogits,
    PackedOutputs,
    TargetPositions,
    merge_specs,
)
from headwater.engine.models.language_model import ModelChoice, load
from headwater.engine.sketches.residual import Loss, SparseResidual
from headwater.plugins.rise import Rise

pytestmark = pytest.mark.usefixtures("one_thread")
TOP = SparseResidual(1.0, 16, 0.9, 4)


@pytest.fixture(scope="module", params=["Llama", "GPTNeoX"])
def provider(request: Any, model_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> TextProvider:
    """A model with 70 texts of 1 to 60 characters, every third with a prompt."""
    rng = np.random.default_rng(0)
    lines = []
    for row in range(70):
        text = "".join(rng.choice(list("the river, sea 漢"), rng.integers(1, 40))) + "."
        lines.append({"prompt": "one two" * (row % 2), "completion": text} if row % 3 == 0 else {"text": text})
    path = tmp_path_factory.mktemp("corpus") / "c.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = load(ModelChoice(str(model_folder(request.param)), device="cpu"))
    settings = TextSettings(Template(), max_length=64, attribute="completion").resolved(model.head.model_shape)
    return TextProvider(model, find_sources([str(path)]), settings, RecordErrors("fail"))


def everything(provider: TextProvider, batch: list[Example]) -> list[tuple[torch.Tensor, ...]]:
    """Each example's hidden states of two layers, losses and RISE row, when read as one batch."""
    rise = Rise(tau=1.0, kr=16, kh=16, kg=8)
    read = provider.read(batch, merge_specs([rise.needs(provider.head.model_shape), OutputSpec(layers=(1,))]))
    rows = rise.rows(read, rise.precompute(provider.head, {}))["signature"]
    parts = [torch.split(read.hidden(layer), read.counts) for layer in (-1, 1)]
    return list(zip(*parts, read.losses(), rows, strict=True))


def test_rows_do_not_depend_on_their_batch(provider):
    examples = list(provider.examples(Place()))
    alone = [everything(provider, [example])[0] for example in examples]
    assert len(alone) == 70
    assert all(
        hidden.shape == (example.target_count, 32) for (hidden, *_), example in zip(alone, examples, strict=True)
    )
    order = np.random.default_rng(1).permutation(70)
    for size in (2, 3, 7, 64):
        for first in range(0, 70, size):
            batch = order[first : first + size]
            for at, found in zip(batch, everything(provider, [examples[i] for i in batch]), strict=True):
                for one, other in zip(found, alone[at], strict=True):
                    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_layers_are_those_of_the_model(provider):
    example = max(provider.examples(Place()), key=lambda e: e.target_count if not e.prompt else 0)
    tokens, first, _ = example.payload
    read = provider.read([example], OutputSpec(layers=(0, 1)))
    with torch.inference_mode():
        out = provider.model.trunk(input_ids=torch.tensor([tokens]), output_hidden_states=True)
    for layer in (0, 1):
        torch.testing.assert_close(read.hidden(layer), out.hidden_states[layer][0, first - 1 : -1])
    torch.testing.assert_close(read.hidden(), out.last_hidden_state[0, first - 1 : -1])
    assert read.targets.tolist() == tokens[first:]


def test_layers_not_asked_for_are_not_kept(provider):
    read = provider.read([next(provider.examples(Place()))], OutputSpec())
    with pytest.raises(KeyError):
        read.hidden(1)


def random_readout(reductions: tuple[Any, ...], lengths: list[int], **more: Any) -> PackedOutputs:
    """A batch over 50 tokens, without a model; `hurt` maps position to a non-finite number put into its hidden state."""
    generator = torch.Generator().manual_seed(0)
    positions = sum(lengths)
    hidden = torch.randn(positions, 8, generator=generator)
    for position, value in more.get("hurt", {}).items():
        hidden[position, 3] = value
    head = LinearHead(ModelShape(8, 50, 1, 64), torch.randn(50, 8, generator=generator))
    example_ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    targets = torch.randint(50, (positions,), generator=generator)
    needs = merge_specs([OutputSpec(reductions=reductions)])
    where = TargetPositions(example_ids, targets, lengths)
    return PackedOutputs(head, {-1: hidden}, where, needs, FurtherOutputs(more.get("logits")))


@pytest.mark.parametrize("rows", [16, 17, 100, 1000])
@pytest.mark.parametrize("lengths", [[100], [0], [3, 0, 90, 1], [16, 16]])
def test_tiles_change_nothing(rows, lengths, monkeypatch):
    whole = random_readout((TOP,), lengths)
    index, value = whole.reduced(TOP)
    monkeypatch.setattr(readout_module, "TILE_BYTES", rows * 4 * 50)
    tiled = random_readout((TOP,), lengths)
    assert tiled.head.tile_rows() == rows
    assert torch.equal(tiled.reduced(TOP)[0], index)
    torch.testing.assert_close(tiled.reduced(TOP)[1], value)
    torch.testing.assert_close(tiled.losses(), whole.losses())
    assert len(index) == sum(lengths) and whole.losses().shape == (len(lengths),)
    assert (whole.losses()[torch.tensor(lengths) == 0] == 0).all()


@dataclass(frozen=True)
class Counting:
    """A reduction that returns the number of positions it was given; its result is wider in each tile."""

    name: str
    seen: Any

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The row number, repeated."""
        self.seen.append(len(logits))
        width = 1 + len(self.seen)
        return (targets[:, None, None].expand(-1, width, 2).clone(), targets)

    def __hash__(self) -> int:
        """Compares by name, like a frozen dataclass of plain values."""
        return hash(self.name)


@dataclass(frozen=True)
class FirstLogits:
    """A reduction that returns views of its inputs."""

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Three logits and the targets."""
        return (logits[:, :3], targets)


@pytest.mark.parametrize("bias", [False, True])
def test_a_view_of_a_tile_outlives_the_tile(bias, monkeypatch):
    monkeypatch.setattr(readout_module, "TILE_BYTES", 16 * 4 * 50)
    read = random_readout((FirstLogits(),), [40, 10])
    if bias:
        read.head = replace(read.head, bias=torch.arange(50.0))
    first, targets = read.reduced(FirstLogits())
    torch.testing.assert_close(first, read.head.logits(read.hidden())[:, :3])
    assert torch.equal(targets, read.targets)


def test_each_reduction_is_computed_once_a_batch(monkeypatch):
    seen: list[int] = []
    first, second = Counting("a", seen), Counting("a", seen)
    merged = merge_specs([OutputSpec((2, 1), (first, Loss())), OutputSpec((1,), (second, TOP)), OutputSpec()])
    assert merged == OutputSpec((2, 1), (Loss(), first, TOP))
    monkeypatch.setattr(readout_module, "TILE_BYTES", 40 * 4 * 50)
    read = random_readout((first, second, TOP), [50, 50])
    for _ in range(2):
        wide, plain = read.reduced(second)
        read.losses()
    assert seen == [40, 40, 20]
    assert torch.equal(plain, read.targets)
    assert wide.shape == (100, 4, 2)  # the widest tile's; zeros on the right of narrower ones
    assert torch.equal(wide[:, 0, 0], read.targets)
    assert not wide[:40, 2:].any() and wide[80:, 3].sum() == 2 * read.targets[80:].sum()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("position", "example"), [(0, 0), (2, 0), (3, 2), (40, 2), (43, 3)])
def test_nan_and_inf_name_their_example(value, position, example, monkeypatch):
    monkeypatch.setattr(readout_module, "TILE_BYTES", 1)
    read = random_readout((), [3, 0, 40, 1], hurt={position: value})
    with pytest.raises(NonFiniteLogits, match=f"NaN or Inf in the logits of example {example} of the batch") as caught:
        read.losses()
    assert caught.value.example == example


def test_the_first_of_several_bad_examples_is_named():
    with pytest.raises(NonFiniteLogits, match="example 1 "):
        random_readout((), [3, 3, 3], hurt={8: float("nan"), 4: float("inf")}).losses()


def test_large_finite_logits_are_no_fault():
    logits = torch.zeros(2, 50)
    logits[0, :4] = -3e38
    assert torch.isfinite(random_readout((), [1, 1], logits=logits).losses()).all()


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("softcap", [0.0, 3.0])
def test_the_head_is_its_formula(scale, softcap):
    rng = np.random.default_rng(0)
    weight, bias, h = rng.standard_normal((9, 4)), rng.standard_normal(9), rng.standard_normal((5, 4))
    z = scale * (h @ weight.T + bias)
    wanted = softcap * np.tanh(z / softcap) if softcap else z
    parts = (torch.from_numpy(x.astype(np.float32)) for x in (weight, bias))
    head = LinearHead(ModelShape(4, 9, 1, 8), *parts, scale, softcap)
    hidden = torch.from_numpy(h.astype(np.float32))
    for _ in range(2):  # in place, but not on what it was given
        np.testing.assert_allclose(head.logits(hidden).numpy(), wanted, rtol=1e-5, atol=1e-5)
