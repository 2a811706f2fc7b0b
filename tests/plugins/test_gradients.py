"""Gradient baselines against a loop of one example at a time through torch's own autograd, in the models that users have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from headwater.engine.arrays import linalg as damping
from headwater.engine.attribution.open_session import open_session
from headwater.engine.attribution.query_options import QueryOptions
from headwater.engine.data.documents import RecordErrors, Template
from headwater.engine.data.sources import find_sources
from headwater.engine.ingest.examples import Place
from headwater.engine.ingest.text_provider import TextProvider
from headwater.engine.ingest.text_settings import TextSettings
from headwater.engine.interface.method import Similarity
from headwater.engine.interface.registry import load as load_method
from headwater.engine.models.batch_outputs import merge_specs
from headwater.engine.models.language_model import ModelChoice, load
from headwater.engine.models.linear_io import linear_layers_of
from headwater.engine.sketches.count_sketch import count_sketch
from headwater.engine.sketches.projections import projections
from headwater.plugins.gradients import GradCos, GradDot
from headwater.plugins.head_gradients import HeadCos, HeadGn
from headwater.plugins.logra import LoGra
from headwater.plugins.rapidin import RapidIn
from headwater.plugins.repsim import RepSim
from headwater.plugins.trackstar import TrackStar
from headwater.plugins.trak import Trak
from headwater.store.errors import DataError, ModelError, SettingsError
from headwater.store.state import read_state, write_state
from random_models import tiny
from small import save_tokenizer, sentences, write_corpus

pytestmark = pytest.mark.usefixtures("one_thread")
COUNT = 7


@pytest.fixture(scope="module", params=["Llama", "GPT2", "GPTNeoX", "Gemma2"])
def world(request, tmp_path_factory) -> tuple[TextProvider, list, list[torch.Tensor], object]:
    """A provider, its examples, each one's whole gradients by autograd, and the model."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny(request.param, **({"head_dim": 8} if request.param == "Gemma2" else {})).save_pretrained(folder)
    save_tokenizer(folder, sentences(200), add=False)
    corpus = folder / "c.jsonl"
    lines = [f'{{"prompt": "{text[:20]}", "completion": "{text[20:]} and so on"}}' for text in sentences(COUNT)]
    corpus.write_text("\n".join(lines))
    model = load(ModelChoice(str(folder), "cpu"))
    settings = TextSettings(Template(), max_length=None, attribute="completion").resolved(model.head.model_shape)
    provider = TextProvider(model, find_sources([str(corpus)]), settings, RecordErrors("fail"))
    examples = list(provider.examples(Place()))
    return provider, examples, *autograd(folder, examples)


def autograd(folder: Path, examples: list) -> tuple[list[dict[str, np.ndarray]], list[np.ndarray]]:
    """One backward pass an example: every linear layer's gradient (outputs, inputs), and the head's (V, D)."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    trunk, head = [], []
    output = model.get_output_embeddings()
    output.weight = torch.nn.Parameter(output.weight.detach().clone())  # apart from the embeddings it may be tied to
    for example in examples:
        model.zero_grad()
        ids, first, _ = example.payload
        tokens = torch.tensor([ids])
        logits = model(input_ids=tokens).logits[0, :-1]
        keep = torch.arange(1, len(ids)) >= max(1, first)
        torch.nn.functional.cross_entropy(logits[keep], tokens[0, 1:][keep], reduction="sum").backward()
        maps = linear_layers_of(model.base_model)
        grads = {}
        for name, (module, one) in maps.items():
            grad = module.weight.grad.numpy().astype(np.float64)
            grads[name] = (grad.T if type(module).__name__ == "Conv1D" else grad).copy()
            assert grads[name].shape == (one.outputs, one.inputs)
        trunk.append(grads)
        head.append(output.weight.grad.numpy().astype(np.float64).copy())
    return trunk, head


def rows_of(method: Similarity, provider: TextProvider, examples: list) -> dict[str, np.ndarray]:
    """The method's rows, all examples in one batch, as ingestion has them."""
    with torch.inference_mode():
        outputs = provider.read(examples, merge_specs([method.needs(provider.head.model_shape)]))
        found = method.rows(outputs, method.precompute(provider.head, {}))
    return {name: values.numpy() for name, values in found.items()}


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-4) -> None:
    """Apart by so much of the largest, at most."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def sketched(provider: TextProvider, grads: dict[str, np.ndarray], method: GradDot | LoGra) -> list[np.ndarray]:
    """S_out G S_inᵀ of every map, from whole gradients."""
    made = projections(
        provider.head.model_shape.layers_matching(method.layers), method.k, method.seed, torch.device("cpu")
    )
    return [(one.errors.numpy().T @ grads[one.name] @ one.inputs.numpy()).reshape(-1) for one in made]


def test_traces_are_the_gradients(world):
    provider, examples, trunk, _ = world
    names = tuple(one.name for one in provider.head.model_shape.linear_layers)
    assert len(names) >= 8
    method = GradDot()
    with torch.inference_mode():
        outputs = provider.read(examples, method.needs(provider.head.model_shape))
        for name in names:
            trace = outputs.linear_io(name)
            for number, grads in enumerate(trunk):
                own = trace.example_ids == number
                assert int(own.sum()) == examples[number].length
                close((trace.output_grads[own].T @ trace.inputs[own]).numpy(), grads[name])


def test_graddot_is_the_sketch_of_the_whole_gradient(world):
    provider, examples, trunk, _ = world
    method = GradDot(k=16, seed=3)
    found = rows_of(method, provider, examples)["gradient"]
    expected = np.array([sum(sketched(provider, grads, method)) for grads in trunk])
    close(found, expected)
    cosine = rows_of(GradCos(k=16, seed=3), provider, examples)["gradient"]
    close(cosine, expected / np.linalg.norm(expected, axis=1, keepdims=True))
    alone = np.concatenate([rows_of(method, provider, [one])["gradient"] for one in examples])
    close(found, alone)


def test_chosen_layers_alone(world):
    provider, examples, trunk, _ = world
    names = [one.name for one in provider.head.model_shape.linear_layers]
    method = GradDot(layers=(names[1], f"*{names[-1][-6:]}"), k=8)
    assert len(method.needs(provider.head.model_shape).linear_layers) < len(names)
    found = rows_of(method, provider, examples)["gradient"]
    close(found, np.array([sum(sketched(provider, grads, method)) for grads in trunk]))
    with pytest.raises(SettingsError, match="no linear layer of the model is named nothing"):
        GradDot(layers=("nothing",)).needs(provider.head.model_shape)


def test_logra_is_its_formula(world):
    provider, examples, trunk, _ = world
    method = LoGra(k=4, damping=0.3)
    found = rows_of(method, provider, examples)["gradient"]
    expected = np.array([np.concatenate(sketched(provider, grads, method)) for grads in trunk])
    close(found, expected)
    column, widths = method.statistics(provider.head.model_shape)
    parts = np.split(expected, np.cumsum(widths)[:-1], axis=1)
    state = {f"gram{i}": (part.T @ part / COUNT).astype(np.float32) for i, part in enumerate(parts)}
    scores = found @ method.prepare({"gradient": found}, state).matrix.T
    by_hand = np.zeros((COUNT, COUNT))
    for part in parts:
        fisher = part.T @ part / COUNT
        fisher += 0.3 * np.trace(fisher) / len(fisher) * np.eye(len(fisher))
        by_hand += part @ np.linalg.inv(fisher) @ part.T
    assert column == "gradient"
    close(scores, by_hand, 1e-3)


def test_head_gradients_are_sketches_of_the_whole(world):
    provider, examples, _, head = world
    if provider.head.softcap or provider.head.scale != 1:
        pytest.skip("r h is the gradient with respect to W where logits are W h + b, without soft-cap or scale")
    k = 12
    r = count_sketch(provider.head.model_shape.vocabulary, k, 0, "head.r").matrix().numpy()
    h = count_sketch(provider.head.model_shape.hidden, k, 0, "head.h").matrix().numpy()
    expected = np.array([(r.T @ grad @ h).reshape(-1) for grad in head])
    close(rows_of(HeadGn(k=k), provider, examples)["gradient"], expected)
    close(rows_of(HeadCos(k=k), provider, examples)["gradient"], expected / np.linalg.norm(expected, axis=1)[:, None])


def test_rapidin_keeps_sums_of_groups(world):
    provider, examples, trunk, _ = world
    method = RapidIn(groups=512)
    tables = method.precompute(provider.head, {})
    expected = np.zeros((COUNT, 512))
    for number, grads in enumerate(trunk):
        for name, sketch in tables.items():
            np.add.at(expected[number], sketch.bucket.numpy(), grads[name].reshape(-1) * sketch.sign.numpy())
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    close(rows_of(method, provider, examples)["gradient"], expected)


def test_trackstar_and_trak_are_their_formulas(world):
    provider, examples, trunk, _ = world
    from headwater.store.layout import Block

    method = TrackStar(k=6, damping=0.2)
    rows = rows_of(method, provider, examples)["gradient"].astype(np.float64)
    moment = rows.T @ rows / COUNT
    values, vectors = np.linalg.eigh(moment + 0.2 * np.trace(moment) / len(moment) * np.eye(len(moment)))
    made = rows @ (vectors / np.sqrt(values)) @ vectors.T
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    queries = method.prepare({"gradient": rows.astype(np.float32)}, {"gram0": moment.astype(np.float32)})
    close(method.score(queries, Block(0, {"gradient": rows.astype(np.float32)})), made @ made.T, 2e-3)

    trak = Trak(k=6, damping=0.1)
    found = rows_of(trak, provider, examples)
    with torch.inference_mode():
        losses = provider.read(examples, merge_specs([trak.needs(provider.head.model_shape)])).losses().double().numpy()
    p, counts = np.exp(-losses), np.array([one.target_count for one in examples])
    phi = np.array([sum(sketched(provider, grads, trak)) for grads in trunk]) / (counts * (1 - p))[:, None]
    close(found["gradient"], phi)
    close(found["weight"], 1 - p)
    gram = phi.T @ phi / COUNT
    damped = gram + 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram))
    queries = trak.prepare({"gradient": found["gradient"]}, {"gram0": gram.astype(np.float32)})
    by_hand = (phi @ np.linalg.inv(damped) @ phi.T) * (1 - p)[:, None]
    close(trak.score(queries, Block(0, found)), by_hand, 2e-3)


def test_repsim_is_the_mean_state(world):
    provider, examples, *_ = world
    for layer in (-1, 0, 1):
        found = rows_of(RepSim(layer=layer), provider, examples)["state"]
        for number, example in enumerate(examples):
            ids, first, _ = example.payload
            with torch.inference_mode():
                out = provider.model.trunk(input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=True)
            states = out.last_hidden_state if layer == -1 else out.hidden_states[layer]
            mean = states[0, max(0, first - 1) : len(ids) - 1].mean(0).numpy()
            close(found[number], mean / np.linalg.norm(mean))


def test_sketched_products_are_unbiased(world):
    provider, examples, trunk, _ = world
    if type(provider.model.trunk).__name__ != "LlamaModel":
        pytest.skip("once is enough")
    exact = np.array([[sum((a[n] * b[n]).sum() for n in a) for b in trunk[:3]] for a in trunk[:3]])
    found = []
    for seed in range(60):
        rows = rows_of(GradDot(k=12, seed=seed), provider, examples[:3])["gradient"].astype(np.float64)
        found.append(rows @ rows.T)
    error = np.std(found, axis=0) / np.sqrt(60)
    assert (np.abs(np.mean(found, 0) - exact) < 4.5 * error).all()


@pytest.mark.parametrize(
    "name", ["repsim", "graddot", "gradcos", "logra", "headcos", "headgn", "trackstar", "trak", "rapidin"]
)
def test_every_baseline_from_corpus_to_answers(name, tmp_path):
    from click.testing import CliRunner
    from headwater.cli import main

    folder = tmp_path / "model"
    tiny("Llama").save_pretrained(folder)
    save_tokenizer(folder, sentences(200), add=False)
    corpus = write_corpus(tmp_path / "c.jsonl", sentences(40))
    queries = write_corpus(tmp_path / "q.jsonl", sentences(40)[:5])
    words = ["ingest", str(corpus), "--store", str(tmp_path / "S"), "--model", str(folder), "--method", name]
    small = {"rapidin": ["--set", "rapidin.groups", "4096"], "repsim": []}.get(name, ["--set", f"{name}.k", "16"])
    done = CliRunner().invoke(main, [*words, *small, "--memory", "1GB"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    first = open_session(str(tmp_path / "S"), name, str(queries), QueryOptions(top=40)).attribute()
    again = open_session(
        str(tmp_path / "S"), name, str(queries), QueryOptions(top=40)
    ).attribute()  # what was learnt comes from the store now
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_array_equal(first.scores, again.scores)
    kept = list((tmp_path / "S").rglob("state/moments/zarr.json"))
    assert bool(kept) == (load_method(name)().statistics(load(ModelChoice(str(folder))).head.model_shape) is not None)
    if name not in ("graddot", "trak", "headgn", "logra"):  # whose score is no cosine
        assert first.rows[:, 0].tolist() == [0, 1, 2, 3, 4]
    else:
        assert all(own in rows[:10] for own, rows in enumerate(first.rows))
    verified = CliRunner().invoke(main, ["verify", str(tmp_path / "S")])
    assert verified.exit_code == 0, verified.output
    for metadata in kept:  # statistics of other rows, as many as these: of another store, say
        state = read_state(metadata.parent)
        foreign = {name: 2 * array for name, array in state.arrays.items()}
        write_state(metadata.parent, {**state.values, "manifest": "another"}, foreign)
        third = open_session(str(tmp_path / "S"), name, str(queries), QueryOptions(top=40)).attribute()
        np.testing.assert_array_equal(first.scores, third.scores)


def test_experts_that_see_some_tokens_are_refused(tmp_path):
    tiny("Mixtral", num_local_experts=4).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, sentences(200), add=False)
    model = load(ModelChoice(str(tmp_path), "cpu"))
    corpus = write_corpus(tmp_path / "c.jsonl", sentences(3))
    provider = TextProvider(
        model,
        find_sources([str(corpus)]),
        TextSettings(Template(), max_length=None, attribute="all").resolved(model.head.model_shape),
        RecordErrors("fail"),
    )
    examples = list(provider.examples(Place()))
    names = {one.name: one for one in model.head.model_shape.linear_layers}
    odd = [name for name in names if "expert" in name or "gate" in name]
    if not odd:
        pytest.skip("this transformers holds its experts in one tensor, which is not a linear layer")
    with pytest.raises(ModelError, match="linear layer"):
        rows_of(GradDot(layers=tuple(odd)), provider, examples)


def test_damped_inverses():
    random = np.random.default_rng(0)
    rows = random.standard_normal((50, 8))
    gram = rows.T @ rows / 50
    whole = gram + 0.1 * np.trace(gram) / 8 * np.eye(8)
    np.testing.assert_allclose(damping.preconditioned(rows[:3], gram, 0.1), rows[:3] @ np.linalg.inv(whole), rtol=1e-9)
    root = damping.inverse_root(gram, 0.1)
    np.testing.assert_allclose(root @ root, np.linalg.inv(whole), rtol=1e-8)
    np.testing.assert_array_equal(damping.damped(np.zeros((3, 3)), 0.1), np.eye(3))
    with pytest.raises(DataError, match="use a larger damping"):
        damping.preconditioned(rows, np.full((8, 8), np.nan), 0.1)


def test_what_was_learnt_and_then_damaged_is_learnt_again(tmp_path):
    from click.testing import CliRunner
    from headwater.cli import main

    tiny("Llama").save_pretrained(tmp_path / "m")
    save_tokenizer(tmp_path / "m", sentences(200), add=False)
    corpus = write_corpus(tmp_path / "c.jsonl", sentences(20))
    words = [
        "ingest",
        str(corpus),
        "--store",
        str(tmp_path / "S"),
        "--model",
        str(tmp_path / "m"),
        "--method",
        "headgn",
    ]
    signs = CliRunner().invoke(main, [*words, "--set", "headgn.k", "8", "--set", "headgn.precision", "sign"])
    assert signs.exit_code == 1 and "which sign bits cannot give" in signs.stderr
    assert CliRunner().invoke(main, [*words, "--set", "headgn.k", "8"]).exit_code == 0
    expected = open_session(str(tmp_path / "S"), "headgn", str(corpus)).attribute().scores
    (moments,) = (folder for folder in (tmp_path / "S").rglob("moments") if (folder / "zarr.json").exists())
    for body in (b"", (moments / "zarr.json").read_bytes()[:100], b"x" * 5000):
        (moments / "zarr.json").write_bytes(body)
        np.testing.assert_array_equal(
            open_session(str(tmp_path / "S"), "headgn", str(corpus)).attribute().scores, expected
        )


def test_a_map_that_is_used_twice_is_refused(tmp_path):
    tiny("Llama").save_pretrained(tmp_path)
    save_tokenizer(tmp_path, sentences(200), add=False)
    model = load(ModelChoice(str(tmp_path), "cpu"))
    model.trunk.layers[1] = model.trunk.layers[0]
    settings = TextSettings(Template(), max_length=None, attribute="all").resolved(model.head.model_shape)
    corpus = write_corpus(tmp_path / "c.jsonl", sentences(2))
    provider = TextProvider(model, find_sources([str(corpus)]), settings, RecordErrors("fail"))
    with pytest.raises(ModelError, match="more than once"):
        rows_of(GradDot(layers=("layers.0.*",), k=4), provider, list(provider.examples(Place())))


def test_weights_out_of_reach_are_named_at_ingestion(tmp_path: Path) -> None:
    import transformers
    from click.testing import CliRunner
    from headwater.cli import main

    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
             "num_key_value_heads": 2, "num_local_experts": 2, "max_position_embeddings": 64}  # fmt: skip
    transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes)).save_pretrained(tmp_path / "model")
    save_tokenizer(tmp_path / "model")
    corpus = write_corpus(tmp_path / "corpus.jsonl", sentences(4))
    words = ["ingest", str(corpus), "--model", str(tmp_path / "model"), "--store"]
    done = CliRunner().invoke(main, [*words, str(tmp_path / "S"), "--method", "graddot"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "note: graddot: the gradients of 3 weights outside linear layers (layers.0.mlp." in done.stderr
    assert "note: " not in CliRunner().invoke(main, [*words, str(tmp_path / "T"), "--method", "repsim"]).stderr
