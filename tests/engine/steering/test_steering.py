"""Steering operators: their losses and gradients against automatic differentiation in float64, their measurements by hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from headwater.engine.data.documents import Template
from headwater.engine.fitting import stored_states
from headwater.engine.fitting.hidden_states import MappedStates, PositionStates, states_at
from headwater.engine.fitting.stored_states import StoredStates
from headwater.engine.ingest.examples import Place
from headwater.engine.ingest.open_provider import corpus_provider
from headwater.engine.ingest.text_settings import TextSettings
from headwater.engine.interface.model_view import ModelShape, OutputSpec
from headwater.engine.models.batch_outputs import LinearHead
from headwater.engine.models.language_model import ModelChoice
from headwater.engine.recovery.design import PartitionDesign
from headwater.engine.steering import operators as steering
from headwater.engine.steering.at_head import AtHead
from headwater.engine.steering.example_weights import head_norms, inverse_weights
from headwater.engine.steering.linearity import Linearity
from headwater.engine.steering.losses import Reference, loss_and_gradient
from headwater.engine.steering.operators import (
    OperatorGradients,
    Operators,
    WeightedPositions,
    add_drift,
    add_fidelity,
    add_losses,
    measure,
)
from headwater.engine.steering.steering_fit import DesignSubset, SteeringFit
from headwater.engine.steering.training import SteeringRecipe, Training, train_operators
from headwater.store.errors import DataError, SettingsError
from headwater.store.feature_store import FeatureStore
from small import save_model, sentences, write_corpus

P, D, V, K, R = 11, 6, 17, 5, 3
WHOLE_TORCH = pytest.mark.skipif(
    "ATEN_CPU_CAPABILITY" in os.environ,
    reason="torch's attention in bfloat16 wants the processor's own instruction set",
)


def parts(scale: float = 1.0, softcap: float = 0.0) -> tuple[LinearHead, Operators, torch.Tensor, torch.Tensor]:
    """A head, operators that do something, hidden states and targets."""
    torch.manual_seed(0)
    head = LinearHead(ModelShape(D, V, 1, 8), torch.randn(V, D), torch.randn(V), scale, softcap)
    operators = Operators.initial(K, (D, D), R, 1)
    operators.alpha = 0.3 * torch.randn(K, R, D)
    return head, operators, torch.randn(P, D), torch.randint(0, V, (P,))


def logits(head: LinearHead, hidden: torch.Tensor) -> torch.Tensor:
    """In float64."""
    assert head.bias is not None
    z = head.scale * (hidden @ head.weight.double().T + head.bias.double())
    return head.softcap * torch.tanh(z / head.softcap) if head.softcap else z


def steered(
    head: LinearHead, operators: Operators, inner: torch.Tensor, hidden: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Base log-probabilities (P, V), every operator's (K, P, V), and leaves for B and α, in float64."""
    basis, alpha = (one.double().requires_grad_() for one in (operators.basis, operators.alpha))
    steps = torch.einsum("pr,krd->kpd", inner.double() @ basis[:-1] + basis[-1], alpha)
    told = torch.log_softmax(logits(head, (hidden.double() + steps).flatten(0, 1)), 1)
    return torch.log_softmax(logits(head, hidden.double()), 1), told.view(K, len(hidden), -1), basis, alpha


@pytest.mark.parametrize("tile", [1 << 8, 4 << 20])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, 0.0), (0.5, 3.0)])
@pytest.mark.parametrize("depth", [D, 4])
@pytest.mark.parametrize("loss", ["fidelity", "drift", "losses"])
def test_gradients_are_those_of_the_loss(
    loss: str, depth: int, scale: float, softcap: float, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "TILE_BYTES", tile)
    monkeypatch.setattr(steering, "LEAST_ROWS", 1)
    head, operators, hidden, targets = parts(scale, softcap)
    inner = hidden if depth == D else torch.randn(P, depth)
    operators.basis = Operators.initial(K, (depth, D), R, 1).basis
    places, weights, found = (
        PositionStates(hidden, targets, inner),
        torch.rand(K, P),
        OperatorGradients.zeros(operators),
    )
    base, told, basis, alpha = steered(head, operators, inner, hidden)
    each = -told[:, torch.arange(P), targets]
    if loss == "fidelity":
        some, at = slice(1, 4), torch.randint(0, P, (3, 7))  # each its own places, some of them twice
        weights = torch.rand(3, 7)
        add_fidelity(head, operators, some, WeightedPositions(places.at(at), weights), found)
        total = (weights.double() * each[some].gather(1, at)).sum()
    elif loss == "drift":
        add_drift(head, operators, WeightedPositions(places, weights), found)
        total = (weights.double() * (base.exp() * (base - told)).sum(2)).sum()
    else:
        add_losses(head, operators, WeightedPositions(places, weights), found)
        total = (weights.double() * each).sum()
    total.backward()
    assert abs(found.loss - total.item()) < 1e-4 * max(1, total.item())
    assert basis.grad is not None and alpha.grad is not None
    assert torch.allclose(found.basis.double(), basis.grad, atol=5e-4)
    assert torch.allclose(found.alpha.double(), alpha.grad, atol=5e-4)


@pytest.mark.parametrize(("scale", "softcap"), [(1.0, 0.0), (0.5, 0.0), (0.5, 3.0)])
@pytest.mark.parametrize("width", [1, 7, 64, 5000])
def test_what_is_pulled_is_the_gradient_of_its_loss(width: int, scale: float, softcap: float) -> None:
    draw = torch.Generator().manual_seed(width)
    head = LinearHead(ModelShape(D, width, 1, 8), torch.zeros(width, D), None, scale, softcap)
    weights = torch.rand(3, 4, generator=draw)
    weights[1, 2] = 0
    raw = (4 * torch.randn(3, 4, width, generator=draw)).double().requires_grad_()
    z = scale * raw
    z = softcap * torch.tanh(z / softcap) if softcap else z
    told, own = torch.log_softmax(z, 2), torch.randn(4, width, generator=draw)
    targets = torch.randint(width, (4,), generator=draw)
    q = torch.log_softmax(own.double(), 1)
    each = {"loss": -told[:, torch.arange(4), targets], "drift": (q.exp() * (q - told)).sum(2)}
    for expected, wanted in ((targets, each["loss"]), (Reference.of(own), each["drift"])):
        total = (weights.double() * wanted).sum()
        (gradient,) = torch.autograd.grad(total, raw, retain_graph=True)
        loss, error = loss_and_gradient(head, z.detach().float().clone(), expected, weights)
        assert abs(loss - total.item()) < 1e-5 * max(1, total.item()) and error.shape == raw.shape
        assert torch.allclose(error.double(), gradient, atol=1e-6)


def test_a_sure_models_gradient_keeps_its_digits() -> None:
    head = LinearHead(ModelShape(D, 600, 1, 8), torch.zeros(600, D))
    z = torch.zeros(1, 600)
    z[0, 7] = 23.0  # p − 1 is 6e-8: float32 has no digits left of it
    gone = float(599 / (599 + np.exp(23.0)))
    _, error = loss_and_gradient(head, z, torch.tensor([7]), torch.ones(1))
    assert np.isclose(float(error[0, 7]), -gone, rtol=1e-4) and abs(float(error.sum())) < 1e-3 * gone


def test_operators_that_do_nothing_drift_nowhere() -> None:
    """p and q are then one function of the same logits. What a fused multiply-add may leave of p − q is q's own rounding."""
    width, unit = 4100, 2.0**-24  # half a unit in the last place of 1
    head, z = LinearHead(ModelShape(D, width, 1, 8), torch.zeros(width, D)), 4 * torch.randn(3, width)
    reference = Reference.of(z)
    loss, error = loss_and_gradient(head, z.clone(), reference, torch.ones(3))
    assert (error.abs() <= 1.001 * unit * reference.q).all()  # and so |Σ error| ≤ 3 units
    away = z.double() - z.double().max(1, keepdim=True).values
    terms = float((torch.softmax(away, 1) * away.abs()).sum())
    assert abs(loss) <= 2 * (4096 / 4 + 3) * unit * terms  # two sums of up to 4,096 float32 terms, four lanes or more
    wide = torch.randn(2, 9, 3).mT  # lies apart in memory
    told = loss_and_gradient(head, wide.clone(), torch.arange(3), torch.ones(2, 3))
    other = loss_and_gradient(head, wide, torch.arange(3), torch.ones(2, 3))
    assert abs(told[0] - other[0]) < 1e-5 and torch.allclose(told[1], other[1], atol=1e-6)


def test_the_linearity_loss_is_that_of_its_formula() -> None:
    head, operators, hidden, targets = parts()
    design, example_ids = PartitionDesign(40, K, 2, 0), np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    linearity, found = Linearity(design, 3), OperatorGradients.zeros(operators)
    space = AtHead(head, MappedStates(hidden, targets, np.array([0, 3, 7, P])))
    linearity.add(space, operators, np.arange(3), found)
    base, told, basis, alpha = steered(head, operators, hidden, hidden)
    gains = (told - base)[:, torch.arange(P), targets]  # (K, P)
    y = torch.stack([gains[:, torch.from_numpy(example_ids == one)].mean(1) for one in range(3)])
    left = y @ torch.from_numpy(linearity.unexplained).T
    total = (left**2).sum() / 3
    total.backward()
    assert np.isclose(found.loss, total.item(), rtol=1e-4)
    assert basis.grad is not None and alpha.grad is not None
    assert torch.allclose(found.basis.double(), basis.grad, atol=5e-4)
    assert torch.allclose(found.alpha.double(), alpha.grad, atol=5e-4)
    wide = np.linalg.eigvalsh(
        linearity.unexplained + np.eye(K)
    )  # a ridge's hat matrix: symmetric, eigenvalues in [0, 1)
    assert np.allclose(linearity.unexplained, linearity.unexplained.T) and wide.min() > -1e-9 and wide.max() < 1


def test_operators_begin_as_nothing() -> None:
    operators = Operators.initial(4, (D, D), R, 7)
    assert torch.allclose(operators.basis.T @ operators.basis, torch.eye(R), atol=1e-5)
    head, _, hidden, targets = parts()
    found = measure(head, operators, PositionStates(hidden, targets, hidden), torch.zeros(P, dtype=torch.int64), 1)
    assert found.abs().max() < 1e-6
    assert torch.equal(operators.basis, Operators.initial(4, (D, D), R, 7).basis)


def test_a_measurement_is_the_mean_loss_before_less_after(monkeypatch: pytest.MonkeyPatch) -> None:
    head, operators, hidden, targets = parts(0.5, 3.0)
    example_ids = torch.tensor([0, 0, 0, 1, 1, 1, 1, 3, 3, 3, 3])
    wide = hidden.double()

    def mean_losses(states: torch.Tensor) -> torch.Tensor:
        each = torch.nn.functional.cross_entropy(logits(head, states), targets, reduction="none")
        return torch.stack(
            [each[example_ids == at].mean() if (example_ids == at).any() else each.sum() * 0 for at in range(4)]
        )

    expected = torch.stack([
        mean_losses(wide) - mean_losses(wide + operators.codes(hidden).double() @ operators.alpha[k].double())
        for k in range(K)
    ], 1)  # fmt: skip
    for tile in (4 << 20, 1 << 8):
        monkeypatch.setattr(steering, "TILE_BYTES", tile)
        monkeypatch.setattr(steering, "LEAST_ROWS", 1)
        found = measure(head, operators, PositionStates(hidden, targets, hidden), example_ids, 4)
        assert torch.allclose(found.double(), expected, atol=1e-4)


def test_training_lowers_the_loss_inside_and_changes_little_outside() -> None:
    """Operators of subsets that hold one class each: they help queries of that class, and no others."""
    chance = np.random.default_rng(0)
    labels = np.arange(120) % 4
    centres = 2 * chance.normal(size=(4, D))
    hidden = torch.from_numpy(centres[labels] + chance.normal(size=(120, D))).float()
    head = LinearHead(ModelShape(D, 4, 1, 1), 0.1 * torch.randn(4, D, generator=torch.Generator().manual_seed(0)))

    class ByClass:
        """Two subsets a class, each with half of its rows."""

        rows, subsets = 120, 8

        def of(self, rows: np.ndarray) -> np.ndarray:
            return (2 * labels[rows] + (rows // 4) % 2)[:, None]

        def members(self, subset: int, start: int = 0, stop: int | None = None) -> np.ndarray:
            return np.flatnonzero(self.of(np.arange(120))[:, 0] == subset)[start:stop]

        def sizes(self) -> np.ndarray:
            return np.full(8, 15)

    states = MappedStates(hidden, torch.from_numpy(labels), np.arange(121))
    heard: list[tuple[int, float, float]] = []
    recipe = SteeringRecipe(rank=4, steps=60, batch=8, learning_rate=2e-2)
    found = train_operators(AtHead(head, states), ByClass(), recipe, lambda *told: heard.append(told))
    again = train_operators(AtHead(head, states), ByClass(), recipe, lambda *losses: None)
    assert torch.equal(found.alpha, again.alpha) and torch.equal(found.basis, again.basis)
    assert len(heard) == 60 and heard[-1][1] < 0.8 * heard[0][1] and heard[0][2] < 1e-6 < heard[-1][2]
    some = states_at(states, np.arange(40), torch.device("cpu"))
    y = measure(head, found, some, torch.arange(40), 40).numpy()
    own = y[np.arange(40)[:, None], np.stack([2 * labels[:40], 2 * labels[:40] + 1], 1)]
    assert own.mean() > 0.1 and own.mean() > 5 * max(0.0, (y.sum() - own.sum()) / (y.size - own.size))


def test_every_row_of_a_subset_is_seen_equally_often_and_weighs_by_omega(monkeypatch: pytest.MonkeyPatch) -> None:
    design, first = PartitionDesign(60, 12, 3, 0), np.concatenate([[0], np.cumsum(np.arange(60) % 3)])
    count = int(first[-1])
    states = MappedStates(torch.zeros(count, D), torch.zeros(count, dtype=torch.int64), first, np.linspace(0.1, 1, 60))
    head, row = LinearHead(ModelShape(D, V, 1, 8), torch.zeros(V, D)), np.repeat(np.arange(60), np.arange(60) % 3)
    ids = design.ids(0, 60)
    for tile in (1 << 8, 1 << 10, 4 << 20):
        monkeypatch.setattr(steering, "TILE_BYTES", tile)
        monkeypatch.setattr(steering, "LEAST_ROWS", 1)
        space = AtHead(head, states)
        training, seen = Training(space, design, SteeringRecipe(batch=5)), np.zeros((12, count))
        for step in range(3):  # a subset has 15 rows
            own, sums = training.subset_rows(step), np.zeros(12)
            for some, positions, weights in space.tiles(0, states, [one.rows for one in own], own):
                assert positions.size * 4 * V <= max(tile, 4 * V * len(positions))
                for subset, at, weight in zip(range(some.start, some.stop), positions, weights, strict=True):
                    seen[subset, at[weight > 0]] += 1
                    sums[subset] += weight.sum()
            assert (sums <= 1 + 1e-6).all() and (sums > 0.1).sum() > 9  # 5 rows may have no position
            shared = training.shared_rows(step)
            assert len(shared.rows) > 100 and (np.diff(first)[shared.rows] > 0).all() and (shared.at < 1).all()
            assert not shared.outside[ids[shared.rows].T, np.arange(len(shared.rows))].any()
            assert (shared.outside.sum(0) == 9).all()  # of 12 operators, but for a row's own 3
        assert np.array_equal(seen, (ids[row][None] == np.arange(12)[:, None, None]).any(2).astype(float))


def test_a_stopped_training_goes_on_to_the_same_operators() -> None:
    design, generator = PartitionDesign(30, 8, 2, 0), torch.Generator().manual_seed(0)
    states = MappedStates(
        torch.randn(60, D, generator=generator), torch.randint(0, V, (60,), generator=generator), np.arange(0, 61, 2)
    )
    head = LinearHead(ModelShape(D, V, 1, 8), torch.randn(V, D, generator=generator))
    recipe = SteeringRecipe(rank=3, steps=9, batch=4, linearity=0.1)
    whole = train_operators(AtHead(head, states), design, recipe, lambda *losses: None)
    heard: list[int] = []
    should_stop = Training(AtHead(head, states), design, recipe)
    assert not should_stop.run(lambda step, *told: heard.append(step), lambda: len(heard) == 4)
    held = should_stop.state_dict()
    continued = Training(AtHead(head, states), design, recipe)
    continued.load_state_dict(held)
    assert continued.run(lambda step, *told: heard.append(step)) and heard == list(range(1, 10))
    assert torch.equal(continued.operators.alpha, whole.alpha) and torch.equal(continued.operators.basis, whole.basis)
    with pytest.raises(DataError, match="alpha is"):
        Training(AtHead(head, states), PartitionDesign(30, 9, 2, 0), recipe).load_state_dict(held)
    fresh = Training(AtHead(head, states), design, recipe)
    fresh.load_state_dict(fresh.state_dict())
    assert fresh.run(lambda *losses: None) and torch.equal(fresh.operators.alpha, whole.alpha)


def test_some_subsets_are_trained_again_with_every_loss() -> None:
    design, generator = PartitionDesign(30, 8, 2, 0), torch.Generator().manual_seed(0)
    states = MappedStates(torch.randn(30, D, generator=generator), torch.arange(30) % V, np.arange(31))
    head = LinearHead(ModelShape(D, V, 1, 8), torch.randn(V, D, generator=generator))
    fitting = SteeringFit(AtHead(head, states), design, SteeringRecipe(rank=3, steps=3, batch=4, linearity=0.1), 3)
    assert fitting.steps == 6 and fitting.run(lambda *losses: None, lambda: False) and fitting.step == 6
    found = fitting.parameters()
    assert (
        found["which"].tolist() == [0, 2, 5]
        and found["check_alpha"].shape == (3, 3, D)
        and found["alpha"].shape == (8, 3, D)
    )
    some = DesignSubset(design, found["which"])
    ids = some.of(np.arange(30))
    for at, subset in enumerate(found["which"]):
        rows = np.flatnonzero((ids == at).any(1))
        assert np.array_equal(rows, np.sort(design.members(int(subset)))) and len(some.members(at)) == some.sizes()[at]
    assert ids.max() == 3  # where a row is in fewer
    training, other = (
        Training(AtHead(head, states), design, SteeringRecipe(rank=3, steps=3, batch=4, seed=seed)) for seed in (0, 1)
    )
    first = [np.concatenate([own.rows for own in one.subset_rows(0)]) for one in (training, other)]
    assert not np.array_equal(*first)  # another seed sees a subset's rows in another order


def test_no_bit_depends_on_which_thread_is_first_and_torch_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "TILE_BYTES", 1 << 10)  # many tiles
    monkeypatch.setattr(steering, "LEAST_ROWS", 4)
    design, generator = PartitionDesign(30, 8, 2, 0), torch.Generator().manual_seed(0)
    states = MappedStates(torch.randn(90, D, generator=generator), torch.arange(90) % V, np.arange(0, 91, 3))
    head = LinearHead(ModelShape(D, V, 1, 8), torch.randn(V, D, generator=generator))
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3, 3, 3):
            torch.set_num_threads(threads)
            space = AtHead(head, states)
            assert space.workers.count == threads
            found.append(
                train_operators(
                    space, design, SteeringRecipe(rank=3, steps=4, batch=4, linearity=0.1), lambda *losses: None
                )
            )
            assert torch.get_num_threads() == threads
        with pytest.raises(ZeroDivisionError):
            list(space.workers.each(lambda item: 1 // item, [1, 2, 0, 3, 4, 5, 6, 7, 8, 9]))
        assert torch.get_num_threads() == 3 and list(space.workers.each(str, range(40))) == [*map(str, range(40))]
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(
        found[0].alpha, found[1].alpha, atol=1e-6
    )  # torch's products differ by threads, in the last bit
    for again in found[2:]:
        assert torch.equal(found[1].alpha, again.alpha) and torch.equal(found[1].basis, again.basis)


def test_an_operator_that_is_not_finite_is_named() -> None:
    states = MappedStates(torch.randn(30, D), torch.zeros(30, dtype=torch.int64), np.arange(31))
    states.hidden[3] = float("nan")
    head, design = LinearHead(ModelShape(D, V, 1, 8), torch.randn(V, D)), PartitionDesign(30, 6, 1, 0)
    with pytest.raises(DataError, match=r"operator \d+ is no longer finite"):
        train_operators(AtHead(head, states), design, SteeringRecipe(), lambda *losses: None)


def test_settings_of_training_are_checked() -> None:
    for wrong in ({"rank": 0}, {"steps": 0}, {"stability": -1.0}):
        with pytest.raises(SettingsError):
            SteeringRecipe(**wrong)  # type: ignore[arg-type]


def test_examples_weigh_against_their_gradient_at_the_head() -> None:
    head, _, hidden, targets = parts()
    first = np.array([0, 3, 3, 7, 11])
    actual = head_norms(head, MappedStates(hidden, targets, first))
    for row in (0, 2, 3):
        weight = head.weight.double().requires_grad_()
        part = slice(first[row], first[row + 1])
        assert head.bias is not None
        z = hidden[part].double() @ weight.T + head.bias.double()
        torch.nn.functional.cross_entropy(z, targets[part]).backward()
        assert weight.grad is not None and np.isclose(actual[row], float(weight.grad.norm()), rtol=1e-4)
    assert actual[1] == 0
    omega = inverse_weights(np.array([1.0, 2.0, 0.001, 0.0, 4.0]))
    assert (
        np.allclose(omega, np.array([0.075, 0.0375, 1.0, 0.0, 0.01875]))
        and not np.isnan(inverse_weights(np.zeros(3))).any()
    )


@pytest.mark.parametrize(
    ("dtype", "layer"), [("float32", -1), ("float32", 1), pytest.param("bfloat16", 1, marks=WHOLE_TORCH)]
)
def test_hidden_states_are_read_once_and_a_stopped_pass_goes_on(
    dtype: str, layer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_states, "_PART", 16)
    save_model(tmp_path / "model")
    corpus = write_corpus(tmp_path / "corpus.jsonl", ["s", *sentences(50)])  # the first has nothing to predict
    choice = ModelChoice(str(tmp_path / "model"), "cpu", dtype)
    provider = corpus_provider([str(corpus)], choice, TextSettings(Template()))
    told: list[int] = []

    def stop(rows: int) -> None:
        told.append(rows)
        if rows == 32:
            raise KeyboardInterrupt

    stores = [FeatureStore.create(tmp_path / name, {}, "0") for name in "abc"]
    a, b, c = (StoredStates(provider, store, "hidden_states/m.base0", layer) for store in stores)
    with pytest.raises(KeyboardInterrupt):
        a.collected(stop)
    continued = a.collected(told.append)
    whole = b.collected()
    assert told == [16, 32, 48, 51] and continued is not None and whole is not None
    assert torch.equal(continued.hidden[:], whole.hidden[:]) and torch.equal(continued.targets[:], whole.targets[:])
    assert np.array_equal(continued.first, whole.first) and len(whole.first) == 52 and whole.first[1] == 0
    example = list(provider.examples(Place()))[7]
    outputs = provider.read([example], OutputSpec(layers=(1,)))
    part = slice(int(whole.first[7]), int(whole.first[8]))
    assert whole.hidden[:].dtype == getattr(torch, dtype)
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    assert torch.allclose(whole.hidden[part].float(), outputs.hidden().float(), atol=tolerance)
    assert torch.equal(whole.targets[part], outputs.targets)
    assert (whole.inner is None) == (layer < 0) and whole.widths == (whole.hidden.shape[1],) * 2
    if whole.inner is not None:
        assert torch.allclose(whole.inner[part].float(), outputs.hidden(1).float(), atol=tolerance)
    assert b.collected(should_stop=lambda: True) is not None  # there is nothing to do
    assert c.collected(should_stop=lambda: True) is None
    write_corpus(corpus, sentences(20, seed=5))  # another corpus under the same name begins anew
    other = corpus_provider([str(corpus)], choice, TextSettings(Template()))
    anew = StoredStates(other, stores[0], "hidden_states/m.base0", layer).collected()
    assert anew is not None and len(anew.first) == 21
