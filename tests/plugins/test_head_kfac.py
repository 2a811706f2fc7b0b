"""`headkfac`: rows and scores against the influence computed in float64 from whole gradients."""

import numpy as np
import pytest
import torch
from headwater.engine.interface.model_view import ModelShape
from headwater.engine.sketches import head_fisher
from headwater.plugins.conformance.trial import LENGTHS, Trial
from headwater.plugins.head_kfac import HeadKfac
from headwater.store.errors import SettingsError

MODEL = ModelShape(7, 13, 0, 512)
LENGTHS_16 = tuple(min(length, 16) for length in LENGTHS)  # all positions are in the statistics


def positions(trial: Trial):
    """Residuals, hidden states, probabilities and example ids of all positions, float64."""
    outputs = trial.outputs(range(len(trial.lengths)))
    hidden, ids = outputs.hidden().double().numpy(), outputs.example_ids.numpy()
    logits = hidden @ trial.head.weight.double().numpy().T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return p - np.eye(p.shape[1])[outputs.targets.numpy()], hidden, p, ids


def inverse(matrix, damping: float, count: int):
    """(Σ over the `count` leading eigenvectors) v vᵀ / (λ + γ λ̄), λ̄ their mean."""
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[::-1][:count].clip(0), vectors[:, ::-1][:, :count]
    return (vectors / (values + damping * values.mean())) @ vectors.T


def influence(trial: Trial, method: HeadKfac, through_head: bool = False):
    """⟨B⁻¹ g_q A⁻¹, g_i⟩ of all examples, from whole gradients."""
    residuals, hidden, p, ids = positions(trial)
    spread = np.mean([np.diag(q) - np.outer(q, q) for q in p], 0)
    if through_head:
        weight = trial.head.weight.double().numpy()
        residuals, spread = residuals @ weight, weight.T @ spread @ weight
    gradients = np.zeros((len(trial.lengths), residuals.shape[1], hidden.shape[1]))
    for example, r, h in zip(ids, residuals, hidden, strict=True):
        gradients[example] += np.outer(r, h)
    outputs, inputs = method.shape(trial.model).widths
    left = inverse(spread, method.damping, outputs)
    right = inverse(hidden.T @ hidden / len(hidden), method.damping, inputs)
    return np.einsum("qvd,nvd->qn", np.einsum("uv,qvd,de->que", left, gradients, right), gradients)


def scores(trial: Trial, method: HeadKfac):
    rows = {name: values.numpy() for name, values in trial.rows(range(len(LENGTHS))).items()}
    return method.prepare(rows, {}).matrix.astype(np.float64) @ rows["gradient"].T


@pytest.mark.parametrize(
    "settings", [{}, {"outputs": 5, "inputs": 4}, {"damping": 1.0}, {"outputs": 3, "damping": 0.01}], ids=str
)
@pytest.mark.parametrize("through_head", [False, True])
def test_scores_are_the_influence_by_hand(monkeypatch, settings, through_head):
    if through_head:
        monkeypatch.setattr(head_fisher, "FULL_VOCABULARY", 8)
    method = HeadKfac(**settings)
    trial = Trial(method, MODEL, lengths=LENGTHS_16)
    expected = influence(trial, method, through_head)
    assert np.abs(scores(trial, method) - expected).max() < 1e-4 * np.abs(expected).max()


def test_the_cosine_form_is_the_cosine_of_the_influence():
    method = HeadKfac(cosine=True)
    expected = influence(Trial(method, MODEL, lengths=LENGTHS_16), method)
    norms = np.sqrt(np.diag(expected).clip(1e-30))
    got = scores(Trial(method, MODEL, lengths=LENGTHS_16), method)
    assert np.allclose(got, expected / np.outer(norms, norms), atol=1e-4)


def test_unit_positions_scale_each_whitened_residual():
    plain, scaled = HeadKfac(), HeadKfac(unit_positions=True)
    lengths = (1, 1, 1, 1, 1, 1)  # of one position, so that a row is one product
    rows, scaled_rows = (Trial(m, MODEL, lengths=lengths).rows(range(6))["gradient"].double() for m in (plain, scaled))
    ratio = (rows.norm(dim=1) / scaled_rows.norm(dim=1))[:, None]
    assert torch.allclose(scaled_rows * ratio, rows, atol=1e-5) and ratio.max() > 1.1 * ratio.min()


def test_whole_bases_without_whitening_keep_the_whole_gradient():
    method = HeadKfac(damping=1e8)  # both sides' weights are equal: the plain inner product
    trial = Trial(method, MODEL, lengths=LENGTHS_16)
    residuals, hidden, _, ids = positions(trial)
    gradients = np.zeros((len(LENGTHS), 13 * 7))
    for example, r, h in zip(ids, residuals, hidden, strict=True):
        gradients[example] += np.outer(r, h).ravel()
    got, expected = scores(trial, method), gradients @ gradients.T
    assert np.allclose(got / got.max(), expected / expected.max(), atol=1e-4)


def test_a_row_is_no_longer_than_the_head():
    assert HeadKfac().columns(MODEL)[0].shape == (7 * 13,)
    assert HeadKfac(outputs=5, inputs=4).columns(MODEL)[0].shape == (20,)
    assert HeadKfac().columns(ModelShape(576, 49152, 0, 512))[0].shape == (32 * 32,)


def test_remarks_say_what_a_row_holds():
    assert HeadKfac().remarks(MODEL) == ("the head's gradient (13 × 7) is stored exactly",)
    (line,) = HeadKfac().remarks(ModelShape(576, 49152, 0, 512))
    assert line == "32 eigenvectors of the errors (576 numbers each) by 32 of the hidden states (576)"


@pytest.mark.parametrize("wrong", [{"outputs": 0}, {"inputs": 0}, {"damping": 0.0}, {"damping": -1.0}], ids=str)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError, match="headkfac needs"):
        HeadKfac(**wrong)


def test_a_head_in_half_precision_gives_nearly_the_same_scores():
    rows = [Trial(HeadKfac(), MODEL, lengths=LENGTHS_16, dtype=dtype).rows(range(8))["gradient"].double()
            for dtype in (torch.float32, torch.bfloat16)]  # fmt: skip
    products = [part @ part.T for part in rows]
    assert (products[0] - products[1]).norm() < 0.1 * products[0].norm()
