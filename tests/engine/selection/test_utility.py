"""Utility of sets: the surrogate against dense float64 from exact head gradients, its sketch, calibration, and selection."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from headwater.engine.models.language_model import ModelChoice, load
from headwater.engine.results.example_table import Examples
from headwater.engine.selection.calibration import SubsetOutcomes, choose_penalty
from headwater.engine.selection.linear_features import LinearFeatures
from headwater.engine.selection.surrogate import utilities
from headwater.store.errors import DataError, SettingsError
from headwater.store.feature_store import FeatureStore
from headwater.store.reader import open_column
from headwater.store.state import remove_state
from places import ROOT
from running import done, headwater
from small import save_model, sentences, write_corpus

ROWS, QUERIES = 120, 24


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with grasp and repsim, queries of two tasks, and masks."""
    folder = tmp_path_factory.mktemp("utility")
    save_model(folder / "model", vocab_size=320)
    records = [{"id": f"e{at}", "text": text, "theme": f"t{at % 3}"} for at, text in enumerate(sentences(ROWS))]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    asked = [{"id": f"q{at}", "text": text, "task": "ab"[at % 2]} for at, text in enumerate(sentences(QUERIES, seed=1))]
    (folder / "queries.jsonl").write_text("".join(json.dumps(record) + "\n" for record in asked))
    words = [
        "ingest",
        folder / "corpus.jsonl",
        "--store",
        folder / "S",
        "--model",
        folder / "model",
        "--set",
        "grasp.m",
        4096,
    ]
    done(*words, "--method", "grasp", "--method", "repsim")
    masks = np.random.default_rng(0).random((12, ROWS)) < 0.3
    np.save(folder / "masks.npy", masks)
    return folder


def head_gradients(work: Path, texts: list[str]) -> np.ndarray:
    """(n, V·D) float64: −∇ of each text's mean loss with respect to the head, by hand."""
    model = load(ModelChoice(str(work / "model"), "cpu"))
    found = []
    for text in texts:
        ids = torch.tensor([[*model.prefix, *model.tokenizer(text, add_special_tokens=False)["input_ids"]]])[:, :128]
        with torch.inference_mode():
            hidden = model.trunk(input_ids=ids).last_hidden_state[0, :-1].double()
        residual = torch.softmax(hidden @ model.head.weight.double().T, 1)
        residual[torch.arange(len(hidden)), ids[0, 1:]] -= 1
        found.append((-(residual.T @ hidden) / len(hidden)).flatten().numpy())
    return np.array(found)


@pytest.fixture(scope="module")
def exact(work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Exact gradients of corpus and queries."""
    texts = [
        [json.loads(line)["text"] for line in (work / name).read_text().splitlines()]
        for name in ("corpus.jsonl", "queries.jsonl")
    ]
    return head_gradients(work, texts[0]), head_gradients(work, texts[1])


def stored(work: Path, store: str = "S") -> np.ndarray:
    """Features as stored, (N, m) float64."""
    reader = open_column(FeatureStore.open(str(work / store)), "methods/grasp", "feature")
    return np.stack([np.asarray(row) for row in reader.gather(np.arange(reader.rows))]).astype(np.float64)


def test_the_sketch_is_of_the_exact_gradients(work: Path, exact: tuple[np.ndarray, np.ndarray]) -> None:
    """Inner products agree within the sketch's own standard deviation, about √(2/m) of the norms' product."""
    gradients, _ = exact
    true, found = gradients @ gradients.T, stored(work) @ stored(work).T
    norms = np.sqrt(np.outer(np.diag(true), np.diag(true)))
    assert np.sqrt(np.mean(((found - true) / norms) ** 2)) < 3 * np.sqrt(2 / 4096)
    masks = np.load(work / "masks.npy").astype(float)
    means, sketched = (masks @ rows / masks.sum(1)[:, None] for rows in (gradients, stored(work)))
    assert np.corrcoef((means**2).sum(1), (sketched**2).sum(1))[0, 1] > 0.9


def test_sketches_are_right_on_average_and_err_as_the_root_of_their_size(
    work: Path, exact: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    gradients, _ = exact
    true, errors = gradients[:30] @ gradients[:30].T, {}
    norms = np.sqrt(np.outer(np.diag(true), np.diag(true)))
    reading = [work / "corpus.jsonl", "--store", tmp_path / "T", "--model", work / "model"]
    for m in (64, 1024):
        name = f"grasp@m{m}"
        done("ingest", *reading, "--method", name, "--seeds", "8", "--set", f"{name}.m", m)
    for m in (64, 1024):
        names = [f"grasp@m{m}", *(f"grasp@m{m}@{seed}" for seed in range(1, 8))]
        each = []
        for name in names:
            reader = open_column(FeatureStore.open(str(tmp_path / "T")), f"methods/{name}", "feature")
            rows = np.stack([np.asarray(row, np.float64) for row in reader.gather(np.arange(30))])
            each.append((rows @ rows.T - true) / norms)
        off = np.array(each)
        errors[m] = float(np.sqrt((off**2).mean()))
        assert abs(off.mean(0)).mean() < 1.6 * errors[m] / np.sqrt(
            8
        )  # unbiased: the mean errs as eight draws' mean does
    assert 2.5 < errors[64] / errors[1024] < 6.5  # 4 expected


def test_predictions_are_the_formula(work: Path) -> None:
    asked = [work / "S", "--queries", work / "queries.jsonl", "--subsets", work / "masks.npy", "--tasks-by", "task"]
    lines = [json.loads(line) for line in done("predict", *asked, "--lambda", "0.7", "--json").stdout.splitlines()]
    rows, masks = stored(work), np.load(work / "masks.npy").astype(float)
    features = LinearFeatures(FeatureStore.open(str(work / "S")), "grasp")
    from headwater.engine.selection.targets import TaskFile, read_targets

    targets = read_targets(features, TaskFile(str(work / "queries.jsonl"), "task"))
    assert targets.names == ("a", "b") and targets.counts == (12, 12) and targets.few == ["a", "b"]
    means = masks @ rows / masks.sum(1)[:, None]
    expected = means @ targets.vectors.T - 0.35 * (means**2).sum(1)[:, None]
    assert np.allclose([line["utility"] for line in lines], expected.reshape(-1), rtol=1e-5, atol=1e-7)
    assert np.allclose(
        [line["additive"] - line["penalty"] for line in lines], expected.reshape(-1), rtol=1e-5, atol=1e-7
    )
    kept = list((work / "S").rglob("state/task-*/zarr.json"))
    done("predict", *asked, "-o", work / "utilities.npy", "--memory", "300MB")
    assert (
        np.load(work / "utilities.npy").shape == (12, 2) and list((work / "S").rglob("state/task-*/zarr.json")) == kept
    )


def test_tasks_are_the_means_of_exact_gradients(work: Path, exact: tuple[np.ndarray, np.ndarray]) -> None:
    asked = [work / "S", "--queries", work / "queries.jsonl", "--subsets", work / "masks.npy"]
    done("predict", *asked, "-o", work / "all.npy")
    gradients, queries = exact
    masks = np.load(work / "masks.npy").astype(float)
    dense = utilities(masks @ gradients / masks.sum(1)[:, None], queries.mean(0)[None])
    assert np.corrcoef(np.load(work / "all.npy")[:, 0], dense[:, 0])[0, 1] > 0.95


def test_a_single_example_scores_what_it_can_do_in_its_best_step(work: Path) -> None:
    """The score has the order of the largest η⟨v, φ⟩ − (η²/2)‖φ‖² over steps η, found on a grid, with the sign of the best η."""
    one = work / "one.jsonl"
    one.write_text((work / "queries.jsonl").read_text().splitlines()[0] + "\n")
    path = work / "single.zarr"
    done("attribute", work / "S", "--queries", one, "--method", "grasp", "--all-scores", path)
    import zarr

    scores = np.asarray(zarr.open_group(str(path), mode="r")["scores"])[:, 0]
    rows = stored(work)
    features = LinearFeatures(FeatureStore.open(str(work / "S")), "grasp")
    from headwater.engine.selection.targets import TaskFile, read_targets

    v = read_targets(features, TaskFile(str(one))).vectors[0]
    linear, squares = rows @ v, (rows**2).sum(1)
    steps = np.linspace(-4, 4, 8001) * np.abs(linear / squares).max()
    worth = np.outer(steps, linear) - np.outer(steps**2, squares) / 2
    best = worth.argmax(0)
    signed = np.sign(steps[best]) * np.sqrt(2 * worth[best, np.arange(len(rows))])
    assert np.abs(scores - signed).max() < 2e-3 * np.abs(signed).max()
    assert np.allclose(scores, linear / np.sqrt(squares), rtol=2e-3, atol=1e-3 * np.abs(signed).max())


def test_any_method_is_a_feature_and_given_subsets_change_what_others_add(work: Path) -> None:
    lists = work / "lists.jsonl"
    lists.write_text(
        '{"name": "x", "ids": ["e0", "e1"]}\n{"name": "copy", "ids": ["e1", "e0"]}\n{"name": "y", "rows": [5, 6, 6]}\n'
    )
    asked = [
        work / "S",
        "--queries",
        work / "queries.jsonl",
        "--subsets",
        lists,
        "--method",
        "repsim",
        "--given",
        "x",
        "--json",
    ]
    lines = {line["subset"]: line for line in map(json.loads, done("predict", *asked).stdout.splitlines())}
    assert abs(lines["copy"]["adds"]) < 1e-9 and lines["x"]["utility"] == pytest.approx(lines["copy"]["utility"])
    assert abs(lines["y"]["adds"]) > 1e-6 and lines["y"]["examples"] == 3
    table = done(
        "predict",
        work / "S",
        "--queries",
        work / "queries.jsonl",
        "--subsets-by",
        "theme",
        "--columns",
        work / "corpus.jsonl",
    )
    assert len(table.stdout.splitlines()) == 4 and "warning: fewer than 100" in table.stderr


TASKS = ("a", "b", "c")


def noisy(seed: int, true: float, subsets: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, tasks and outcomes that follow Û at a true λ, with noise."""
    chance = np.random.default_rng(seed)
    means, vectors = chance.normal(size=(subsets, 12)) + 0.5, chance.normal(size=(3, 12)) + 0.5
    outcomes = utilities(means, vectors, true)
    return means, vectors, outcomes + 0.1 * outcomes.std() * chance.normal(size=outcomes.shape)


def test_the_incumbent_stays_unless_another_is_surely_better() -> None:
    assert choose_penalty(SubsetOutcomes(*noisy(0, 1.0), TASKS)).penalty == 1.0
    assert choose_penalty(SubsetOutcomes(*noisy(0, 0.0), TASKS)).penalty < 0.5
    means, vectors, outcomes = noisy(0, 0.0)
    chance = np.random.default_rng(1)
    noise = 30 * outcomes.std() * chance.normal(size=outcomes.shape)
    unsure = choose_penalty(SubsetOutcomes(means, vectors, outcomes + noise, TASKS))
    assert unsure.penalty == 1.0 and all(not one.bound > 0 for one in unsure.candidates)
    with pytest.raises(DataError, match="the same outcome for task b"):
        choose_penalty(SubsetOutcomes(means, vectors, outcomes * [1, 0, 1], TASKS))
    with pytest.raises(SettingsError, match="candidate"):
        choose_penalty(SubsetOutcomes(means, vectors, outcomes, TASKS), [])


@pytest.mark.slow
def test_the_incumbent_is_left_by_chance_once_in_ten_times() -> None:
    switched = sum(choose_penalty(SubsetOutcomes(*noisy(seed, 1.0), TASKS)).penalty != 1.0 for seed in range(10))
    assert switched <= 3  # at most one in ten, and some luck


def test_a_calibration_is_kept_and_held_out_outcomes_are_scored_once(work: Path) -> None:
    chance, masks = np.random.default_rng(0), np.load(work / "masks.npy")
    masks = chance.random((80, ROWS)) < 0.3
    np.save(work / "many.npy", masks)
    asked = [work / "S", "--queries", work / "queries.jsonl", "--tasks-by", "task", "--subsets", work / "many.npy"]
    done("predict", *asked, "--lambda", "0", "-o", work / "additive.npy")
    additive = np.load(work / "additive.npy")
    single = -np.repeat(additive, QUERIES // 2, 1)[
        :, np.arange(QUERIES).reshape(2, -1).T.reshape(-1)
    ]  # losses of the queries
    np.save(work / "losses.npy", np.stack([single, single]))
    words = ["calibrate", *asked, "--outcomes", work / "losses.npy", "--calibrate", 50]
    found = json.loads(done(*words, "--json").stdout)
    assert found["penalty"] == 0.0 and found["subsets"] == 50 and found["held_out"] == pytest.approx(1.0)
    again = headwater(*words)
    assert again.exit_code == 1 and "another choice would depend on them" in again.stderr
    assert headwater(*words[:-2]).exit_code == 1  # nor by all of them
    line = json.loads(done("predict", *asked, "--json").stdout.splitlines()[0])
    assert line["penalty"] == 0.0  # λ = 0 holds from now on
    remove_state(next((work / "S").rglob("state/calibration")))


def select(work: Path, *words: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    out = work / "chosen.jsonl"
    output = done("select", work / "S", "--queries", work / "queries.jsonl", "-o", out, "--json", *words)
    return [json.loads(line) for line in out.read_text().splitlines()], json.loads(output.stdout)


def test_selection_writes_what_training_reads(work: Path) -> None:
    chosen, facts = select(work, "--count", 15)
    texts = {
        record["id"]: record["text"] for record in map(json.loads, (work / "corpus.jsonl").read_text().splitlines())
    }
    assert [one["order"] for one in chosen] == list(range(1, 16)) and facts["examples"] == 15
    assert all(one["text"] == texts[one["id"]] and "prompt" not in one for one in chosen)
    rows = stored(work)[[one["row"] for one in chosen]]
    assert facts["utility"] == pytest.approx(facts["additive"] - 0.5 * float((rows.mean(0) ** 2).sum()))
    top, worse = select(work, "--count", 15, "--additive")
    assert worse["additive"] >= facts["additive"] and [one["id"] for one in top] != [one["id"] for one in chosen]
    assert "lost to batches" in select(work, "--count", 15, "--per-step", 5)[1]


def test_outputs_are_refused_before_the_work(work: Path) -> None:
    asked = [work / "S", "--queries", "absent.jsonl"]  # which would be missed first otherwise
    assert "written as a .jsonl file" in headwater("select", *asked, "--count", 3, "-o", work / "chosen.txt").stderr
    output = headwater("predict", *asked, "--subsets", work / "masks.npy", "-o", work / "u.txt").stderr
    assert "results can only be written as" in output


def test_filters_quotas_and_tokens_hold(work: Path) -> None:
    (work / "ids.txt").write_text("".join(f"e{at}\n" for at in range(0, 60)))
    np.save(work / "mask.npy", np.arange(ROWS) < 30)
    chosen, _ = select(work, "--count", 20, "--among", work / "ids.txt", "--exclude", work / "mask.npy")
    assert {one["row"] for one in chosen} <= set(range(30, 60))
    chosen, _ = select(work, "--count", 20, "--quota", "theme=t1:0.6", "--columns", work / "corpus.jsonl")
    assert sum(one["row"] % 3 == 1 for one in chosen) == 12 and len(chosen) == 20
    chosen, facts = select(work, "--tokens", 300)
    lengths = Examples(FeatureStore.open(str(work / "S"))).numbers("tokens").reshape(-1)
    assert facts["tokens"] == sum(one["tokens"] for one in chosen) <= 300
    assert [one["tokens"] for one in chosen] == lengths[[one["row"] for one in chosen]].tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--count", 1000], "more than the 120 examples"),
        (["--count", 0], "at least 1"),
        ([], "either --count or --tokens"),
        (["--tokens", 10**9], "more than the"),
        (["--count", 5, "--quota", "theme=t9:0.5", "--columns", "corpus.jsonl"], "no example has theme t9"),
        (["--count", 90, "--quota", "theme=t1:0.9", "--columns", "corpus.jsonl"], "may be chosen"),
        (["--count", 5, "--exclude", "everything.npy"], "--among and --exclude leave none"),
        (["--count", 5, "--among", "stranger.txt"], "names 1 example that S does not hold (nobody)"),
        (["--count", 5, "--task", "a"], "no task a"),
        (["--count", 5, "--lambda", "nan"], "λ is a number"),
        (["--count", 110, "--quota", "theme=t1:0.1", "--columns", "corpus.jsonl"], "leave 99 examples to other values"),
        (["--count", 5, "--memory", "1KB"], "--memory allows 1kB"),
    ],
)
def test_a_choice_that_cannot_be_is_one_line(
    work: Path, words: list[object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    np.save("everything.npy", np.ones(ROWS))
    Path("stranger.txt").write_text("nobody\n")
    result = headwater("select", "S", "--queries", "queries.jsonl", "-o", "none.jsonl", *words)
    assert result.exit_code == 1 and message in result.stderr, result.output
    assert not Path("none.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"rows": [0, 120]}', "names row 120; the store has rows 0 to 119"),
        ('{"rows": [-1]}', "names row -1"),
        ('{"ids": ["e1", "nobody"]}', "does not hold (nobody)"),
        ('{"rows": []}', "is empty"),
        ("[1, 2]", "a subset is"),
        ("", "a subset is"),
    ],
)
def test_subsets_that_cannot_be_are_one_line(work: Path, line: str, message: str) -> None:
    path = work / "bad.jsonl"
    path.write_text(line + "\n")
    result = headwater("predict", work / "S", "--queries", work / "queries.jsonl", "--subsets", path)
    assert result.exit_code == 1 and message in result.stderr
    np.save(work / "narrow.npy", np.ones((2, 7)))
    result = headwater("predict", work / "S", "--queries", work / "queries.jsonl", "--subsets", work / "narrow.npy")
    assert "masks of 7 examples; the store has 120" in result.stderr


def test_rows_of_all_examples_are_wanted_and_long_texts_are_known_by_their_id(work: Path, tmp_path: Path) -> None:
    long = [{"id": "L", "text": " ".join(sentences(12)), "who": "x"}, {"id": "s", "text": "a short one", "who": "y"}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in long))
    words = ["ingest", tmp_path / "corpus.jsonl", "--store", tmp_path / "S", "--model", work / "model"]
    done(*words, "--method", "grasp", "--method", "repsim", "--max-length", 64)
    asked = [tmp_path / "S", "--queries", work / "queries.jsonl"]
    by = ["--by", "who", "--columns", tmp_path / "corpus.jsonl", "--method", "grasp", "--json"]
    found = [json.loads(line) for line in done("value", *asked, *by).stdout.splitlines()]
    assert {line["group"]: line["examples"] > 1 for line in found} == {"x": True, "y": False}
    (tmp_path / "seen.txt").write_text("L\n")
    out = tmp_path / "chosen.jsonl"
    done("select", *asked, "--count", 1, "--exclude", tmp_path / "seen.txt", "-o", out)
    assert json.loads(out.read_text())["id"] == "s"
    (tmp_path / "corpus.jsonl").write_text((tmp_path / "corpus.jsonl").read_text().replace('"s"', '"L"'))
    assert "but an earlier line has" in headwater("value", *asked, *by).stderr

    (tmp_path / "more.jsonl").write_text('{"id": "m", "text": "one more of them"}\n')
    done("ingest", tmp_path / "more.jsonl", *words[2:], "--append", "--method", "repsim")
    for command in (["predict", *asked, "--subsets-by", "source"], ["select", *asked, "--count", 1, "-o", out],
                    ["value", *asked, "--method", "grasp", "--by", "source"]):  # fmt: skip
        refused = headwater(*command)
        assert refused.exit_code == 1 and " grasp to continue" in refused.stderr, refused.output


def test_words_choose_without_a_model(tmp_path: Path) -> None:
    """The example's arrays, taken in and chosen from: texts come out ready for training, copies are not chosen again."""
    pytest.importorskip("sklearn")
    script = ROOT / "examples" / "words_as_vectors.py"
    if not script.exists():
        pytest.skip(f"no {script}: not a checkout")
    texts = ["the cat sat on the mat", "a dog barks at night", "the cat sat on the mat", "numbers add up to nine"]
    write_corpus(tmp_path / "corpus.jsonl", [*texts, *sentences(20)])
    write_corpus(tmp_path / "task.jsonl", ["a cat on a mat", "a dog at night"])
    runpy.run_path(str(script))["main"](str(tmp_path / "corpus.jsonl"), str(tmp_path / "task.jsonl"))
    done("ingest", tmp_path / "corpus.npz", "--store", tmp_path / "S", "--method", "vectors")
    words = ["--queries", tmp_path / "task.npz", "--method", "vectors", "--count", 2, "-o", tmp_path / "chosen.jsonl"]
    done("select", tmp_path / "S", *words)
    assert {json.loads(line)["text"] for line in (tmp_path / "chosen.jsonl").read_text().splitlines()} == set(texts[:2])


def test_tasks_of_arrays_are_by_an_array(tmp_path: Path) -> None:
    """Rows of a corpus and queries in .npz, with what they are as a further array."""
    chance = np.random.default_rng(0)
    kinds = np.arange(40) % 3
    centres = 3 * chance.normal(size=(3, 16))
    for name, ids in (("corpus", False), ("task", True)):
        vectors = (centres[kinds] + chance.normal(size=(40, 16))).astype(np.float32)
        more = {"id": np.array([f"q{at}" for at in range(40)])} if ids else {}
        np.savez(tmp_path / f"{name}.npz", vectors=vectors, kind=kinds, **more)
    done("ingest", tmp_path / "corpus.npz", "--store", tmp_path / "S", "--method", "vectors")
    asked = ["--queries", tmp_path / "task.npz", "--method", "vectors", "--tasks-by", "kind"]
    done("predict", tmp_path / "S", *asked, "--subsets-by", "kind", "--columns", tmp_path / "corpus.npz",
                "-o", tmp_path / "utilities.npy")  # fmt: skip
    utilities = np.load(tmp_path / "utilities.npy")  # subsets × tasks, both in the order in which kinds are met
    assert utilities.shape == (3, 3) and (utilities.argmax(0) == np.arange(3)).all()
    failed = headwater("predict", tmp_path / "S", *asked[:-1], "colour", "--subsets-by", "source")
    assert failed.exit_code == 1 and "has no array colour; it has hidden, id, kind" in failed.stderr
