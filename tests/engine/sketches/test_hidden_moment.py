"""The second moment of hidden states and whitening by it, against float64 by hand; merging, resuming."""

import numpy as np
import pytest
import torch
from headwater.engine.interface.model_view import ModelShape, OutputSpec
from headwater.engine.models.batch_outputs import LinearHead, PackedOutputs, TargetPositions
from headwater.engine.sketches.hidden_moment import HiddenMoment, whitening_matrix
from headwater.store.errors import DataError

WIDTH = 6


def batch(counts, seed):
    """A batch of random hidden states, and these in float64."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(sum(counts), WIDTH, generator=generator) + torch.arange(WIDTH)
    ids = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    head = LinearHead(ModelShape(WIDTH, 4, 0, 512), torch.zeros(4, WIDTH))
    positions = TargetPositions(ids, torch.zeros(len(hidden), dtype=torch.int64), counts)
    return PackedOutputs(head, {-1: hidden}, positions, OutputSpec()), hidden.double().numpy()


def moment(*batches):
    sums = HiddenMoment(WIDTH)
    for outputs in batches:
        sums.accumulate(outputs)
    return sums


@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_inner_products_of_whitened_states_are_those_of_the_damped_inverse(damping):
    outputs, hidden = batch([7, 0, 30, 1], 0)
    state = moment(outputs).finish()
    matrix = whitening_matrix(state, WIDTH, damping).astype(np.float64)
    second = np.mean([np.outer(h, h) for h in hidden], 0)
    damped = second + damping * np.trace(second) / WIDTH * np.eye(WIDTH)
    whitened = hidden @ matrix
    assert np.allclose(whitened @ whitened.T, hidden @ np.linalg.solve(damped, hidden.T), atol=1e-4)


def test_eigenvalues_are_those_of_the_second_moment_in_descending_order():
    outputs, hidden = batch([40], 1)
    eigenvalues = moment(outputs).finish()["eigenvalues"]
    assert np.allclose(eigenvalues, np.linalg.eigvalsh(hidden.T @ hidden / len(hidden))[::-1], rtol=1e-9)


def test_fewer_columns_are_those_of_the_largest_eigenvalues():
    state = moment(batch([40], 1)[0]).finish()
    assert np.array_equal(whitening_matrix(state, 2, 0.1), whitening_matrix(state, WIDTH, 0.1)[:, :2])


def test_merging_and_resuming_change_nothing():
    (first, _), (second, _) = batch([3, 4], 2), batch([9], 3)
    whole, merged, resumed = moment(first, second).finish(), moment(first), HiddenMoment(WIDTH)
    merged.merge(moment(second))
    resumed.load_state_dict({name: array.copy() for name, array in moment(first).state_dict().items()})
    resumed.accumulate(second)
    for state in (merged.finish(), resumed.finish()):
        assert np.allclose(state["eigenvalues"], whole["eigenvalues"], rtol=1e-12)
        assert np.allclose(state["basis"], whole["basis"], atol=1e-6)


def test_a_corpus_without_hidden_states_leaves_them_as_they_are():
    state = moment().finish()
    matrix = whitening_matrix(state, WIDTH, 0.1)
    assert np.allclose(matrix @ matrix.T, np.eye(WIDTH), atol=1e-6)


def test_sums_of_another_shape_are_refused():
    with pytest.raises(DataError, match="second moment have shapes"):
        HiddenMoment(WIDTH).load_state_dict(HiddenMoment(WIDTH + 1).state_dict())
