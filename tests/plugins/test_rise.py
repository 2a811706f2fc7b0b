"""RISE against its formulas, written out position by position in float64; its exact form is unbiased; its memory is bounded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from headwater.engine.interface.model_view import ModelShape
from headwater.engine.models.batch_outputs import (
    FurtherOutputs,
    LinearHead,
    PackedOutputs,
    TargetPositions,
    merge_specs,
)
from headwater.engine.sketches.count_sketch import count_sketch
from headwater.plugins.rise import Rise
from headwater.store.errors import SettingsError
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("one_thread")
FLOOR = 1e-8
ROUNDING = 3e-6  # of a float32 probability whose exponent is near 40


def widths_of(rise: Rise, vocabulary: int, hidden: int) -> tuple[int, int, int]:
    """Kr, Kg, Kh: with `exact`, a hidden state of less than Kh numbers leaves its buckets to the left side, and vice versa."""
    if not rise.exact:
        return rise.kr, rise.kg, min(rise.kh, hidden) if rise.whiten else rise.kh
    kh = min(hidden, rise.kh)
    kr = min(vocabulary, rise.kr * rise.kh // kh)
    kg = min(vocabulary, hidden, rise.kg * rise.kh // kh)
    while kh < hidden and (kh + 1) * (kr + kg) <= rise.kh * (rise.kr + rise.kg):
        kh += 1
    return kr, kg, kh


def error_table(weight: np.ndarray, kg: int, rise: Rise) -> np.ndarray:
    """(V, Kg): a residual times it is the sketch of Wᵀr, or its numbers in another basis."""
    vocabulary, hidden = weight.shape
    if rise.exact and kg == vocabulary:
        left, values, _ = np.linalg.svd(weight, full_matrices=False)
        return (left * values) @ left.T
    if rise.exact and kg == hidden:
        return weight
    sketch = count_sketch(hidden, max(1, kg), rise.seed, "rise.g").matrix().double().numpy()
    return weight @ sketch[:, :kg]


def residual(z: np.ndarray, y: int, rise: Rise) -> tuple[np.ndarray, float]:
    """r over the whole vocabulary, items 1–3 of the formulas; and 1 where float32 might cut the prefix elsewhere, else 0."""
    s = z / rise.tau
    order = np.argsort(-s, kind="stable")[: rise.top or len(s)].tolist()
    if y not in order:
        order[-1] = y
    p = np.exp(s[order] - max(s[order]))
    p[p < 1e-36] = 0  # below float32's full precision
    p /= p.sum() + 1e-8
    kept, ahead, close = [], 0.0, 0.0
    for slot, v in enumerate(order):
        close += rise.mass < 1 and abs(ahead - rise.mass) < 1e-7
        if ahead < rise.mass or slot < rise.least or v == y:
            kept.append(slot)
        ahead += p[slot]
    r, mass = np.zeros(len(s)), sum(p[slot] for slot in kept)
    for slot in kept:
        r[order[slot]] = p[slot] / mass
    r[y] = -sum(p[slot] for slot in kept if order[slot] != y) / mass  # p − 1, without cancellation
    return r, close


def unit(x: np.ndarray, floor: float = FLOOR) -> np.ndarray:
    """x to unit norm, or below it under the floor."""
    return x / max(np.linalg.norm(x), floor)


def direction(x: np.ndarray) -> np.ndarray:
    """x to unit norm however small it is."""
    return x / (np.linalg.norm(x) or 1.0)


def signature(
    h: np.ndarray, z: np.ndarray, y: np.ndarray, weight: np.ndarray, rise: Rise, whitened: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """φ of one example, and the error that rounding allows it where sketches of residuals cancel; `whitened`: states in place
    of CS_h(h).
    """
    vocabulary, hidden = weight.shape
    kr, kg, kh = widths_of(rise, vocabulary, hidden)
    tables = [
        np.eye(size) if rise.exact and buckets == size
        else count_sketch(size, max(1, buckets), rise.seed, f"rise.{name}").matrix().double().numpy()
        for size, buckets, name in ((vocabulary, kr, "r"), (hidden, kh, "h"))
    ]  # fmt: skip
    errors = error_table(weight, kg, rise)
    rh, gh, lost = [], [], []
    for t in range(len(h)):
        r, close = residual(z[t], y[t], rise)
        state = h[t] @ tables[1] if whitened is None else whitened[t]
        hh, rr, gg = unit(state), (r @ tables[0])[:kr], r @ errors
        rh.append(np.outer(unit(rr, rise.floor), hh))
        gh.append(np.outer(unit(gg, rise.floor), hh))
        terms = np.abs(r).sum(), sum(abs(r[v]) * np.linalg.norm(weight[v]) for v in np.flatnonzero(r))
        cancelled = [x / max(np.linalg.norm(k), 1e-30) for x, k in zip(terms, (rr, gg), strict=True) if len(k)]
        lost.append(close + sum(min(1.0, ROUNDING * c) for c in cancelled if c > 30))
    total, start = np.zeros(kh * (kr + kg)), 0
    while True:
        stop = min(start + rise.window, len(h))
        parts = rise.lambda_rh * sum(rh[start:stop]), rise.lambda_gh * sum(gh[start:stop])
        total += direction(np.concatenate([part.ravel() for part in parts]))
        if stop == len(h):
            return direction(total), sum(lost)
        start += rise.window - rise.overlap


def random_readout(
    seed: int, vocabulary: int, hidden: int, lengths: list[int], spread: float, rise: Rise
) -> PackedOutputs:
    """Random hidden states through a random head; half of the targets are likely ones."""
    rng = np.random.default_rng(seed)
    positions = sum(lengths)
    weight = torch.from_numpy((spread * rng.standard_normal((vocabulary, hidden)) / np.sqrt(hidden)).astype(np.float32))
    head = LinearHead(ModelShape(hidden, vocabulary, 1, 1024), weight)
    h = torch.from_numpy((rng.standard_normal((positions, hidden)) + 0.3).astype(np.float32))
    likely = torch.from_numpy(rng.random(positions) < 0.5)
    targets = torch.where(likely, head.logits(h).argmax(1), torch.from_numpy(rng.integers(0, vocabulary, positions)))
    example_ids = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    return PackedOutputs(
        head, {-1: h}, TargetPositions(example_ids, targets, lengths), merge_specs([rise.needs(head.model_shape)])
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.integers(5, 300),
    hidden=st.integers(3, 40),
    lengths=st.lists(st.one_of(st.integers(0, 40), st.sampled_from([1, 256, 257, 600])), min_size=1, max_size=3),
    spread=st.sampled_from([0.3, 3.0]),
    model=st.sampled_from([(128, 128, 64), (48, 64, 16), (128, 24, 0), (0, 8, 28)]),
    tau=st.sampled_from([0.1, 1.0]),
    top=st.sampled_from([0, 3, 16, 256]),
    mass=st.sampled_from([0.5, 0.92, 1.0]),
    least=st.sampled_from([1, 4]),
    weights=st.sampled_from([(1.0, 0.3), (0.7, 1.0)]),
    exact=st.booleans(),
)
def test_rows_are_the_formulas(seed, vocabulary, hidden, lengths, spread, model, tau, top, mass, least, weights, exact):
    rise = Rise(*model, *weights, tau=tau, top=top, mass=mass, least=least, seed=seed % 3, exact=exact)
    outputs = random_readout(seed, vocabulary, hidden, lengths, spread, rise)
    signatures = rise.rows(outputs, rise.precompute(outputs.head, {}))["signature"].double().numpy()
    z, h = outputs.head.logits(outputs.hidden()).double().numpy(), outputs.hidden().double().numpy()
    weight, y, first = outputs.head.weight.double().numpy(), outputs.targets.numpy(), 0
    kr, kg, kh = widths_of(rise, vocabulary, hidden)
    assert signatures.shape == (len(lengths), kh * (kr + kg)) and kh * (kr + kg) <= model[1] * (model[0] + model[2])
    for row, length in zip(signatures, lengths, strict=True):
        part = slice(first, first + length)
        first += length
        if not length:
            assert not row.any()
            continue
        wanted, allowed = signature(h[part], z[part], y[part], weight, rise)
        assert np.linalg.norm(row - wanted) <= 1e-4 + allowed
        assert np.linalg.norm(row) == pytest.approx(np.linalg.norm(wanted), abs=1e-5)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kh", [5, 40])
def test_whitened_rows_have_the_inner_products_of_the_formula(kh, exact):
    rise = Rise(kr=16, kh=kh, kg=8, whiten=0.2, exact=exact)
    lengths = [4, 9, 300, 1]
    outputs = random_readout(5, 60, 12, lengths, 2.0, rise)
    model = outputs.head.model_shape
    moment = rise.fit(model)
    moment.accumulate(outputs)
    signatures = rise.rows(outputs, rise.precompute(outputs.head, moment.finish()))["signature"].double().numpy()
    assert signatures.shape[1] == rise.columns(model)[0].shape[0] == np.prod([sum(rise.widths(model)[:2]), min(kh, 12)])
    h, z = outputs.hidden().double().numpy(), outputs.head.logits(outputs.hidden()).double().numpy()
    values, vectors = np.linalg.eigh(h.T @ h / len(h))  # ascending
    whitened = (h @ vectors / np.sqrt(values + 0.2 * values.mean()))[:, ::-1][:, :kh]
    cuts = np.cumsum(lengths)[:-1]
    parts = zip(*(np.split(x, cuts) for x in (h, z, outputs.targets.numpy(), whitened)), strict=True)
    weight = outputs.head.weight.double().numpy()
    expected = np.stack([signature(hs, zs, ys, weight, rise, ws)[0] for hs, zs, ys, ws in parts])
    assert np.allclose(signatures @ signatures.T, expected @ expected.T, atol=1e-4)


def test_rows_of_stores_before_whitening_are_hashed():
    settings = Rise(exact=True).settings()
    older = {name: value for name, value in settings.items() if name != "whiten"}
    assert Rise.from_settings(older) == Rise()
    oldest = {name: value for name, value in older.items() if name != "exact"}
    assert Rise.from_settings(oldest) == Rise(exact=False)


def test_ties_go_to_the_lower_token():
    rise = Rise(tau=1.0, top=6, mass=1.0)
    outputs = random_readout(0, 40, 8, [30], 1.0, rise)
    given_logits = torch.round(outputs.head.logits(outputs.hidden()) * 2) / 2
    needs = merge_specs([rise.needs(outputs.head.model_shape)])
    positions = TargetPositions(outputs.example_ids, outputs.targets, [30])
    tied = PackedOutputs(outputs.head, {-1: outputs.hidden()}, positions, needs, FurtherOutputs(given_logits))
    found = rise.rows(tied, rise.precompute(outputs.head, {}))["signature"][0].double().numpy()
    arrays = (x.double().numpy() for x in (outputs.hidden(), given_logits))
    wanted, allowed = signature(*arrays, outputs.targets.numpy(), outputs.head.weight.double().numpy(), rise)
    assert np.linalg.norm(found - wanted) <= 1e-4 + allowed


def test_without_norms_and_truncation_inner_products_are_those_of_head_gradients():
    """Unbiased for Σ⟨r_t, r_s⟩⟨h_t, h_s⟩ over 250 seeds, every pair of six examples."""
    lengths = [1, 3, 8, 12, 5, 20]
    plain = {"tau": 1.0, "top": 0, "mass": 1.0, "unit_norms": False, "exact": False}
    outputs = random_readout(3, 40, 12, lengths, 2.0, Rise(**plain))
    z = outputs.head.logits(outputs.hidden()).double()
    r = torch.softmax(z, 1) - torch.nn.functional.one_hot(outputs.targets, 40)
    outer = torch.einsum("tv,td->tvd", r, outputs.hidden().double()).flatten(1)
    gradients = torch.zeros(len(lengths), outer.shape[1], dtype=torch.float64).index_add_(0, outputs.example_ids, outer)
    found = []
    for seed in range(250):
        rise = Rise(kr=16, kh=16, kg=0, seed=seed, **plain)
        rows = rise.rows(outputs, rise.precompute(outputs.head, {}))["signature"].double()
        found.append((rows @ rows.T).numpy())
    estimates = np.array(found)
    apart = np.abs(estimates.mean(0) - (gradients @ gradients.T).numpy())
    assert (apart < 4 * estimates.std(0) / np.sqrt(len(estimates))).all()


def test_the_semantic_channel_without_norms_is_that_of_the_errors_sent_back():
    lengths = [4, 9]
    plain = {"tau": 1.0, "top": 0, "mass": 1.0, "unit_norms": False, "exact": False}
    outputs = random_readout(4, 30, 10, lengths, 2.0, Rise(**plain))
    z = outputs.head.logits(outputs.hidden()).double()
    r = torch.softmax(z, 1) - torch.nn.functional.one_hot(outputs.targets, 30)
    errors = r @ outputs.head.weight.double()
    found = []
    for seed in range(200):
        rise = Rise(kr=0, kh=16, kg=16, lambda_gh=1.0, seed=seed, **plain)
        rows = rise.rows(outputs, rise.precompute(outputs.head, {}))["signature"].double()
        found.append(float(rows[0] @ rows[1]))
    a, b = (outputs.example_ids == 0), (outputs.example_ids == 1)
    h = outputs.hidden().double()
    wanted = float(((errors[a] @ errors[b].T) * (h[a] @ h[b].T)).sum())
    assert abs(np.mean(found) - wanted) < 4 * np.std(found) / np.sqrt(len(found))


@pytest.mark.parametrize(
    ("positions", "bounds"),
    [
        (1, [(0, 1)]),
        (256, [(0, 256)]),
        (257, [(0, 256), (206, 257)]),
        (462, [(0, 256), (206, 462)]),
        (463, [(0, 256), (206, 462), (412, 463)]),
    ],
)
def test_windows_cover_an_example_and_share_their_overlap(positions, bounds):
    assert list(Rise().window_bounds(positions)) == bounds


def test_settings_out_of_range_are_refused_together():
    with pytest.raises(SettingsError, match=r"rise needs tau > 0, window > overlap ≥ 0"):
        Rise(tau=0.0, window=5, overlap=5)
    with pytest.raises(SettingsError, match="whiten ≥ 0"):
        Rise(whiten=-0.1)
    with pytest.raises(SettingsError, match="kr \\+ kg ≥ 1"):
        Rise(kr=0, kg=0)


MEASURE = """
import json, torch
from headwater.engine.models.batch_outputs import FurtherOutputs, PackedOutputs, LinearHead, TargetPositions, merge_specs
from headwater.engine.runtime.memory import peak_bytes, reset_peak, resident_bytes
from headwater.engine.interface.model_view import ModelShape
from headwater.plugins.rise import Rise

rise, model = Rise(tau=1.0), ModelShape(512, 50304, 4, 4096)
head = LinearHead(model, torch.randn(50304, 512) * 1e-3)  # flat: the widest kept sets


def rows(positions, examples, tables):
    each = positions // examples
    owners = torch.arange(examples).repeat_interleave(each)
    logits = head.logits(torch.randn(256, 512)).repeat(positions // 256, 1) if positions < 1024 else None
    where = TargetPositions(owners, torch.randint(50304, (positions,)), [each] * examples)
    needs = merge_specs([rise.needs(model)])
    readout = PackedOutputs(head, {-1: torch.randn(positions, 512)}, where, needs, FurtherOutputs(logits))
    before = resident_bytes()
    reset_peak()
    readout.losses()
    reduced, kept = peak_bytes() - before, resident_bytes() - before
    reset_peak()
    held = rise.rows(readout, tables)
    return reduced, kept, peak_bytes() - before


rows(256, 4, rise.precompute(head, {}))  # compiled, threads started
before = resident_bytes()
reset_peak()
tables = rise.precompute(head, {})
made = peak_bytes() - before
reduced, kept, whole = max((rows(4096, n, tables) for n in (1, 256)), key=lambda told: told[2])
print(json.dumps([made, reduced, kept, whole, rise.scratch(model, 4096)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux alone")
def test_scratch_bounds_what_is_allocated(tmp_path):
    script = tmp_path / "measure.py"
    script.write_text(MEASURE)
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    told = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, check=True, cwd=Path.cwd()
    )
    made, reduced, _, whole, scratch = json.loads(told.stdout)
    tile = 3 * (48 << 20)  # the provider's part, see TextProvider.memory
    assert reduced < tile + scratch
    assert made + whole < scratch < 3 * (made + whole)
