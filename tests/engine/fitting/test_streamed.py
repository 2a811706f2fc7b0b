"""States made when asked for, and layers run again: against models' own passes, automatic differentiation and kept files."""

from __future__ import annotations

import shutil
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from headwater.engine.data.documents import Document, RecordErrors, Template
from headwater.engine.data.sources import Source
from headwater.engine.fitting import stored_states
from headwater.engine.fitting import streamed_states as streamed
from headwater.engine.fitting.fit_corpus import base_provider
from headwater.engine.fitting.fit_job import prepare_fit
from headwater.engine.fitting.fit_request import FitJob
from headwater.engine.fitting.hidden_states import MappedStates, parts_in_memory
from headwater.engine.fitting.stored_states import StoredStates
from headwater.engine.fitting.streamed_states import StreamedStates
from headwater.engine.ingest.examples import TextPayload
from headwater.engine.ingest.text_provider import TextProvider
from headwater.engine.ingest.text_settings import TextSettings
from headwater.engine.interface.model_view import ModelShape, OutputSpec
from headwater.engine.models import upper_layers as layers_above
from headwater.engine.models.batch_outputs import LinearHead, merge_specs
from headwater.engine.models.language_model import ModelChoice, load
from headwater.engine.models.upper_layers import TrunkUpperLayers
from headwater.engine.recovery.design import PartitionDesign
from headwater.engine.runtime.run import Run
from headwater.engine.steering import operators as steering
from headwater.engine.steering.at_head import AtHead
from headwater.engine.steering.at_layer import AtLayer, measure_by_upper_layers
from headwater.engine.steering.example_weights import head_norms, inverse_weights
from headwater.engine.steering.operators import OperatorGradients, Operators, loss_at
from headwater.engine.steering.space import SharedRows, WeightedRows
from headwater.engine.steering.training import SteeringRecipe, train_operators
from headwater.store.errors import ModelError, SettingsError
from headwater.store.feature_store import FeatureStore
from headwater.store.state import read_state
from running import done, headwater
from small import save_model, sentences, tree, write_corpus

TEXTS = TextSettings(Template(), "fail", 64, "completion", False, False)
QUICK = {"subsets": 24, "degree": 3, "updates": 6, "checked": 5, "shared": 16, "members": 4, "rate": 0.05}
DEEP = {**QUICK, "space": "activations", "depth": 0.5}


def options(settings: dict[str, Any]) -> list[str]:
    """Of the command line."""
    return [part for name, value in settings.items() for part in ("--set", f"stride.{name}", str(value))]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a corpus with prompts and without, queries, a store of them."""
    folder = tmp_path_factory.mktemp("texts")
    save_model(folder / "model")
    texts = [
        "s",
        *(text[: 30 + 7 * at % 60] for at, text in enumerate(sentences(59))),
    ]  # the first has nothing to predict
    lines = [f'{{"text": "{text}"}}' if at % 2 else f'{{"prompt": "{text[:9]}", "completion": " {text[9:]}"}}'
             for at, text in enumerate(texts[1:])]  # fmt: skip
    (folder / "corpus.jsonl").write_text("\n".join([f'{{"text": "{texts[0]}"}}', *lines]))
    write_corpus(folder / "queries.jsonl", [text[:40] for text in sentences(3, seed=9)])
    ingest = (
        "ingest",
        folder / "corpus.jsonl",
        "--model",
        folder / "model",
        "--method",
        "repsim",
        "--max-length",
        "48",
    )
    done(*ingest, "--store", folder / "S")
    done(*ingest, "--store", folder / "bare", "--no-text")
    return folder


def corpora(texts: Path, folder: Path, layer: int) -> tuple[LinearHead, MappedStates, StreamedStates]:
    """The same store's states, kept and made."""
    provider = base_provider(FeatureStore.open(texts / "S"), "", ModelChoice("", "cpu"), ())
    cached = StoredStates(
        provider, FeatureStore.create(folder / "H", {}, "0"), "hidden_states/m.base0", layer
    ).collected()
    made = StreamedStates.of_provider(provider, layer, lambda rows: None)  # type: ignore[arg-type]
    assert cached is not None and made is not None
    return provider.head, cached, made


@pytest.mark.parametrize("layer", [-1, 1])
def test_states_that_are_made_are_those_that_are_kept(texts: Path, tmp_path: Path, layer: int) -> None:
    _, kept, made = corpora(texts, tmp_path, layer)
    assert np.array_equal(kept.first, made.first) and made.widths == kept.widths and kept.first[1] == 0
    rows = np.array([50, 3, 0, 17, 3, 59])
    states, numbers = made.read(rows)
    for row, number in zip(rows, numbers, strict=True):
        own, other = slice(*kept.first[row : row + 2].tolist()), slice(*states.first[number : number + 2].tolist())
        assert torch.allclose(kept.hidden[own], states.hidden[other], atol=1e-5)
        assert torch.equal(kept.targets[own], states.targets[other])
        if layer >= 0:
            assert kept.inner is not None and states.inner is not None
            assert torch.allclose(kept.inner[own], states.inner[other], atol=1e-5)
    assert made.read(np.array([0]))[0].hidden.shape == (0, 32)


@pytest.mark.parametrize(
    "recipe", [SteeringRecipe(rank=3, steps=5, batch=4, shared=40, learning_rate=1e-2, linearity=0.1)]
)
def test_operators_trained_on_either_are_the_same(
    texts: Path, tmp_path: Path, recipe: SteeringRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, kept, made = corpora(texts, tmp_path, 1)
    design = PartitionDesign(60, 12, 3, 0)
    whole = train_operators(AtHead(head, kept), design, recipe, lambda *losses: None)
    reads: list[int] = []
    at = type(made.provider).at
    monkeypatch.setattr(type(made.provider), "at", lambda self, rows: (reads.append(len(rows)), at(self, rows))[1])
    for room in (1 << 30, 20_000):  # all that a step draws together, or two or three operators' rows
        reads.clear()
        monkeypatch.setattr(streamed, "ROOM_BYTES", room)
        found = train_operators(AtHead(head, made), design, recipe, lambda *losses: None)
        assert torch.allclose(found.alpha, whole.alpha, atol=2e-4) and torch.allclose(
            found.basis, whole.basis, atol=2e-4
        )
        assert (max(reads) > 30) == (room == 1 << 30)
    assert np.allclose(head_norms(head, made), head_norms(head, kept), rtol=1e-4)


def test_parts_that_fit_are_held_together(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, kept, made = corpora(texts, tmp_path, -1)
    parts = [np.arange(at, at + 5) for at in range(0, 60, 5)]
    assert [*parts_in_memory(kept, parts)] == [slice(0, 12)] and [*parts_in_memory(made, parts)] == [slice(0, 12)]
    monkeypatch.setattr(streamed, "ROOM_BYTES", 1)
    assert [*parts_in_memory(made, parts)] == [slice(at, at + 1) for at in range(12)] and not [
        *parts_in_memory(made, [])
    ]


@pytest.mark.parametrize("kind", ["Llama", "GPT2", "GPTNeoX", "Gemma2"])
def test_layers_are_run_again_as_the_model_runs_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed at the embeddings, a model's own pass tells the states at every layer and the end that they lead to."""
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
             "num_key_value_heads": 2, "max_position_embeddings": 32, "head_dim": 8}  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**sizes)
    trunk: Any = getattr(transformers, f"{kind}Model")(config).eval().requires_grad_(False)
    ids, counted = torch.randint(50, (4, 7)), torch.rand(4, 7) < 0.7
    which = torch.tensor([2, 0])
    for layer in range(3):
        above = TrunkUpperLayers(trunk, 3, layer, ids, counted)
        above.check()
        other = trunk(inputs_embeds=torch.randn(4, 7, 16), output_hidden_states=True)
        states = other.hidden_states[layer][which].clone().requires_grad_()
        again = above.forward_from(states, which)
        assert torch.allclose(again, other.last_hidden_state[which][counted[which]], atol=1e-5)
        (gradient,) = torch.autograd.grad(again.sum(), states)
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
        whole = trunk(input_ids=ids, output_hidden_states=True)  # as if nothing had been there
        assert torch.equal(whole.hidden_states[layer], above.states) and torch.equal(
            whole.last_hidden_state, above.hidden
        )
    monkeypatch.setattr(
        layers_above, "_with_input", lambda *told: nullcontext()
    )  # a model that does not read what it is given
    with pytest.raises(ModelError, match="cannot be run separately"):
        TrunkUpperLayers(trunk, 3, 1, ids, counted).check()
    with pytest.raises(ModelError, match="no list of 5 layers"):
        TrunkUpperLayers(trunk, 5, 1, ids, counted)


D, V, K, R = 6, 17, 3, 2


class Mixing:
    """Three examples of five tokens, and one map above them."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.map = torch.randn(D, D, generator=draw)
        self.states = torch.randn(3, 5, D, generator=draw)
        self.target_mask = torch.tensor([[0, 1, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
        self.targets = torch.randint(V, (3, 5), generator=draw)
        self.hidden = torch.tanh(self.states.cumsum(1) @ self.map)  # a token's end depends on those before it

    def forward_from(self, states: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """(P, D)."""
        return torch.tanh(states.cumsum(1) @ self.map.to(states.dtype))[self.target_mask[which]]


class Three:
    """A corpus of these examples."""

    first = np.array([0, 3, 3, 8])

    def upper_layers(self, rows: np.ndarray) -> Any:
        """In another order."""
        yield np.array([2, 0, 1]), self.batch

    def __init__(self) -> None:
        self.batch, order = Mixing(), torch.tensor([2, 0, 1])
        for name in ("states", "target_mask", "targets", "hidden"):
            setattr(self.batch, name, getattr(self.batch, name)[order])


@pytest.mark.parametrize("loss", ["fidelity", "drift", "losses"])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, 0.0), (0.5, 3.0)])
def test_gradients_through_layers_are_those_of_the_loss(loss: str, scale: float, softcap: float) -> None:
    head = LinearHead(
        ModelShape(D, V, 1, 8), torch.randn(V, D, generator=torch.Generator().manual_seed(1)), None, scale, softcap
    )
    operators, found, mixing = (
        Operators.initial(K, (D, D), R, 1),
        OperatorGradients.zeros(Operators.initial(K, (D, D), R, 1)),
        Mixing(),
    )
    operators.alpha = 0.3 * torch.randn(K, R, D, generator=torch.Generator().manual_seed(2))
    space = AtLayer(head, Three())  # type: ignore[arg-type]
    basis, alpha = (one.double().requires_grad_() for one in (operators.basis, operators.alpha))

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        z = scale * hidden @ head.weight.double().T
        return torch.log_softmax(softcap * torch.tanh(z / softcap) if softcap else z, 1)

    def each(row: int, k: int) -> torch.Tensor:
        """A row's mean loss, or drift, under an operator."""
        states, at = mixing.states[[row]].double(), torch.tensor([row])
        told = logits(mixing.forward_from(states + (states @ basis[:-1] + basis[-1]) @ alpha[k], at))
        if loss == "drift":
            known = logits(mixing.forward_from(states, at))
            return (known.exp() * (known - told)).sum(1).mean()
        return -told.gather(1, mixing.targets[row][mixing.target_mask[row]][:, None]).mean()

    if loss == "fidelity":
        own = [
            WeightedRows(np.array([2, 0]), np.array([0.3, 0.7])),
            WeightedRows(np.array([1, 0]), np.array([0.5, 0.5])),
        ]
        space.add_fidelity(operators, slice(1, 3), own, found)
        total = 0.3 * each(2, 1) + 0.7 * each(0, 1) + 0.5 * each(0, 2)
    elif loss == "drift":
        outside = np.array([[True, False] * 4, [False, False] * 4, [True, True] * 4])
        space.add_drift(operators, SharedRows(np.array([0, 2] * 4), np.zeros(8), outside), found)
        total = each(0, 0) + 0.5 * each(0, 2) + 0.5 * each(2, 2)  # eight positions: 0 and 2, once each
    else:
        weights = torch.rand(K, 2)
        space.add_losses(operators, np.array([0, 2]), weights, found)
        total = sum(weights[k, at].double() * each(row, k) for k in range(K) for at, row in enumerate((0, 2)))  # type: ignore[assignment]
    total.backward()  # type: ignore[no-untyped-call]
    assert basis.grad is not None and alpha.grad is not None and abs(found.loss - total.item()) < 1e-4
    assert torch.allclose(found.basis.double(), basis.grad, atol=2e-4)
    assert torch.allclose(found.alpha.double(), alpha.grad, atol=2e-4)
    if loss == "fidelity":
        y = space.measure(operators, np.array([0, 2]))
        before = [-logits(mixing.forward_from(mixing.states[[row]].double(), torch.tensor([row])))
                  .gather(1, mixing.targets[row][mixing.target_mask[row]][:, None]).mean() for row in (0, 2)]  # fmt: skip
        expected = torch.stack(
            [torch.stack([before[at] - each(row, k) for k in range(K)]) for at, row in enumerate((0, 2))]
        )
        assert torch.allclose(y.double(), expected, atol=1e-5)
        assert measure_by_upper_layers(head, operators, mixing)[1].abs().max() == 0  # type: ignore[arg-type]


def test_losses_at_states_are_tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    head = LinearHead(ModelShape(D, V, 1, 8), torch.randn(V, D))
    hidden, known, weights = torch.randn(300, D), torch.randn(300, D), torch.rand(300)
    for expected in (known, torch.randint(V, (300,))):
        whole = loss_at(head, hidden, expected, weights)
        with monkeypatch.context() as small:
            small.setattr(steering, "TILE_BYTES", 1 << 10)
            small.setattr(steering, "LEAST_ROWS", 1)
            assert steering.tile_rows(head) == 15
            parts = loss_at(head, hidden, expected, weights)
        assert abs(whole[0] - parts[0]) < 1e-3 * abs(whole[0]) and torch.allclose(whole[1], parts[1], atol=1e-5)


def all_scores(store: Path, queries: Path, out: Path) -> np.ndarray:
    """(N, Q), by the command line."""
    shutil.rmtree(out, ignore_errors=True)
    done("attribute", store, "--method", "stride", "--queries", queries, "--all-scores", out)
    return np.array(zarr.open_group(str(out), mode="r")["scores"])


def test_a_fit_needs_no_files(texts: Path, tmp_path: Path) -> None:
    found = []
    for name, states in (("files", "cache"), ("model", "forward")):
        shutil.copytree(texts / "S", tmp_path / name)
        told = done(
            "fit", tmp_path / name, *options({**QUICK, "states_from": states, "omega": "example", "solver": "lasso"})
        )
        assert ("hidden states are not stored" in told.stderr) == (states == "forward")
        found.append(all_scores(tmp_path / name, texts / "queries.jsonl", tmp_path / "all.zarr"))
    kept = {file.name for file in (tmp_path / "model/methods/stride/state/base0").iterdir()}
    assert (
        kept == {"operators", "zarr.json"}
        and "hidden_states/stride.base0" in FeatureStore.open(tmp_path / "files").groups
    )
    assert np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("settings", [{**QUICK, "states_from": "forward", "omega": "example"}, DEEP])
def test_a_fit_from_the_model_that_was_stopped_goes_on(texts: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    for name in ("whole", "parts"):
        shutil.copytree(texts / "S", tmp_path / name)
    done("fit", tmp_path / "whole", *options(settings))
    told: list[tuple[str, int]] = []

    def run(stop_after: int) -> bool:
        job, begun = FitJob(str(tmp_path / "parts"), "stride", settings, commit_seconds=0), len(told)
        fit = prepare_fit(job)
        return fit.run(
            Run(
                on_progress=lambda progress: told.append((progress.stage, progress.done)),
                should_stop=lambda: len(told) - begun >= stop_after,
            )
        )

    while not run(3):
        pass
    steps = [done for what, done in told if what == "operators"]
    assert steps == sorted(steps) and steps[-1] == 12
    assert tree(tmp_path / "whole/methods/stride") == tree(tmp_path / "parts/methods/stride")


def test_activations_are_steered_by_the_command_line(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts / "S", tmp_path / "S")
    done("fit", tmp_path / "S", *options(DEEP))
    scores = all_scores(tmp_path / "S", texts / "queries.jsonl", tmp_path / "all.zarr")
    assert np.isfinite(scores).all() and scores.std() > 0
    state = read_state(tmp_path / "S/methods/stride/state/base0/operators")
    fitted = state.arrays if state else {}
    assert fitted["alpha"].shape == (24, 16, 32) and np.abs(fitted["alpha"]).max() > 0
    info = done("info", tmp_path / "S")
    assert "stride" in info.output


def test_what_cannot_be_is_said_before_any_work(texts: Path, tmp_path: Path) -> None:
    for store, settings, words in (
        ("bare", {**QUICK, "states_from": "forward"}, "keeps no texts"),
        ("bare", DEEP, "keeps no texts"),
        ("S", {**QUICK, "space": "activations"}, "depth below 1"),
        ("S", {**QUICK, "space": "heads"}, "space is logits or activations"),
        ("S", {**QUICK, "states_from": "nowhere"}, "states_from is cache or forward"),
    ):
        told = headwater("fit", texts / store, *options(settings))
        assert told.exit_code == 1 and words in told.stderr and told.stderr.count("\n") <= 2, told.output
        assert not (texts / store / "methods/stride").exists()
    np.savez(
        tmp_path / "a.npz",
        hidden=np.ones((40, 4), np.float32),
        labels=np.arange(40) % 3,
        weight=np.eye(3, 4, dtype=np.float32),
    )
    done("ingest", tmp_path / "a.npz", "--store", tmp_path / "A", "--method", "repsim")
    told = headwater("fit", tmp_path / "A", *options(DEEP))
    assert told.exit_code == 1 and "arrays have no layers" in told.stderr


def test_arrays_are_read_row_by_row(tmp_path: Path) -> None:
    chance, names = np.random.default_rng(0), []
    weight = chance.normal(size=(3, 4)).astype(np.float32)
    for at, rows in enumerate((30, 25)):
        names.append(str(tmp_path / f"{at}.npz"))
        np.savez(
            names[-1],
            hidden=chance.normal(size=(rows, 4)).astype(np.float32),
            labels=np.arange(rows) % 3,
            weight=weight,
        )
    done("ingest", *names, "--store", tmp_path / "S", "--method", "repsim")
    shutil.copytree(tmp_path / "S", tmp_path / "M")
    fits = {}
    for name, states in (("S", "cache"), ("M", "forward")):
        done("fit", tmp_path / name, *options({**QUICK, "states_from": states}))
        found = read_state(tmp_path / name / "methods/stride/state/base0/operators")
        assert found is not None
        fits[name] = found.arrays["alpha"]
    assert np.allclose(fits["S"], fits["M"], atol=1e-5)


def test_a_flipped_bit_in_kept_states_is_seen(texts: Path, tmp_path: Path) -> None:
    provider = base_provider(FeatureStore.open(texts / "S"), "", ModelChoice("", "cpu"), ())
    states = StoredStates(provider, FeatureStore.create(tmp_path / "H", {}, "0"), "hidden_states/m.base0")
    first = states.collected()
    assert first is not None
    whole = first.hidden[:]
    for name in ("hidden/values/c/0/0", "targets/values/c/0", "hidden/offsets/c/0"):
        file = tmp_path / "H/shards/0/hidden_states/m.base0/columns" / name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4
        file.write_bytes(data)
        told: list[int] = []
        again = states.collected(told.append)
        assert told and again is not None and torch.equal(again.hidden[:], whole)
        told.clear()
        assert states.collected(told.append) is not None and not told


EVERY_WAY = [{"depth": 0.5}, {"states_from": "forward", "omega": "example"}, {"space": "activations", "depth": 0.5}]


@pytest.mark.parametrize("more", EVERY_WAY, ids=str)
@pytest.mark.parametrize("kept", [slice(0, 60), slice(0, 0)])
def test_parts_without_positions_are_passed_over(
    texts: Path, tmp_path: Path, more: dict[str, Any], kept: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_states, "_PART", 8)
    write_corpus(
        tmp_path / "c.jsonl", [*(text[:40] for text in sentences(60)[kept]), *["s"] * (66 if kept.stop else 30)]
    )
    done("ingest", tmp_path / "c.jsonl", "--store", tmp_path / "S", "--model", texts / "model", "--method", "repsim")
    done("fit", tmp_path / "S", *options({**QUICK, **more}))
    scores = all_scores(tmp_path / "S", texts / "queries.jsonl", tmp_path / "all.zarr")
    assert np.isfinite(scores).all() and (scores.std() > 0) == bool(kept.stop)


def test_a_row_without_positions_weighs_nothing_and_makes_none_lighter() -> None:
    assert np.allclose(inverse_weights(np.array([0.0, 1, 1, 2])), [0, 1, 1, 0.5])


def test_a_model_whose_layers_were_run_again_is_freed_at_once() -> None:
    import gc

    import transformers

    sizes = {
        "vocab_size": 50,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    trunk: Any = transformers.LlamaModel(transformers.LlamaConfig(**sizes)).eval()
    above = TrunkUpperLayers(trunk, 2, 1, torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 4, dtype=torch.bool))
    above.check()
    lowest = weakref.ref(trunk.layers[0])
    gc.disable()
    try:
        del trunk, above
        assert lowest() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("more", EVERY_WAY, ids=str)
def test_a_state_that_is_not_finite_is_named_in_every_way(texts: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(texts / "model", tmp_path / "broken")
    weights = load_file(tmp_path / "broken/model.safetensors")
    tokenizer = load(ModelChoice(str(texts / "model"), "cpu")).tokenizer
    weights["model.embed_tokens.weight"][tokenizer(" forest")["input_ids"][0]] = float("nan")
    save_file(weights, tmp_path / "broken/model.safetensors", {"format": "pt"})
    shutil.copytree(texts / "S", tmp_path / "S")
    settings = [part.replace("stride.", "stride@b.") for part in options({**QUICK, **more})]
    result = headwater("fit", tmp_path / "S", "--method", "stride@b", *settings, "--base", tmp_path / "broken")
    assert (
        result.exit_code == 1
        and "hidden state of example corpus.jsonl:" in result.stderr
        and "not finite" in result.stderr
    )


def test_a_row_of_no_tokens_has_no_positions(texts: Path) -> None:
    provider: Any = base_provider(FeatureStore.open(texts / "S"), "", ModelChoice("", "cpu"), ())
    long, other = list(provider.at(np.array([5, 6])))
    none = replace(other, payload=TextPayload([], 0), length=0, target_count=0)
    above = provider.read([long, none], merge_specs([OutputSpec(upper_layers=1)])).upper_layers()
    assert above.target_mask.sum(1).tolist() == [long.target_count, 0]
    with pytest.raises(SettingsError, match="layers 0 and 1"):
        merge_specs([OutputSpec(upper_layers=1), OutputSpec(upper_layers=0), OutputSpec()])


def test_a_fit_from_the_model_leaves_no_states_of_an_earlier_one(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts / "S", tmp_path / "S")
    done("fit", tmp_path / "S", *options({**QUICK, "depth": 0.5}))
    state = tmp_path / "S/methods/stride/state/base0"
    assert [column.name for column in FeatureStore.open(tmp_path / "S").columns("hidden_states/stride.base0")] == [
        "hidden",
        "inner",
        "targets",
    ]
    done("fit", tmp_path / "S", "--again", *options({**QUICK, "states_from": "forward"}))
    assert {file.name for file in state.iterdir()} == {"operators", "zarr.json"}
    assert "hidden_states/stride.base0" not in FeatureStore.open(tmp_path / "S").groups
    assert not (tmp_path / "S/shards/0/hidden_states/stride.base0").exists()


@pytest.mark.parametrize(
    "more", [{"states_from": "forward", "depth": 0.5}, {"space": "activations", "depth": 0.5}], ids=str
)
def test_half_precision_trains_nearly_the_same(texts: Path, more: dict[str, Any]) -> None:
    found = []
    for dtype in ("float32", "bfloat16"):
        provider: Any = TextProvider(
            load(ModelChoice(str(texts / "model"), "cpu", dtype)),
            [Source("", "", "text", 0, "")],
            TEXTS,
            RecordErrors("fail"),
        )
        documents = (Document(str(at), "", at, at, "", text[:60]) for at, text in enumerate(sentences(40)))
        examples = list(provider.encoded(documents, 0))
        provider.at = lambda rows, examples=examples: [examples[row] for row in rows]
        provider.examples = lambda start, examples=examples: iter(examples)
        corpus = StreamedStates.of_provider(provider, 1, lambda rows: None)
        assert corpus is not None
        space = AtLayer(provider.head, corpus) if "space" in more else AtHead(provider.head, corpus)
        operators = train_operators(
            space,
            PartitionDesign(40, 12, 3, 0),
            SteeringRecipe(rank=3, steps=6, batch=4, shared=16, learning_rate=1e-2),
            lambda *losses: None,
        )
        found.append(space.measure(operators, np.arange(20)).numpy())
    assert np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1] > 0.97
