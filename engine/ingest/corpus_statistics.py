"""Runs a method's `fit` over a sample of the corpus, before the first row, and stores the result.

A hash of each example's place chooses the sample, so it is the same in each run. The resulting arrays are frozen: resumed runs,
appended rows and queries are computed with the same arrays. Knows no method by name.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from ...store.errors import StoreDamaged
from ...store.feature_store import FeatureStore, method_group
from ...store.layout import Array
from ...store.state import has_state, read_state, whole_state, write_state
from ..interface.method import Accumulator, Method
from ..interface.model_view import ModelShape
from ..models.batch_outputs import PackedOutputs, merge_specs
from ..runtime.hashing import hashed
from .examples import Place, example_windows
from .method_code import DeclaredOutputs, plugin_code
from .outputs import Batching, outputs
from .provider import Provider

SAMPLE = 4096
"""Largest number of examples that statistics are collected from."""
PLACE_BYTES = 300
"""Bytes per sampled example: its place in the corpus, and the hash that chooses the sample."""
_EXAMPLES = "examples"


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
            f"{_folder(store, name)} is missing or damaged, and rows of {name} were computed with it: ingest into a new store"
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
    store: FeatureStore, provider: Provider, methods: Mapping[str, Method], tokens: int, should_stop: Callable[[], bool]
) -> bool:
    """Run `fit` of each method that has one, and has neither rows nor statistics in the store yet, over one sample of the corpus.
    False if stopped before the end.

    Raises:
        DataError: NaN or Inf in an example's logits. BrokenMethod: a method's own code fails.
    """
    model = provider.head.model_shape
    accumulators: dict[str, tuple[Method, Accumulator]] = {}
    for name, method in methods.items():
        accumulator = method.fit(model)
        is_frozen = store.rows(method_group(name)) or has_state(_folder(store, name))
        if accumulator is not None and not is_frozen:
            accumulators[name] = method, accumulator
    if not accumulators:
        return True
    sample = sample_places(provider)
    if not _accumulate(provider, accumulators, sample.places, tokens, should_stop):
        return False
    for name, (_, accumulator) in accumulators.items():
        with plugin_code(name, "finish"):
            arrays = accumulator.finish()
        write_state(_folder(store, name), {_EXAMPLES: sample.examples}, arrays)
    return True


def _accumulate(
    provider: Provider,
    accumulators: Mapping[str, tuple[Method, Accumulator]],
    places: Set[Place],
    tokens: int,
    should_stop: Callable[[], bool],
) -> bool:
    """Read the examples at the places into all accumulators; False if stopped."""
    specs = {name: method.needs(provider.head.model_shape) for name, (method, _) in accumulators.items()}
    needs = merge_specs(list(specs.values()))

    def accumulate(batch_outputs: PackedOutputs) -> None:
        for name, (_, accumulator) in accumulators.items():
            with plugin_code(name, "accumulate"):
                accumulator.accumulate(DeclaredOutputs(batch_outputs, specs[name], "accumulate"))

    sample = (example for example in provider.examples(Place()) if example.place in places)
    for window in example_windows(sample):
        if should_stop():
            return False
        for _ in outputs(provider, window, needs, accumulate, Batching(tokens)):
            pass
    return True


@dataclass(frozen=True, slots=True)
class CorpusSample:
    """A sample of a corpus."""

    places: frozenset[Place]
    """Places of the sampled examples."""
    examples: int
    """Number of examples of the whole corpus."""


def sample_places(provider: Provider, count: int = SAMPLE) -> CorpusSample:
    """The `count` examples with the smallest hashes, or all examples if there are fewer."""
    # hashes are negated, so that the heap's root is the largest hash in it
    smallest: list[tuple[int, Place]] = []
    total = 0
    for example in provider.examples(Place()):
        total += 1
        place = example.place
        entry = -int(hashed(0, f"sample.{place.source}.{place.record}.{place.piece}", 1)[0]), place
        heapq.heappush(smallest, entry) if len(smallest) < count else heapq.heappushpop(smallest, entry)
    return CorpusSample(frozenset(place for _, place in smallest), total)


def _folder(store: FeatureStore, name: str) -> Path:
    return store.path / method_group(name) / "state" / "statistics"
