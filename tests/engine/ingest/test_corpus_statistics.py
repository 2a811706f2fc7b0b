"""What a method learns of the corpus before its rows: from a sample, once, frozen for appended rows, resumed runs and queries."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from headwater.engine.attribution.queries import read_queries
from headwater.engine.attribution.query_options import SearchOptions
from headwater.engine.attribution.stored_scores import StoredScores
from headwater.engine.data.documents import RecordErrors
from headwater.engine.ingest.array_provider import ArrayProvider
from headwater.engine.ingest.corpus_statistics import Pacing, collect_statistics, corpus_sample
from headwater.engine.ingest.ingest_job import IngestJob, prepare
from headwater.engine.models.language_model import ModelChoice
from headwater.engine.presentation.terminal import print_info
from headwater.engine.results.store_info import store_facts
from headwater.engine.runtime.run import SILENT, Run
from headwater.store.errors import BrokenMethod, DataError, SettingsError, StoreDamaged
from headwater.store.feature_store import FeatureStore
from headwater.store.reader import open_column
from headwater.store.state import has_state, read_state, remove_state

pytestmark = pytest.mark.usefixtures("one_thread")
WHITENED = '''"""Hidden states over their spread in the corpus."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from headwater.plugins import QueryMatrix, Similarity, column


class Spread:
    def __init__(self):
        self.squares, self.count = 0.0, 0

    def accumulate(self, outputs):
        self.squares = self.squares + outputs.hidden().double().square().sum(0).numpy()
        self.count += len(outputs.targets)

    def merge(self, other):
        self.squares, self.count = self.squares + other.squares, self.count + other.count

    def finish(self):
        return {"spread": np.sqrt(self.squares / self.count), "count": np.array(self.count)}


@dataclass(frozen=True)
class Whitened(Similarity):
    """Settings."""

    api: ClassVar[int] = 2

    def columns(self, model):
        return (column("sum", (model.hidden,), "float32"),)

    def scratch(self, model, positions):
        return 16 * model.hidden * positions + 16 * model.hidden

    def fit(self, model):
        return Spread()

    def precompute(self, head, state):
        return torch.from_numpy(state["spread"]).float()

    def sketch(self, outputs, precomputed):
        hidden = outputs.hidden().float() / precomputed
        return {"sum": torch.zeros(outputs.examples, hidden.shape[1]).index_add_(0, outputs.example_ids, hidden)}

    def prepare(self, rows, state):
        return QueryMatrix("sum", rows["sum"])


@dataclass(frozen=True)
class Faulty(Whitened):
    """Fails, or does something else than it declares."""

    fault: str = "type"

    def fit(self, model):
        return None

    def precompute(self, head, state):
        return torch.ones(head.model_shape.hidden)

    def sketch(self, outputs, precomputed):
        if self.fault == "raise":
            raise TypeError("a stranger's error\\nof two lines")
        if self.fault == "layer":
            outputs.hidden(0)
        if self.fault == "in place":
            outputs.hidden().mul_(2)
        sums = super().sketch(outputs, precomputed)["sum"]
        return {"total": sums} if self.fault == "name" else {"sum": sums[:, 1:] if self.fault == "shape" else sums.cfloat()}
'''


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The methods as an installed package of a name and a version."""
    folder = tmp_path / "site"
    info = folder / "whitening-3.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: whitening\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text(
        "[headwater.methods]\nwhitened = whitening:Whitened\nfaulty = whitening:Faulty\n"
    )
    (folder / "whitening.py").write_text(WHITENED)
    monkeypatch.syspath_prepend(folder)
    yield tmp_path
    sys.modules.pop("whitening", None)


def write(path: Path, rows: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """Rows of hidden states of width 5, every one counted; returns them."""
    hidden = (scale * np.random.default_rng(seed).standard_normal((rows, 5))).astype(np.float32)
    weight = np.random.default_rng(9).standard_normal((4, 5)).astype(np.float32)
    np.savez(path, hidden=hidden, labels=np.zeros(rows, np.int64), weight=weight)
    return hidden


def job(folder: Path, *files: str, method: str = "whitened", **more) -> IngestJob:
    settings = more.pop("settings", {})
    return IngestJob(
        [str(folder / f) for f in files], str(folder / "S"), ModelChoice("", "cpu"), {method: settings}, **more
    )


def stored(folder: Path) -> np.ndarray:
    store = FeatureStore.open(str(folder / "S"))
    return open_column(store, "methods/whitened", "sum").gather(np.arange(store.rows("methods/whitened")))


def spread_of(hidden: np.ndarray) -> np.ndarray:
    return np.sqrt((hidden.astype(np.float64) ** 2).mean(0))


def test_rows_appended_rows_and_queries_are_made_with_the_same_frozen_arrays(site):
    first, second = write(site / "a.npz", 50, 0), write(site / "b.npz", 30, 1, scale=7.0)
    prepare(job(site, "a.npz")).ingest()
    assert np.allclose(stored(site), first / spread_of(first), atol=1e-5)
    prepare(job(site, "b.npz", append=True)).ingest()
    both = np.concatenate([first, second])
    assert np.allclose(stored(site), both / spread_of(first), atol=1e-4)
    scores = StoredScores(FeatureStore.open(str(site / "S")), "whitened", search=SearchOptions(partial=True))
    provider = ArrayProvider([str(site / "b.npz")], torch.device("cpu"), RecordErrors("fail"))
    matrix = scores.prepare(provider, read_queries(provider)).matrix
    assert np.allclose(matrix, second / spread_of(first), atol=1e-4)


def test_info_counts_the_rows_that_the_statistics_have_not_seen(site, capsys):
    write(site / "a.npz", 50, 0)
    write(site / "b.npz", 30, 1)
    prepare(job(site, "a.npz")).ingest()
    assert store_facts(str(site / "S"))["methods"]["whitened"]["rows_after_statistics"] == 0
    prepare(job(site, "b.npz", append=True)).ingest()
    facts = store_facts(str(site / "S"))
    assert facts["methods"]["whitened"]["rows_after_statistics"] == 30
    (file,) = (site / "S/methods/whitened/state/statistics").glob("*/*/c/**/[0-9]*")
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    with pytest.raises(StoreDamaged):
        store_facts(str(site / "S"))
    print_info(facts)
    assert "30 rows were appended after the corpus statistics were frozen" in capsys.readouterr().out


def test_a_stopped_run_goes_on_with_the_arrays_that_it_froze(site):
    hidden = write(site / "a.npz", 1200, 0)
    asked = iter([False, False, False, False, True])
    stopped = prepare(job(site, "a.npz")).open().run(Run(should_stop=lambda: next(asked, True)))
    assert not stopped.finished and stopped.rows < 1200
    frozen = read_state(site / "S/methods/whitened/state/statistics")
    assert frozen is not None and int(frozen.arrays["count"]) == 1200
    assert prepare(job(site, "a.npz")).ingest().finished
    assert np.allclose(stored(site), hidden / spread_of(hidden), atol=1e-5)


def kfac_statistics(folder: Path) -> dict[str, bytes]:
    """The files of the frozen statistics of headkfac, by name."""
    state = folder / "S/methods/headkfac/state/statistics"
    return {str(file.relative_to(state)): file.read_bytes() for file in state.rglob("*") if file.is_file()}


def test_a_fit_that_was_stopped_continues_and_gives_the_same_bytes(tmp_path):
    for folder in (tmp_path / "whole", tmp_path / "stopped"):
        folder.mkdir()
        write(folder / "a.npz", 1600, 0)
    prepare(job(tmp_path / "whole", "a.npz", method="headkfac")).ingest()
    asked = iter([False, False, True])  # the third window of the sample is not read
    stopped = tmp_path / "stopped"
    result = prepare(job(stopped, "a.npz", method="headkfac")).open().run(Run(should_stop=lambda: next(asked, True)))
    assert not result.finished and not kfac_statistics(stopped)
    unfinished = read_state(stopped / "S/methods/headkfac/state/unfinished-statistics")
    assert unfinished is not None and unfinished.values["windows"] == 2
    reports: list[int] = []
    report = Run(on_progress=lambda p: reports.append(p.done) if p.stage == "corpus statistics" else None)
    assert prepare(job(stopped, "a.npz", method="headkfac")).open().run(report).finished
    assert reports == [1536, 1600]  # the first two windows were not read again
    assert kfac_statistics(stopped) == kfac_statistics(tmp_path / "whole")
    assert not has_state(stopped / "S/methods/headkfac/state/unfinished-statistics")


def test_a_fit_that_failed_binds_no_later_run(tmp_path):
    write(tmp_path / "a.npz", 1600, 0)
    damaged = dict(np.load(tmp_path / "a.npz"))
    damaged["hidden"][-1] = np.nan
    np.savez(tmp_path / "a.npz", **damaged)
    with pytest.raises(DataError, match="NaN or Inf"):
        prepare(job(tmp_path, "a.npz", method="headkfac", commit_seconds=0.0)).ingest()
    assert not (tmp_path / "S").exists()
    write(tmp_path / "a.npz", 1200, 0)
    assert prepare(job(tmp_path, "a.npz", method="headkfac")).ingest().finished


def test_unfinished_statistics_are_dropped_with_the_settings_that_they_belong_to(tmp_path):
    write(tmp_path / "a.npz", 1600, 0)
    asked = iter([False, False, True])
    prepare(job(tmp_path, "a.npz", method="headkfac")).open().run(Run(should_stop=lambda: next(asked, True)))
    write(tmp_path / "a.npz", 1200, 5)
    prepare(job(tmp_path, "a.npz", method="headkfac")).ingest()
    (tmp_path / "other").mkdir()
    write(tmp_path / "other/a.npz", 1200, 5)
    prepare(job(tmp_path / "other", "a.npz", method="headkfac")).ingest()
    assert kfac_statistics(tmp_path) == kfac_statistics(tmp_path / "other")


def test_statistics_that_another_process_froze_meanwhile_stay(tmp_path):
    write(tmp_path / "a.npz", 900, 0)
    slow = prepare(job(tmp_path, "a.npz", method="headkfac", batch_tokens=64)).open()
    assert prepare(job(tmp_path, "a.npz", method="headkfac")).ingest().finished
    frozen = kfac_statistics(tmp_path)
    collected = collect_statistics(slow.store, slow.provider, slow.methods, Pacing(64, 15.0), SILENT)
    assert collected and kfac_statistics(tmp_path) == frozen


def test_vectors_alone_have_no_head_to_fit(tmp_path):
    np.savez(tmp_path / "v.npz", vectors=np.ones((4, 3), np.float32))
    with pytest.raises(SettingsError, match="headkfac needs logits of at least 2 classes"):
        prepare(job(tmp_path, "v.npz", method="headkfac"))


def test_a_fit_that_was_stopped_starts_again_if_the_corpus_has_grown(tmp_path):
    write(tmp_path / "a.npz", 1600, 0)
    write(tmp_path / "b.npz", 30, 1)
    asked = iter([False, False, True])
    prepare(job(tmp_path, "a.npz", method="headkfac")).open().run(Run(should_stop=lambda: next(asked, True)))
    prepare(job(tmp_path, "a.npz", "b.npz", method="headkfac", append=True)).ingest()
    (tmp_path / "other").mkdir()
    for name, rows, seed in (("a.npz", 1600, 0), ("b.npz", 30, 1)):
        write(tmp_path / "other" / name, rows, seed)
    prepare(job(tmp_path / "other", "a.npz", "b.npz", method="headkfac")).ingest()
    assert kfac_statistics(tmp_path) == kfac_statistics(tmp_path / "other")


def test_rows_whose_statistics_are_gone_are_not_continued_nor_asked(site):
    write(site / "a.npz", 20, 0)
    write(site / "b.npz", 20, 1)
    prepare(job(site, "a.npz")).ingest()
    remove_state(site / "S/methods/whitened/state/statistics")
    with pytest.raises(StoreDamaged, match="rows of whitened were computed with it"):
        prepare(job(site, "b.npz", append=True)).ingest()
    scores = StoredScores(FeatureStore.open(str(site / "S")), "whitened", search=SearchOptions(partial=True))
    provider = ArrayProvider([str(site / "b.npz")], torch.device("cpu"), RecordErrors("fail"))
    with pytest.raises(StoreDamaged, match=r"state/statistics is missing"):
        scores.prepare(provider, read_queries(provider))


def test_a_sample_is_of_numbers_and_as_large_as_asked(site):
    write(site / "a.npz", 300, 0)
    provider = ArrayProvider([str(site / "a.npz")], torch.device("cpu"), RecordErrors("fail"))
    every = set(range(300))
    some = corpus_sample(provider, 40).numbers
    assert len(some) == 40 and some < every and corpus_sample(provider).numbers == every
    assert some == corpus_sample(provider, 40).numbers and corpus_sample(provider, 39).numbers < some


FAULTS = {
    "raise": "sketch or normalize raises TypeError: a stranger's error",
    "layer": "sketch reads hidden(0), which needs() does not declare",
    "in place": "sketch changed hidden(-1): all methods of a run share these tensors, so copy them first",
    "name": "rows has ['total'], columns declares ['sum']",
    "shape": "rows['sum'] is (20, 4), columns declares (20, 5)",
    "type": "rows['sum'] is torch.complex64, which does not cast to torch.float32",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_at_the_first_batch_and_names_method_and_package(site, fault):
    write(site / "a.npz", 20, 0)
    with pytest.raises(BrokenMethod) as error:
        prepare(job(site, "a.npz", method="faulty", settings={"fault": fault})).ingest()
    where = r" \(whitening\.py:\d+\)" if fault == "raise" else ""
    assert re.fullmatch(re.escape(f"method faulty of whitening 3.1: {FAULTS[fault]}") + where, str(error.value))
    assert not (site / "S").exists()
