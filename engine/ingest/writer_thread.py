"""A thread that writes rows while the next forward pass runs, and commits at intervals. Knows no model."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping

from ...store.json_values import JsonObject, JsonValue
from ...store.writer import GroupWriter, Rows

_AHEAD = 2  # windows that may wait to be written


class WriterThread:
    """Writes windows of rows of several groups in their order, and commits every `commit_seconds`.

    However the work ends (at its end, by an error or by Ctrl-C), all queued rows are committed, unless writing itself failed.
    """

    def __init__(self, writers: list[GroupWriter], commit_seconds: float) -> None:
        """`writers` are closed at the end."""
        self._writers = {writer.group: writer for writer in writers}
        self._seconds = commit_seconds
        self._queue: queue.Queue[tuple[Mapping[str, Rows], JsonObject] | None] = queue.Queue(_AHEAD)
        self._error: BaseException | None = None
        self._finished = False
        self._last_notes: JsonObject = {}
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> WriterThread:
        self._thread.start()
        return self

    def put(self, rows: Mapping[str, Rows], notes: JsonObject) -> None:
        """Queue one window: group → column → values; a commit writes `notes` into each group's manifest.

        Raises:
            StoreError: an earlier window could not be written.
        """
        self._raise()
        self._queue.put((rows, notes))

    def finish(self, **notes: JsonValue) -> None:
        """Set further notes for the last commit, which marks the groups as complete."""
        self._finished, self._last_notes = True, notes

    def __exit__(self, kind: object, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        for writer in self._writers.values():
            writer.close()
        if kind is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        notes: JsonObject = {}
        committed = time.monotonic()
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue  # empty the queue, so that `put` does not block
            try:
                rows, notes = item
                for group, columns in rows.items():
                    self._writers[group].append(columns)
                if time.monotonic() - committed >= self._seconds:
                    self._commit(notes)
                    committed = time.monotonic()
            except BaseException as error:
                self._error = error
        if self._error is None:
            try:
                self._commit({**notes, **self._last_notes}, complete=self._finished)
            except BaseException as error:
                self._error = error

    def _commit(self, notes: JsonObject, *, complete: bool = False) -> None:
        for writer in self._writers.values():
            writer.commit(complete=complete, **notes)
