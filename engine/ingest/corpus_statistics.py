"""Runs a method's `fit` over a sample of the corpus, before the first row, and keeps the result in the store.

The sample is chosen by a hash of each example's place, so that it does not depend on who reads the corpus. What the method
finishes with is frozen: resumed runs, appended rows and queries are made with the same arrays. Knows no method by name.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from pathlib import Path

from ...store.errors import StoreDamaged
from ...store.feature_store import FeatureStore, method_group
from ...store.layout import Array
from ...store.state import has_state, whole_state, write_state
from ..interface.method import Accumulator, Method
from ..interface.model_view import ModelShape
from ..models.batch_outputs import PackedOutputs, merge_specs
from ..runtime.hashing import hashed
from .examples import Place, windows
from .first_batch import DeclaredOutputs, plugin_code
from .outputs import Batching, outputs
from .provider import Provider

SAMPLE = 4096
"""Examples that statistics are collected from, at most."""
PLACE_BYTES = 300
"""Of an example's place and hash while the sample is chosen."""


def frozen_statistics(store: FeatureStore, name: str, method: Method, model: ModelShape) -> dict[str, Array]:
    """What the rows of a method in a store were made with; empty for a method without `fit`.

    Raises:
        StoreDamaged: it is gone, or not whole.
    """
    if method.fit(model) is None:
        return {}
    state = whole_state(_folder(store, name))
    if state is None:
        raise StoreDamaged(
            f"{_folder(store, name)} is missing or not whole, and rows of {name} were made with it: ingest into a new store"
        )
    return dict(state.arrays)


def collect_statistics(
    store: FeatureStore, provider: Provider, methods: Mapping[str, Method], tokens: int, should_stop: Callable[[], bool]
) -> bool:
    """Fit the methods that need it and have no row yet, by one pass over a sample; False if stopped before its end.

    Raises:
        DataError: NaN or Inf in an example's logits. BrokenMethod: a method's own code fails.
    """
    model = provider.head.model_shape
    waiting: dict[str, tuple[Method, Accumulator]] = {}
    for name, method in methods.items():
        accumulator = method.fit(model)
        made = store.rows(method_group(name)) or has_state(_folder(store, name))
        if accumulator is not None and not made:
            waiting[name] = method, accumulator
    if waiting and not _accumulate(provider, waiting, tokens, should_stop):
        return False
    for name, (_, accumulator) in waiting.items():
        with plugin_code(name, "finish"):
            state = accumulator.finish()
        write_state(_folder(store, name), {}, state)
    return True


def _accumulate(
    provider: Provider,
    waiting: Mapping[str, tuple[Method, Accumulator]],
    tokens: int,
    should_stop: Callable[[], bool],
) -> bool:
    """Show the sample to every accumulator."""
    specs = {name: method.needs(provider.head.model_shape) for name, (method, _) in waiting.items()}
    needs, chosen = merge_specs(list(specs.values())), sample_places(provider)

    def accumulate(read: PackedOutputs) -> None:
        for name, (_, accumulator) in waiting.items():
            with plugin_code(name, "accumulate"):
                accumulator.accumulate(DeclaredOutputs(read, specs[name], "accumulate"))

    sample = (example for example in provider.examples(Place()) if example.place in chosen)
    for window in windows(sample):
        if should_stop():
            return False
        for _ in outputs(provider, window, needs, accumulate, Batching(tokens)):
            pass
    return True


def sample_places(provider: Provider, count: int = SAMPLE) -> set[Place]:
    """Places of the `count` examples with the smallest hashes; of all, if there are fewer."""
    largest: list[tuple[int, Place]] = []  # a heap of negated hashes
    for example in provider.examples(Place()):
        place = example.place
        entry = -int(hashed(0, f"sample.{place.source}.{place.record}.{place.piece}", 1)[0]), place
        heapq.heappush(largest, entry) if len(largest) < count else heapq.heappushpop(largest, entry)
    return {place for _, place in largest}


def _folder(store: FeatureStore, name: str) -> Path:
    return store.path / method_group(name) / "state" / "statistics"
