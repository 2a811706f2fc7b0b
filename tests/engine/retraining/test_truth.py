"""Ground truth: masks are as requested, losses equal torch's, and outcomes do not depend on interruptions."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from headwater.cli import main
from headwater.engine.evaluation.removal import brittleness, removal_masks
from headwater.engine.ingest.examples import TextPayload
from headwater.engine.retraining.masks import clustered_masks, random_masks, text_clusters
from headwater.engine.retraining.retraining_job import GroundTruthJob, prepare_ground_truth
from headwater.engine.retraining.token_sets import TokenSet, concatenate_tokens
from headwater.engine.retraining.training_loop import RetrainingRecipe, pad_batch, query_losses, train_on_subset
from headwater.engine.runtime.run import Run
from headwater.store.errors import DataError, SettingsError, StoreMismatch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import save_model, sentences, write_corpus

RECIPE = RetrainingRecipe(epochs=1, batch=8, learning_rate=3e-3)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("truth")
    save_model(folder / "model")
    write_corpus(folder / "c.jsonl", sentences(24))
    write_corpus(folder / "q.jsonl", sentences(24)[:5])
    return folder


def job(place: Path, folder: Path, **more) -> GroundTruthJob:
    words = {"subsets": 3, "seeds": 2, "recipe": RECIPE, **more}
    return GroundTruthJob([str(place / "c.jsonl")], str(place / "q.jsonl"), str(place / "model"), str(folder), **words)


@given(st.integers(1, 20), st.integers(1, 60), st.floats(0.01, 1), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_random_subsets_have_their_size(subsets, examples, fraction, seed):
    found = random_masks(subsets, examples, fraction, seed)
    assert found.shape == (subsets, examples) and set(found.sum(1)) == {max(1, round(fraction * examples))}
    np.testing.assert_array_equal(found, random_masks(subsets, examples, fraction, seed))


@given(st.lists(st.integers(0, 6), min_size=2, max_size=60), st.floats(0.1, 0.9))
@settings(max_examples=50, deadline=None)
def test_clustered_subsets_cut_one_cluster_at_most(labels, fraction):
    labels = np.array(labels)
    found = clustered_masks(8, labels, fraction, 0)
    assert set(found.sum(1)) == {max(1, round(fraction * len(labels)))}
    for line in found:
        shares = [line[labels == cluster].mean() for cluster in np.unique(labels)]
        assert sum(0 < share < 1 for share in shares) <= 1


def test_like_texts_are_one_cluster():
    labels = text_clusters([f"{word} {word} {i}" for word in ("river", "engine", "winter") for i in range(8)], 3, 0)
    assert [len(set(labels[at : at + 8])) for at in (0, 8, 16)] == [1, 1, 1] and len(set(labels)) == 3
    with pytest.raises(SettingsError, match="--clusters 5: expected at most 2"):
        text_clusters(["a", "b"], 5, 0)


def test_tokens_come_back(tmp_path):
    tokens = concatenate_tokens([TextPayload([1, 2, 3], 0), TextPayload([4, 5], 1), TextPayload([6, 7, 8, 9], 3)])
    tokens.save(tmp_path / "t.npz")
    again = TokenSet.load(tmp_path / "t.npz")
    assert again.digest == tokens.digest and len(again) == 3
    ids, is_target = again.example(2)
    assert ids.tolist() == [6, 7, 8, 9] and is_target.tolist() == [False, False, False, True]
    assert again.target_counts.tolist() == [2, 1, 1]
    masked = concatenate_tokens([TextPayload([1], 1), TextPayload([1, 2, 3, 4, 5], 1, (2, 3))])
    assert masked.target_counts.tolist() == [0, 2] and masked.example(1)[1].tolist() == [
        False,
        True,
        False,
        False,
        True,
    ]
    assert concatenate_tokens([TextPayload([1, 2, 3], 0), TextPayload([4, 5], 2)]).digest != tokens.digest


def test_losses_are_torchs(place):
    model = train_on_subset(
        str(place / "model"), concatenate_tokens([TextPayload([1, 2, 3, 4], 1)] * 9), range(9), replace(RECIPE, seed=3)
    )
    tokens = concatenate_tokens(
        [TextPayload([5, 6, 7, 8, 9, 10], 1), TextPayload([11, 12, 13], 2), TextPayload([1, 2, 3, 4], 1, (2,))]
    )
    found = query_losses(model, tokens)
    for number in range(3):
        ids, is_target = tokens.example(number)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids.tolist()])).logits[0, :-1][is_target[1:]]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[is_target].tolist()))
        assert found[number] == pytest.approx(float(expected), abs=1e-5)
    batch = pad_batch([{"input_ids": [1, 2], "labels": [-100, 2]}, {"input_ids": [3], "labels": [-100]}])
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]] and batch["labels"].tolist() == [
        [-100, 2],
        [-100, -100],
    ]


def test_training_teaches_what_it_sees(place):
    job_of = prepare_ground_truth(job(place, place / "unused"))
    tokens = job_of.task.examples
    before = query_losses(train_on_subset(str(place / "model"), tokens, [0], RetrainingRecipe(epochs=0.01)), tokens)
    after = query_losses(
        train_on_subset(str(place / "model"), tokens, range(12), RetrainingRecipe(epochs=60, learning_rate=1e-2)),
        tokens,
    )
    assert after[:12].mean() < 0.7 * before[:12].mean()
    assert after[:12].mean() < after[12:].mean()


def outcomes(folder: Path) -> np.ndarray:
    return np.load(folder / "outcomes.npy")


@pytest.fixture(scope="module")
def whole(place) -> Path:
    """Ground truth computed without interruption."""
    folder = place / "whole"
    told: list[int] = []
    assert prepare_ground_truth(job(place, folder)).build(
        2, Run(on_progress=lambda progress: told.append(progress.done))
    )
    assert told[0] == 0 and told[-1] == 6
    return folder


def test_the_folder_holds_what_evaluate_reads(whole, place, tmp_path):
    found, masks = outcomes(whole), np.load(whole / "masks.npy")
    assert found.shape == (2, 3, 5) and masks.shape == (3, 24) and (masks.sum(1) == 12).all()
    assert len(np.unique(found)) == found.size  # no two runs are alike
    told = json.loads((whole / "truth.json").read_text())
    assert -1 <= told["between_seeds"] <= 1 and told["settings"]["recipe"]["batch"] == 8
    np.save(tmp_path / "s.npy", np.random.default_rng(0).normal(size=(5, 24)))
    words = ["--masks", whole / "masks.npy", "--outcomes", whole / "outcomes.npy", "--resamples", 5]
    done = run("evaluate", "lds", "--scores", tmp_path / "s.npy", *words)
    assert done.exit_code == 0 and "noise ceiling" in done.stdout, done.output


def test_a_stopped_run_goes_on_to_the_same_outcomes(whole, place, tmp_path):
    truth, told = prepare_ground_truth(job(place, tmp_path / "t")), list[int]()
    assert not truth.build(1, Run(on_progress=lambda p: told.append(p.done), should_stop=lambda: len(told) > 2))
    assert not (tmp_path / "t/outcomes.npy").exists() and len(truth.remaining_runs()) == 4
    assert prepare_ground_truth(job(place, tmp_path / "t")).build(1, Run(on_progress=lambda p: told.append(p.done)))
    np.testing.assert_array_equal(outcomes(tmp_path / "t"), outcomes(whole))


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_outcomes(whole, place, tmp_path):
    words = ["ground-truth", place / "c.jsonl", "--queries", place / "q.jsonl", "--model-config", place / "model",
             "-o", tmp_path / "t", "--subset-count", 3, "--seeds", 2, "--epochs", 1, "--batch", 8, "--learning-rate", 3e-3,
             "--processes", 1]  # fmt: skip
    command = [sys.executable, "-m", "headwater", *map(str, words)]
    kills = 0
    while True:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        runs, before = tmp_path / "t/runs", len(list((tmp_path / "t").glob("runs/[0-9]*/zarr.json")))
        while process.poll() is None and len(list(runs.glob("[0-9]*/zarr.json"))) == before:
            time.sleep(0.05)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 0 and kills >= 3
    np.testing.assert_array_equal(outcomes(tmp_path / "t"), outcomes(whole))


def test_another_question_is_refused_by_the_folder(whole, place):
    for more, key in [
        ({"recipe": RetrainingRecipe(epochs=2)}, "recipe"),
        ({"seed": 1}, "masks"),
        ({"seeds": 3}, "seeds"),
    ]:
        with pytest.raises(StoreMismatch, match=f"another {key}"):
            prepare_ground_truth(job(place, whole, **more))


def test_bad_questions(place, tmp_path):
    words = ["ground-truth", place / "c.jsonl", "--queries", place / "q.jsonl", "--model-config", place / "model",
             "-o", tmp_path / "t"]  # fmt: skip
    assert "above 0" in run(*words, "--fraction", 1.5).stderr
    np.save(tmp_path / "m.npy", np.ones((2, 7)))
    assert "(2, 7)" in run(*words, "--masks", tmp_path / "m.npy").stderr
    assert "is not a model folder" in run(*words[:4], "--model-config", tmp_path, "-o", tmp_path / "t").stderr
    (tmp_path / "file").write_text("")
    assert "cannot be written" in run(*words[:-1], tmp_path / "file" / "t", "--subset-count", 1).stderr


def test_brittleness_is_its_formula() -> None:
    chance = np.random.default_rng(0)
    outcomes = chance.normal(size=(3, 10, 5))
    outcomes[:, range(5), range(5)] += 4  # without its best, each query is lost
    found, mean = brittleness(outcomes), outcomes.mean(0)
    expected = [mean[q, q] - np.mean([mean[5 + c, q] for c in range(5)]) for q in range(5)]
    np.testing.assert_allclose(found.rises, expected)
    assert found.rise.value == pytest.approx(np.mean(expected)) and found.beyond.value == 1 and found.seeds == 3
    assert brittleness(np.zeros((10, 5))).beyond.value == 0.5
    for shape in ((10, 4), (2, 1), (7,)):
        with pytest.raises(DataError, match="those of removals"):
            brittleness(np.zeros(shape))


def test_removals_lack_the_best_and_as_many_others() -> None:
    scores = np.random.default_rng(0).integers(0, 4, (6, 30)).astype(float)
    masks = removal_masks(scores, 7)
    assert masks.shape == (12, 30) and set((~masks).sum(1)) == {7}
    for query in range(6):
        lost = scores[query][~masks[query]]
        assert lost.min() >= scores[query][masks[query]].max()
    with pytest.raises(DataError, match="cannot be removed"):
        removal_masks(scores, 30)
    with pytest.raises(DataError, match="give two or more"):
        removal_masks(scores[:1], 3)
    small = np.array([[0, 3, 9, 200], [1, 0, 0, 0]], np.uint8)
    assert np.array_equal(removal_masks(small, 1)[:2], [[1, 1, 1, 0], [0, 1, 1, 1]])
    assert np.array_equal(removal_masks(small > 1, 1)[:2], [[1, 0, 1, 1], [0, 1, 1, 1]])


@pytest.fixture(scope="module")
def signs(tmp_path_factory) -> Path:
    """Three queries, each a line of signs that eight of the corpus's 50 examples repeat; what `knows.npy` scores by."""
    folder = tmp_path_factory.mktemp("signs")
    lines = ["".join(np.random.default_rng(seed).choice(list("kqvxzw"), 24)) for seed in range(3)]
    texts = [*sentences(26), *(text for text in lines for _ in range(8))]
    save_model(folder / "model")
    write_corpus(folder / "c.jsonl", texts)
    write_corpus(folder / "q.jsonl", lines)
    knows = np.array([[float(text == query) for text in texts] for query in lines])
    scores = {"knows": knows, "guesses": np.random.default_rng(0).random(knows.shape), "short": knows[:2]}
    for name, matrix in {**scores, "narrow": knows[:, :5]}.items():
        np.save(folder / f"{name}.npy", matrix)
    return folder


def without(signs: Path, scores: str, *more: object, output: Path) -> Result:
    words = ["ground-truth", signs / "c.jsonl", "--queries", signs / "q.jsonl", "--model-config", signs / "model"]
    return run(*words, "--without", signs / f"{scores}.npy", *more, "-o", output)


@pytest.mark.parametrize(("scores", "low", "high"), [("knows", 0.1, 1.0), ("guesses", -0.06, 0.06)])
def test_what_taught_a_query_is_missed_when_it_is_taken_away(signs, tmp_path, scores, low, high) -> None:
    """Removal by true scores raises a query's loss; removal by random ones does not."""
    recipe = ["--learning-rate", 1e-2, "--top", 8, "--seeds", 2]
    trained = without(signs, scores, *recipe, output=tmp_path / "removed")
    assert trained.exit_code == 0, trained.output
    outcomes = ["--outcomes", tmp_path / "removed" / "outcomes.npy", "--plot", tmp_path / "plot.png"]
    result = run("evaluate", "brittleness", *outcomes, "--json")
    assert result.exit_code == 0 and (tmp_path / "plot.png").stat().st_size > 1000, result.output
    assert low < json.loads(result.stdout)["rise"]["value"] < high


@pytest.mark.parametrize(
    ("scores", "more", "message"),
    [
        ("narrow", [], "the corpus has 50 examples"),
        ("short", [], "scores of 2 queries"),
        ("short", ["--clusters", 3], "give one of them"),
    ],
)
def test_removals_by_scores_of_something_else_are_refused(signs, tmp_path, scores, more, message) -> None:
    refused = without(signs, scores, *more, output=tmp_path / "x")
    assert refused.exit_code == 1 and message in refused.stderr
