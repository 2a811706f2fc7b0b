"""Task vectors v: the mean row of each task's examples.

v = −∇L_τ(θ0) where the vectors are −∇ of examples' mean losses. Tasks are the values of a column of the query file, or the
file is one task. A task is kept beside the rows under its fingerprint, and not read again. Knows no method by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...store.errors import CorpusError, DataError, SettingsError, StoreError
from ...store.layout import Array
from ...store.state import whole_state, write_state
from ..data.documents import Template
from ..ingest.open_provider import query_provider
from ..ingest.provider import Provider
from ..models.language_model import ModelChoice
from ..results.groups import document_of, labels_of_table
from .linear_features import LinearFeatures

FEW = 100
"""Examples of a task below which its vector is uncertain."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Tasks."""

    names: tuple[str, ...]
    """Values of the column, in the order in which they are met; one, "all", where there is none."""
    vectors: Array
    """(T, D) float64."""
    counts: tuple[int, ...]
    """Examples of each."""
    of: Array
    """(Q,) int64: the task of each query, in the file's order; -1 where a query has nothing that counts."""

    def vector(self, task: str = "") -> Array:
        """(D,): a task's vector, or the mean of all tasks'.

        Raises:
            SettingsError: no task has the name.
        """
        if task and task not in self.names:
            raise SettingsError(f"no task {task}: there are {', '.join(self.names[:8])}")
        found: Array = self.vectors[self.names.index(task)] if task else self.vectors.mean(0)
        return found

    @property
    def few(self) -> list[str]:
        """Tasks of fewer than `FEW` examples."""
        return [name for name, count in zip(self.names, self.counts, strict=True) if count < FEW]


def read_targets(features: LinearFeatures, queries: str, by: str, choice: ModelChoice, template: Template) -> Targets:
    """The tasks of a query file of any size.

    Raises:
        CorpusError: nothing in it counts. DataError: a record lacks the column. StoreMismatch: another model than the store's.
    """
    provider = query_provider(queries, features.store, choice, template)
    digests = [_digest(source.path) for source in provider.sources]
    told = json.dumps([digests, provider.provenance(), asdict(template), by, features.column], sort_keys=True)
    folder = features.state and features.state / f"task-{hashlib.sha256(told.encode()).hexdigest()[:24]}"
    kept = _read(folder, features.depth)
    if kept is None:
        kept = _computed(features, provider, labels_of_table(queries, by) if by else None)
        _write(folder, kept)
    return kept


def _digest(path: str) -> str:
    """Of all bytes of a file, or of every file of a folder."""
    files = sorted(one for one in Path(path).rglob("*") if one.is_file()) if Path(path).is_dir() else [Path(path)]
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            found.update(hashlib.file_digest(opened, "sha256").digest())
    return found.hexdigest()


def _computed(features: LinearFeatures, provider: Provider, labels: Mapping[str, str] | None) -> Targets:
    sums: dict[str, Array] = {}
    counts: dict[str, int] = {}
    of: dict[tuple[int, int], int] = {}
    for examples, vectors in features.of(provider):
        for example, vector in zip(examples, vectors, strict=True):
            name = example.id if labels is None or example.id in labels else document_of(example.id)
            if labels is not None and name not in labels:
                raise DataError(f"{example.source}:{example.line}: no label for query {name}")
            task = "all" if labels is None else labels[name]
            where = (example.place.source, example.place.record)  # of a long one, all parts have it
            if not example.target_count:
                of.setdefault(where, -1)
                continue
            sums[task] = sums.get(task, 0) + vector
            counts[task] = counts.get(task, 0) + 1
            of[where] = list(sums).index(task)
    if not sums:
        raise CorpusError(f"no query in {', '.join(source.path for source in provider.sources)} has anything to count")
    vectors = np.stack([sums[task] / counts[task] for task in sums])
    if not np.isfinite(vectors).all():
        raise DataError("a query's vector is not finite")
    return Targets(tuple(sums), vectors, tuple(counts.values()), np.array(list(of.values()), np.int64))


def _read(folder: Path | None, depth: int) -> Targets | None:
    """What was kept, if it was kept whole."""
    state = whole_state(folder) if folder is not None else None
    if state is None or set(state.arrays) != {"vectors", "of"} or set(state.values) != {"names", "counts"}:
        return None
    names, counts = tuple(state.values["names"]), tuple(state.values["counts"])
    found = Targets(names, state.arrays["vectors"], counts, state.arrays["of"])
    return found if found.vectors.shape == (len(names), depth) and len(counts) == len(names) else None


def _write(folder: Path | None, targets: Targets) -> None:
    """Keep them where that is possible."""
    if folder is not None:
        values = {"names": list(targets.names), "counts": list(targets.counts)}
        with suppress(OSError, StoreError):
            write_state(folder, values, {"vectors": targets.vectors, "of": targets.of})
