"""Tables for a terminal say every figure that their results hold, and nothing where a figure is not defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from headwater.engine.evaluation.agreement import evaluate_lds
from headwater.engine.evaluation.metrics import Estimate
from headwater.engine.evaluation.removal import Removal
from headwater.engine.evaluation.retrieval import Retrieval
from headwater.engine.presentation.evaluation_tables import print_agreement, print_removal, print_retrieval
from headwater.engine.presentation.selection_tables import print_calibration, print_utilities
from headwater.engine.selection.calibration import Calibration, Candidate
from headwater.engine.selection.prediction import Utilities

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("seeds", [1, 2])
def test_agreement_has_a_noise_ceiling_only_with_two_retrainings(seeds: int, capsys: Capture) -> None:
    draw = np.random.default_rng(0)
    masks, scores = draw.random((12, 20)) < 0.5, draw.normal(size=(3, 20))
    outcomes = np.stack([-(masks @ scores.T) + draw.normal(size=(12, 3)) for _ in range(seeds)])
    agreement = evaluate_lds(scores, masks, outcomes, resamples=20)
    print_agreement(agreement)
    text = capsys.readouterr().out
    assert f"{agreement.mean.value:.4f}" in text and f"{agreement.shuffled.value:.4f}" in text and "12 subsets" in text
    assert ("noise ceiling  " in text) == (seeds == 2) == math.isfinite(agreement.ceiling)
    assert ("the noise ceiling is not known" in text) == (seeds == 1)


def test_retrieval_has_a_line_for_each_metric_and_says_what_is_left_out(capsys: Capture) -> None:
    hits = (np.array([True, False]), np.array([False, True]))
    figures = {"precision@1": np.array([1.0, 0.0]), "recall@1": np.array([np.nan, np.nan])}
    print_retrieval(Retrieval(("a", "b"), 3, 2, 1.0, hits, (np.ones(2), np.ones(2)), (1, 1), figures))
    text = capsys.readouterr().out
    assert "0.5000" in text and "not defined" in text and "3 without a relevant example" in text


def test_removal_names_its_chance_level(capsys: Capture) -> None:
    print_removal(Removal(Estimate(0.25, 0.1, 0.4, 5), Estimate(0.75, 0.5, 1, 5), np.ones(5), np.ones(25), 5, 2))
    text = capsys.readouterr().out
    assert "0.2500" in text and "0.1000 to 0.4000" in text and "0.5000 to 1.0000" in text and "2 trainings each" in text


@pytest.mark.parametrize("adds", [None, np.array([[0.5], [-0.25]])])
def test_utilities_have_a_line_for_each_subset_and_task(adds: np.ndarray | None, capsys: Capture) -> None:
    values, additive = np.array([[1.0], [2.0]]), np.array([[1.5], [2.5]])
    print_utilities(Utilities(("first", "\x1b[31m"), ("task",), np.array([3, 4]), values, additive, 1.0, adds))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and ("adds" in lines[0]) == (adds is not None)
    assert lines[1].split()[:5] == ["first", "task", "3", "1", "1.5"]
    assert "\x1b" not in lines[2]  # a name from a corpus does not colour the terminal


def test_a_calibration_marks_the_chosen_penalty(capsys: Capture) -> None:
    candidates = (Candidate(0.0, 0.2, -0.1, -0.2, False), Candidate(1.0, 0.3, 0.0, math.nan, True))
    print_calibration(Calibration(1.0, candidates, 12, ("a", "b"), "digest", 0.28))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "chosen" in line] == [lines[2]]
    assert "λ = 1 by 12 subsets, 2 tasks" in lines[3] and "0.2800" in lines[4]
