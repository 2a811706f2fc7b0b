"""The head's Fisher matrix: both factors and their eigenbases against float64 by hand, merging, resuming, sampled positions."""

import numpy as np
import pytest
import torch
from headwater.engine.interface.model_view import ModelShape, OutputSpec
from headwater.engine.models.batch_outputs import LinearHead, PackedOutputs, TargetPositions
from headwater.engine.sketches import head_fisher
from headwater.engine.sketches.head_fisher import FisherShape, FisherSums, ProjectedResidual, sampled_positions
from headwater.store.errors import DataError

COUNTS = (5, 1, 0, 8, 3)


def batch(counts=COUNTS, width=6, vocabulary=11, seed=0):
    """A batch of random hidden states, its hidden states and probabilities in float64, and the head's weight."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(vocabulary, width, generator=torch.Generator().manual_seed(99))
    hidden = torch.randn(sum(counts), width, generator=generator)
    targets = torch.randint(vocabulary, (sum(counts),), generator=generator)
    ids = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    head = LinearHead(ModelShape(width, vocabulary, 0, 512), weight)
    outputs = PackedOutputs(head, {-1: hidden}, TargetPositions(ids, targets, counts), OutputSpec())
    logits = hidden.double().numpy() @ weight.double().numpy().T
    p = np.exp(logits - logits.max(1, keepdims=True))
    return outputs, hidden.double().numpy(), p / p.sum(1, keepdims=True), weight.double().numpy()


def factors(hidden, p):
    """A and B, from their definitions."""
    inputs = np.mean([np.outer(h, h) for h in hidden], 0)
    return inputs, np.mean([np.diag(q) - np.outer(q, q) for q in p], 0)


def shape(**sizes):
    return FisherShape(**{"hidden": 6, "vocabulary": 11, "rank": 64, "coordinates": 1024} | sizes)


def fitted(of, *batches):
    sums = FisherSums(of)
    for outputs in batches:
        sums.accumulate(outputs)
    return sums.finish()


def require_eigenbasis(basis, matrix, tolerance=1e-6):
    """The leading eigenvectors of a matrix, with positive largest entries."""
    assert basis.dtype == np.float32
    values = np.linalg.eigvalsh(matrix)[::-1][: basis.shape[1]]
    assert np.abs(matrix @ basis - basis * values).max() < tolerance * max(1, values[0])
    assert np.allclose(basis.T @ basis, np.eye(len(values)), atol=1e-5)
    assert (basis[np.abs(basis).argmax(0), np.arange(len(values))] > 0).all()


def require_factors(state, inputs, residuals, rank=64, tolerance=1e-6):
    """Both bases, and the largest products of eigenvalues where they belong."""
    require_eigenbasis(state["input_basis"], inputs)
    require_eigenbasis(state["output_basis"], residuals, tolerance)
    a, b = (np.linalg.eigvalsh(matrix)[::-1].clip(0) for matrix in (inputs, residuals))
    products = np.outer(b[:rank], a)
    expected = np.sort(products.ravel())[::-1][: len(state["eigenvalues"])]
    assert np.allclose(state["eigenvalues"], expected, atol=tolerance * expected[0])
    assert np.allclose(
        state["eigenvalues"], products[state["output_at"], state["input_at"]], atol=tolerance * expected[0]
    )
    assert len({*zip(state["output_at"], state["input_at"], strict=True)}) == len(state["eigenvalues"])


@pytest.mark.parametrize("sizes", [{}, {"coordinates": 9}, {"rank": 4}, {"rank": 4, "coordinates": 7}], ids=str)
def test_the_eigenbases_are_those_of_both_factors(sizes):
    outputs, hidden, p, _ = batch()
    state = fitted(shape(**sizes), outputs)
    require_factors(state, *factors(hidden, p), sizes.get("rank", 64))
    assert len(state["eigenvalues"]) == shape(**sizes).numbers
    assert state["input_basis"].shape[1] == state["input_at"].max() + 1
    assert state["output_basis"].shape[1] == state["output_at"].max() + 1


def test_of_a_large_vocabulary_residuals_are_read_through_the_head(monkeypatch):
    monkeypatch.setattr(head_fisher, "FULL_VOCABULARY", 10)
    outputs, hidden, p, weight = batch()
    inputs, residuals = factors(hidden, p)
    state = fitted(shape(coordinates=20), outputs)
    require_factors(state, inputs, weight.T @ residuals @ weight, tolerance=1e-5)  # Wᵀp is computed in float32


def test_sums_go_over_blocks_of_a_large_head(monkeypatch):
    monkeypatch.setattr(head_fisher, "FULL_VOCABULARY", 10)
    outputs = batch((40, 3), width=7, vocabulary=300)[0]
    sizes = {"hidden": 7, "vocabulary": 300, "coordinates": 30}
    whole = fitted(shape(**sizes), outputs)
    monkeypatch.setattr(head_fisher, "_TILE_BYTES", 8 * 7 * 13)  # 13 rows of the head
    for name, array in fitted(shape(**sizes), outputs).items():
        assert np.allclose(array, whole[name], atol=1e-5)


def test_a_small_head_is_stored_whole():
    assert FisherShape(512, 2, 512, 1024).is_whole and FisherShape(512, 2, 512, 1024).numbers == 1024
    assert not FisherShape(784, 10, 512, 1024).is_whole
    assert FisherShape(576, 49152, 512, 10**6).numbers == 512 * 576
    assert (
        FisherShape(16, 49152, 512, 1024).numbers == 16 * 16
    )  # errors have D numbers too, and are never the whole gradient
    assert not FisherShape(16, 49152, 512, 1024).is_whole


@pytest.mark.parametrize("full", [4096, 5])
def test_batches_and_the_order_of_merging_change_nothing_but_rounding(monkeypatch, full):
    monkeypatch.setattr(head_fisher, "FULL_VOCABULARY", full)
    first, second = batch(seed=1)[0], batch((7, 2, 9), seed=2)[0]
    together = FisherSums(shape())
    together.accumulate(first)
    together.accumulate(second)
    apart = [FisherSums(shape()) for _ in range(2)]
    for sums, outputs in zip(apart, (second, first), strict=True):
        sums.accumulate(outputs)
    apart[0].merge(apart[1])
    for name, array in together.state_dict().items():
        assert np.allclose(apart[0].state_dict()[name], array, rtol=1e-6, atol=1e-6)
    for name, array in together.finish().items():
        assert np.allclose(apart[0].finish()[name], array, rtol=1e-4, atol=1e-4)


def test_sums_that_are_loaded_continue_to_the_byte():
    first, second = batch(seed=1)[0], batch((7, 2, 9), seed=2)[0]
    once, again = FisherSums(shape()), FisherSums(shape())
    once.accumulate(first)
    again.load_state_dict({name: array.copy() for name, array in once.state_dict().items()})
    for sums in (once, again):
        sums.accumulate(second)
    for name, array in once.finish().items():
        assert np.array_equal(again.finish()[name], array)


def test_sums_of_another_shape_are_refused():
    with pytest.raises(DataError, match="have shapes"):
        FisherSums(shape()).load_state_dict(FisherSums(shape(vocabulary=12)).state_dict())


def test_positions_of_long_examples_are_sampled_evenly_and_weighted():
    ids = torch.repeat_interleave(torch.arange(4), torch.tensor([3, 0, 100, 16]))
    positions, weights = sampled_positions(ids, 4)
    assert ids[positions].bincount().tolist() == [3, 0, 8, 8]
    assert weights.sum() == len(ids) and set(weights[3:11].tolist()) == {100 / 8}
    assert positions[:3].tolist() == [0, 1, 2] and positions[3].item() == 3 + 6 and positions[10].item() == 3 + 93
    assert (positions.diff() > 0).all()


def test_a_corpus_without_positions_gives_a_basis():
    state = fitted(shape(), batch((0, 0))[0])
    assert not state["eigenvalues"].any() and np.isfinite(state["output_basis"]).all()


def test_a_sure_position_has_an_exact_residual():
    logits, targets = torch.tensor([[30.0, 0.0, -1.0], [0.0, 1.0, 2.0]]), torch.tensor([0, 1])
    (residual,) = ProjectedResidual(torch.eye(3))(logits.clone(), targets)
    p = np.exp(logits.double().numpy())
    expected = p / p.sum(1, keepdims=True)
    others = np.exp(-30.0) + np.exp(-31.0)
    assert residual[0, 0].item() == pytest.approx(-others, rel=1e-5)  # float32's p - 1 is 0
    assert np.allclose(residual[1].numpy(), expected[1] - [0, 1, 0], atol=1e-6)
