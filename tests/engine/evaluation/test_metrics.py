"""Metrics equal scipy's and scikit-learn's on random input, on ties and on constants."""

import numpy as np
import pytest
from headwater.engine.evaluation import metrics
from headwater.store.errors import DataError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ConstantInputWarning, spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

RANDOM = np.random.default_rng(0)


def drawn(shape: tuple[int, ...], ties: bool) -> np.ndarray:
    values = RANDOM.standard_normal(shape)
    return np.round(values * 2) if ties else values


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("rows", [3, 10, 200])
def test_spearman_is_scipys(rows, ties):
    first, second = drawn((rows, 7), ties), drawn((rows, 7), ties)
    first[:, 0] = 1.5
    found = metrics.spearman(first, second)
    with pytest.warns(ConstantInputWarning):
        expected = [spearmanr(first[:, j], second[:, j]).statistic for j in range(7)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.isnan(found[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=40))
def test_areas_are_scikit_learns(rows):
    scores, relevant = np.array([s for s, _ in rows], float), np.array([r for _, r in rows])
    if relevant.any():
        assert metrics.average_precision(scores, relevant) == pytest.approx(average_precision_score(relevant, scores))
    else:
        assert np.isnan(metrics.average_precision(scores, relevant))
    if relevant.any() and not relevant.all():
        assert metrics.auc(scores, relevant) == pytest.approx(roc_auc_score(relevant, scores))
    else:
        assert np.isnan(metrics.auc(scores, relevant))


def test_areas_of_random_scores_are_scikit_learns():
    for ties in (False, True):
        scores, relevant = drawn((500,), ties), RANDOM.random(500) < 0.1
        assert metrics.auc(scores, relevant) == pytest.approx(roc_auc_score(relevant, scores))
        assert metrics.average_precision(scores, relevant) == pytest.approx(average_precision_score(relevant, scores))
        assert metrics.auc(np.ones(500), relevant) == 0.5


def test_sums_over_subsets_are_the_definition():
    scores, masks = RANDOM.standard_normal((4, 30)), RANDOM.random((6, 30)) < 0.5
    found = metrics.subset_sums(scores, masks)
    assert found.shape == (6, 4)
    np.testing.assert_allclose(found[2, 3], sum(scores[3, i] for i in range(30) if masks[2, i]))
    with pytest.raises(DataError, match=r"\(4, 30\).*\(6, 29\)"):
        metrics.subset_sums(scores, masks[:, 1:])


def test_a_linear_world_has_lds_one():
    scores, masks = RANDOM.standard_normal((5, 40)), RANDOM.random((30, 40)) < 0.5
    predicted = metrics.subset_sums(scores, masks)
    np.testing.assert_allclose(metrics.lds(predicted, np.exp(predicted)), 1)
    np.testing.assert_allclose(metrics.lds(predicted, -predicted), -1)
    with pytest.raises(DataError, match="differ"):
        metrics.lds(predicted, predicted[:-1])


def test_the_ceiling_is_what_a_perfect_prediction_reaches():
    truth = RANDOM.standard_normal((400, 60))
    outcomes = truth + 2 * RANDOM.standard_normal((5, 400, 60))
    between, ceiling = metrics.noise_ceiling(outcomes)
    assert between == pytest.approx(0.2, abs=0.03)  # 1 / (1 + 2²)
    reached = metrics.spearman(truth, outcomes.mean(0)).mean()
    assert ceiling == pytest.approx(reached, abs=0.02)
    assert np.isnan(metrics.noise_ceiling(outcomes[:1])).all()
    assert metrics.noise_ceiling(RANDOM.standard_normal((2, 50, 1)) * [[[1.0]], [[-1.0]]])[1] >= 0


def test_intervals_hold_the_mean_as_often_as_they_say():
    held = 0
    for trial in range(200):
        values = np.random.default_rng(trial).standard_normal(60)
        one = metrics.bootstrap(values, 400)
        held += one.low <= 0 <= one.high
        assert one.low <= one.value <= one.high and one.count == 60
    assert 178 <= held <= 199  # 95 % of 200, and what chance allows


def test_what_is_not_defined_is_left_out():
    one = metrics.bootstrap(np.array([1.0, np.nan, 3.0]))
    assert one.value == 2 and one.count == 2
    none = metrics.bootstrap(np.array([np.nan]))
    assert none.count == 0 and np.isnan(none.value)
    constant = metrics.bootstrap_subsets(np.ones((10, 2)), RANDOM.standard_normal((10, 2)), resamples=5)
    assert constant.count == 0 and np.isnan(constant.value)


def test_intervals_over_subsets_are_wider_than_over_queries():
    common = RANDOM.standard_normal((12, 1))  # all queries share the subsets' luck
    predicted, outcomes = (
        common + 0.1 * RANDOM.standard_normal((12, 50)),
        RANDOM.standard_normal((12, 1)) * np.ones((12, 50)),
    )
    over_both = metrics.bootstrap_subsets(predicted, outcomes, resamples=200)
    over_queries = metrics.bootstrap(metrics.lds(predicted, outcomes), 200)
    assert over_both.high - over_both.low > 5 * (over_queries.high - over_queries.low)


def test_rankings():
    hits = np.array([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1]], bool)
    totals = np.array([4, 0, 2])
    np.testing.assert_allclose(metrics.precision_at(hits, 2), [0.5, 0, 0.5])
    np.testing.assert_allclose(metrics.recall_at(hits, 3, totals), [0.5, np.nan, 0.5])
    np.testing.assert_allclose(metrics.reciprocal_rank(hits), [0.5, 0, 1])
    np.testing.assert_allclose(metrics.ranked_precision(hits, totals), [(1 / 2 + 2 / 3) / 4, np.nan, (1 + 2 / 4) / 2])


def test_a_whole_ranking_has_scikit_learns_average_precision():
    scores, relevant = drawn((80,), False), RANDOM.random(80) < 0.2
    order = np.argsort(-scores)
    found = metrics.ranked_precision(relevant[order][None], np.array([relevant.sum()]))[0]
    assert found == pytest.approx(average_precision_score(relevant, scores))


def test_extremes_are_the_best_and_the_worst():
    scores, relevant = np.array([3.0, 1, 2, 5, 4]), np.array([1, 0, 0, 1, 0], bool)
    chosen, hits = metrics.top_and_bottom(scores, relevant, 2)
    assert chosen.tolist() == [5, 4, 2, 1] and hits.tolist() == [True, False, False, False]
    assert len(metrics.top_and_bottom(scores, relevant, 3)[0]) == 5  # no row twice
