"""The memory plan of ground truth: a training in a fresh process stays within it, and a budget decides how many run at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from headwater.engine.retraining.retraining_job import GroundTruthJob, prepare_ground_truth
from headwater.engine.retraining.training_loop import RetrainingRecipe
from headwater.engine.runtime.memory import parse_bytes
from headwater.engine.runtime.run import Run
from headwater.store.errors import BudgetError
from small import WORDS, save_model, write_corpus

PROGRAM = """
import json, sys
from headwater.engine.models.language_model import load_untrained
from headwater.engine.retraining.builder import RetrainingInputs, run_training
from headwater.engine.retraining.retraining_plan import Retraining
from headwater.engine.retraining.token_sets import TokenSet
from headwater.engine.runtime.memory import peak_bytes, reset_peak, resident_bytes
from pathlib import Path
folder, recipe = Path(sys.argv[1]), json.loads(sys.argv[2])
run_training(RetrainingInputs(str(folder / "warm"), str(folder / "tiny"), "", recipe), 0, 0)
examples, queries = (TokenSet.load(folder / "truth" / name) for name in ("examples", "queries"))
plan = Retraining(load_untrained(str(folder / "wide")), examples, queries, 2, recipe["batch"]).training()
assert reset_peak()
share = resident_bytes()
run_training(RetrainingInputs(str(folder / "truth"), str(folder / "wide"), "", recipe), 0, 0)
print(peak_bytes() - share, plan.total)
"""
RECIPE = RetrainingRecipe(epochs=0.2, batch=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, queries, and two models, one of which has 3 million weights."""
    folder = tmp_path_factory.mktemp("truth")
    save_model(folder / "tiny")
    save_model(folder / "wide", hidden_size=256, intermediate_size=512, num_hidden_layers=4)
    write_corpus(folder / "c.jsonl", [" ".join(WORDS[row % 7 :] * 8) + f" {row}" for row in range(400)])
    write_corpus(folder / "q.jsonl", [" ".join(WORDS[row:]) for row in range(4)])
    return folder


def job(folder: Path, model: str, out: str, processes: int = 1) -> GroundTruthJob:
    inputs = [str(folder / "c.jsonl")], str(folder / "q.jsonl"), str(folder / model), str(folder / out)
    return GroundTruthJob(*inputs, subsets=2, seeds=1, recipe=RECIPE, processes=processes)


def test_a_training_stays_within_its_part_of_the_plan(folder: Path) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks are measured through /proc")
    pytest.importorskip("accelerate")
    prepare_ground_truth(job(folder, "tiny", "warm"))
    truth = prepare_ground_truth(job(folder, "wide", "truth"))
    recipe = json.dumps(truth.task.recipe_fields())
    out = subprocess.run([sys.executable, "-c", PROGRAM, str(folder), recipe], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    measured, planned = (int(number) for number in out.stdout.splitlines()[-1].split())
    assert planned / 6 < measured <= planned


def test_a_budget_decides_how_many_trainings_run_and_is_refused_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(BudgetError) as refused:
        prepare_ground_truth(job(folder, "wide", "never", 4), Run(1))
    assert not (folder / "never").exists()
    smallest = parse_bytes(str(refused.value).rpartition(" ")[2])
    assert prepare_ground_truth(job(folder, "wide", "one", 4), Run(smallest)).processes == 1
    assert prepare_ground_truth(job(folder, "wide", "two", 4), Run(2 * smallest)).processes == 2
    assert prepare_ground_truth(job(folder, "wide", "all", 4)).processes == 4
