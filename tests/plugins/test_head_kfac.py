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
SHORT = tuple(min(length, 8) for length in LENGTHS)  # all positions are in the statistics


def positions(trial: Trial):
    """Residuals, hidden states, probabilities and example ids of all positions, float64."""
    outputs = trial.outputs(range(len(trial.lengths)))
    hidden, ids = outputs.hidden().double().numpy(), outputs.example_ids.numpy()
    logits = hidden @ trial.head.weight.double().numpy().T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return p - np.eye(p.shape[1])[outputs.targets.numpy()], hidden, p, ids


def influence(trial: Trial, method: HeadKfac, through_head: bool = False):
    """Σ ĝ_q ĝ_i / (λ + γ λ̄) over the m largest λ of the first `rank` eigenvectors, from whole gradients."""
    residuals, hidden, p, ids = positions(trial)
    spread = np.mean([np.diag(q) - np.outer(q, q) for q in p], 0)
    if through_head:
        weight = trial.head.weight.double().numpy()
        residuals, spread = residuals @ weight, weight.T @ spread @ weight
    (b, output_basis), (a, input_basis) = np.linalg.eigh(spread), np.linalg.eigh(hidden.T @ hidden / len(hidden))
    b, output_basis = b[::-1][: method.rank].clip(0), output_basis[:, ::-1][:, : method.rank]
    coordinates = np.zeros((len(trial.lengths), len(b) * len(a)))
    for example, r, h in zip(ids, residuals @ output_basis, hidden @ input_basis, strict=True):
        coordinates[example] += np.outer(r, h).ravel()
    eigenvalues = np.outer(b, a).ravel()
    leading = np.argsort(-eigenvalues)[: method.m]
    weights = eigenvalues[leading] + method.damping * eigenvalues[leading].mean()
    return (coordinates[:, leading] / weights) @ coordinates[:, leading].T


def scores(trial: Trial, method: HeadKfac):
    rows = {name: values.numpy() for name, values in trial.rows(range(len(LENGTHS))).items()}
    return method.prepare(rows, {}).matrix.astype(np.float64) @ rows["coordinates"].T


@pytest.mark.parametrize(
    "settings", [{}, {"m": 20}, {"damping": 1.0}, {"rank": 3}, {"m": 15, "rank": 5, "damping": 0.01}], ids=str
)
@pytest.mark.parametrize("through_head", [False, True])
def test_scores_are_the_influence_by_hand(monkeypatch, settings, through_head):
    if through_head:
        monkeypatch.setattr(head_fisher, "FULL_VOCABULARY", 8)
    method = HeadKfac(**settings)
    trial = Trial(method, MODEL, lengths=SHORT)
    expected = influence(trial, method, through_head)
    assert np.abs(scores(trial, method) - expected).max() < 1e-4 * np.abs(expected).max()


def test_the_cosine_form_is_the_cosine_of_the_influence():
    method = HeadKfac(cosine=True)
    expected = influence(Trial(method, MODEL, lengths=SHORT), method)
    norms = np.sqrt(np.diag(expected).clip(1e-30))
    got = scores(Trial(method, MODEL, lengths=SHORT), method)
    assert np.allclose(got, expected / np.outer(norms, norms), atol=1e-4)


def test_whole_bases_without_whitening_keep_the_whole_gradient():
    method = HeadKfac(damping=1e8)  # both sides' weights are equal: the plain inner product
    trial = Trial(method, MODEL, lengths=SHORT)
    residuals, hidden, _, ids = positions(trial)
    gradients = np.zeros((len(LENGTHS), 13 * 7))
    for example, r, h in zip(ids, residuals, hidden, strict=True):
        gradients[example] += np.outer(r, h).ravel()
    got, expected = scores(trial, method), gradients @ gradients.T
    assert np.allclose(got / got.max(), expected / expected.max(), atol=1e-4)


def test_a_row_is_no_longer_than_the_head():
    assert HeadKfac().columns(MODEL)[0].shape == (7 * 13,)
    assert HeadKfac(m=50).columns(MODEL)[0].shape == (50,)
    assert HeadKfac(m=4096, rank=3).columns(MODEL)[0].shape == (21,)


def test_remarks_say_what_a_row_holds():
    assert HeadKfac().remarks(MODEL) == ("the head's gradient (13 × 7) is stored exactly",)
    assert HeadKfac(m=50).remarks(MODEL) == (
        "the head's gradient (13 × 7) is stored in its 50 leading eigen coordinates",
    )
    (line,) = HeadKfac().remarks(ModelShape(576, 49152, 0, 512))
    assert (
        line
        == "the head's gradient (49,152 × 576), read through the head, is stored in its 1,024 leading eigen coordinates"
    )


@pytest.mark.parametrize("wrong", [{"m": 0}, {"rank": 0}, {"damping": 0.0}, {"damping": -1.0}], ids=str)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError, match="headkfac needs"):
        HeadKfac(**wrong)


def test_a_head_in_half_precision_gives_nearly_the_same_scores():
    rows = [Trial(HeadKfac(), MODEL, lengths=SHORT, dtype=dtype).rows(range(8))["coordinates"].double()
            for dtype in (torch.float32, torch.bfloat16)]  # fmt: skip
    products = [part @ part.T for part in rows]
    assert (products[0] - products[1]).norm() < 0.1 * products[0].norm()
