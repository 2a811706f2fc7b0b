"""A fitted method that is not STRIDE, in a package of its own that imports neither recovery nor steering: fitted and asked."""

import json
import sys

import numpy as np
import pytest
from headwater.engine.interface.registry import load
from headwater.plugins.conformance import MODELS, checks
from running import done

pytestmark = pytest.mark.usefixtures("one_thread")
SOURCE = '''"""Mean hidden states of subsets: what a subset does to a query is the inner product of their means."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from headwater.plugins import DataError, FitMemory, SubsetMethod

PARTS = 8


@dataclass(frozen=True)
class Shuffles:
    """Of each of d shuffles of the rows, 8 subsets of nearly equal size."""

    rows: int
    degree: int
    seed: int

    @property
    def subsets(self):
        return PARTS * self.degree

    def of(self, rows):
        shuffled = [np.random.default_rng([self.seed, part]).permutation(self.rows) for part in range(self.degree)]
        return np.stack([PARTS * part + order[rows] % PARTS for part, order in enumerate(shuffled)], 1)

    def sizes(self):
        return np.bincount(self.of(np.arange(self.rows)).ravel(), minlength=self.subsets)

    def members(self, subset, start=0, stop=None):
        return np.flatnonzero((self.of(np.arange(self.rows)) == subset).any(1))[start:stop]


class MeanFit:
    """One subset's mean a step."""

    def __init__(self, corpus, design):
        self.step, self.steps = 0, design.subsets
        self._corpus, self._design = corpus, design
        self._means = np.zeros((design.subsets, corpus.widths[1]), np.float32)

    def run(self, on_step, should_stop):
        while self.step < self.steps:
            if should_stop():
                return False
            states, numbers = self._corpus.read(self._design.members(self.step))
            bounds = [(int(states.first[row]), int(states.first[row + 1])) for row in numbers]
            positions = np.concatenate([np.arange(start, stop) for start, stop in bounds])
            self._means[self.step] = states.hidden[torch.from_numpy(positions)].float().mean(0).numpy(force=True)
            self.step += 1
            on_step(self.step, 0.0, 0.0)
        return True

    def state_dict(self):
        return {"step": np.array(self.step), "means": self._means}

    def load_state_dict(self, arrays):
        if arrays["means"].shape != self._means.shape:
            raise DataError("the means are of another fit")
        self.step, self._means = int(arrays["step"]), np.array(arrays["means"])

    def parameters(self):
        return {"means": self._means}


@dataclass(frozen=True)
class SubsetMeans(SubsetMethod):
    """Settings."""

    api: ClassVar[int] = 2

    degree: int = 6
    """d: subsets of an example."""

    def design(self, rows, draw=0):
        return Shuffles(rows, self.degree, draw)

    def start_fit(self, head, corpus, design, draw=0):
        return MeanFit(corpus, design)

    def memory(self, model, rows):
        numbers = PARTS * self.degree * model.hidden
        return FitMemory(8 * numbers + 64 * rows, 8 * numbers)

    def measure(self, outputs, parameters):
        hidden = outputs.hidden().float()
        sums = torch.zeros(outputs.examples, hidden.shape[1]).index_add_(0, outputs.example_ids, hidden)
        y = sums.double().numpy() @ parameters["means"].T.astype(np.float64)
        return y, np.full(len(y), np.nan)
'''


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The method's package, installed beside headwater."""
    folder = tmp_path / "site"
    info = folder / "subset_means-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: subset-means\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[headwater.methods]\nsubsetmeans = subset_means:SubsetMeans\n")
    (folder / "subset_means.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(folder)
    yield tmp_path
    sys.modules.pop("subset_means", None)


def test_it_conforms(site):
    names = {"a_design_is_the_same_again", "a_stopped_fitting_goes_on", "measurements_are_each_querys_own",
             "settings_survive_json", "wrong_settings_are_refused", "is_a_frozen_dataclass", "is_of_this_api"}  # fmt: skip
    for check in checks(models=MODELS[:1]):
        if str(check) in names:
            assert not check(load("subsetmeans")())
            names.discard(str(check))
    assert not names


def test_it_is_fitted_and_asked_by_the_same_commands(site):
    assert "engine" not in SOURCE
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((4, 12)).astype(np.float32)
    hidden = draw.standard_normal((160, 12)).astype(np.float32)
    hidden[17] *= 30  # one example that moves every subset's mean that it is in
    np.savez(site / "a.npz", hidden=hidden, labels=np.zeros(160, np.int64), weight=weight)
    np.savez(site / "q.npz", hidden=hidden[17:18], labels=np.zeros(1, np.int64), weight=weight)
    done("ingest", site / "a.npz", "--store", site / "S", "--method", "repsim")
    done("fit", site / "S", "--method", "subsetmeans")
    told = done("attribute", site / "S", "--method", "subsetmeans", "--queries", site / "q.npz", "--top", 3, "--json")
    rows = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]
    assert rows[0]["row"] == 17 and rows[0]["method"] == "subsetmeans" and rows[0]["score"] > 0
    valued = done("value", site / "S", "--method", "subsetmeans", "--queries", site / "q.npz")
    assert "a.npz:17" in valued.stdout or " 17" in valued.stdout
