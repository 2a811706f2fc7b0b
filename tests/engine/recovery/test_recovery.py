"""Sparse recovery: the design against what it promises, the solver against scikit-learn and against planted signals."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from headwater.engine.recovery import gpu_pass as device
from headwater.engine.recovery.design import PartitionDesign, expansion
from headwater.engine.recovery.gpu_pass import DevicePass
from headwater.engine.recovery.lasso import Lasso, LassoFit, Sparse, predicted
from headwater.engine.recovery.membership import TableMembership, correlated, multiplied
from headwater.engine.recovery.recover import Recovery, RecoveryResources, recovered
from headwater.engine.recovery.ridge import Ridge, overlaps
from headwater.store.errors import DataError, SettingsError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import SHARED
from scipy.stats import spearmanr

WIKITEXT = SHARED / "lds_wikitext_gpt2"


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
            PartitionDesign(rows, subsets, degree, seed)
        return
    design = PartitionDesign(rows, subsets, degree, seed)
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
    assert np.array_equal(PartitionDesign(rows, subsets, degree, seed).ids(rows // 2, rows), ids[rows // 2 :])


def test_members_are_pinned_with_their_order() -> None:
    """Training reads them in this order; the digest is that of a design which computed everything anew at each call."""
    digest = hashlib.blake2b(digest_size=8)
    for fields in ((1000, 100, 4, 7), (61, 12, 3, 0), (7, 9, 2, 5), (70000, 70, 7, 2**31)):
        design = PartitionDesign(*fields)
        for subset in range(design.subsets):
            for part in (slice(None), slice(1, 5), slice(-2, None)):
                digest.update(design.members(subset, part.start or 0, part.stop).tobytes())
        digest.update(design.ids(0, design.rows).tobytes() + design.sizes().tobytes())
    assert digest.hexdigest() == "12d4e55d2183afd6"


def test_what_a_design_computes_once_is_read_only_and_not_pickled() -> None:
    design = PartitionDesign(61, 12, 3, 0)
    assert design.blocks is PartitionDesign(61, 12, 3, 0).blocks and not design.blocks.flags.writeable
    assert pickle.loads(pickle.dumps(design)) == design and len(pickle.dumps(design)) < 200


def test_designs_are_pinned_and_differ_by_seed() -> None:
    """A store remembers a seed alone, so what it means must never change."""
    assert PartitionDesign(1000, 100, 4, 7).ids(0, 3).tolist() == [[4, 29, 72, 96], [4, 31, 53, 92], [24, 46, 58, 94]]
    assert not np.array_equal(
        PartitionDesign(1000, 100, 4, 7).ids(0, 1000), PartitionDesign(1000, 100, 4, 8).ids(0, 1000)
    )
    assert PartitionDesign(10, (1 << 16) - 1, 1 << 14, 0).ids(0, 1).dtype == np.uint16


def test_a_designs_partitions_are_as_independent_as_random_ones() -> None:
    """Two rows share a subset of a partition of b blocks with probability 1/b, whatever the other partitions say."""
    design = PartitionDesign(4000, 80, 4, 3)
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
    assert 0 < expansion(PartitionDesign(12, 12, 3, 0).ids(0, 12), 3) < 1


@pytest.fixture
def many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred rows are worth a thread."""
    monkeypatch.setattr("headwater.engine.recovery.membership._SHARE", 100)


@pytest.mark.usefixtures("many_threads")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), queries=st.sampled_from([1, 2, 17]), workers=st.sampled_from([1, 2]))
def test_correlations_are_sums_over_subsets(seed: int, queries: int, workers: int) -> None:
    chance = np.random.default_rng(seed)
    masks = chance.random((int(chance.integers(1, 40)), int(chance.integers(1, 5000)))) < chance.choice([0.02, 0.5])
    stored, residual = TableMembership.of_masks(masks), chance.normal(size=(len(masks), queries))
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
    design = TableMembership.of_design(PartitionDesign(rows, subsets, int(chance.integers(4, 11)), seed))
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
    design = TableMembership.of_design(PartitionDesign(5000, 300, 8, 0))
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
    design = TableMembership.of_design(PartitionDesign(20_000, 400, 10, 1))
    rows = np.sort(chance.choice(20_000, 10, replace=False))
    weights = chance.choice([-1, 1], 10) * chance.uniform(1, 2, 10)
    y = predicted(design, [Sparse(rows, weights)], np.zeros(1))
    problem = Lasso(design, y + 0.01 * chance.normal(size=y.shape))
    found = problem.fit(0.02 * problem.largest(), 1e-8).weights[0]
    strong = found.rows[np.argsort(-np.abs(found.weights))[:10]]
    assert np.array_equal(np.sort(strong), rows)
    assert np.allclose(found.weights[np.isin(found.rows, rows)], weights, atol=0.1)


def true_gap(matrix: np.ndarray, y: np.ndarray, fit: LassoFit, q: int, penalty: float) -> float:
    """Duality gap over ½‖y − ȳ‖² in float64, of the weights as they are told."""
    weights = np.zeros(matrix.shape[1])
    weights[fit.weights[q].rows] = fit.weights[q].weights
    left, centred = y - matrix @ weights, y - y.mean()
    left = left - left.mean()
    scale = min(1.0, penalty / np.abs(matrix.T @ left).max())
    primal = 0.5 * left @ left + penalty * np.abs(weights).sum()
    return float((primal - scale * left @ centred + 0.5 * scale**2 * left @ left) / (0.5 * centred @ centred))


@pytest.mark.parametrize("share", [0.3, 0.01, 0.001])
def test_the_gap_is_a_bound_even_of_half_masks(share: float) -> None:
    """Where a row is in a thousand subsets, float32 sums err by more than their last digit."""
    chance = np.random.default_rng(0)
    masks = chance.random((600, 200)) < 0.5
    y = (masks @ chance.normal(size=200) + 30 * chance.normal(size=600))[None]
    problem = Lasso(TableMembership.of_masks(masks), y)
    penalties = share * problem.largest()
    fit = problem.fit(penalties, 1e-6)
    true = true_gap(masks.astype(float), y[0], fit, 0, float(penalties[0]))
    assert -1e-12 < true <= fit.gap[0] + 1e-12 <= 1e-4


@pytest.mark.parametrize("change", ["as it is", "float32", "shifted", "tiny", "huge"])
def test_size_and_offset_of_measurements_change_nothing(change: str) -> None:
    chance = np.random.default_rng(2)
    design = TableMembership.of_design(PartitionDesign(3000, 300, 8, 0))
    planted = Sparse(np.arange(0, 800, 100), np.ones(8))
    y = predicted(design, [planted], np.zeros(1)) + 0.1 * chance.normal(size=(1, 300))
    size = {"tiny": 1e-60, "huge": 1e60}.get(change, 1.0)
    told = size * y + (1e5 if change == "shifted" else 0)
    told = told.astype(np.float32) if change == "float32" else told
    found = recovered(design, told, Recovery(solver="lasso"))
    expected = recovered(design, y, Recovery(solver="lasso"))
    assert found.converged.all() and (found.gap >= 0).all() and found.regularization == expected.regularization
    assert found.sparse is not None and expected.sparse is not None
    assert np.allclose(found.sparse[0].weights / size, expected.sparse[0].weights, atol=2e-4)


def test_what_does_not_vary_and_what_does_not_count_spoils_nothing() -> None:
    chance = np.random.default_rng(3)
    design = TableMembership.of_design(PartitionDesign(3000, 300, 8, 0))
    y = predicted(design, [Sparse(np.arange(0, 800, 100), np.ones(8))], np.zeros(1)) + 0.1 * chance.normal(
        size=(1, 300)
    )
    alone = recovered(design, y, Recovery())
    beside = recovered(design, np.concatenate([y, np.full((1, 300), 0.1)]), Recovery())
    assert alone.solver == beside.solver == "lasso" and alone.regularization == beside.regularization
    assert np.isclose(alone.explained[0], beside.explained[0]) and beside.explained[1] == 0 and beside.converged.all()
    assert beside.sparse is not None and not len(beside.sparse[1].rows)
    flat = Lasso(design, np.full((1, 300), 0.1))
    assert flat.largest()[0] == 0 and flat.fit(np.zeros(1)).passes == 1
    y[:, chance.choice(300, 20, replace=False)] = np.nan
    partly = recovered(design, y, Recovery())
    assert partly.solver == "lasso" and partly.explained[0] > 0.5 and np.isfinite(partly.dense(design)).all()
    assert (
        not recovered(PartitionDesign(1, 30, 30, 0), chance.normal(size=(1, 30)), Recovery(solver="ridge"))
        .dense(PartitionDesign(1, 30, 30, 0))
        .any()
    )


def test_noise_alone_is_mostly_left_to_the_sparse_solver() -> None:
    few = TableMembership.of_design(PartitionDesign(200, 300, 20, 2))
    solvers = [
        recovered(few, np.random.default_rng(seed).normal(size=(1, 300)), Recovery()).solver for seed in range(12)
    ]
    assert solvers.count("ridge") <= 4


def test_the_largest_penalty_is_of_the_measurements_whatever_was_solved() -> None:
    problem = Lasso(PartitionDesign(500, 60, 4, 0), np.random.default_rng(0).normal(size=(2, 60)))
    before = problem.largest()
    problem.fit(0.1 * before)
    assert np.array_equal(problem.largest(), before)


def test_very_many_subsets_have_their_names() -> None:
    """K = 2¹⁶: the padding is K itself, which uint16 has no room for."""
    design = PartitionDesign(70_000, 1 << 16, 2, 0)
    assert design.ids(0, 1).dtype == np.int32
    y = np.random.default_rng(0).normal(size=(1, 1 << 16))
    y[:, 5] = np.nan
    problem = Lasso(design, y)
    assert (problem.fit(0.7 * problem.largest()).gap <= 1e-4).all()
    with pytest.raises(IndexError):
        design.members(1 << 16)
    with pytest.raises(IndexError):
        design.of(np.array([70_000]))


def test_bad_measurements_are_named() -> None:
    with pytest.raises(DataError, match="at least two"):
        Lasso(PartitionDesign(5, 1, 1, 0), np.ones((1, 1)))
    with pytest.raises(DataError, match="no examples"):
        Lasso(TableMembership.of_masks(np.zeros((4, 0), bool)), np.ones((1, 4)))
    design = PartitionDesign(50, 10, 2, 0)
    y = np.ones((2, 10))
    y[1, 3] = np.inf
    with pytest.raises(DataError, match="subset 3: the measurement of query 1"):
        Lasso(design, y)
    y[1, 3] = np.nan
    with pytest.raises(DataError, match="subset 3: the measurement of query 1"):
        Lasso(design, y)
    with pytest.raises(DataError, match="measurements must"):
        Lasso(design, np.ones((2, 9)))
    with pytest.raises(DataError, match="masks must be"):
        TableMembership.of_masks(np.ones((3, 4)))


@pytest.mark.parametrize("seed", range(4))
def test_a_ridge_is_scikit_learns(seed: int) -> None:
    from sklearn.linear_model import Ridge as Reference

    chance = np.random.default_rng(seed)
    design = TableMembership.of_design(PartitionDesign(700, 90, 6, seed))
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
    design = TableMembership.of_design(PartitionDesign(3000, 300, 8, 2))
    rows = chance.choice(3000, 8, replace=False)
    sparse = np.zeros((6, 3000))
    sparse[:, rows] = 1 + chance.random((6, 8))
    few = TableMembership.of_design(PartitionDesign(200, 300, 20, 2))
    for of, weights, expected in ((design, sparse, "lasso"), (few, chance.normal(size=(6, 200)), "ridge")):
        y = weights @ dense(of.table, 300).T + 0.1 * chance.normal(size=(6, 300))
        found = recovered(of, y, Recovery())
        assert found.solver == expected and found.converged.all() and (found.explained > 0.8).all()
        assert np.corrcoef(found.dense(of)[0], weights[0])[0, 1] > 0.9
        noise = recovered(of, chance.normal(size=(6, 300)), Recovery())
        assert noise.explained.mean() < 0.2


@pytest.mark.parametrize("solver", ["iht", "ssmp"])
def test_other_solvers_find_what_was_planted(solver: str) -> None:
    """Without noise the weights themselves, with measurements left out; with noise the causes, and how many of them there are."""
    chance = np.random.default_rng(0)
    design = TableMembership.of_design(PartitionDesign(2000, 250, 10, 3))
    rows = np.sort(chance.choice(2000, 8, replace=False))
    planted = Sparse(rows, chance.choice([-1, 1], 8) * chance.uniform(1, 2, 8))
    y = predicted(design, [planted, planted], np.array([3.0, -1.0]))
    y[:, chance.choice(250, 10, replace=False)] = np.nan
    found = recovered(design, y, Recovery(solver=solver, causes=8))
    assert found.sparse is not None and (found.explained > 0.99).all()
    for one in found.sparse:
        assert np.array_equal(one.rows, rows) and np.allclose(one.weights, planted.weights, atol=1e-4)
    noisy = recovered(design, y + 0.1 * chance.normal(size=y.shape), Recovery(solver=solver))
    assert noisy.regularization == 8 and noisy.sparse is not None and np.array_equal(noisy.sparse[0].rows, rows)
    flat = recovered(design, np.full((1, 250), 0.3), Recovery(solver=solver))
    assert not flat.dense(design).any() and flat.explained[0] == 0


def test_settings_of_a_recovery_are_checked() -> None:
    for wrong in ({"solver": "magic"}, {"regularization": 1.0}, {"held_out": 0.0}, {"tolerance": 2.0}, {"causes": -1}):
        with pytest.raises(SettingsError):
            Recovery(**wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="too few"):
        recovered(PartitionDesign(50, 4, 2, 0), np.ones((1, 4)), Recovery())


@pytest.mark.skipif(not WIKITEXT.exists(), reason="../shared/data is not here")
def test_subsets_that_were_really_trained_on_are_predicted() -> None:
    """GPT-2 on 100 halves of WikiText: weights from 80 of them, mean Spearman over queries on the other 20."""
    masks, losses = (np.load(WIKITEXT / f"{name}.npy") for name in ("masks", "losses"))
    masks, gains = masks.astype(bool), -losses.T.astype(float)

    def held_out(masks: np.ndarray, asked: Recovery) -> float:
        design = TableMembership.of_masks(masks[:80])
        weights = recovered(design, gains[:, :80], asked).dense(design)
        told = weights @ masks[80:].T.astype(float)
        return float(
            np.mean(np.nan_to_num([spearmanr(a, b).statistic for a, b in zip(told, gains[:, 80:], strict=True)]))
        )

    assert held_out(masks, Recovery(solver="ridge")) > 0.10
    assert held_out(masks, Recovery(solver="lasso", regularization=0.5)) > 0.15
    shuffled = masks[np.random.default_rng(0).permutation(100)]
    assert abs(held_out(shuffled, Recovery(solver="ridge"))) < 0.06
    assert abs(held_out(shuffled, Recovery(solver="lasso", regularization=0.5))) < 0.06


@pytest.mark.parametrize("most", [1, 7, 64, 500])
@pytest.mark.parametrize("block", [1 << 16, 33])
def test_the_devices_pass_finds_what_the_workers_find(most: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_BLOCK", block)
    design, chance = PartitionDesign(300, 40, 4, 1), np.random.default_rng(0)
    residual = chance.normal(size=(40, 3))
    rows, sizes = DevicePass(np, design).best(residual, most)
    expected_rows, expected = correlated(design, residual, most, 1)
    assert np.allclose(sizes, expected, atol=1e-5) and rows.shape == (3, most) and (rows[:, 300:] == -1).all()
    shown = np.abs(np.append(residual, np.zeros((1, 3)), 0)[design.of(rows[0, : min(most, 300)]), 0].sum(1))
    assert np.allclose(shown, sizes[0, : min(most, 300)], atol=1e-5)
    assert (np.sort(rows[:, : min(most, 300)], 1) == np.sort(expected_rows[:, : min(most, 300)], 1)).mean() > 0.99


def test_a_solution_by_the_devices_pass_is_the_workers() -> None:
    design, chance = PartitionDesign(400, 120, 5, 2), np.random.default_rng(1)
    y = chance.normal(size=(4, 120))
    ours, theirs = (
        recovered(design, y, Recovery(solver="lasso"), RecoveryResources(device=device))
        for device in (None, DevicePass(np, design))
    )
    assert ours.regularization == theirs.regularization and np.allclose(
        ours.dense(design), theirs.dense(design), atol=1e-4
    )
    assert (theirs.gap <= 1e-4).all()
