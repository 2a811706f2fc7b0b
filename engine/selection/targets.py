"""Task vectors v: the mean row of each task's examples.

v = −∇L_τ(θ0) if the vectors are −∇ of examples' mean losses. Tasks are the values of a column of the query file, or the whole
file is one task. Task vectors are stored under a digest of what they depend on, and read again later. Knows no method by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ...store.errors import CorpusError, DataError, SettingsError, StoreError
from ...store.layout import Array
from ...store.state import whole_state, write_state
from ..attribution.queries import skipped_clause, skipped_lines
from ..data.decompression import open_binary
from ..data.record_source import Data, name_of_data
from ..data.sources import Source
from ..data.urls import is_url, shown
from ..ingest.member_model import MemberModel
from ..ingest.open_provider import query_provider
from ..ingest.provider import Provider
from ..ingest.text_settings import TextSettings
from ..models.language_model import ModelChoice
from ..results.group_labels import counts_of_table, document_of, labels_of_table
from ..runtime.memory import Part, Plan
from .linear_features import LinearFeatures

FEW = 100
"""With fewer examples a task's vector is uncertain."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The vectors of T tasks."""

    names: tuple[str, ...]
    """Values of the column, in the order of the file; the single name "all" without a column."""
    vectors: Array
    """The task vectors, (T, D) float64."""
    counts: tuple[int, ...]
    """Number of examples of each task."""
    task_ids: Array
    """(Q,) int64: the task of each query, in the file's order; -1 for a query without target positions."""
    skipped: tuple[str, ...] = ()
    """Lines for the user about the queries that were skipped."""

    def vector(self, task: str = "") -> Array:
        """(D,): a task's vector, or the mean of all tasks'.

        Raises:
            SettingsError: no task has the name.
        """
        if task and task not in self.names:
            raise SettingsError(f"no task {task}: there are {', '.join(self.names[:8])}")
        return np.asarray(self.vectors[self.names.index(task)] if task else self.vectors.mean(0))

    @property
    def few(self) -> list[str]:
        """Names of the tasks with fewer than `FEW` examples."""
        return [name for name, count in zip(self.names, self.counts, strict=True) if count < FEW]


@dataclass(frozen=True, slots=True)
class TaskFile:
    """A file of the examples of one task or several."""

    queries: Data
    """Its path, or the records."""
    by: str = ""
    """The column whose values are the tasks; empty: the whole file is one task."""
    model: ModelChoice = field(default_factory=lambda: ModelChoice(""))
    """The model that reads the examples; default: the store's, at its recorded path."""
    text: TextSettings = field(default_factory=TextSettings)
    """How files of texts are read, and whether a bad record stops the run or is skipped."""

    def tasks(self) -> int:
        """Upper bound of the number of tasks, by a pass over the file.

        Raises:
            CorpusError: the file cannot be read. DataError: a record lacks the column.
        """
        return counts_of_table(self.queries, self.by).distinct if self.by else 1


def read_targets(features: LinearFeatures, task: TaskFile) -> Targets:
    """The task vectors of a query file of any size. Notes on skipped queries are added to those of `features`.

    Raises:
        BudgetError: reading the queries exceeds the budget. CorpusError: no query has a target position. DataError: a record
            lacks the column. StoreMismatch: another model than the store's.
    """
    queries, by = task.queries, task.by
    member = MemberModel.of_rows(features.store, features.name)
    provider = query_provider(queries, features.store, task.model, task.text, member)
    digests = [source.content.digest if source.content else _digest(source) for source in provider.sources]
    named = name_of_data(queries) if task.text.on_error == "skip" else ""  # lines on skipped queries name the file
    text = {name: value for name, value in asdict(task.text).items() if name != "keep"}  # of queries nothing is kept
    content = json.dumps([digests, provider.provenance(), text, by, features.column, named], sort_keys=True)
    is_stream = any(source.content and not source.content.size for source in provider.sources)
    state = None if is_stream else features.state  # the digest of a stream is of its first records alone
    folder = state and state / f"task-{hashlib.sha256(content.encode()).hexdigest()[:24]}"
    targets = _read(folder, features.depth)
    if targets is None:
        vectors = Plan.of(Part("task vectors", 24 * task.tasks() * features.depth))
        _, batch_tokens = features.reading_plan(provider, vectors)
        targets = _compute(features, provider, labels_of_table(queries, by) if by else None, batch_tokens)
        _write(folder, targets)
    features.notes.extend(targets.skipped)
    return targets


def _digest(source: Source) -> str:
    """A digest of all bytes of a file, or of all files of a folder.

    Raises:
        CorpusError: a file cannot be read.
    """
    folder = Path(source.path)
    is_folder = not is_url(source.path) and folder.is_dir()
    files = sorted(str(file) for file in folder.rglob("*") if file.is_file()) if is_folder else [source.opened]
    digest = hashlib.sha256()
    for file in files:
        try:
            with open_binary(file) as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())  # type: ignore[arg-type]
        except OSError as error:
            raise CorpusError(f"{shown(file)}: cannot read: {error.strerror or error}") from None
    return digest.hexdigest()


def _compute(
    features: LinearFeatures, provider: Provider, labels: Mapping[str, str] | None, batch_tokens: int
) -> Targets:
    """The mean vector of each label's examples; without labels of all examples."""
    sums: dict[str, Array] = {}
    counts: dict[str, int] = {}
    task_ids: dict[tuple[int, int], int] = {}
    for examples, vectors in features.vectors_of(provider, batch_tokens):
        for example, vector in zip(examples, vectors, strict=True):
            name = example.id if labels is None or example.id in labels else document_of(example.id)
            if labels is not None and name not in labels:
                raise DataError(f"{example.source}:{example.line}: no label for query {name}")
            task = "all" if labels is None else labels[name]
            record = (example.place.source, example.place.record)  # the same for all pieces of a long query
            if not example.target_count:
                task_ids.setdefault(record, -1)
                continue
            sums[task] = sums.get(task, 0) + vector
            counts[task] = counts.get(task, 0) + 1
            task_ids[record] = list(sums).index(task)
    if not sums:
        paths = ", ".join(source.path for source in provider.sources)
        raise CorpusError(f"no query in {paths} has a target position{skipped_clause(provider.record_errors)}")
    vectors = np.stack([sums[task] / counts[task] for task in sums])
    if not np.isfinite(vectors).all():
        raise DataError("a query's vector is not finite")
    skipped = tuple(skipped_lines(provider.record_errors))
    return Targets(tuple(sums), vectors, tuple(counts.values()), np.array(list(task_ids.values()), np.int64), skipped)


def _read(folder: Path | None, depth: int) -> Targets | None:
    """Stored targets; None if they are missing or damaged."""
    state = whole_state(folder) if folder is not None else None
    if state is None or set(state.arrays) != {"vectors", "of"} or set(state.values) != {"names", "counts", "skipped"}:
        return None
    if not all(isinstance(values, list) for values in state.values.values()):
        return None
    names, counts, skipped = (tuple(state.values[name]) for name in ("names", "counts", "skipped"))
    targets = Targets(names, state.arrays["vectors"], counts, state.arrays["of"], skipped)
    return targets if targets.vectors.shape == (len(names), depth) and len(counts) == len(names) else None


def _write(folder: Path | None, targets: Targets) -> None:
    """Store the targets, if the store can be written."""
    if folder is not None:
        values = {"names": list(targets.names), "counts": list(targets.counts), "skipped": list(targets.skipped)}
        with suppress(OSError, StoreError):
            write_state(folder, values, {"vectors": targets.vectors, "of": targets.task_ids})
