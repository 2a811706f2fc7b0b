"""The head's Fisher matrix: A, B and their eigenbases against float64 by hand, the low-rank path, merging, resuming."""

import numpy as np
import pytest
import torch
from headwater.engine.interface.model_view import ModelShape, OutputSpec
from headwater.engine.models.batch_outputs import LinearHead, PackedOutputs, TargetPositions
from headwater.engine.sketches import head_fisher
from headwater.engine.sketches.head_fisher import FisherShape, FisherSums, ProjectedResidual, sampled_positions
from headwater.store.errors import DataError

COUNTS = (5, 1, 0, 12, 3)


def batch(counts=COUNTS, width=6, vocabulary=11, seed=0):
    """A batch of random hidden states, and its hidden states and probabilities in float64."""
    generator = torch.Generator().manual_seed(seed)
    head = torch.randn(vocabulary, width, generator=torch.Generator().manual_seed(99))
    hidden = torch.randn(sum(counts), width, generator=generator)
    targets = torch.randint(vocabulary, (sum(counts),), generator=generator)
    ids = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    shape = ModelShape(width, vocabulary, 0, 512)
    outputs = PackedOutputs(LinearHead(shape, head), {-1: hidden}, TargetPositions(ids, targets, counts), OutputSpec())
    logits = hidden.double().numpy() @ head.double().numpy().T
    p = np.exp(logits - logits.max(1, keepdims=True))
    return outputs, hidden.double().numpy(), p / p.sum(1, keepdims=True)


def factors(hidden, p):
    """A and B, from their definitions."""
    inputs = np.mean([np.outer(h, h) for h in hidden], 0)
    return inputs, np.mean([np.diag(q) - np.outer(q, q) for q in p], 0)


def shape(**sizes):
    return FisherShape(**{"hidden": 6, "vocabulary": 11, "rank": 64, "coordinates": 1024, "seed": 0} | sizes)


def fitted(of, *batches):
    sums = FisherSums(of)
    for outputs in batches:
        sums.accumulate(outputs)
    return sums.finish()


def test_the_eigenbases_rebuild_both_factors():
    outputs, hidden, p = batch()
    state = fitted(shape(), outputs)
    inputs, residuals = factors(hidden, p)
    assert len(state["eigenvalues"]) == 6 * 11 and (np.diff(state["eigenvalues"]) <= 0).all()
    for basis, matrix in ((state["input_basis"], inputs), (state["output_basis"], residuals)):
        assert np.allclose(basis.T @ basis, np.eye(len(matrix)), atol=1e-5)
        diagonal = basis.T.astype(np.float64) @ matrix @ basis
        assert np.abs(diagonal - np.diag(np.diag(diagonal))).max() < 1e-6
    products = np.kron(np.linalg.eigvalsh(residuals).clip(0), np.linalg.eigvalsh(inputs))
    assert np.allclose(state["eigenvalues"], np.sort(products)[::-1], atol=1e-7)


def test_the_leading_coordinates_are_those_of_the_largest_products():
    outputs, *_ = batch()
    whole, part = fitted(shape(), outputs), fitted(shape(coordinates=9), outputs)
    assert np.allclose(part["eigenvalues"], whole["eigenvalues"][:9])
    assert part["input_basis"].shape == (6, part["input_at"].max() + 1)
    assert part["output_basis"].shape == (11, part["output_at"].max() + 1)


def test_a_low_rank_basis_is_that_of_the_whole_matrix(monkeypatch):
    counts, sizes = (40,) * 12, {"width": 8, "vocabulary": 90}
    outputs, _, p = batch(counts, **sizes)
    positions, _ = sampled_positions(outputs.example_ids, len(counts))
    _, residuals = factors(np.zeros((1, 8)), p[positions.numpy()])
    whole = fitted(shape(hidden=8, vocabulary=90, rank=20), outputs)
    monkeypatch.setattr(head_fisher, "FULL_VOCABULARY", 50)
    low = fitted(shape(hidden=8, vocabulary=90, rank=20), outputs)
    rank = low["output_basis"].shape[1]
    assert rank == whole["output_basis"].shape[1] == 20
    kept = [np.trace(basis.T @ residuals @ basis) for basis in (low["output_basis"], whole["output_basis"])]
    assert kept[0] == pytest.approx(kept[1], rel=0.1)  # random probabilities: their eigenvalues fall slowly
    assert low["eigenvalues"].sum() == pytest.approx(whole["eigenvalues"].sum(), rel=0.12)
    other = fitted(shape(hidden=8, vocabulary=90, rank=20, seed=1), outputs)
    assert not np.array_equal(low["output_basis"], other["output_basis"])


def test_a_matrix_of_rank_below_the_sketch_is_recovered_exactly(monkeypatch):
    monkeypatch.setattr(head_fisher, "FULL_VOCABULARY", 5)
    outputs, hidden, p = batch()
    state = fitted(shape(rank=11), outputs)
    inputs, residuals = factors(hidden, p)
    products = np.kron(np.linalg.eigvalsh(residuals).clip(0), np.linalg.eigvalsh(inputs))
    assert np.allclose(state["eigenvalues"], np.sort(products)[::-1], atol=1e-7)


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
        assert np.allclose(apart[0].state_dict()[name], array, rtol=1e-12, atol=1e-12)


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
    assert ids[positions].bincount().tolist() == [3, 0, 16, 16]
    assert weights.sum() == len(ids) and set(weights[3:19].tolist()) == {100 / 16}
    assert positions[:3].tolist() == [0, 1, 2] and positions[3].item() == 3 + 3 and positions[18].item() == 3 + 96
    assert (positions.diff() > 0).all()


def test_a_corpus_without_positions_gives_a_basis():
    state = fitted(shape(coordinates=7), batch((0, 0))[0])
    assert len(state["eigenvalues"]) == 7 and not state["eigenvalues"].any()
    assert np.isfinite(state["output_basis"]).all()


def test_a_sure_position_has_an_exact_residual():
    logits, targets = torch.tensor([[30.0, 0.0, -1.0], [0.0, 1.0, 2.0]]), torch.tensor([0, 1])
    (residual,) = ProjectedResidual(torch.eye(3))(logits.clone(), targets)
    p = np.exp(logits.double().numpy())
    expected = p / p.sum(1, keepdims=True)
    others = np.exp(-30.0) + np.exp(-31.0)
    assert residual[0, 0].item() == pytest.approx(-others, rel=1e-5)  # float32's p - 1 is 0
    assert np.allclose(residual[1].numpy(), expected[1] - [0, 1, 0], atol=1e-6)
