"""The run of an ingestion: one forward pass for every method that lacks rows, resumable.

Each group of the store (the examples', and each method's) carries its own progress: rows, place in the corpus, and a digest
chained over the examples so far. A run brings the groups that lag furthest to the next one's level, all of them together
from there on. So a killed run, a method added later and documents appended later are one and the same case. Knows no method
by name.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from ...store.errors import DataError, StoreBusy, StoreMismatch
from ...store.feature_store import EXAMPLES, FeatureStore, method_group
from ...store.layout import Array
from ...store.writer import GroupWriter
from ..interface.method import Method
from ..models.batch_outputs import PackedOutputs, merge_specs
from ..runtime.run import SILENT, Progress, Run, silent
from .corpus_statistics import collect_statistics, frozen_statistics
from .estimate import estimate_records, fraction
from .examples import TOKEN_IDS, Example, Place, example_rows, windows
from .first_batch import MethodRows
from .outputs import Batching, named, outputs
from .provider import Provider
from .resume_point import ResumePoint
from .stored_columns import precisions_of
from .writer_thread import WriterThread


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingestion came to."""

    rows: int
    """Examples in the store."""
    added: int
    """Rows read out by this run."""
    tokens: int
    """Tokens read by this run."""
    seconds: float
    """Wall time of this run."""
    record_errors: int
    """Bad records skipped by this run."""
    finished: bool
    """False after an interruption."""


class Ingestion:
    """One run of `ingest` over an opened store."""

    def __init__(
        self, provider: Provider, store: FeatureStore, methods: Mapping[str, Method], tokens: int, commit_seconds: float
    ) -> None:
        """`tokens`: padded tokens of a batch; `commit_seconds`: at most so much work is lost by a kill."""
        self.provider, self.store, self.methods = provider, store, dict(methods)
        self.tokens, self.commit_seconds = tokens, commit_seconds
        self.added, self.read_tokens, self.started = 0, 0, time.monotonic()
        self._estimates: list[float] = []
        self._rows: dict[str, MethodRows] = {}
        self._forms = {name: precisions_of(method, provider.head.model_shape) for name, method in self.methods.items()}
        self._needs = merge_specs([method.needs(provider.head.model_shape) for method in self.methods.values()])

    def run(self, run: Run = SILENT) -> IngestResult:
        """Bring every group to the corpus's end. Progress is reported after every window of rows, a stop is asked for before.

        Raises:
            DataError: NaN or Inf in an example's logits (the example is named); what came before it is committed.
            StoreFull: no room left; what was committed stays.
        """
        finished = False
        self._estimates = estimate_records(self.provider.sources) if run.on_progress is not silent else []
        while not finished:
            behind, level = self._behind()
            if not behind:
                finished = True
                break
            if not self._start(run) or not self._advance(behind, level, run):
                break
        seconds = time.monotonic() - self.started
        return IngestResult(
            self.store.rows(EXAMPLES),
            self.added,
            self.read_tokens,
            seconds,
            self.provider.record_errors.count,
            finished,
        )

    def _start(self, run: Run) -> bool:
        """Make the methods ready for their first batch; False when stopped before."""
        head = self.provider.head
        if not self._rows and collect_statistics(self.store, self.provider, self.methods, self.tokens, run.should_stop):
            for name, method in self.methods.items():
                state = frozen_statistics(self.store, name, method, head.model_shape)
                self._rows[name] = MethodRows(name, method, head, state)
        return len(self._rows) == len(self.methods)

    def _groups(self) -> list[str]:
        return [EXAMPLES, *(method_group(name) for name in self.methods)]

    def _behind(self) -> tuple[list[str], int | None]:
        """The groups that lag furthest, and the row at which they meet the next one; none when all are complete."""
        rows = {group: self.store.rows(group) for group in self._groups()}
        open_groups = [g for g in rows if not self.store.is_complete(g)]
        if not open_groups:
            return [], None
        low = min(rows[group] for group in open_groups)
        above = [count for count in rows.values() if count > low]
        return [g for g in open_groups if rows[g] == low], min(above, default=None)

    def _advance(self, behind: list[str], level: int | None, run: Run) -> bool:
        """Read from the lagging groups' place to the next level or the end; false when stopped before."""
        with WriterThread(self._writers(behind), self.commit_seconds) as writer:
            resume = ResumePoint.of(self.store, behind[0])  # fresh: the writers have the groups to themselves now
            digest, first, added = resume.digest, self.store.rows(behind[0]), self.added
            examples: Iterator[Example] = self.provider.examples(resume.start)
            if level is not None:
                examples = islice(examples, level - first)
            for window in windows(examples):
                if run.should_stop():
                    return False
                rows = self._window(window, behind)
                digest, place = _chained(digest, window), window[-1].place
                self.added += len(window)
                self.read_tokens += sum(example.length for example in window)
                writer.put(rows, {"place": [place.source, place.record, place.piece], "digest": digest})
                self._report(run, first + self.added - added, place)
            if level is None or self._meets_the_end(behind, level, digest, first + self.added - added):
                writer.finish(sources=len(self.provider.sources))
        return True

    def _report(self, run: Run, rows: int, place: Place) -> None:
        """Report the rows that are read, the rate, and the share of the corpus that an estimate of its size gives."""
        rate = self.read_tokens / max(time.monotonic() - self.started, 1e-9)
        share = fraction(place, self._estimates)
        run.on_progress(Progress("ingest", rows, None, f"examples · {rate:,.0f} tokens/s", share))

    def _writers(self, groups: list[str]) -> list[GroupWriter]:
        writers: list[GroupWriter] = []
        try:
            for group in groups:
                writers.append(GroupWriter(self.store, group))
            if len({writer.rows for writer in writers}) != 1:
                raise StoreBusy(
                    f"another process has written to {self.store.path} just now: run the same command again"
                )
        except BaseException:
            for writer in writers:
                writer.close()
            raise
        return writers

    def _meets_the_end(self, behind: list[str], level: int, digest: str, rows: int) -> bool:
        """Whether the level at which lagging groups meet those ahead of them is the corpus's end.

        Raises:
            StoreMismatch: they have not seen what those ahead saw.
        """
        leader = next(g for g in self._groups() if self.store.rows(g) == level and g not in behind)
        if digest != ResumePoint.of(self.store, leader).digest:
            raise StoreMismatch(f"the corpus read now differs from the one that {self.store.path} was made from: "
                                f"{rows} examples here, {level} there, or other texts")  # fmt: skip
        return self.store.is_complete(leader)

    def _window(self, window: list[Example], groups: list[str]) -> dict[str, dict[str, Any]]:
        """All groups' rows of one window, in the corpus's order."""
        names = [name for name in self.methods if method_group(name) in groups]
        columns: dict[str, dict[str, Array]] = {name: {} for name in names}
        losses = torch.zeros(len(window))
        compute = partial(self._sketched, names=names)
        for batch, (batch_losses, sketches) in outputs(
            self.provider, window, self._needs, compute, Batching(self.tokens)
        ):
            losses[torch.tensor(batch)] = batch_losses
            for name, column, values in ((name, *item) for name, rows in sketches.items() for item in rows.items()):
                for part, encoded in self._encoded(name, column, values, [window[i] for i in batch]).items():
                    if part not in columns[name]:
                        columns[name][part] = np.zeros((len(window), *encoded.shape[1:]), encoded.dtype)
                    columns[name][part][batch] = encoded
        rows: dict[str, dict[str, Any]] = {method_group(name): dict(columns[name]) for name in names}
        if EXAMPLES in groups:
            with_tokens = any(column.name == TOKEN_IDS for column in self.store.columns(EXAMPLES))
            rows[EXAMPLES] = example_rows(window, losses.numpy(), with_tokens=with_tokens)
        return rows

    def _sketched(
        self, read: PackedOutputs, names: list[str]
    ) -> tuple[torch.Tensor, dict[str, dict[str, torch.Tensor]]]:
        """A batch's losses (n,), and of each method the rows of its declared columns."""
        return read.losses().cpu(), {name: self._rows[name](read) for name in names}

    def _encoded(self, name: str, column: str, values: torch.Tensor, examples: list[Example]) -> dict[str, Array]:
        """A batch's rows of one declared column as they are stored; a row that cannot be would rank first for ever."""
        forms = self._forms[name]
        rows = (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).cpu().numpy()
        try:
            return forms[column].encode(rows)
        except DataError:
            for example, row in zip(examples, rows, strict=True):
                try:
                    forms[column].encode(row[None])
                except DataError:
                    raise DataError(f"method {name} gave NaN or Inf for example {named(example)}") from None
            raise


def _chained(digest: str, window: list[Example]) -> str:
    for example in window:
        told = f"{digest}\0{example.id}\0{example.prompt}\0{example.text}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(told, digest_size=16).hexdigest()
    return digest
