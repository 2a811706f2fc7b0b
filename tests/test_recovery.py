"""Sparse recovery: the design against what it promises, the solver against scikit-learn and against planted signals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from headwater.engine.recovery.design import Design, expansion
from headwater.engine.recovery.lasso import Lasso, Sparse, predicted
from headwater.engine.recovery.membership import Stored, correlated, multiplied
from headwater.engine.recovery.recover import Recovery, recovered
from headwater.engine.recovery.ridge import Ridge, overlaps
from headwater.store.errors import DataError, SettingsError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

WIKITEXT = Path(__file__).resolve().parents[2] / "shared" / "data" / "lds_wikitext_gpt2"


def dense(table: np.ndarray, subsets: int) -> np.ndarray:
    """M (K, N) float64."""
    found = np.zeros((subsets + 1, len(table)))
    found[table.T, np.arange(len(table))] = 1
    return found[:-1]


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 700), subsets=st.integers(1, 400), degree=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_a_design_deals_every_row_out_evenly(rows: int, subsets: int, degree: int, seed: int) -> None:
    if degree > subsets or -(-subsets // degree) > rows:
        with pytest.raises(SettingsError):
            Design(rows, subsets, degree, seed)
        return
    design = Design(rows, subsets, degree, seed)
    ids = design.ids(0, rows)
    assert ids.shape == (rows, degree) and all(len(set(one)) == degree for one in ids.tolist())
    sizes = np.bincount(ids.ravel(), minlength=subsets)
    assert np.array_equal(sizes, design.sizes()) and sizes.min() >= 1
    for first, blocks in zip(design.firsts, design.blocks, strict=True):
        part = sizes[first : first + blocks]
        assert part.max() - part.min() <= 1
    for subset in {0, subsets // 2, subsets - 1}:
        assert np.array_equal(np.sort(design.members(subset)), np.flatnonzero((ids == subset).any(1)))
    some = np.random.default_rng(0).integers(0, rows, 5)
    assert np.array_equal(design.of(some), ids[some])
    assert np.array_equal(Design(rows, subsets, degree, seed).ids(rows // 2, rows), ids[rows // 2 :])


def test_designs_are_pinned_and_differ_by_seed() -> None:
    """A store remembers a seed alone, so what it means must never change."""
    assert Design(1000, 100, 4, 7).ids(0, 3).tolist() == [[4, 29, 72, 96], [4, 31, 53, 92], [24, 46, 58, 94]]
    assert not np.array_equal(Design(1000, 100, 4, 7).ids(0, 1000), Design(1000, 100, 4, 8).ids(0, 1000))
    assert Design(10, 1 << 16, 1 << 14, 0).ids(0, 1).dtype == np.uint16
    assert Design(10, (1 << 16) + 1, 1 << 14, 0).ids(0, 1).dtype == np.int32


def test_a_designs_partitions_are_as_independent_as_random_ones() -> None:
    """Two rows share a subset of a partition of b blocks with probability 1/b, whatever the other partitions say."""
    design = Design(4000, 80, 4, 3)
    ids = design.ids(0, 4000).astype(int)
    one, other = np.random.default_rng(0).integers(0, 4000, (2, 100_000))
    apart = one != other
    same = (ids[one] == ids[other])[apart]
    assert np.allclose(same.mean(0), 1 / 20, atol=0.003)
    together = np.cov(same.T.astype(float))
    assert np.abs(together - np.diag(np.diag(together))).max() < 0.002


def test_expansion_is_counted() -> None:
    apart = np.arange(12).reshape(4, 3)
    assert expansion(apart, 4) == 0.0
    assert np.isclose(expansion(np.array([[0, 1, 2], [0, 1, 3]]), 2), 1 - 4 / 6)
    assert 0 < expansion(Design(12, 12, 3, 0).ids(0, 12), 3) < 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), queries=st.sampled_from([1, 2, 17]), workers=st.sampled_from([1, 2]))
def test_correlations_are_sums_over_subsets(seed: int, queries: int, workers: int) -> None:
    chance = np.random.default_rng(seed)
    masks = chance.random((int(chance.integers(1, 40)), int(chance.integers(1, 5000)))) < chance.choice([0.02, 0.5])
    stored, residual = Stored.of_masks(masks), chance.normal(size=(len(masks), queries))
    exact = masks.T.astype(float) @ residual
    assert np.allclose(multiplied(stored, residual).T, exact, atol=1e-4)
    rows, size = correlated(stored, residual, min(7, stored.rows), workers)
    assert np.allclose(size, -np.sort(-np.abs(exact.T), axis=1)[:, :7], atol=1e-4)
    assert np.allclose(np.abs(np.take_along_axis(exact.T, rows, 1)), size, atol=1e-4)


@pytest.mark.parametrize("seed", range(50))
def test_it_is_scikit_learns_lasso(seed: int) -> None:
    """The same objective to 1e-6 of it and the same support, with measurements left out in a third of the problems."""
    from sklearn.linear_model import Lasso as Reference

    chance = np.random.default_rng(seed)
    rows, subsets = int(chance.integers(150, 3000)) if seed else 20_000, int(chance.choice([80, 200, 500]))
    design = Stored.held(Design(rows, subsets, int(chance.integers(4, 11)), seed))
    planted = np.zeros(rows)
    planted[chance.choice(rows, 12, replace=False)] = 3 * chance.normal(size=12)
    matrix = dense(design.table, subsets)
    y = np.stack([matrix @ planted + chance.normal(size=subsets) * scale + 5 for scale in (0, 0.3)])
    counted = chance.random(subsets) > (0.2 if seed % 3 == 0 else -1)
    y[:, ~counted] = np.nan
    problem = Lasso(design, y)
    penalties = problem.largest() * chance.choice([0.05, 0.2, 0.5])
    fit = problem.fit(penalties, 1e-7)
    assert (fit.gap <= 1e-7).all()
    for q, penalty in enumerate(penalties):
        kept = matrix[counted]
        reference = Reference(alpha=penalty / len(kept), tol=1e-13, max_iter=100_000).fit(kept, y[q, counted])
        left = y[q, counted] - reference.intercept_ - kept @ reference.coef_
        objective = 0.5 * left @ left + penalty * np.abs(reference.coef_).sum()
        assert abs(fit.objective[q] - objective) <= 1e-6 * objective
        found = np.zeros(rows)
        found[fit.weights[q].rows] = fit.weights[q].weights
        big = np.abs(reference.coef_) > 1e-3 * np.abs(reference.coef_).max()
        assert np.array_equal(np.abs(found) > 1e-3 * np.abs(found).max(), big)
        told = predicted(design, fit.weights, fit.intercept)[q]
        assert np.allclose(
            told[counted], kept @ reference.coef_ + reference.intercept_, atol=1e-3 * np.abs(y[q, counted]).max()
        )
        assert np.allclose(fit.residual[counted, q], (y[q] - told)[counted], atol=1e-6)


def test_a_path_of_penalties_ends_where_a_single_one_does() -> None:
    chance = np.random.default_rng(0)
    design = Stored.held(Design(5000, 300, 8, 0))
    y = chance.normal(size=(3, 300))
    path, alone = Lasso(design, y), Lasso(design, y)
    top = path.largest()
    assert np.allclose(path.fit(top * 1.0001).weights[0].weights, 0)
    for share in (0.5, 0.3, 0.2):
        last = path.fit(share * top, 1e-8)
    fresh = alone.fit(0.2 * top, 1e-8)
    assert np.allclose(last.objective, fresh.objective, rtol=1e-7)
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(last.weights, fresh.weights, strict=True))


def test_few_causes_are_found_from_few_measurements() -> None:
    """K = 400 of N = 20,000, ten causes: all of them, and their weights."""
    chance = np.random.default_rng(1)
    design = Stored.held(Design(20_000, 400, 10, 1))
    rows = np.sort(chance.choice(20_000, 10, replace=False))
    weights = chance.choice([-1, 1], 10) * chance.uniform(1, 2, 10)
    y = predicted(design, [Sparse(rows, weights)], np.zeros(1))
    problem = Lasso(design, y + 0.01 * chance.normal(size=y.shape))
    found = problem.fit(0.02 * problem.largest(), 1e-8).weights[0]
    strong = found.rows[np.argsort(-np.abs(found.weights))[:10]]
    assert np.array_equal(np.sort(strong), rows)
    assert np.allclose(found.weights[np.isin(found.rows, rows)], weights, atol=0.1)


def test_bad_measurements_are_named() -> None:
    design = Design(50, 10, 2, 0)
    y = np.ones((2, 10))
    y[1, 3] = np.inf
    with pytest.raises(DataError, match="subset 3: the measurement of query 1"):
        Lasso(design, y)
    y[1, 3] = np.nan
    with pytest.raises(DataError, match="subset 3: the measurement of query 1"):
        Lasso(design, y)
    with pytest.raises(DataError, match="measurements are"):
        Lasso(design, np.ones((2, 9)))
    with pytest.raises(DataError, match="booleans"):
        Stored.of_masks(np.ones((3, 4)))


@pytest.mark.parametrize("seed", range(4))
def test_a_ridge_is_scikit_learns(seed: int) -> None:
    from sklearn.linear_model import Ridge as Reference

    chance = np.random.default_rng(seed)
    design = Stored.held(Design(700, 90, 6, seed))
    y, counted = chance.normal(size=(3, 90)), chance.random(90) < 0.8
    partly = np.where(counted, y, np.nan)
    matrix = dense(design.table, 90)
    assert np.array_equal(overlaps(design), matrix @ matrix.T)
    problem = Ridge(overlaps(design), partly)
    reference = Reference(alpha=0.3 * problem.scale).fit(matrix[counted], y[:, counted].T)
    assert np.allclose(multiplied(design, problem.duals(0.3)), reference.coef_, atol=1e-5)
    assert np.allclose(problem.predicted(0.3), reference.predict(matrix).T)


def test_sparse_causes_are_solved_sparsely_and_dense_ones_by_a_ridge() -> None:
    chance = np.random.default_rng(0)
    design = Stored.held(Design(3000, 300, 8, 2))
    rows = chance.choice(3000, 8, replace=False)
    sparse = np.zeros((6, 3000))
    sparse[:, rows] = 1 + chance.random((6, 8))
    few = Stored.held(Design(200, 300, 20, 2))
    for of, weights, expected in ((design, sparse, "lasso"), (few, chance.normal(size=(6, 200)), "ridge")):
        y = weights @ dense(of.table, 300).T + 0.1 * chance.normal(size=(6, 300))
        found = recovered(of, y, Recovery())
        assert found.solver == expected and found.converged.all() and (found.explained > 0.8).all()
        assert np.corrcoef(found.dense(of)[0], weights[0])[0, 1] > 0.9
        noise = recovered(of, chance.normal(size=(6, 300)), Recovery())
        assert noise.explained.mean() < 0.2


def test_settings_of_a_recovery_are_checked() -> None:
    for wrong in ({"solver": "magic"}, {"share": 1.0}, {"held_out": 0.0}, {"tolerance": 2.0}):
        with pytest.raises(SettingsError):
            Recovery(**wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="too few"):
        recovered(Design(50, 4, 2, 0), np.ones((1, 4)), Recovery())


@pytest.mark.skipif(not WIKITEXT.exists(), reason="../shared/data is not here")
def test_subsets_that_were_really_trained_on_are_predicted() -> None:
    """GPT-2 on 100 halves of WikiText: weights from 80 of them, mean Spearman over queries on the other 20."""
    masks, losses = (np.load(WIKITEXT / f"{name}.npy") for name in ("masks", "losses"))
    masks, gains = masks.astype(bool), -losses.T.astype(float)

    def held_out(masks: np.ndarray, asked: Recovery) -> float:
        design = Stored.of_masks(masks[:80])
        weights = recovered(design, gains[:, :80], asked).dense(design)
        told = weights @ masks[80:].T.astype(float)
        return float(
            np.mean(np.nan_to_num([spearmanr(a, b).statistic for a, b in zip(told, gains[:, 80:], strict=True)]))
        )

    assert held_out(masks, Recovery(solver="ridge")) > 0.10
    assert held_out(masks, Recovery(solver="lasso", share=0.5)) > 0.15
    shuffled = masks[np.random.default_rng(0).permutation(100)]
    assert abs(held_out(shuffled, Recovery(solver="ridge"))) < 0.06
    assert abs(held_out(shuffled, Recovery(solver="lasso", share=0.5))) < 0.06
