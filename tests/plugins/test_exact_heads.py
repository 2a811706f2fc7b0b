"""Heads that fit into a row are stored exactly: rows and scores against whole gradients in float64, one position at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from headwater.engine.interface.model_view import ModelShape
from headwater.engine.interface.registry import load
from headwater.engine.models.batch_outputs import LinearHead, PackedOutputs, TargetPositions, merge_specs
from headwater.engine.runtime.memory import reset_peak
from headwater.engine.sketches.count_sketch import count_sketch
from headwater.engine.sketches.head_gradient import ExactResidual, gram_root
from headwater.engine.sketches.widths import side_widths
from headwater.plugins.conformance.trial import Trial
from headwater.plugins.grasp import Grasp
from headwater.plugins.head_gradients import HeadCos, HeadGn
from headwater.plugins.rise import Rise
from headwater.store.feature_store import FeatureStore
from headwater.store.root import read_root, write_root
from hypothesis import given
from hypothesis import strategies as st
from running import done

pytestmark = pytest.mark.usefixtures("one_thread")
METHODS = ("rise", "headcos", "headgn", "grasp")
LATER = ("exact", "whiten")
"""Settings that older stores do not record."""
LENGTHS = [3, 1, 0, 6, 2]
PLAIN = {"tau": 1.0, "top": 0, "mass": 1.0, "unit_norms": False}


class Batch:
    """Random examples and a random head, and their whole gradients in float64."""

    def __init__(self, method: Any, vocabulary: int, hidden: int, weight: np.ndarray | None = None) -> None:
        draw = np.random.default_rng(vocabulary * 1000 + hidden)
        self.weight = draw.normal(size=(vocabulary, hidden)).astype(np.float32) if weight is None else weight
        self.h = draw.normal(size=(sum(LENGTHS), hidden)).astype(np.float32)
        self.y = draw.integers(0, vocabulary, sum(LENGTHS))
        self.owners = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
        head = LinearHead(ModelShape(hidden, vocabulary, 0, 8), torch.from_numpy(self.weight))
        positions = TargetPositions(torch.from_numpy(self.owners), torch.from_numpy(self.y), LENGTHS)
        needs = merge_specs([method.needs(head.model_shape)])
        outputs = PackedOutputs(head, {-1: torch.from_numpy(self.h)}, positions, needs)
        self.rows = {
            name: rows.double().numpy() for name, rows in method.rows(outputs, method.precompute(head, {})).items()
        }

    def residual(self, t: int) -> np.ndarray:
        """(V,) softmax − onehot at one position."""
        z = self.weight.astype(np.float64) @ self.h[t].astype(np.float64)
        r = np.exp(z - np.logaddexp.reduce(z))
        r[self.y[t]] -= 1
        return r

    def sums(self, left: Any) -> np.ndarray:
        """(n, …): Σ left(r_t) h_tᵀ over each example's positions."""
        terms = [np.outer(left(self.residual(t)), self.h[t].astype(np.float64)) for t in range(len(self.h))]
        zero = np.zeros_like(terms[0])
        return np.array([
            sum((term for term, owner in zip(terms, self.owners, strict=True) if owner == i), zero).ravel()
            for i in range(len(LENGTHS))
        ])  # fmt: skip


def close(values: np.ndarray, expected: np.ndarray) -> None:
    assert values.shape == expected.shape
    assert np.abs(values - expected).max() <= 3e-6 * np.abs(expected).max()


sides = st.tuples(st.integers(1, 5000), st.integers(1, 200))


@given(vocabulary=sides, second=sides, hidden=sides)
def test_rows_are_never_longer_and_no_side_wider_than_it_is(vocabulary, second, hidden):
    for left in ([vocabulary], [vocabulary, second]):
        widths, right = side_widths(left, hidden)
        most = hidden[1] * sum(buckets for _, buckets in left)
        assert 0 < right <= hidden[0] and right * sum(widths) <= most
        assert all(0 < width <= size for width, (size, _) in zip(widths, left, strict=True))
        if all(size >= buckets for size, buckets in (*left, hidden)):  # as published
            assert (*widths, right) == (*(buckets for _, buckets in left), hidden[1])
        if len(left) == 1 and left[0][0] * hidden[0] <= most:  # fits
            assert (*widths, right) == (left[0][0], hidden[0])


@pytest.mark.parametrize(("vocabulary", "hidden"), [(2, 30), (30, 2), (7, 8)])
def test_rows_are_the_whole_gradient(vocabulary: int, hidden: int) -> None:
    batch = Batch(HeadGn(k=8), vocabulary, hidden)
    whole = batch.sums(lambda r: r)
    close(batch.rows["gradient"], whole)
    norms = np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1e-30)
    close(Batch(HeadCos(k=8), vocabulary, hidden).rows["gradient"], whole / norms)
    rows = Batch(Grasp(m=60), vocabulary, hidden).rows
    mean = -whole / np.maximum(np.array(LENGTHS), 1)[:, None]
    close(rows["feature"], mean)
    close(rows["square"], (mean**2).sum(1, keepdims=True))


@pytest.mark.parametrize(("vocabulary", "hidden"), [(3, 500), (500, 3)])
def test_one_side_is_itself_and_the_other_a_sketch_as_wide_as_the_row_allows(vocabulary: int, hidden: int) -> None:
    batch = Batch(HeadGn(k=16), vocabulary, hidden)
    large, stream = (vocabulary, "head.r") if vocabulary > hidden else (hidden, "head.h")
    sketch = count_sketch(large, 256 // 3, 0, stream).matrix().double().numpy()
    whole = batch.sums(lambda r: r).reshape(len(LENGTHS), vocabulary, hidden)
    expected = sketch.T @ whole if vocabulary > hidden else whole @ sketch
    close(batch.rows["gradient"], expected.reshape(len(LENGTHS), -1))


def test_without_exact_and_above_the_buckets_both_sides_are_sketched() -> None:
    for method, vocabulary, hidden in ((HeadGn(k=8, exact=False), 2, 5), (HeadGn(k=8), 40, 30)):
        batch = Batch(method, vocabulary, hidden)
        r, h = (count_sketch(size, 8, 0, f"head.{side}").matrix().double().numpy()
                for size, side in ((vocabulary, "r"), (hidden, "h")))  # fmt: skip
        whole = batch.sums(lambda x: x).reshape(len(LENGTHS), vocabulary, hidden)
        close(batch.rows["gradient"], (r.T @ whole @ h).reshape(len(LENGTHS), -1))


TWO = np.random.default_rng(5).normal(size=(1, 40)).astype(np.float32)


@pytest.mark.parametrize(
    ("vocabulary", "hidden", "weight"),
    [(2, 40, None), (2, 40, np.concatenate([-TWO, TWO])), (40, 3, None), (9, 9, None)],
    ids=["few classes", "a singular head", "narrow", "square"],
)
def test_products_of_ghs_are_those_of_whole_errors(vocabulary: int, hidden: int, weight: np.ndarray | None) -> None:
    batch = Batch(Rise(kr=0, kg=12, kh=12, lambda_gh=1.0, **PLAIN), vocabulary, hidden, weight)
    rows, whole = batch.rows["signature"], batch.sums(lambda r: batch.weight.astype(np.float64).T @ r)
    assert rows.shape[1] == min(vocabulary, hidden) * hidden <= 144
    close(rows @ rows.T, whole @ whole.T)


def test_rises_whole_signature_is_exact() -> None:
    batch = Batch(Rise(kr=12, kg=12, kh=12, **PLAIN), 2, 40)
    rows, rh = batch.rows["signature"], batch.sums(lambda r: r)
    gh = batch.sums(lambda r: 0.3 * batch.weight.astype(np.float64).T @ r)
    close(rows @ rows.T, rh @ rh.T + gh @ gh.T)


@given(st.integers(1, 6), st.integers(1, 20), st.integers(0, 6), st.integers(0, 99))
def test_the_root_is_symmetric_and_does_not_depend_on_the_basis(
    outputs: int, inputs: int, rank: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    weight = draw.normal(size=(outputs, rank)) @ draw.normal(size=(rank, inputs))
    turned = weight @ np.linalg.qr(draw.normal(size=(inputs, inputs)))[0]
    root = gram_root(torch.from_numpy(weight)).double().numpy()
    size = np.linalg.norm(weight) + 1e-30
    assert np.array_equal(root.T, root) or np.abs(root - root.T).max() <= 1e-7 * size
    assert np.abs(root @ root - weight @ weight.T).max() <= 1e-6 * size**2
    assert np.abs(root - gram_root(torch.from_numpy(turned)).double().numpy()).max() <= 3e-7 * size


def test_a_confident_predictions_residual_is_no_rounding_error() -> None:
    logits = torch.tensor([[40.0, 0.0, 1.0]])
    (values,) = ExactResidual()(logits, torch.tensor([0]))
    others = np.exp([-40.0, -39.0])
    np.testing.assert_allclose(values[0].double().numpy(), [-others.sum(), *others], rtol=1e-5)
    assert torch.equal(logits, torch.tensor([[40.0, 0.0, 1.0]]))


@pytest.mark.parametrize("name", METHODS)
def test_settings_that_a_store_recorded_before_mean_sketched_rows(name: str) -> None:
    kind = load(name)
    older = {key: value for key, value in kind().settings().items() if key not in LATER}
    assert kind.from_settings(older) == replace(kind(), exact=False)
    assert kind.from_settings({"seed": 3}) == replace(kind(), seed=3)
    named = {key: value for key, value in older.items() if key not in ("precision", "bits", "window")}
    assert kind.from_settings(named).exact
    if name == "rise":  # formats 1 and 2
        named = {"normalize" if key == "unit_norms" else key: value for key, value in older.items() if key != "bits"}
        del named["precision"]
        assert kind.from_settings(named) == Rise(exact=False)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus and queries of one position each, and a head of two classes."""
    folder, draw = tmp_path_factory.mktemp("arrays"), np.random.default_rng(2)
    weight = (0.05 * draw.normal(size=(2, 24))).astype(np.float32)  # at τ = 0.1 still unsure of its answers
    for name, rows in (("corpus", 40), ("queries", 6)):
        hidden = draw.normal(size=(rows, 24)).astype(np.float32)
        np.savez(folder / f"{name}.npz", hidden=hidden, labels=draw.integers(0, 2, rows), weight=weight)
    return folder


def test_a_store_that_was_written_before_is_read_and_continued(arrays: Path, tmp_path: Path) -> None:
    store, methods = tmp_path / "S", [part for name in METHODS for part in ("--method", name)]
    off = [part for name in METHODS for part in ("--set", f"{name}.exact", "false")]
    done("ingest", arrays / "corpus.npz", "--store", store, *methods, *off)

    def answers() -> list[list[dict]]:
        asked = ["attribute", store, "--queries", arrays / "queries.npz", "--json", "--method"]
        lines = [done(*asked, name).stdout.splitlines() for name in METHODS]
        return [[json.loads(line) | {"store": ""} for line in part] for part in lines]

    before = answers()
    attributes, record = read_root(str(store))
    for name in METHODS:
        group = record.groups[f"methods/{name}"]
        settings = {key: value for key, value in group.settings.items() if key not in LATER}
        older = replace(group, notes={**group.notes, "settings": settings})
        record = record.with_group(f"methods/{name}", older)
    write_root(store, attributes, record)
    assert "exact" not in FeatureStore.open(store).groups["methods/rise"].settings
    assert answers() == before
    done("ingest", arrays / "corpus.npz", arrays / "queries.npz", "--store", store, *methods, "--append")
    assert FeatureStore.open(store).rows("methods/headcos") == 46


def test_scores_are_those_of_whole_gradients(arrays: Path, tmp_path: Path) -> None:
    store, methods = tmp_path / "S", [part for name in METHODS for part in ("--method", name)]
    float32 = [part for name in METHODS for part in ("--set", f"{name}.precision", "float32")]
    done("ingest", arrays / "corpus.npz", "--store", store, *methods, *float32)
    sides = []
    for file in ("corpus", "queries"):
        data = np.load(arrays / f"{file}.npz")
        weight, h = data["weight"].astype(np.float64), data["hidden"].astype(np.float64)
        z = h @ weight.T
        r = [np.exp(s - np.logaddexp.reduce(s, 1)[:, None]) - np.eye(2)[data["labels"]] for s in (z, z / 0.1)]
        parts = [unit(r[1]), 0.3 * unit(r[1] @ weight)]
        rise = np.concatenate([np.einsum("nc,nd->ncd", part, unit(h)).reshape(len(h), -1) for part in parts], 1)
        sides.append((np.einsum("nc,nd->ncd", r[0], h).reshape(len(h), -1), unit(rise)))
    (g, rise), (q, query_rise) = sides
    fisher = g.T @ g / len(g)
    damped = fisher + 0.1 * np.trace(fisher) / len(fisher) * np.eye(len(fisher))
    expected = {"rise": query_rise @ rise.T, "headcos": unit(q) @ unit(g).T, "headgn": q @ np.linalg.inv(damped) @ g.T,
                "grasp": q @ unit(g).T}  # fmt: skip
    for name in METHODS:
        scores = tmp_path / f"{name}.zarr"
        done("attribute", store, "--queries", arrays / "queries.npz", "--method", name, "--all-scores", scores)
        values = np.asarray(zarr.open_array(str(scores / "scores"), mode="r")[:]).T
        assert np.abs(values - expected[name]).max() <= 1e-4 * np.abs(expected[name]).max(), name


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of unit norm."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_plan_says_what_is_exact(arrays: Path, tmp_path: Path) -> None:
    methods = [part for name in METHODS for part in ("--method", name)]
    words = ["plan", "ingest", arrays / "corpus.npz", "--store", tmp_path / "S", *methods]
    printed = done(*words, "--set", "headgn.k", "6", "--set", "grasp.m", "47").stdout
    for name in ("rise", "headcos"):
        assert f"{name}: the head's gradient (2 × 24) is not sketched\n" in printed
    assert "headgn: the head's gradient (2 × 24) is sketched to 2 × 18 numbers\n" in printed
    assert "grasp: the head's gradient (2 × 24) is sketched to 47 numbers\n" in printed
    assert not (tmp_path / "S").exists()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [ModelShape(512, 2, 0, 1), ModelShape(128, 90, 0, 256), ModelShape(16, 4096, 0, 64)])
def test_scratch_bounds_what_small_heads_take(name: str, shape: ModelShape) -> None:
    if not reset_peak():
        pytest.skip("resident memory is measured where the system keeps its peak (Linux)")
    method = load(name)()
    Trial(method, shape).rows([0, 1])
    trial = Trial(method, shape, lengths=[min(16, shape.max_length)] * 256)
    assert trial.allocated() <= method.scratch(shape, 16 * 256) + (8 << 20)
