"""Fits of several members of a subset method: designs, combined answers, earlier stores' fits of several models."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headwater.engine.attribution.query_options import QueryOptions
from headwater.engine.attribution.recovered_session import RecoveredSession
from headwater.engine.fitting.fit_job import prepare_fit
from headwater.engine.fitting.fit_record import read_fit
from headwater.engine.fitting.fit_request import FitJob
from headwater.engine.runtime.run import Progress, Run
from headwater.store.feature_store import FeatureStore
from headwater.store.state import read_state, write_state
from running import done, headwater
from small import save_model
from small_fits import QUICK, arrays_of, combined_of, hidden_of, options, scores_of


def weights_of(folder: Path, name: str, member: str) -> tuple[np.ndarray, np.ndarray]:
    """One member's weights (Q, N) float64, zeros included, and the spread of its measurements (Q,)."""
    question = RecoveredSession(
        FeatureStore.open(folder / name), member, str(folder / "queries.jsonl"), QueryOptions(1)
    )
    (own,) = question._member.weights(scaled=False).members
    return own.tile(0, 60).astype(np.float64), own.centred.std(0)


def test_each_member_is_a_fit_of_its_own_with_its_own_design(checkpoints: Path) -> None:
    store = FeatureStore.open(checkpoints / "B")
    fits = [read_fit(store, f"stride@{label}") for label in ("model", "early", "late", "7", "8")]
    assert [fit.draw for fit in fits] == [0, 1, 2, 0, 0]  # the sums of seed and draw differ: 0, 1, 2, 7, 8
    assert [Path(fit.model.path).name for fit in fits] == ["model", "early", "late", "model", "model"]
    designs = [fit.design().of(np.arange(60)) for fit in fits]
    assert all(not np.array_equal(one, other) for at, one in enumerate(designs) for other in designs[:at])
    shutil.copytree(checkpoints / "S", checkpoints / "alone")
    own = [part for name, value in (QUICK | {"seed": 1}).items() for part in ("--set", f"stride@early.{name}", value)]
    done("fit", checkpoints / "alone", "--method", "stride@early", "--base", checkpoints / "early", *own)
    alone = read_fit(FeatureStore.open(checkpoints / "alone"), "stride@early")
    assert alone.draw == 0  # seed 1 and draw 0 is what seed 0 and draw 1 is
    for name, array in alone.operators().items():
        np.testing.assert_array_equal(array, fits[1].operators()[name])
    facts = json.loads(done("info", checkpoints / "B", "--json").stdout)["fits"]
    assert facts["stride@early"]["base"] == str(checkpoints / "early") and facts["stride@7"]["settings"]["seed"] == 7
    printed = done("info", checkpoints / "B").stdout
    assert f"stride@late: 24 subsets of 60 examples, seed 2, model {checkpoints / 'late'}" in printed
    done("verify", checkpoints / "B")


@pytest.mark.parametrize("rule", ["mean", "sum"])
@pytest.mark.parametrize("labels", ["model,early,late", "7,8"])
def test_combined_weights_are_the_rule_by_hand(checkpoints: Path, labels: str, rule: str) -> None:
    """The mean divides each member's weights by the spread of the query's measurements, unless only their seeds differ."""
    together = combined_of(checkpoints, "B", "--members", labels, "--combine", rule).T
    members = [weights_of(checkpoints, "B", f"stride@{label}") for label in labels.split(",")]
    is_scaled = rule == "mean" and labels != "7,8"
    apart = np.stack([weights / (spread[:, None] if is_scaled else 1) for weights, spread in members])
    expected = apart.sum(0) if rule == "sum" else apart.mean(0)
    zero = (apart == 0).all(0)
    assert zero.any() and not zero.all()
    np.testing.assert_allclose(together[~zero], expected[~zero], rtol=1e-6, atol=1e-7 * abs(expected).max())
    assert abs(together[zero]).max() < abs(apart[apart != 0]).min() / 100  # ties rank between help and harm
    words = ["--method", "stride", "--members", labels, "--combine", rule, "--queries", checkpoints / "queries.jsonl"]
    lines = [
        json.loads(line)
        for line in done("attribute", checkpoints / "B", *words, "--top", 60, "--json").stdout.splitlines()
    ]
    count = len(members)
    for line in lines:
        query, row = int(line["query_id"].rpartition(":")[2]) - 1, line["row"]
        assert line["tie"] == zero[query, row] and (line["score"] == 0 or not line["tie"])
        if not line["tie"]:
            error = apart[:, query, row].std(ddof=1) * (count**0.5 if rule == "sum" else count**-0.5)
            assert line["standard_error"] == pytest.approx(error, rel=1e-4)
    assert {"explained", "reliability", "gap", "rank_low", "rank_high"} <= set(lines[0])


def test_ties_of_several_members_are_ordered_by_their_mean_back_projection(checkpoints: Path) -> None:
    together = combined_of(checkpoints, "B", "--members", "model,early,late").T
    projected, weights = np.zeros((3, 60)), np.zeros((3, 60))
    for label in ("model", "early", "late"):
        path = str(checkpoints / "queries.jsonl")
        question = RecoveredSession(FeatureStore.open(checkpoints / "B"), f"stride@{label}", path, QueryOptions(1))
        (own,) = question._member.weights(scaled=False).members
        table = np.zeros((60, 24))
        held = read_fit(FeatureStore.open(checkpoints / "B"), f"stride@{label}").design().of(np.arange(60))
        np.put_along_axis(table, held.astype(np.int64), 1, 1)
        projected += (table @ (own.centred / own.centred.std(0))).T
        weights += abs(own.tile(0, 60))
    for query in range(3):
        ties = np.flatnonzero(weights[query] == 0)
        order = ties[np.argsort(-together[query, ties], kind="stable")]
        assert len(ties) > 5 and (np.diff(projected[query, order]) <= 1e-5).all()


def test_the_value_of_several_fits_and_their_plan(checkpoints: Path) -> None:
    words = ["--method", "stride", "--members", "model,early,late", "--queries", checkpoints / "queries.jsonl"]
    done("value", checkpoints / "B", *words, "-o", checkpoints / "values.jsonl")
    values = np.array([json.loads(line)["score"] for line in (checkpoints / "values.jsonl").read_text().splitlines()])
    members = [weights_of(checkpoints, "B", f"stride@{label}") for label in ("model", "early", "late")]
    expected = np.mean([weights / spread[:, None] for weights, spread in members], (0, 1))
    np.testing.assert_allclose(values[expected != 0], expected[expected != 0], rtol=1e-5, atol=1e-7)
    alone = ["--method", "stride@early", *words[4:]]
    plans = [
        json.loads(done("plan", "attribute", checkpoints / "B", *asked, "--json").stdout) for asked in (words, alone)
    ]
    several, one = (plan["parts"] for plan in plans)
    assert several["model weights"] == one["model weights"] and several["measurements"] == 3 * one["measurements"]
    done("attribute", checkpoints / "B", *words, "--memory", plans[0]["total"])
    assert "smallest budget that works" in headwater("attribute", checkpoints / "B", *words, "--memory", "1MB").stderr


def test_fitted_members_that_cannot_answer_are_one_line(checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoints / "B", tmp_path / "B")
    ask = ["attribute", tmp_path / "B", "--queries", checkpoints / "queries.jsonl", "--method"]
    listed = "its members are stride@7, stride@8, stride@model, stride@early, stride@late: name one, or"
    for words, message in (
        ((*ask, "stride"), listed),
        ((*ask, "stride", "--members", "early,gone"), "stride has no member stride@gone"),
        ((*ask, "stride", "--members", "early"), "--method stride@early answers from this one"),
        ((*ask, "bm25", "--members", "all"), "compares texts and has no members"),
        (("fit", tmp_path / "B", "--method", "stride", "--base", checkpoints / "early"), "--method stride@early"),
        (
            ("fit", tmp_path / "B", "--method", "stride@early", "--base", checkpoints / "late"),
            "whose weights differ from",
        ),
        (("fit", tmp_path / "B", "--bases", tmp_path / "nowhere", *options(QUICK)), "nowhere"),
    ):
        wrong = headwater(*words)
        assert wrong.exit_code == 1 and message in wrong.stderr and wrong.stderr.count("\n") <= 2, (words, wrong.output)
    shutil.copytree(checkpoints / "early", tmp_path / "moved")
    done("fit", tmp_path / "B", "--method", "stride@early", "--base", tmp_path / "moved")
    assert read_fit(FeatureStore.open(tmp_path / "B"), "stride@early").model.path == str(tmp_path / "moved")
    done(*ask, "stride", "--members", "early,late")
    save_model(tmp_path / "moved", seed=6)
    changed = headwater(*ask, "stride@early")
    assert changed.exit_code == 1 and "member stride@early, does not match this run: model is" in changed.stderr
    shutil.rmtree(tmp_path / "moved")
    gone = headwater(*ask, "stride", "--members", "late,early")
    assert gone.exit_code == 1 and "the model of stride@early" in gone.stderr and gone.stderr.count("\n") <= 2


def as_before_members(state: Path, bases: list[dict[str, Any]], setting: list[str]) -> None:
    """Make a fit one of before members were fits of their own, of these base models. `setting`: its setting `bases`."""
    stored = read_state(state / "fit")
    assert stored is not None
    settings = {**stored.values["settings"], "bases": setting}
    recovery = ("solver", "regularization", "held_out", "tolerance")
    fitted = {key: value for key, value in settings.items() if key not in recovery}
    record = {key: stored.values[key] for key in ("examples", "corpus", "model")}
    for number, base in enumerate(bases):
        digest = hashlib.sha256(json.dumps([fitted, *record.values(), base["base"], number], sort_keys=True).encode())
        operators = arrays_of(state / "base0/operators")
        write_state(state / f"base{number}/operators", {"of": digest.hexdigest()}, operators)
    write_state(state / "fit", {**record, "settings": settings, "bases": bases, "done": len(bases)})


def made_of(state: Path) -> dict[str, str]:
    """Fingerprints of a fit's model."""
    stored = read_state(state / "fit")
    assert stored is not None
    return dict(stored.values["made"])


def test_a_fit_of_before_members_is_read_with_one_model(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts / "S", tmp_path / "S")
    shutil.copy(texts / "queries.jsonl", tmp_path)
    state, before = tmp_path / "S/methods/stride/state", scores_of(texts)
    as_before_members(state, [{"base": "", "made": made_of(state)}], [])
    np.testing.assert_array_equal(scores_of(tmp_path), before)
    done("fit", tmp_path / "S", "--set", "stride.solver", "ridge")  # the operators are those of the fit still
    assert not np.array_equal(scores_of(tmp_path), before)


def test_a_fit_of_before_members_is_read_with_one_model_that_is_not_the_stores(
    checkpoints: Path, tmp_path: Path
) -> None:
    """Of the same design as a member with draw 0."""
    shutil.copytree(checkpoints / "S", tmp_path / "S")
    shutil.copy(checkpoints / "queries.jsonl", tmp_path)
    shutil.rmtree(tmp_path / "S/methods/stride")
    own = [part for name, value in QUICK.items() for part in ("--set", f"stride@early.{name}", value)]
    done("fit", tmp_path / "S", "--method", "stride@early", "--base", checkpoints / "early", *own)
    member, state = tmp_path / "S/methods/stride@early/state", tmp_path / "S/methods/stride/state"
    asked = ["attribute", tmp_path / "S", "--queries", tmp_path / "queries.jsonl", "--json", "--method"]
    expected = [json.loads(line)["score"] for line in done(*asked, "stride@early").stdout.splitlines()]
    shutil.move(member.parent, state.parent)
    as_before_members(state, [{"base": str(checkpoints / "early"), "made": made_of(state)}], ["early"])
    assert [json.loads(line)["score"] for line in done(*asked, "stride").stdout.splitlines()] == expected
    written = (state / "base0/operators").stat().st_mtime_ns
    done("fit", tmp_path / "S")  # writes the record as one of now, of the same operators
    rewritten = read_state(state / "fit")
    assert rewritten is not None and "bases" not in rewritten.values
    assert (state / "base0/operators").stat().st_mtime_ns == written
    assert [json.loads(line)["score"] for line in done(*asked, "stride").stdout.splitlines()] == expected


def test_a_fit_of_before_members_with_several_models_names_commands_that_replace_it(
    checkpoints: Path, tmp_path: Path
) -> None:
    store, early = tmp_path / "the store", tmp_path / "of another day/early"
    shutil.copytree(checkpoints / "S", store)
    shutil.copytree(checkpoints / "early", early)
    state, before = store / "methods/stride/state", scores_of(checkpoints)
    own = made_of(state)
    stored = FeatureStore.open(store)
    stored.add_group("hidden_states/stride.base1", stored.groups["hidden_states/stride.base0"].columns, {})
    assert hidden_of(store, 1).exists()
    as_before_members(state, [{"base": "", "made": own}, {"base": str(early), "made": own}], ["", str(early)])
    asked = ["attribute", store, "--queries", checkpoints / "queries.jsonl", "--method"]
    refused = headwater(*asked, "stride")
    assert refused.exit_code == 1 and refused.stderr.count("\n") <= 2
    commands = re.findall(r"headwater (fit .*?) (?:replaces|fits)", refused.stderr)
    assert len(commands) == 2, refused.stderr
    done("info", store)
    done(*shlex.split(commands[0]), *options(QUICK))
    assert not (state / "base1").exists() and not hidden_of(store, 1).exists()
    shutil.copytree(store, tmp_path / "S")
    shutil.copy(checkpoints / "queries.jsonl", tmp_path)
    np.testing.assert_array_equal(scores_of(tmp_path), before)
    done(*shlex.split(commands[1]), *options(QUICK))
    assert read_fit(FeatureStore.open(store), "stride@early").model.path == str(early)
    done(*asked, "stride", "--members", "all")


def test_a_training_goes_on_after_its_checkpoint_has_moved(checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoints / "S", tmp_path / "S")
    steps: list[int] = []

    def on_progress(progress: Progress) -> None:
        if "operators" in progress.stage:
            steps.append(progress.done)

    job = FitJob(str(tmp_path / "S"), "stride@m", QUICK, base=str(checkpoints / "early"))
    assert not prepare_fit(job).run(Run(on_progress=on_progress, should_stop=lambda: len(steps) == 3))
    begun = len(steps)
    shutil.copytree(checkpoints / "early", tmp_path / "moved")
    moved = FitJob(str(tmp_path / "S"), "stride@m", base=str(tmp_path / "moved"))
    assert prepare_fit(moved).run(Run(on_progress=on_progress))
    assert steps[begun] == begun + 1
    assert read_fit(FeatureStore.open(tmp_path / "S"), "stride@m").model.path == str(tmp_path / "moved")
