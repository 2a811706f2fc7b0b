"""A thread that writes rows beside the forward pass and commits now and then. Knows no model."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from ...store.writer import GroupWriter

_AHEAD = 2


class WriterThread:
    """Takes windows of rows for several groups, keeps their order, commits at least every `commit_seconds`.

    Whatever ends the work, an error, Ctrl-C or its end, what was put before is committed on the way out.
    """

    def __init__(self, writers: list[GroupWriter], commit_seconds: float) -> None:
        """`writers` are closed at the end."""
        self._writers = {writer.group: writer for writer in writers}
        self._seconds = commit_seconds
        self._queue: queue.Queue[tuple[dict[str, Any], dict[str, Any]] | None] = queue.Queue(_AHEAD)
        self._error: BaseException | None = None
        self._finished = False
        self._last_notes: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> WriterThread:
        self._thread.start()
        return self

    def put(self, rows: dict[str, Any], notes: dict[str, Any]) -> None:
        """Hand over one window: group → column → values; `notes` go with each group's next commit.

        Raises:
            StoreError: what an earlier window met.
        """
        self._raise()
        self._queue.put((rows, notes))

    def finish(self, **notes: Any) -> None:
        """Say that no more rows come: the last commit has these notes, and is of all rows that there are."""
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
        notes: dict[str, Any] = {}
        committed = time.monotonic()
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep emptying the queue, so that nobody waits for ever
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

    def _commit(self, notes: dict[str, Any], *, complete: bool = False) -> None:
        for writer in self._writers.values():
            writer.commit(complete=complete, **notes)
