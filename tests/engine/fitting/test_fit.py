"""`fit`, and `attribute` by what was fitted: whole, stopped, killed, wrong; against dense recovery; in the memory promised."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from headwater.engine.attribution.query_options import QueryOptions
from headwater.engine.attribution.recovered_session import RecoveredSession
from headwater.engine.data.documents import Template
from headwater.engine.fitting.fit_job import prepare_fit
from headwater.engine.fitting.fit_record import read_fit
from headwater.engine.fitting.fit_request import FitJob
from headwater.engine.ingest.examples import Place
from headwater.engine.ingest.open_provider import corpus_provider, query_settings
from headwater.engine.ingest.stored_texts import StoredTexts
from headwater.engine.ingest.text_provider import TextProvider
from headwater.engine.ingest.text_settings import TextSettings
from headwater.engine.models.language_model import ModelChoice, load
from headwater.engine.recovery.membership import TableMembership
from headwater.engine.results.diagnostics import RecoveryDiagnostics
from headwater.engine.runtime.run import Progress, Run
from headwater.engine.steering.steering_fit import SteeringFit
from headwater.plugins.stride import Stride
from headwater.store.errors import BrokenMethod, DataError, SettingsError, StoreBusy
from headwater.store.feature_store import FeatureStore
from headwater.store.locks import OwnerLock
from headwater.store.state import read_state, remove_state, write_state
from running import done, headwater
from small import save_model, sentences, tree, write_corpus
from small_fits import QUICK, arrays_of, combined_of, hidden_of, options, scores_of, short


def put_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Other arrays in a state, whose values stay."""
    state = read_state(folder)
    assert state is not None
    write_state(folder, state.values, arrays)


def test_answers_are_those_of_recovery_and_ties_stand_between_help_and_harm(texts: Path) -> None:
    store = FeatureStore.open(texts / "S")
    question = RecoveredSession(store, "stride", str(texts / "queries.jsonl"), QueryOptions(60))
    results = question.attribute()
    (member,) = question._member.weights(scaled=False).members
    held = TableMembership.of_design(read_fit(store, "stride").design())
    weights = member.weights.dense(held)
    table = np.zeros((60, 24))
    np.put_along_axis(table, held.table.astype(np.int64), 1, 1)
    projected = table @ member.centred  # (N, Q)
    for query in range(3):
        own, order = weights[query], results.rows[query]
        helped, zero = np.flatnonzero(own > 0), np.flatnonzero(own == 0)
        best = helped[np.argsort(-own[helped], kind="stable")]
        assert np.array_equal(order[: len(best)], best)
        ties = order[len(best) : len(best) + len(zero)]
        assert set(ties) == set(zero) and (np.diff(projected[ties, query]) <= 1e-6).all()
        assert np.array_equal(results.further_columns["tie"][query], own[order] == 0)
        assert np.allclose(results.scores[query], own[order], atol=1e-7)
    assert (weights == 0).any() and (weights > 0).any() and (weights < 0).any()
    told = scores_of(texts)
    assert np.allclose(told.T[weights != 0], weights[weights != 0], atol=1e-7)
    for line, own in zip(told.T, weights, strict=True):
        assert abs(line[own == 0]).max() <= 1.01e-4 * abs(own[own != 0]).min()
    values = np.concatenate([part.copy() for _, part in question.value()])
    assert np.allclose(values, weights.mean(0), atol=1e-6)
    best, mean = question.most_valuable(), weights.mean(0, dtype=np.float64)
    order = best.rows[0]
    ties = order[mean[order] == 0]
    assert np.array_equal(best.further_columns["tie"][0], mean[order] == 0) and len(ties) > 3
    assert (np.diff(projected.mean(1)[ties]) <= 1e-6).all()  # queries' together, by back-projection too
    assert (best.scores[0][mean[order] == 0] == 0).all() and (np.diff(best.scores[0]) <= 0).all()
    diagnostics = zarr.open_group(str(texts / "all.zarr"), mode="r").attrs["diagnostics"]
    assert diagnostics["subsets"] == 24 and len(diagnostics["reliability"]) == 3 and all(diagnostics["converged"])


def test_a_table_says_what_speaks_for_it(texts: Path) -> None:
    told = done(
        "attribute", texts / "S", "--method", "stride", "--queries", texts / "queries.jsonl", "--top", 60, "--json"
    )
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert (
        len(rows) == 180
        and {"tie", "explained", "reliability", "gap"} <= set(rows[0])
        and any(row["tie"] for row in rows)
    )
    assert "24 operators for 60 examples" in told.stderr and "agreement of two fits" in told.stderr
    plain = done("attribute", texts / "S", "--method", "stride", "--queries", texts / "queries.jsonl", "--top", 60)
    assert "  tie  " in plain.stdout
    done("value", texts / "S", "--method", "stride", "--queries", texts / "queries.jsonl", "-o", texts / "values.csv")
    assert len((texts / "values.csv").read_text().splitlines()) == 61
    info = json.loads(done("info", texts / "S", "--json").stdout)
    assert info["fits"]["stride"]["settings"]["subsets"] == 24 and "stride" in done("info", texts / "S").stdout
    assert "operators in training" in done("plan", "fit", texts / "S", "--again", *options(QUICK)).stdout
    plan = json.loads(
        done(
            "plan", "attribute", texts / "S", "--method", "stride", "--queries", texts / "queries.jsonl", "--json"
        ).stdout
    )
    assert plan["forecast"] is None and plan["parts"]["measurements"] == 24 * 3 * 24


def _no_number(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


def test_values_are_means_of_weights_and_json_has_no_nan(texts: Path) -> None:
    told = done("value", texts / "S", "--method", "stride", "--queries", texts / "queries.jsonl", "--top", 60, "--json")
    rows = [json.loads(line, parse_constant=_no_number) for line in told.stdout.splitlines()]
    assert len(rows) == 60 and all(row["tie"] == (row["score"] == 0) and row["explained"] is None for row in rows)
    assert any(row["tie"] for row in rows) and any(row["score"] > 0 for row in rows)


def test_a_stored_text_is_read_as_its_file_was(texts: Path) -> None:
    model = load(ModelChoice(str(texts / "model"), "cpu"))
    store = FeatureStore.open(texts / "S")
    stored = list(StoredTexts(store, model).examples(Place()))
    read = list(corpus_provider([str(texts / "corpus.jsonl")], ModelChoice(str(texts / "model"), "cpu"),
                                TextSettings(Template(), max_length=64)).examples(Place()))  # fmt: skip
    assert [one.id for one in stored] == [one.id for one in read] and any("#" in one.id for one in read) is False
    assert [one.payload for one in stored] == [one.payload for one in read]
    assert [one.id for one in StoredTexts(store, model).examples(Place(0, 56))] == [one.id for one in read[57:]]


def test_prompts_and_pieces_of_long_texts_are_read_again(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    long = " ".join(sentences(6, seed=3))
    records: list[dict[str, str]] = [
        {"text": long},
        {"prompt": "Review: a dull film. ", "completion": "Sentiment: Negative"},
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    choice = ModelChoice(str(tmp_path / "model"), "cpu")
    done("ingest", tmp_path / "c.jsonl", "--store", tmp_path / "S", "--model", tmp_path / "model", "--max-length", "40")
    stored = list(StoredTexts(FeatureStore.open(tmp_path / "S"), load(choice)).examples(Place()))
    read = list(
        corpus_provider([str(tmp_path / "c.jsonl")], choice, TextSettings(Template(), max_length=40)).examples(Place())
    )
    assert len(read) > 3 and [one.id for one in stored] == [one.id for one in read]
    assert stored[-1].payload == read[-1].payload and stored[-1].target_count < stored[-1].length - 1
    assert [one.payload for one in stored] == [one.payload for one in read]  # pieces too: token ids are kept
    assert [one.target_count for one in stored] == [one.target_count for one in read] and [
        one.text for one in stored
    ] == [one.text for one in read]
    done("ingest", tmp_path / "c.jsonl", "--store", tmp_path / "T", "--model", tmp_path / "model", "--max-length", "40",
         "--no-tokens")  # fmt: skip
    bare = FeatureStore.open(tmp_path / "T")
    assert "token_ids" not in [column.name for column in bare.columns("examples")]
    again = list(StoredTexts(bare, load(choice)).examples(Place()))
    assert [one.id for one in again] == [one.id for one in read]
    assert np.mean([one.payload == other.payload for one, other in zip(again, read, strict=True)]) > 0.6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextProvider, "encoded", lambda *given: iter(()))  # a tokenizer that finds nothing
        kept = list(StoredTexts(FeatureStore.open(tmp_path / "S"), load(choice)).examples(Place()))
        assert [one.payload for one in kept] == [one.payload for one in read]
        assert not list(StoredTexts(bare, load(choice)).examples(Place()))


def test_conversations_with_several_answers_are_read_again_from_token_ids_alone(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    says = [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")]
    record = {"messages": [{"role": role, "content": content} for role, content in says]}
    (tmp_path / "c.jsonl").write_text(json.dumps(record) + "\n")
    choice = ModelChoice(str(tmp_path / "model"), "cpu")
    common = ("--model", tmp_path / "model", "--turns", "all")
    done("ingest", tmp_path / "c.jsonl", "--store", tmp_path / "S", *common)
    done("ingest", tmp_path / "c.jsonl", "--store", tmp_path / "bare", *common, "--no-tokens")
    store = FeatureStore.open(tmp_path / "S")
    (stored,) = StoredTexts(store, load(choice)).examples(Place())
    settings = query_settings(str(tmp_path / "c.jsonl"), store.provenance, TextSettings())
    assert settings.template.turns == "all"  # queries follow the store
    (read,) = corpus_provider([str(tmp_path / "c.jsonl")], choice, settings).examples(Place())
    assert stored.payload == read.payload and len(stored.payload.ignored) > 2
    with pytest.raises(SettingsError, match=r"(?s)--turns all.*without --no-tokens"):
        StoredTexts(FeatureStore.open(tmp_path / "bare"), load(choice))


def test_a_fit_that_is_killed_anywhere_goes_on_to_the_same_operators(texts: Path) -> None:
    shutil.copytree(texts / "S", texts / "K")
    shutil.rmtree(texts / "K/methods/stride")
    words = [
        sys.executable,
        "-m",
        "headwater",
        "fit",
        str(texts / "K"),
        "--commit-seconds",
        "0",
        *options(QUICK | {"updates": 60}),
    ]
    whole = texts / "W"
    shutil.copytree(texts / "K", whole)
    done("fit", whole, *options(QUICK | {"updates": 60}))
    state = texts / "K/methods/stride/state"
    for number in (signal.SIGKILL, signal.SIGINT):
        running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        before = _stamp(state / "base0/training/zarr.json")
        deadline = time.monotonic() + 120
        while (
            _stamp(state / "base0/training/zarr.json") == before
            and running.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        running.send_signal(number)
        told = running.communicate(timeout=120)[1]
        assert running.returncode == (-9 if number == signal.SIGKILL else 130), told
        result = headwater("attribute", texts / "K", "--method", "stride", "--queries", texts / "queries.jsonl")
        assert result.exit_code == 1 and "not finished" in result.stderr
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert not (state / "base0/training").exists()
    ends = [arrays_of(one / "methods/stride/state/base0/operators") for one in (texts / "K", whole)]
    assert ends[0] is not None and ends[1] is not None and set(ends[0]) == set(ends[1])
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert "in an earlier run" in done("fit", texts / "K", *options(QUICK | {"updates": 60})).stderr


def _stamp(file: Path) -> float:
    return file.stat().st_mtime_ns if file.exists() else 0


def test_a_fit_is_of_its_settings_and_examples(texts: Path) -> None:
    shutil.copytree(texts / "S", texts / "M")
    store = texts / "M"
    wrong = headwater("fit", store, "--set", "stride.subsets", 30)
    assert (
        wrong.exit_code == 1
        and "subsets is 24 in the fit, 30 in this run; to replace the fit, use --again" in wrong.stderr
    )
    before = tree(store / "methods/stride")
    done(
        "fit", store, "--set", "stride.solver", "ridge", "--set", "stride.regularization", 1.0
    )  # how answers are recovered binds nothing
    after = tree(store / "methods/stride")
    assert {name for name in after if after[name] != before.get(name)} == {"state/fit/zarr.json"}
    told = done("attribute", store, "--method", "stride", "--queries", texts / "queries.jsonl", "--top", 2)
    assert "ridge at" in told.stderr
    write_corpus(texts / "more.jsonl", short(5, seed=77))
    done("ingest", texts / "corpus.jsonl", texts / "more.jsonl", "--store", store, "--method", "repsim", "--append",
         "--model", texts / "model")  # fmt: skip
    stale = headwater("attribute", store, "--method", "stride", "--queries", texts / "queries.jsonl")
    assert stale.exit_code == 1 and "60 examples then, 65 now" in stale.stderr and "--again" in stale.stderr
    assert headwater("fit", store).exit_code == 1
    done("fit", store, "--again", *options(QUICK | {"subsets": 30}))
    assert len(scores_of(texts, "M")) == 65


def test_arrays_are_fitted_and_asked(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    weights = [chance.normal(size=(4, 6)).astype(np.float32) for _ in range(2)]
    for number, weight in enumerate(weights):
        for name, count in (("rows", 80), ("queries", 5)):
            labels = np.arange(count) % 4
            hidden = (weight[labels] + 0.3 * chance.normal(size=(count, 6))).astype(np.float32)
            np.savez(tmp_path / f"{name}{number}.npz", hidden=hidden, labels=labels, weight=weight)
    done("ingest", tmp_path / "rows0.npz", "--store", tmp_path / "S", "--method", "repsim", "--method", "stride",
         *options(QUICK | {"updates": 80, "members": 16, "subsets": 120}))  # fmt: skip
    scores = scores_of(tmp_path, queries="queries0.npz")
    labels = np.arange(80) % 4
    for query in range(5):
        assert scores[labels == query % 4, query].mean() > scores[labels != query % 4, query].mean()
    done("fit", tmp_path / "S", "--bases", f"{tmp_path}/rows0.npz,{tmp_path}/rows1.npz", *options(QUICK))
    arrays = dict(np.load(tmp_path / "queries1.npz"))
    np.savez(tmp_path / "named.npz", **arrays, id=np.array(["a", "b", "c", "d", "e"]))
    np.savez(tmp_path / "other.npz", **{**arrays, "id": np.array(["b", "a", "c", "d", "e"])})
    both = ("attribute", tmp_path / "S", "--method", "stride", "--members", "rows0,rows1", "--queries")
    crossed = headwater(*both, f"{tmp_path}/named.npz,{tmp_path}/other.npz")
    assert (
        crossed.exit_code == 1 and "does not match this run" in crossed.stderr
    )  # the first has the second base's head
    np.savez(
        tmp_path / "first.npz",
        **{**dict(np.load(tmp_path / "queries0.npz")), "id": np.array(["a", "b", "c", "d", "e"])},
    )
    crossed = headwater(*both, f"{tmp_path}/first.npz,{tmp_path}/other.npz")
    assert crossed.exit_code == 1 and "has query b where" in crossed.stderr
    rows = dict(np.load(tmp_path / "rows1.npz"))
    np.savez(tmp_path / "renamed.npz", **rows, id=np.array([f"r{at}" for at in range(80)]))
    wrong = headwater("fit", tmp_path / "S", "--bases", tmp_path / "renamed.npz", *options(QUICK))
    assert wrong.exit_code == 1 and "example r0 differs from the store's" in wrong.stderr
    few = headwater(*both, tmp_path / "queries0.npz")
    assert few.exit_code == 1 and "stride@rows0, stride@rows1 were fitted to 2 files of arrays" in few.stderr
    np.savez(tmp_path / "turned.npz", **{**dict(np.load(tmp_path / "rows0.npz")), "hidden": -rows["hidden"]})
    turned = [part for name, value in QUICK.items() for part in ("--set", f"stride@turned.{name}", value)]
    done("fit", tmp_path / "S", "--method", "stride@turned", "--base", tmp_path / "turned.npz", *turned)
    same_head = ("--members", "rows0,turned", "--queries")  # the head alone does not say which hidden states are meant
    one = headwater(*both[:4], *same_head, tmp_path / "queries0.npz")
    assert one.exit_code == 1 and "stride@rows0, stride@turned were fitted to 2 files of arrays" in one.stderr
    done(*both[:4], *same_head, f"{tmp_path}/queries0.npz,{tmp_path}/queries0.npz")
    files = f"{tmp_path}/queries0.npz,{tmp_path}/queries1.npz"
    assert combined_of(tmp_path, "S", "--members", "rows0,rows1", queries=files).shape == (80, 5)
    assert scores_of(tmp_path, queries="queries0.npz").shape == (80, 5)
    done("fit", tmp_path / "S", "--again", *options(QUICK | {"depth": 0.5}))  # arrays have one layer alone
    assert scores_of(tmp_path, queries=f"{tmp_path}/queries0.npz").shape == (80, 5)
    (tmp_path / "rows0.npz").rename(tmp_path / "moved.npz")
    done("fit", tmp_path / "S", "--set", "stride.solver", "ridge")  # needs nothing of what it was made of
    gone = headwater("fit", tmp_path / "S", "--again", *options(QUICK))
    assert gone.exit_code == 1 and "--corpus FILE" in gone.stderr
    done("fit", tmp_path / "S", "--again", "--corpus", tmp_path / "moved.npz", *options(QUICK))
    other = headwater("fit", tmp_path / "S", "--again", "--corpus", tmp_path / "rows1.npz", *options(QUICK))
    assert other.exit_code == 1 and "does not match this run" in other.stderr


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"degree": 30}, "degree = 30, subsets = 24"), ({"subsets": 400}, "some would be empty"),
     ({"depth": 1.5}, "depth is a fraction"), ({"held_out": 2.0}, "0 < held_out < 1"),
     ({"omega": "all"}, "omega is one or example"), ({"updates": 0}, "updates"), ({"rank": -1}, "rank"),
     ({"subsets": "many"}, "subsets must be int"), ({"checked": -1}, "checked and seed"), ({"seed": -1}, "checked and seed"),
     ({"bases": "early"}, "no setting bases"), ({"solver": "iht", "regularization": 2.5}, "must be a number of nonzero weights")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_before_any_work(texts: Path, settings: dict[str, Any], told: str) -> None:
    shutil.copytree(texts / "S", texts / "refused", dirs_exist_ok=True)
    shutil.rmtree(texts / "refused/methods/stride", ignore_errors=True)
    wrong = headwater("fit", texts / "refused", *options(QUICK | settings))
    assert wrong.exit_code == 1 and told in wrong.stderr and wrong.stderr.count("\n") <= 2
    assert not (texts / "refused/methods/stride").exists()


def test_what_cannot_be_asked_is_refused_in_a_line(texts: Path, tmp_path: Path) -> None:
    queries = ("--queries", texts / "queries.jsonl")
    for words, told in (
        (("fit", texts / "S", "--method", "repsim"), "has nothing to fit"),
        (("fit", texts / "S", "--again", *options(QUICK), "--memory", "1MB"), "the largest part is"),
        (("attribute", texts / "S", "--method", "stride", *queries, "--memory", "1MB"), "smallest budget that works"),
        (("attribute", texts / "S", "--method", "stride", *queries, "--certify"), "stores no rows"),
        (("self-influence", texts / "S", "--method", "stride"), "no rows"),
        (("compress", texts / "S", "--method", "stride", "--precision", "int8"), "stride"),
    ):
        result = headwater(*words)
        assert result.exit_code == 1 and told in result.stderr and "Traceback" not in result.stderr, (
            words,
            result.output,
        )
    shutil.copytree(texts / "S", tmp_path / "S")
    shutil.rmtree(tmp_path / "S/methods/stride")
    none = headwater("attribute", tmp_path / "S", "--method", "stride", *queries)
    assert none.exit_code == 1 and "holds no fit of stride: headwater fit" in none.stderr
    write_state(tmp_path / "S/methods/stride/state/fit", {"settings": 1})
    broken = headwater("attribute", tmp_path / "S", "--method", "stride", *queries)
    assert broken.exit_code == 1 and "not a record of a fit" in broken.stderr


def test_an_operator_that_measures_nothing_finite_is_named(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts / "S", tmp_path / "S")
    file = tmp_path / "S/methods/stride/state/base0/operators"
    arrays = arrays_of(file)
    assert arrays is not None
    arrays["alpha"][7, 0] = np.nan
    put_arrays(file, arrays)
    wrong = headwater("attribute", tmp_path / "S", "--method", "stride", "--queries", texts / "queries.jsonl")
    assert (
        wrong.exit_code == 1 and "the measurement of query queries.jsonl:1 by operator 7 is not finite" in wrong.stderr
    )
    (chunk,) = (found for found in file.glob("*/alpha/c/**/*") if found.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-50])
    torn = headwater("attribute", tmp_path / "S", "--method", "stride", "--queries", texts / "queries.jsonl")
    assert torn.exit_code == 1 and "missing, damaged" in torn.stderr


def test_files_that_are_gone_or_of_something_else_are_made_anew(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts / "S", tmp_path / "S")
    state = tmp_path / "S/methods/stride/state/base0"
    before = arrays_of(state / "operators")
    (hidden_of(tmp_path / "S") / "hidden/values/c/0/0").unlink()  # the large one
    (state / ".zarr.json.new").write_bytes(b"torn")
    done("fit", tmp_path / "S", "--again", *options(QUICK))
    after = arrays_of(state / "operators")
    assert (
        before is not None and after is not None and all(np.array_equal(before[name], after[name]) for name in before)
    )
    assert not list(state.glob(".*new"))
    bad = headwater("ingest", texts / "corpus.jsonl", "--store", tmp_path / "N", "--model", texts / "model", "--method", "stride",
                    *options({"degree": 0}))  # fmt: skip
    assert bad.exit_code == 1 and "degree = 0" in bad.stderr and not (tmp_path / "N").exists()


def test_a_training_goes_on_only_with_the_states_it_began_with(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", hidden=chance.normal(size=(40, 4)).astype(np.float32), labels=np.arange(40) % 3,
                 weight=chance.normal(size=(3, 4)).astype(np.float32))  # fmt: skip
    done("ingest", tmp_path / "a.npz", "--store", tmp_path / "S", "--method", "repsim")
    shutil.copy(tmp_path / "a.npz", tmp_path / "base.npz")
    job = FitJob(str(tmp_path / "S"), "stride@m", QUICK, base=str(tmp_path / "base.npz"))
    steps: list[int] = []

    def should_stop() -> bool:
        return len(steps) == 3

    def on_progress(progress: Progress) -> None:
        if "operators" in progress.stage:
            steps.append(progress.done)

    assert not prepare_fit(job).run(Run(on_progress=on_progress, should_stop=should_stop))
    shutil.copy(tmp_path / "b.npz", tmp_path / "base.npz")
    assert prepare_fit(job).run()
    mixed = arrays_of(tmp_path / "S/methods/stride@m/state/base0/operators")
    again = FitJob(str(tmp_path / "S"), "stride@m", QUICK, base=str(tmp_path / "b.npz"), again=True)
    assert prepare_fit(again).run()
    pure = arrays_of(tmp_path / "S/methods/stride@m/state/base0/operators")
    assert mixed is not None and pure is not None and np.array_equal(mixed["alpha"], pure["alpha"])
    steps.clear()
    other = FitJob(str(tmp_path / "S"), "stride@m", {**QUICK, "rank": 2}, again=True)
    assert not prepare_fit(other).run(Run(on_progress=on_progress, should_stop=should_stop))
    begun = len(steps)
    assert prepare_fit(other).run(Run(on_progress=on_progress))
    assert steps[begun] == begun + 1  # the same command goes on


@pytest.fixture
def arrays_job(tmp_path: Path) -> FitJob:
    """A fit to a store of arrays, whose examples are weighted."""
    chance = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", hidden=chance.normal(size=(40, 4)).astype(np.float32), labels=np.arange(40) % 3,
             weight=chance.normal(size=(3, 4)).astype(np.float32))  # fmt: skip
    done("ingest", tmp_path / "a.npz", "--store", tmp_path / "S", "--method", "repsim")
    return FitJob(str(tmp_path / "S"), "stride", {**QUICK, "omega": "example"})


@pytest.mark.parametrize("call", ["start_fit", "example_weights"])
def test_what_a_subset_method_raises_names_the_method(
    arrays_job: FitJob, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("no rows")

    monkeypatch.setattr(Stride, call, fail)
    with pytest.raises(
        BrokenMethod, match=rf"method stride of headwater \S+: {call} raises ZeroDivisionError: no rows"
    ):
        prepare_fit(arrays_job).run()


def test_memory_that_is_no_fit_memory_names_the_method(arrays_job: FitJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stride, "memory", lambda *_: 1)
    with pytest.raises(BrokenMethod, match=r"method stride of headwater \S+: memory gives int, not a FitMemory"):
        prepare_fit(arrays_job)


def _raise(*_: object) -> bool:
    raise ZeroDivisionError("no step")


@pytest.mark.parametrize(
    ("run", "fault"),
    [(_raise, "run of the fit raises ZeroDivisionError: no step"), (lambda *_: None, "run of the fit gives None")],
    ids=["raises", "gives nothing"],
)
def test_a_fit_session_that_breaks_names_the_method(
    arrays_job: FitJob, run: object, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SteeringFit, "run", run)
    with pytest.raises(BrokenMethod, match=rf"method stride of headwater \S+: {fault}"):
        prepare_fit(arrays_job).run()


def test_a_fit_stops_while_examples_are_weighted(arrays_job: FitJob) -> None:
    stages: list[str] = []
    run = Run(on_progress=lambda progress: stages.append(progress.stage),
              should_stop=lambda: "weights of examples" in stages)  # fmt: skip
    assert not prepare_fit(arrays_job).run(run)
    assert "operators" not in stages
    assert prepare_fit(arrays_job).run()


def test_one_process_fits_at_a_time(texts: Path) -> None:
    lock = OwnerLock(texts / "S/methods/stride/state", f"fits stride to {texts / 'S'}")
    try:
        with pytest.raises(StoreBusy):
            prepare_fit(FitJob(str(texts / "S"), "stride")).run()
    finally:
        lock.close()


def test_a_state_that_is_not_finite_is_named(texts: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", hidden=np.array([[1.0, 2], [np.nan, 1], [1, 1]], np.float32), labels=np.array([0, 1, 1]),
             weight=np.eye(2, dtype=np.float32))  # fmt: skip
    np.savez(
        tmp_path / "fine.npz",
        hidden=np.ones((3, 2), np.float32),
        labels=np.array([0, 1, 1]),
        weight=np.eye(2, dtype=np.float32),
    )
    done("ingest", tmp_path / "fine.npz", "--store", tmp_path / "S", "--method", "repsim")
    with pytest.raises(DataError, match=r"hidden state of example rows.npz:1 is not finite"):
        prepare_fit(
            FitJob(str(tmp_path / "S"), "stride@m", {"subsets": 6, "degree": 2}, base=str(tmp_path / "rows.npz"))
        ).run()


def test_trust_warns_where_it_must() -> None:
    every = np.array([0.9, 0.3, np.nan])
    diagnostics = RecoveryDiagnostics(
        10,
        100,
        ("lasso at 0.1",),
        every,
        np.array([0.5, -0.2, 0.4]),
        np.array([1e-5, 2e-5, 1.0]),
        np.array([True, True, False]),
    )
    first, unsteady, blind, slow = diagnostics.notes
    assert "10 operators for 100 examples (K/N 0.1)" in first and "lasso at 0.1" in first and "1.0e+00" in first
    assert (
        "1 of 3 queries agree by less than 0.6" in unsteady
        and "do not explain the held-out measurements of 1 of 3 queries" in blind
    )
    assert (
        len(RecoveryDiagnostics(5, 100, ("lasso",), np.ones(2), np.ones(2), np.zeros(2), np.ones(2, bool)).notes) == 2
    )
    assert "1 queries did not converge" in slow and diagnostics.facts()["reliability"] == [0.9, 0.3, None]
    assert (
        len(RecoveryDiagnostics(10, 100, ("ridge",), np.ones(2), np.ones(2), np.zeros(2), np.ones(2, bool)).notes) == 1
    )


MEASURE = """
import sys, numpy as np
from headwater.engine.runtime.memory import peak_bytes, reset_peak, resident_bytes
from headwater.engine.fitting.fit_job import prepare_fit
from headwater.engine.fitting.fit_request import FitJob
from headwater.engine.attribution.open_session import open_session
from headwater.engine.attribution.query_options import QueryOptions
store, queries, more = sys.argv[1:]
import json
more = json.loads(more)
small = {"subsets": 12, "degree": 3, "updates": 1, "checked": 0, **more}
prepare_fit(FitJob(store, "stride", small)).run()  # compile, load, start threads
open_session(store, "stride", queries, QueryOptions(top=5)).attribute()
settings = {"degree": 5, "updates": 2, "checked": 50, "members": 8, **more}
settings["subsets"] = 60 if "space" in more else 1500
fit = prepare_fit(FitJob(store, "stride", settings, again=True))
reset_peak(); share = resident_bytes()
fit.run()
print(json.dumps({"planned": fit.plan.total, "used": peak_bytes() - share}))
del fit
question = open_session(store, "stride", queries, QueryOptions(top=5))
reset_peak(); share = resident_bytes()
question.attribute()
print(json.dumps({"planned": question.plan.total, "used": peak_bytes() - share}))
"""


@pytest.fixture(scope="module")
def large(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with queries and a store of 500 examples, not fitted."""
    folder = tmp_path_factory.mktemp("large")
    write_corpus(folder / "c.jsonl", short(500, seed=4))
    write_corpus(folder / "q.jsonl", short(24, seed=5))
    done("ingest", folder / "c.jsonl", "--store", folder / "S", "--model", texts / "model", "--method", "repsim")
    return folder


@pytest.mark.parametrize(
    ("more", "loose"),
    [({}, 40), ({"states_from": "forward", "omega": "example"}, 80), ({"space": "activations", "depth": 0.5}, 160)],
)
def test_fit_and_attribute_stay_within_their_plans(
    large: Path, tmp_path: Path, more: dict[str, Any], loose: int
) -> None:
    shutil.copytree(large / "S", tmp_path / "S")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "S"), str(large / "q.jsonl"), json.dumps(more)]
    out = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert out.returncode == 0, out.stderr
    for line in out.stdout.splitlines():
        told = json.loads(line)
        assert told["used"] <= told["planned"] + (16 << 20), told
        assert told["planned"] < loose * max(told["used"], 8 << 20), told


def test_what_was_damaged_is_named_or_made_anew(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts / "S", tmp_path / "S")
    state = tmp_path / "S/methods/stride/state/base0"
    whole = arrays_of(state / "operators")
    assert whole is not None
    ask = ("attribute", tmp_path / "S", "--method", "stride", "--queries", texts / "queries.jsonl")
    for wrong in (
        {"alpha": whole["alpha"][:5]}, {"basis": whole["basis"][:, :3]}, {"which": whole["which"] + 1000},
        {"which": np.array(3)}, {"which": whole["which"][:, None]},
        {"alpha": whole["alpha"].astype(np.float64)}, {"check_alpha": whole["check_alpha"][:2]},
    ):  # fmt: skip
        put_arrays(state / "operators", {**whole, **wrong})
        told = headwater(*ask)
        assert told.exit_code == 1 and "do not match the fit's settings" in told.stderr, (wrong, told.output)
    for name in ("alpha", "basis", "which"):
        put_arrays(state / "operators", {key: value for key, value in whole.items() if key != name})
        assert headwater(*ask).exit_code == 1
    remove_state(state / "operators")
    offsets = hidden_of(tmp_path / "S") / "targets/offsets/c/0"
    offsets.write_bytes(offsets.read_bytes()[::-1])
    done("fit", tmp_path / "S")  # what is gone is made again, from states that are read again
    again = arrays_of(state / "operators")
    assert again is not None and all(np.array_equal(whole[name], again[name]) for name in whole)
    for torn in (
        {"main_step": np.array(10**6)},
        {"main_step": np.array(-5)},
        {"main_alpha": np.full_like(whole["alpha"], np.nan)},
        {},
    ):
        remove_state(state / "operators")
        of = {"of": prepared_digest(tmp_path / "S")}
        kept = {f"main_{name}": whole[name] for name in ("basis", "alpha")}
        write_state(state / "training", of, {**kept, **torn})
        done("fit", tmp_path / "S")
        again = arrays_of(state / "operators")
        assert again is not None and all(np.array_equal(whole[name], again[name]) for name in whole)
    (tmp_path / "S/shards/0/manifests/hidden_states/stride.base0").rename(tmp_path / "manifests")
    done("fit", tmp_path / "S", "--again", *options(QUICK))
    few = headwater("fit", tmp_path / "S", "--again", *options(QUICK | {"subsets": 4, "degree": 2}))
    assert few.exit_code == 1 and "held_out 0.1 of" in few.stderr
    gone = headwater("fit", tmp_path / "S", "--again", *options(QUICK), "--bases", f"{texts / 'model'},nowhere")
    assert gone.exit_code == 1 and "nowhere" in gone.stderr
    done(*ask)  # the fit that was there still is
    grown = headwater("ingest", texts / "corpus.jsonl", "--store", tmp_path / "S", "--model", texts / "model", "--append",
                      "--method", "stride")  # fmt: skip
    assert grown.exit_code == 1 and "headwater fit" in grown.stderr


def prepared_digest(store: Path) -> str:
    """Of the hidden states that a fit of the store reads."""
    from headwater.engine.fitting.fit_corpus import base_provider
    from headwater.engine.fitting.stored_states import StoredStates

    opened = FeatureStore.open(store)
    provider = base_provider(opened, "", ModelChoice("", "cpu"), ())
    return StoredStates(provider, opened, "hidden_states/stride.base0").digest


def test_a_fit_that_another_process_finished_meanwhile_is_not_lost(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts / "S", tmp_path / "S")
    shutil.rmtree(tmp_path / "S/methods/stride")
    late = prepare_fit(FitJob(str(tmp_path / "S"), "stride", {**QUICK, "seed": 7}))
    done("fit", tmp_path / "S", *options(QUICK))
    before = tree(tmp_path / "S/methods/stride")
    with pytest.raises(StoreBusy, match="meanwhile"):
        late.run()
    assert tree(tmp_path / "S/methods/stride") == before


def test_examples_of_which_nothing_counts_weigh_nothing(texts: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "c.jsonl", [one for text in short(40) for one in (text, "s")])
    done("ingest", tmp_path / "c.jsonl", "--store", tmp_path / "S", "--model", texts / "model", "--method", "repsim")
    done("fit", tmp_path / "S", *options(QUICK))
    for solver in ("lasso", "ridge", "iht"):
        done("fit", tmp_path / "S", "--set", "stride.solver", solver)
        scores = scores_of(tmp_path, "S", str(texts / "queries.jsonl"))
        assert not scores[1::2].any() and scores[::2].any(0).all()
    told = done(
        "attribute", tmp_path / "S", "--method", "stride", "--queries", texts / "queries.jsonl", "--top", 80, "--json"
    )
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert (
        all(row["tie"] for row in rows if row["completion"] == "s")
        and sum(row["completion"] == "s" for row in rows) == 120
    )


def test_a_fit_that_was_edited_is_told(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts / "S", tmp_path / "S")
    state = tmp_path / "S/methods/stride/state"
    fit = read_state(state / "fit")
    assert fit is not None
    record, ask = dict(fit.values), ("attribute", tmp_path / "S", "--method", "stride", "--queries",
                                                                 texts / "queries.jsonl")  # fmt: skip
    settings = record["settings"]
    edited = [{"settings": {**settings, "seed": 1}}, {"settings": {**settings, "depth": 0.5}}, {"draw": 1}]
    for values in edited:
        write_state(state / "fit", {**record, **values})
        told = headwater(*ask)
        assert told.exit_code == 1 and "of another fit" in told.stderr, told.output
    for name, wrong in (("done", "x"), ("done", None), ("done", 9), ("draw", -1), ("draw", 1 << 40), ("base", None)):
        write_state(state / "fit", {**record, name: wrong})
        assert headwater(*ask).exit_code == 1
        done("fit", tmp_path / "S", "--again", *options(QUICK))
        done(*ask)
    (manifest,) = (tmp_path / "S").glob("shards/0/manifests/hidden_states/stride.base0/*/zarr.json")
    for file in (state / "fit/zarr.json", manifest):
        file.write_text("[" * 100_000)
        done("fit", tmp_path / "S", "--again", *options(QUICK))
        done(*ask)
    done("verify", tmp_path / "S")
    (chunk,) = (found for found in (state / "base0/operators").glob("*/alpha/c/**/*") if found.is_file())
    chunk.write_bytes(bytes(len(chunk.read_bytes())))
    damaged = headwater("verify", tmp_path / "S")
    assert damaged.exit_code == 1 and "methods/stride/state/base0/operators is damaged" in damaged.stdout


def test_states_that_were_damaged_are_read_again(texts: Path, tmp_path: Path) -> None:
    base = tmp_path / "S/methods/stride/state/base0"
    for file in ("hidden/values/c/0/0", "targets/values/c/0", "hidden/offsets/c/0", "targets/offsets/zarr.json"):
        shutil.rmtree(tmp_path / "S", ignore_errors=True)
        shutil.copytree(texts / "S", tmp_path / "S")
        whole = arrays_of(base / "operators")
        remove_state(base / "operators")
        damaged = hidden_of(tmp_path / "S") / file
        data = bytearray(damaged.read_bytes())
        data[len(data) // 2] ^= 4
        damaged.write_bytes(data)
        done("fit", tmp_path / "S")
        again = arrays_of(base / "operators")
        assert whole is not None and again is not None and np.array_equal(whole["alpha"], again["alpha"])
        done("verify", tmp_path / "S")


def test_verify_reads_hidden_states(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts / "S", tmp_path / "S")
    chunk = hidden_of(tmp_path / "S") / "hidden/values/c/0/0"
    chunk.write_bytes(b"x" + chunk.read_bytes()[1:])
    damaged = headwater("verify", tmp_path / "S")
    assert damaged.exit_code == 1 and "hidden_states/stride.base0/columns/hidden/values chunk 0" in damaged.stdout


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("rate", 1e300, "not rate = 1e+300"),
        ("stability", 1e39, "not stability = 1e+39"),
        ("linearity", "nan", "linearity"),
        ("shared", 10**12, "not shared = 1e+12"),
        ("updates", 0, "not updates = 0"),
    ],
)
def test_absurd_settings_are_refused_before_anything_is_written(
    texts: Path, tmp_path: Path, name: str, value: float, words: str
) -> None:
    shutil.copytree(texts / "S", tmp_path / "S")
    before = tree(tmp_path / "S/methods/stride")
    told = headwater("fit", tmp_path / "S", "--again", *options({**QUICK, name: value}))
    assert told.exit_code in (1, 2) and words in told.stderr and told.stderr.count("\n") <= 4, told.output
    assert tree(tmp_path / "S/methods/stride") == before
