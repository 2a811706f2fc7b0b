"""Greedy choice against brute force in float64, whatever the pool, the cut and the ties."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headwater.engine.arrays.greedy import bounds, eligibility, near_copies
from headwater.engine.arrays.greedy.greedy import greedy
from headwater.engine.arrays.greedy.problem import Choice, Limits, Objective, Room
from headwater.engine.arrays.greedy.row_cache import RowCache, RowSource
from headwater.engine.arrays.precision.precisions import precision_of
from headwater.engine.arrays.scan.scan_loop import ScanShape
from headwater.engine.runtime.run import SILENT_STAGE
from headwater.store.errors import DataError, SettingsError
from headwater.store.layout import column
from scanned import stored


@pytest.fixture(params=[3, 512])
def past(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors that are remembered: so few that they run out at once, and as many as ever. With few, passes cost little, too."""
    monkeypatch.setattr(bounds, "PAST", request.param)
    if request.param == 3:
        monkeypatch.setattr(
            bounds, "_SHARE", 10
        )  # and every few rows are worth a thread, and a look at a few directions
        monkeypatch.setattr(bounds, "LEVELS", (1, 2, 4))
        monkeypatch.setattr("headwater.engine.arrays.greedy.greedy._START", 0)


def brute(rows: np.ndarray, v: np.ndarray, c: float, limits: Limits) -> tuple[list[int], list[float]]:
    """The same choice with every gain computed anew at every step; ties to the lower row."""
    rows, total = rows.astype(np.float64), np.zeros(rows.shape[1])
    units = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    may, chosen, gains, spent = limits.eligible.copy(), [], [], 0.0
    taken = np.zeros(1 if limits.caps is None else len(limits.caps), int)
    squares = np.array([row @ row for row in rows])
    if limits.cost is not None:
        may &= limits.cost <= limits.budget
    if limits.group is not None and limits.caps is not None:
        may &= limits.caps[limits.group] > 0
    while len(chosen) < limits.count and may.any():
        w = v - c * total
        gain = np.array([row @ w for row in rows]) - c / 2 * squares
        key = gain if limits.cost is None else gain / limits.cost
        order = np.argsort(np.where(may, -key, np.inf), kind="stable")[: min(limits.batch, limits.count - len(chosen))]
        if limits.cost is not None and key[order[0]] <= 0:
            break
        for best in order[may[order]].tolist():
            if not may[best] or (limits.cost is not None and key[best] <= 0):
                continue
            chosen.append(best)
            gains.append(gain[best])
            total += rows[best]
            may[best] = False
            if limits.texts is not None and limits.texts[best] >= 0:
                may &= limits.texts != limits.texts[best]
            if limits.similarity is not None:
                may &= units @ units[best] < limits.similarity
            if limits.cost is not None:
                spent += limits.cost[best]
                may &= limits.cost <= limits.budget - spent
            if limits.group is not None and limits.caps is not None:
                taken[limits.group[best]] += 1
                may &= taken[limits.group] < limits.caps[limits.group]
    return chosen, gains


def instance(seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Rows with duplicates, near duplicates, zeros and a common direction; a target; a penalty."""
    chance = np.random.default_rng(seed)
    count, depth = int(chance.integers(5, 160)), int(chance.integers(1, 20))
    rows = chance.normal(size=(count, depth)) + chance.normal(size=depth) * chance.choice([0, 2])
    copies = chance.integers(0, count, count // 3)
    rows[chance.integers(0, count, count // 3)] = rows[copies] + chance.choice([0, 1e-3]) * chance.normal(
        size=(len(copies), depth)
    )
    rows[chance.integers(0, count, 2)] = 0
    v = rows.mean(0) + 0.3 * chance.normal(size=depth)
    return rows.astype(np.float16), v, float(chance.choice([0, 0.02, 0.1, 1.0]))


def chosen(folder: Path, rows: np.ndarray, v: np.ndarray, c: float, limits: Limits, pool: int, **more: Any) -> Choice:
    form = precision_of("float16", column("c", (rows.shape[1],), "float16"))
    shape, chosen_rows = more.get("shape", ScanShape(16, 1)), more.get("chosen_rows", 0)
    room = Room(pool, more.get("directions", 6), more.get("kept", 30), shape, chosen_rows)
    return greedy(RowSource(stored(folder, rows, form=form), form), Objective(v, c), limits, room, SILENT_STAGE)


@pytest.mark.parametrize("seed", range(60))
def test_it_is_brute_force(tmp_path: Path, past: None, seed: int) -> None:
    rows, v, c = instance(seed)
    chance = np.random.default_rng(seed + 1000)
    pool = int(chance.integers(1, 40))
    batch = int(chance.choice([1, 1, min(pool, len(rows), 4)]))
    limits = Limits(int(chance.integers(1, len(rows) + 5)), chance.random(len(rows)) < 0.9, batch=batch)
    expected, gains = brute(rows, v, c, limits)
    actual = chosen(tmp_path, rows, v, c, limits, pool)
    assert actual.rows.tolist() == expected
    assert np.allclose(actual.gains, gains, rtol=1e-9, atol=1e-9)
    assert np.allclose(actual.total, rows[expected].astype(np.float64).sum(0))


@pytest.mark.parametrize("seed", range(20))
def test_so_it_is_under_costs_and_caps(tmp_path: Path, past: None, seed: int) -> None:
    rows, v, c = instance(seed)
    chance = np.random.default_rng(seed)
    group = chance.integers(0, 3, len(rows))
    limits = Limits(
        len(rows), np.ones(len(rows), bool), chance.integers(1, 9, len(rows)).astype(np.float32),
        float(2 * len(rows)) if seed % 3 else 4.0,
        group, np.array([3, len(rows), 5 * (seed % 2)]), batch=1 + seed % 4,
    )  # fmt: skip
    expected, _ = brute(rows, v, c, limits)
    actual = chosen(tmp_path, rows, v, c, limits, pool=7)
    assert actual.rows.tolist() == expected
    assert limits.cost is not None and limits.cost[actual.rows].sum() <= limits.budget
    assert limits.caps is not None and (np.bincount(group[actual.rows], minlength=3) <= limits.caps).all()


@pytest.mark.parametrize("chosen_rows", [0, 2, 1000])
@pytest.mark.parametrize("refused", [1, 3, 256])
@pytest.mark.parametrize("seed", range(12))
def test_copies_are_left_out_as_brute_force_leaves_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, refused: int, chosen_rows: int
) -> None:
    monkeypatch.setattr(eligibility, "_REFUSED", refused)
    monkeypatch.setattr(near_copies, "COMPARED", 3)
    rows, v, c = instance(seed)
    chance = np.random.default_rng(seed + 7)
    count = len(rows)
    _, texts = np.unique(rows, axis=0, return_inverse=True)
    texts = np.where(np.bincount(texts.ravel())[texts.ravel()] > 1, texts.ravel(), -1).astype(np.int32)
    similarity = (None, 0.9, 0.99, 1 - 1e-6)[seed % 4]
    costs = chance.integers(1, 9, count).astype(np.float32) if seed % 3 == 1 else None
    groups = (chance.integers(0, 3, count), np.array([2, 4, count])) if seed % 3 == 2 else (None, None)
    limits = Limits(count, chance.random(count) < 0.9, costs, float(4 * count), *groups, 1 + seed % 2 * 2,
                    texts if seed % 5 else None, similarity)  # fmt: skip
    expected, gains = brute(rows, v, c, limits)
    actual = chosen(tmp_path, rows, v, c, limits, int(chance.integers(3, 40)), chosen_rows=chosen_rows)
    assert actual.rows.tolist() == expected and np.allclose(actual.gains, gains, rtol=1e-9, atol=1e-9)
    if limits.texts is not None:
        assert len(np.unique(rows[actual.rows], axis=0)) == len(actual.rows)


def test_a_cosine_beside_the_threshold_is_that_of_float64(tmp_path: Path) -> None:
    """Rows whose cosine with the first differs from the threshold by less than float32 can tell."""
    angles = np.arccos(0.98) + np.array([-2e-7, 2e-7])
    rows = np.array([[1, 0], *([np.cos(angle), np.sin(angle)] for angle in angles)], np.float32)
    form = precision_of("float32", column("c", (2,), "float32"))
    limits = Limits(3, np.ones(3, bool), similarity=0.98)
    expected, _ = brute(rows, np.array([1.0, 0.0]), 0.0, limits)
    room = Room(3, 2, 3, ScanShape(16, 1), 3)
    source = RowSource(stored(tmp_path, rows, form=form), form)
    actual = greedy(source, Objective(np.array([1.0, 0.0]), 0.0), limits, room, SILENT_STAGE)
    assert expected == [0, 2] and actual.rows.tolist() == expected


def test_rows_wider_than_there_are_many(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    rows = (chance.normal(size=(60, 400)) + 0.2).astype(np.float16)
    limits, v = Limits(50, np.ones(60, bool)), rows.mean(0).astype(np.float64)
    for directions in (1, 59, 128):
        actual = chosen(tmp_path / str(directions), rows, v, 1 / 50, limits, 8, directions=directions)
        assert actual.rows.tolist() == brute(rows, v, 1 / 50, limits)[0]


def test_neither_pool_nor_blocks_nor_workers_change_it(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    rows = (chance.normal(size=(3000, 16)) + 0.5).astype(np.float16)
    v, limits = rows.mean(0).astype(np.float64), Limits(120, np.ones(3000, bool))
    every = [
        chosen(tmp_path / str(at), rows, v, 1 / 120, limits, pool, shape=shape, directions=(1, 16, 3, 4)[at])
        for at, (pool, shape) in enumerate(
            [(3000, ScanShape(64, 1)), (200, ScanShape(7, 2)), (130, ScanShape(5000, 1)), (1, ScanShape(64, 1))]
        )
    ]
    assert all(one.rows.tolist() == every[0].rows.tolist() for one in every)
    assert every[0].passes <= 2 and max(one.passes for one in every) < 60


def test_a_batch_takes_the_best_at_once_and_tells_what_it_lost(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    rows = (chance.normal(size=(500, 8)) + 0.5).astype(np.float16)
    v, limits = rows.mean(0).astype(np.float64), Limits(40, np.ones(500, bool))
    exact = chosen(tmp_path / "a", rows, v, 0.1, limits, 100)
    batch = chosen(tmp_path / "b", rows, v, 0.1, replace(limits, batch=10), 100)

    def utility(one: Choice) -> float:
        total = rows[one.rows].astype(np.float64).sum(0)
        return float(v @ total - 0.05 * total @ total)

    assert np.isclose(exact.gains.sum(), utility(exact)) and len(batch.rows) == 40
    assert utility(batch) < utility(exact) and batch.gains.sum() > utility(batch)
    first = rows.astype(np.float64) @ v - 0.05 * (rows.astype(np.float64) ** 2).sum(1)
    assert batch.rows[:10].tolist() == np.argsort(-first, kind="stable")[:10].tolist()


def test_no_penalty_is_the_top_k(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(300, 8)).astype(np.float16)
    v = chance.normal(size=8)
    actual = chosen(tmp_path, rows, v, 0.0, Limits(50, np.ones(300, bool)), 10)
    assert actual.rows.tolist() == np.argsort(-(rows.astype(np.float64) @ v), kind="stable")[:50].tolist()


def test_a_row_that_is_not_finite_is_named(tmp_path: Path) -> None:
    rows = np.ones((40, 4), np.float32)
    rows[33, 2] = 1e30
    form = precision_of("float32", column("c", (4,), "float32"))
    source, room = RowSource(stored(tmp_path, rows, form=form), form), Room(8, 2, 9, ScanShape(16, 1))
    for penalty in (0.1, 0.0):
        with pytest.raises(DataError, match="row 33 is not finite"):
            greedy(source, Objective(np.ones(4), penalty), Limits(3, np.ones(40, bool)), room, SILENT_STAGE)


@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
def test_rows_of_any_form_are_chosen_as_they_are_decoded(tmp_path: Path, past: None, precision: str) -> None:
    chance = np.random.default_rng(0)
    rows, form = (
        chance.normal(size=(150, 24)).astype(np.float32),
        precision_of(precision, column("c", (24,), "float32")),
    )
    columns = stored(tmp_path, rows, form=form)
    whole = np.asarray(form.decode({one.column.name: one.gather(np.arange(150)) for one in columns}))
    v, limits = rows.mean(0).astype(np.float64), Limits(60, np.ones(150, bool))
    actual = greedy(
        RowSource(columns, form), Objective(v, 1 / 20), limits, Room(9, 5, 11, ScanShape(16, 2)), SILENT_STAGE
    )
    assert actual.rows.tolist() == brute(whole, v, 1 / 20, limits)[0]


def test_ties_of_more_rows_than_are_held_go_to_the_lower(tmp_path: Path) -> None:
    """Two groups of equal rows, each as large as or larger than the pool: brute force takes from them in turn."""
    rows = np.concatenate([np.repeat(np.eye(2), 10, 0), 0.1 * np.ones((50, 2))]).astype(np.float16)
    limits = Limits(16, np.ones(70, bool))
    expected, _ = brute(rows, np.ones(2), 0.1, limits)
    assert chosen(tmp_path / "a", rows, np.ones(2), 0.1, limits, 5).rows.tolist() == expected
    chance = np.random.default_rng(0)
    same = np.repeat(chance.normal(size=(1, 256)), 300, 0).astype(np.float16)
    actual = chosen(tmp_path / "b", same, 1e-4 * same[0].astype(np.float64), 1.0, Limits(4, np.ones(300, bool)), 10)
    assert actual.rows.tolist() == [0, 1, 2, 3]


def test_what_lies_barely_across_the_directions_counts(tmp_path: Path) -> None:
    """Rows that are equal but for a part of 2e-4, seen by a single direction: float32 squares alone would lose it."""
    rows = np.concatenate([np.tile([1, 2e-4], (300, 1)), np.tile([1, -2e-4], (300, 1))]).astype(np.float32)
    form = precision_of("float32", column("c", (2,), "float32"))
    limits, v = Limits(60, np.ones(600, bool)), np.array([1.0, 1e-5])
    source, room = RowSource(stored(tmp_path, rows, form=form), form), Room(20, 1, 40, ScanShape(64, 1))
    actual = greedy(source, Objective(v, 1 / 60), limits, room, SILENT_STAGE)
    expected, gains = brute(rows, v, 1 / 60, limits)
    assert actual.rows.tolist() == expected and np.allclose(actual.gains, gains)


def test_sums_are_forgotten_in_time_and_batches_need_room(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    rows = (chance.normal(size=(2600, 3)) + 0.3).astype(np.float16)
    actual = chosen(
        tmp_path / "a",
        rows,
        rows.mean(0).astype(np.float64),
        1 / 2500,
        Limits(2500, np.ones(2600, bool)),
        16,
        directions=1,
    )
    assert len(set(actual.rows.tolist())) == 2500
    with pytest.raises(SettingsError, match="batch 20 exceeds"):
        chosen(tmp_path / "b", rows, np.ones(3), 0.1, Limits(40, np.ones(2600, bool), batch=20), 16)


@pytest.mark.parametrize("room", [0, 3, 40, 500])
def test_rows_that_are_kept_are_those_that_were_read(tmp_path: Path, room: int) -> None:
    chance = np.random.default_rng(room)
    rows, form = chance.normal(size=(200, 6)).astype(np.float16), precision_of("float16", column("c", (6,), "float16"))
    held, asked = RowCache(RowSource(stored(tmp_path, rows, form=form), form), room), set[int]()
    for size in chance.integers(1, 60, 30):
        some = chance.choice(200, size, replace=False)
        assert np.array_equal(held.gathered(some), rows[some].astype(np.float32))
        asked |= set(some.tolist())
    assert (held.fetched == len(asked)) == (room == 500)


def test_a_choice_keeps_to_its_plan(tmp_path: Path) -> None:
    """Narrow rows, all of them tied and kept, where what is known of each row outweighs the rows; and wide ones."""
    for name, shape in (("narrow", (12_000, 4)), ("wide", (1200, 1100))):
        chance, form = np.random.default_rng(0), precision_of("float16", column("c", shape[1:], "float16"))
        rows = (np.ones(shape) if name == "narrow" else chance.normal(size=shape)).astype(np.float16)
        source = RowSource(stored(tmp_path / name, rows, form=form), form)
        room = Room(256, 64, shape[0], ScanShape(1024, 1))
        objective, limits = Objective(rows[0].astype(np.float64), 1e-3), Limits(2, np.ones(len(rows), bool))
        greedy(source, objective, limits, room, SILENT_STAGE)  # kernels are compiled
        tracemalloc.start()
        greedy(source, objective, limits, room, SILENT_STAGE)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 0.2 < peak / room.parts(source).total <= 1, name
