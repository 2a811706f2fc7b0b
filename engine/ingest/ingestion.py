"""The run of an ingestion: one forward pass for all methods that lack rows, resumable.

Each group of the store (the examples', and each method's) records its own progress: rows, place in the corpus, and a digest
chained over the examples so far. A run first adds rows to the groups that have the fewest. When these have caught up with the
next larger group, it adds rows to all of them together, and so on to the end of the corpus. So the same code continues a killed
run, adds a method to a store, and appends documents. Knows no method by name.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch

from ...store.errors import DataError, StoreBusy, StoreMismatch
from ...store.feature_store import EXAMPLES, FeatureStore, method_group
from ...store.json_values import JsonFields
from ...store.layout import Array
from ...store.rowless_store import remove_unused
from ...store.writer import GroupWriter, Rows
from ..interface.method import Method
from ..models.batch_outputs import PackedOutputs, merge_specs
from ..runtime.run import SILENT, Progress, Run, silent
from .corpus_statistics import Pacing, collect_statistics, frozen_statistics
from .estimate import estimate_records, fraction
from .examples import Example, Place, example_rows, example_windows
from .method_code import MethodRows
from .outputs import Batching, named, outputs
from .provider import Provider
from .resume_point import ResumePoint
from .stored_columns import precisions_of, stored_fields_of
from .stream_ends import StreamEnds
from .writer_thread import WriterThread


@dataclass(frozen=True, slots=True)
class IngestResult:
    """The result of an ingestion."""

    rows: int
    """Number of examples in the store."""
    added: int
    """Number of examples that this run read."""
    tokens: int
    """Number of tokens that this run read."""
    seconds: float
    """Wall time of this run."""
    record_errors: int
    """Number of bad records that this run skipped."""
    finished: bool
    """False if the run was stopped."""


class Ingestion:
    """One run of `ingest` over an opened store."""

    def __init__(
        self, provider: Provider, store: FeatureStore, methods: Mapping[str, Method], tokens: int, commit_seconds: float
    ) -> None:
        """`tokens`: most tokens of a batch, padding included; `commit_seconds`: seconds of work between commits, which a kill
        can lose.
        """
        self.provider, self.store, self.methods = provider, store, dict(methods)
        self.tokens, self.commit_seconds = tokens, commit_seconds
        self._identity = _identity(store, self._groups())
        self.added, self.read_tokens, self.started = 0, 0, time.monotonic()
        self._estimates: list[float] = []
        self._rows: dict[str, MethodRows] = {}
        self._precisions = {name: precisions_of(method, provider.head.model_shape) for name, method in methods.items()}
        self._needs = merge_specs([])
        self._stream_ends = StreamEnds(provider.sources)

    def run(self, run: Run = SILENT) -> IngestResult:
        """Bring all groups to the end of the corpus. Progress is reported after each window of rows; a stop takes effect before
        the next one.

        Raises:
            DataError: NaN or Inf in an example's logits (the example is named); the rows before it are committed.
            StoreFull: the disk is full; committed rows stay.
        """
        try:
            finished = self._run(run)
        except Exception:
            remove_unused(self.store)  # so that the settings of a run that failed at once bind no later one
            raise
        seconds = time.monotonic() - self.started
        return IngestResult(
            self.store.rows(EXAMPLES), self.added, self.read_tokens, seconds, self.provider.record_errors.count, finished
        )  # fmt: skip

    def _run(self, run: Run) -> bool:
        """Bring all groups to the end of the corpus; False if stopped before."""
        self._estimates = estimate_records(self.provider.sources) if run.on_progress is not silent else []
        while True:
            shortest, stop_row = self._shortest_groups()
            if not shortest:
                return True
            if not self._start(run) or not self._advance(shortest, stop_row, run):
                return False

    def _start(self, run: Run) -> bool:
        """Collect the methods' corpus statistics (`fit`) and call their `precompute`, once; False if stopped before the end."""
        head = self.provider.head
        pacing = Pacing(self.tokens, self.commit_seconds)
        if not self._rows and collect_statistics(self.store, self.provider, self.methods, pacing, run):
            for name, method in self.methods.items():
                state = frozen_statistics(self.store, name, method, head.model_shape)
                self._rows[name] = MethodRows(name, method, head, state)
            self._needs = merge_specs([rows.needs for rows in self._rows.values()])
        return len(self._rows) == len(self.methods)

    def _groups(self) -> list[str]:
        return [EXAMPLES, *(method_group(name) for name in self.methods)]

    def _shortest_groups(self) -> tuple[list[str], int | None]:
        """The unfinished groups with the fewest rows, and the smallest larger row count of any group (None: there is none). If
        all groups are complete: no groups, and None.
        """
        rows = {group: self.store.rows(group) for group in self._groups()}
        open_groups = [g for g in rows if not self.store.is_complete(g)]
        if not open_groups:
            return [], None
        low = min(rows[group] for group in open_groups)
        higher = [count for count in rows.values() if count > low]
        return [g for g in open_groups if rows[g] == low], min(higher, default=None)

    def _advance(self, groups: list[str], stop_row: int | None, run: Run) -> bool:
        """Add rows to groups with equally many rows, up to `stop_row` or to the corpus's end; False if stopped before."""
        with WriterThread(self._writers(groups), self.commit_seconds) as writer:
            # read after the writers took their locks, so that no other process can change it
            resume = ResumePoint.of(self.store, groups[0])
            first, added = self.store.rows(groups[0]), self.added
            digest, examples = self._remaining(resume, first)
            if stop_row is not None:
                examples = islice(examples, stop_row - first)
            for window in example_windows(examples):
                if run.should_stop():
                    return False
                rows = self._rows_of(window, groups)
                digest, place = _chained(digest, window), window[-1].place
                self.added += len(window)
                self.read_tokens += sum(example.length for example in window)
                writer.put(rows, self._notes(place, digest))
                self._report(run, first + self.added - added, place)
            if stop_row is None or self._ends_at(stop_row, groups, digest, first + self.added - added):
                writer.finish(**self._last_notes())
        self._stream_ends.record(self.store)
        return True

    def _remaining(self, resume: ResumePoint, rows: int) -> tuple[str, Iterator[Example]]:
        """The digest of a group's `rows` examples, and the examples that it lacks."""
        if self.provider.by_row:
            return resume.digest, self.provider.examples(Place(0, rows - 1))
        if not resume.by_row:
            return resume.digest, self.provider.examples(resume.start)
        examples, digest = self.provider.examples(Place()), ""
        for example in islice(examples, rows):
            digest = _chained(digest, [example])
        return digest, examples

    def _notes(self, place: Place, digest: str) -> JsonFields:
        """What a group notes of its last example. Its place in the files is not known if it is read from the store."""
        if self.provider.by_row:
            return {"place": [-1, place.record, 0]}
        return {"place": [place.source, place.record, place.piece], "digest": digest}

    def _last_notes(self) -> JsonFields:
        """What a group notes at the corpus's end: if it is read from the store, what the store's examples note."""
        if not self.provider.by_row:
            return {"sources": len(self.provider.sources)}
        return dict(self.store.resume_notes(EXAMPLES))

    def _report(self, run: Run, rows: int, place: Place) -> None:
        """Report the rows read, the rate, and the estimated fraction of the corpus."""
        rate = self.read_tokens / max(time.monotonic() - self.started, 1e-9)
        note = f"examples · {rate:,.0f} tokens/s"
        run.on_progress(Progress("ingest", rows, None, note, fraction(place, self._estimates)))

    def _writers(self, groups: list[str]) -> list[GroupWriter]:
        writers: list[GroupWriter] = []
        try:
            for group in groups:
                writers.append(GroupWriter(self.store, group))
            self.store.refresh()
            if _identity(self.store, self._groups()) != self._identity:
                raise StoreBusy(
                    f"another process has replaced {self.store.path}", hint="name another store, or wait for it"
                )
            if (
                len({writer.rows for writer in writers}) != 1
            ):  # they were equal before the locks were taken, so another process has written rows
                raise StoreBusy(
                    f"another process is writing to {self.store.path}",
                    hint="run the same command again when it is done",
                )
        except BaseException:
            for writer in writers:
                writer.close()
            raise
        return writers

    def _ends_at(self, stop_row: int, groups: list[str], digest: str, rows: int) -> bool:
        """Whether the longer group, with whose `stop_row` rows `groups` have caught up, is complete: then the corpus ends here.

        Raises:
            StoreMismatch: the longer group was made from other examples.
        """
        longer_group = next(g for g in self._groups() if self.store.rows(g) == stop_row and g not in groups)
        if not self.provider.by_row and digest != ResumePoint.of(self.store, longer_group).digest:
            raise StoreMismatch(f"the corpus read now differs from the one that {self.store.path} was made from: {rows} examples "
                                f"now, {stop_row} then"
                                + ("; an id, a prompt or a text differs" if rows == stop_row else ""))  # fmt: skip
        return self.store.is_complete(longer_group)

    def _rows_of(self, window: list[Example], groups: list[str]) -> dict[str, Rows]:
        """The rows of all groups for one window, in the corpus's order."""
        names = [name for name in self.methods if method_group(name) in groups]
        columns: dict[str, dict[str, Array]] = {name: {} for name in names}
        losses = torch.zeros(len(window))
        compute = partial(self._losses_and_rows, names=names)
        for batch, (batch_losses, batch_rows) in outputs(
            self.provider, window, self._needs, compute, Batching(self.tokens)
        ):
            losses[torch.tensor(batch)] = batch_losses
            for name, column, values in ((name, *item) for name, rows in batch_rows.items() for item in rows.items()):
                for stored_column, encoded in self._encoded(name, column, values, [window[i] for i in batch]).items():
                    if stored_column not in columns[name]:
                        columns[name][stored_column] = np.zeros((len(window), *encoded.shape[1:]), encoded.dtype)
                    columns[name][stored_column][batch] = encoded
        groups_rows: dict[str, Rows] = {method_group(name): columns[name] for name in names}
        if EXAMPLES in groups:
            groups_rows[EXAMPLES] = example_rows(window, losses.numpy(), fields=stored_fields_of(self.store))
        return groups_rows

    def _losses_and_rows(
        self, batch_outputs: PackedOutputs, names: list[str]
    ) -> tuple[torch.Tensor, dict[str, dict[str, torch.Tensor]]]:
        """A batch's losses (n,), and the rows of each method's declared columns."""
        return batch_outputs.losses().cpu(), {name: self._rows[name](batch_outputs) for name in names}

    def _encoded(self, name: str, column: str, values: torch.Tensor, examples: list[Example]) -> dict[str, Array]:
        """A batch's rows of one declared column in the stored precision.

        Raises:
            DataError: a row is not finite (it would rank first for every query); the message names its example.
        """
        precision = self._precisions[name][column]
        rows = (values.float() if values.dtype in (torch.bfloat16, torch.float16) else values).cpu().numpy()
        try:
            return precision.encode(rows)
        except DataError:
            for example, row in zip(examples, rows, strict=True):
                try:
                    precision.encode(row[None])
                except DataError:
                    raise DataError(f"method {name} gave NaN or Inf for example {named(example)}") from None
            raise


def _identity(store: FeatureStore, groups: list[str]) -> dict[str, object]:
    """What stays the same in a store while rows are added to these groups, as long as no other process replaces it."""
    settings = {group: store.groups[group].settings for group in groups if group in store.groups}
    provenance = {key: value for key, value in store.provenance.items() if key not in ("sources", "truncate")}
    return {**provenance, "groups": settings}


def _chained(digest: str, window: list[Example]) -> str:
    """The digest of a corpus up to this window's end, computed from `digest`, that of the corpus before this window."""
    for example in window:
        content = f"{digest}\0{example.id}\0{example.prompt}\0{example.text}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return digest
