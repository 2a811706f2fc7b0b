"""`headkfac`: rows and scores against the influence computed in float64 from whole gradients."""

import numpy as np
import pytest
import torch
from headwater.engine.interface.model_view import ModelShape
from headwater.plugins.conformance.trial import LENGTHS, Trial
from headwater.plugins.head_kfac import HeadKfac
from headwater.store.errors import SettingsError

MODEL = ModelShape(7, 13, 0, 512)
LENGTHS_16 = tuple(min(length, 16) for length in LENGTHS)  # all positions are in the statistics


def dense(trial: Trial):
    """Gradients (n, V, D), hidden states and probabilities of all examples, float64."""
    outputs = trial.outputs(range(len(trial.lengths)))
    hidden, ids = outputs.hidden().double().numpy(), outputs.example_ids.numpy()
    logits = hidden @ trial.head.weight.double().numpy().T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    residual = p - np.eye(p.shape[1])[outputs.targets.numpy()]
    gradients = np.zeros((len(trial.lengths), p.shape[1], hidden.shape[1]))
    for example, r, h in zip(ids, residual, hidden, strict=True):
        gradients[example] += np.outer(r, h)
    return gradients, hidden, p


def influence(trial: Trial, damping: float, m: int):
    """Σ ĝ_q ĝ_i / (λ + γ λ̄) over the m largest λ, by numpy's eigenvectors."""
    gradients, hidden, p = dense(trial)
    inputs = hidden.T @ hidden / len(hidden)
    outputs = np.mean([np.diag(q) - np.outer(q, q) for q in p], 0)
    (input_values, input_basis), (output_values, output_basis) = np.linalg.eigh(inputs), np.linalg.eigh(outputs)
    eigenvalues = np.outer(output_values.clip(0), input_values).ravel()
    coordinates = np.einsum("vb,nvd,da->nba", output_basis, gradients, input_basis).reshape(len(gradients), -1)
    leading = np.argsort(-eigenvalues)[:m]
    weights = eigenvalues[leading] + damping * eigenvalues[leading].mean()
    return (coordinates[:, leading] / weights) @ coordinates[:, leading].T


@pytest.mark.parametrize("settings", [{}, {"m": 20}, {"damping": 1.0}, {"m": 40, "damping": 0.01}], ids=str)
def test_scores_are_the_influence_by_hand(settings):
    method = HeadKfac(**settings)
    trial = Trial(method, MODEL, lengths=LENGTHS_16)
    rows = {name: values.numpy() for name, values in trial.rows(range(len(LENGTHS))).items()}
    matrix = method.prepare(rows, {}).matrix.astype(np.float64)
    expected = influence(trial, method.damping, method.m)
    assert np.abs(matrix @ rows["coordinates"].T - expected).max() < 1e-4 * np.abs(expected).max()


def test_the_cosine_form_is_the_cosine_of_the_influence():
    trial = Trial(HeadKfac(cosine=True), MODEL, lengths=LENGTHS_16)
    rows = trial.rows(range(len(LENGTHS)))["coordinates"].double().numpy()
    expected = influence(trial, 0.1, 1024)
    norms = np.sqrt(np.diag(expected).clip(1e-30))
    assert np.allclose(rows @ rows.T, expected / np.outer(norms, norms), atol=1e-4)


def test_all_coordinates_without_truncation_keep_the_whole_gradient():
    trial = Trial(HeadKfac(damping=1e6), MODEL, lengths=LENGTHS_16)  # weights are equal: the plain inner product
    rows = trial.rows(range(len(LENGTHS)))["coordinates"].double().numpy()
    gradients = dense(trial)[0].reshape(len(LENGTHS), -1)
    got, expected = rows @ rows.T, gradients @ gradients.T
    assert np.allclose(got / got.max(), expected / expected.max(), atol=1e-4)


def test_a_row_is_no_longer_than_the_head():
    assert HeadKfac().columns(MODEL)[0].shape == (7 * 13,)
    assert HeadKfac(m=50).columns(MODEL)[0].shape == (50,)
    assert HeadKfac(m=4096, rank=3).columns(MODEL)[0].shape == (21,)


@pytest.mark.parametrize("wrong", [{"m": 0}, {"rank": 0}, {"damping": 0.0}, {"damping": -1.0}], ids=str)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError, match="headkfac needs"):
        HeadKfac(**wrong)


def test_a_head_in_half_precision_gives_nearly_the_same_scores():
    rows = [Trial(HeadKfac(), MODEL, lengths=LENGTHS_16, dtype=dtype).rows(range(8))["coordinates"].double()
            for dtype in (torch.float32, torch.bfloat16)]  # fmt: skip
    scores = [part @ part.T for part in rows]
    assert (scores[0] - scores[1]).norm() < 0.1 * scores[0].norm()
