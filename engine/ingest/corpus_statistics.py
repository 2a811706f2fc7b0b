"""Runs a method's `fit` over a sample of the corpus, before the first row, and stores the result.

A hash of each example's number chooses the sample, so it is the same in each run, and whether the corpus is read from its files
or from a store. The resulting arrays are frozen: resumed runs,
appended rows and queries are computed with the same arrays. Knows no method by name.
"""

from __future__ import annotations

import hashlib
import heapq
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...store.errors import StoreDamaged
from ...store.feature_store import FeatureStore, method_group
from ...store.layout import Array
from ...store.state import UNFINISHED, has_state, read_state, remove_state, whole_state, write_state
from ..interface.method import Accumulator, Method, ResumableAccumulator
from ..interface.model_view import ModelShape, OutputSpec
from ..models.batch_outputs import PackedOutputs, merge_specs
from ..runtime.hashing import hashed
from ..runtime.run import Run
from .examples import Example, Place, example_windows
from .method_code import DeclaredOutputs, plugin_code
from .outputs import Batching, outputs
from .provider import Provider

SAMPLE = 4096
"""Largest number of examples that statistics are collected from."""
PLACE_BYTES = 400
"""Bytes per sampled example: its number in the corpus, the hash that chooses the sample, and a digest."""
_EXAMPLES = "examples"  # keys of the states: number of examples of the corpus, digest of the sample, windows read of it
_SAMPLE = "sample"
_WINDOWS = "windows"


def frozen_statistics(store: FeatureStore, name: str, method: Method, model: ModelShape) -> dict[str, Array]:
    """The statistics that a method's rows in a store were computed with; empty for a method without `fit`.

    Raises:
        StoreDamaged: they are missing or damaged.
    """
    if method.fit(model) is None:
        return {}
    state = whole_state(_folder(store, name))
    if state is None:
        raise StoreDamaged(
            f"{_folder(store, name)} is missing or damaged, and rows of {name} were computed with it",
            hint="ingest into a new store",
        )
    return dict(state.arrays)


def unseen_rows(store: FeatureStore, name: str) -> int | None:
    """Number of a method's rows that were appended after its statistics were frozen; None for a method without statistics, or if
    the store does not record it.

    Raises:
        StoreDamaged: the statistics are damaged.
    """
    state = None if store.remote else read_state(_folder(store, name))
    examples = state.values.get(_EXAMPLES) if state is not None else None
    return max(0, store.rows(method_group(name)) - examples) if isinstance(examples, int) else None


def collect_statistics(
    store: FeatureStore, provider: Provider, methods: Mapping[str, Method], pacing: Pacing, run: Run
) -> bool:
    """Run `fit` of each method that has one, and has neither rows nor statistics in the store yet, over one sample of the corpus.
    False if stopped before the end. Accumulators that can be resumed are stored now and then: a later run continues from there.

    Raises:
        DataError: NaN or Inf in an example's logits. BrokenMethod: a method's own code fails. StoreBusy: another process writes
            the method's rows.
    """
    model = provider.head.model_shape
    fits: dict[str, _Fit] = {}
    for name, method in methods.items():
        accumulator = method.fit(model)
        is_frozen = store.rows(method_group(name)) or has_state(_folder(store, name))
        if accumulator is not None and not is_frozen:
            fits[name] = _Fit(name, method.needs(model), accumulator, _folder(store, name, f"{UNFINISHED}statistics"))
    if not fits:
        return True
    sample = corpus_sample(provider)
    for fit in fits.values():
        fit.resume(sample)
    if not _accumulate(provider, fits, sample, pacing, run):
        return False
    for name, fit in fits.items():
        with plugin_code(name, "finish"):
            arrays = fit.accumulator.finish()
        _freeze(store, name, sample, arrays)
        remove_state(fit.folder)
    return True


def _freeze(store: FeatureStore, name: str, sample: CorpusSample, arrays: Mapping[str, Array]) -> None:
    """Store a method's statistics, unless another process has done so meanwhile.

    Raises:
        StoreBusy: another process writes the method's rows.
    """
    group = method_group(name)
    with closing(store.own(group)):
        store.refresh()
        if not store.rows(group) and not has_state(_folder(store, name)):
            write_state(_folder(store, name), {_EXAMPLES: sample.examples}, arrays)


@dataclass(frozen=True, slots=True)
class Pacing:
    """The size of the steps of a pass over the corpus."""

    tokens: int
    """Largest number of tokens of a batch, padding included."""
    commit_seconds: float
    """Seconds of work between commits, which a kill can lose."""


@dataclass(slots=True)
class _Fit:
    """One method's statistics while they are collected."""

    name: str
    needs: OutputSpec
    accumulator: Accumulator
    folder: Path
    """Where they are stored until they are finished."""
    windows: int = 0
    """Number of windows of the sample that the accumulator has read."""

    def resume(self, sample: CorpusSample) -> None:
        """Continue from what a stopped run stored, if it read the same sample."""
        state = whole_state(self.folder) if isinstance(self.accumulator, ResumableAccumulator) else None
        if state is not None and state.values.get(_SAMPLE) == sample.digest:
            assert isinstance(self.accumulator, ResumableAccumulator)
            with plugin_code(self.name, "load_state_dict"):
                self.accumulator.load_state_dict(state.arrays)
            self.windows = int(state.values[_WINDOWS])

    def add(self, batch_outputs: PackedOutputs) -> None:
        """Add a batch."""
        with plugin_code(self.name, "accumulate"):
            self.accumulator.accumulate(DeclaredOutputs(batch_outputs, self.needs, "accumulate"))

    def save(self, sample: CorpusSample) -> None:
        """Store the sums of the windows so far, if the accumulator can be resumed."""
        if isinstance(self.accumulator, ResumableAccumulator):
            with plugin_code(self.name, "state_dict"):
                arrays = self.accumulator.state_dict()
            write_state(self.folder, {_SAMPLE: sample.digest, _WINDOWS: self.windows}, arrays)


def _accumulate(provider: Provider, fits: Mapping[str, _Fit], sample: CorpusSample, pacing: Pacing, run: Run) -> bool:
    """Read the sample into all accumulators; False if stopped. What was accumulated is stored every `commit_seconds`, and at a
    stop; each time that this took is followed by ten times as much work.
    """
    needs = merge_specs([fit.needs for fit in fits.values()])
    stage = run.stage("corpus statistics", len(sample.numbers))
    committed, wait = time.monotonic(), pacing.commit_seconds
    numbered = enumerate(provider.examples(Place()))
    examples = (example for number, example in numbered if number in sample.numbers)
    done = 0
    for number, window in enumerate(example_windows(examples)):
        reading = [fit for fit in fits.values() if fit.windows <= number]
        is_stopped = run.should_stop()
        if is_stopped or time.monotonic() - committed > wait:
            start = time.monotonic()
            for fit in fits.values():
                fit.save(sample)
            committed = time.monotonic()
            wait = max(pacing.commit_seconds, 10 * (committed - start))
        if is_stopped:
            return False
        done += len(window)
        if not reading:
            continue
        compute = partial(_add_to_all, fits=reading)
        for _ in outputs(provider, window, needs, compute, Batching(pacing.tokens)):
            pass
        for fit in reading:
            fit.windows = number + 1
        stage.report(done)
    return True


def _add_to_all(batch_outputs: PackedOutputs, fits: Sequence[_Fit]) -> None:
    for fit in fits:
        fit.add(batch_outputs)


@dataclass(frozen=True, slots=True)
class CorpusSample:
    """A sample of a corpus."""

    numbers: frozenset[int]
    """Numbers of the sampled examples, in the corpus's order from 0 on."""
    examples: int
    """Number of examples of the whole corpus."""
    digest: str
    """Digest of the ids, prompts and texts of the sample, in order of their hashes."""


def corpus_sample(provider: Provider, count: int = SAMPLE) -> CorpusSample:
    """The `count` examples with the smallest hashes, or all examples if there are fewer."""
    # hashes are negated, so that the heap's root is the largest hash in it
    smallest: list[tuple[int, int, str]] = []
    total = 0
    for number, example in enumerate(provider.examples(Place())):
        total += 1
        entry = -int(hashed(0, f"sample.{number}", 1)[0]), number, _digest(example)
        heapq.heappush(smallest, entry) if len(smallest) < count else heapq.heappushpop(smallest, entry)
    digest = hashlib.blake2b("".join(digest for *_, digest in sorted(smallest)).encode(), digest_size=16).hexdigest()
    return CorpusSample(frozenset(number for _, number, _ in smallest), total, digest)


def _digest(example: Example) -> str:
    """Digest of an example's id and texts."""
    content = f"{example.id}\0{example.prompt}\0{example.text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _folder(store: FeatureStore, name: str, state: str = "statistics") -> Path:
    return store.path / method_group(name) / "state" / state
