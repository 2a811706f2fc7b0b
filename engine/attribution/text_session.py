"""Questions to a store's texts, by methods that need no model. Knows no method by name.

It answers what :class:`question.Question` answers, in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ...store.errors import CorpusError, SettingsError, StoreMissing
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import TEXT_CHUNK_ROWS, Array
from ..arrays.kernels.heaps import Heaps, heap_bytes, merged
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.scan_loop import Shape
from ..data.documents import RecordErrors, Template, read_documents
from ..data.sources import find_sources
from ..ingest.ingest_plan import TEXT_BYTES
from ..interface.method import TextSimilarity
from ..results.example_table import Examples
from ..results.results import RESULT_QUERIES, Results
from ..results.score_export import export, export_parts
from ..runtime.memory import Plan, plan

OnProgress = Callable[[int], None]


def _silent(rows: int) -> None:
    """Progress that nobody wants to hear of."""


@dataclass(frozen=True, slots=True)
class _Query:
    id: str
    text: str


class TextSession:
    """Queries to the texts of a store, planned, with nothing computed yet."""

    def __init__(
        self,
        store: FeatureStore,
        name: str,
        method: TextSimilarity,
        queries: str,
        template: Template,
        top: int,
        memory: int | None,
    ) -> None:
        """Read the queries, make the plan.

        Raises:
            SettingsError: the store keeps no texts. StoreMissing: it holds nothing yet. BudgetError: it does not fit.
        """  # fmt: skip
        if not store.provenance.get("text"):
            raise SettingsError(f"{store.url} keeps no texts, and method {name} compares texts")
        self.store, self._name, self._method, self._top = store, name, method, top
        self.rows = store.rows(EXAMPLES)
        if not self.rows:
            raise StoreMissing(f"{store.url} holds no example yet: run ingest again to go on")
        self._queries = _read(queries, template)
        self.shape = Shape(TEXT_CHUNK_ROWS, 1)
        self.plan = self._planned()
        self.plan.check(memory, self.plan.total)

    def _planned(self) -> Plan:
        count, longest = len(self._queries), int(self.store.provenance["max_length"]) * TEXT_BYTES
        k = min(self._top, self.rows)
        tokens = int(Examples(self.store).numbers("tokens").sum())
        return plan([
            (f"{self._name}'s words", self._method.memory(self.rows, tokens, count)),
            ("texts", 4 * min(TEXT_CHUNK_ROWS, self.rows) * longest),
            ("texts of results", 2 * RESULT_QUERIES * k * longest),
            ("scores", 12 * min(TEXT_CHUNK_ROWS, self.rows) * count),
            ("results", 6 * heap_bytes(count, k)),
            *export_parts(count, self.rows),
        ])  # fmt: skip

    @property
    def queries(self) -> dict[str, str]:
        """Query id → its text."""
        return {query.id: query.text for query in self._queries}

    def forecast(self) -> Forecast | None:
        """None: nobody knows how long words take."""
        return None

    @property
    def notes(self) -> list[str]:
        """Nothing: scores are what they are."""
        return []

    def attribute(self, on_progress: OnProgress = _silent) -> Results:
        """The best examples of each query."""
        k = min(self._top, self.rows)
        heaps = Heaps(len(self._queries), k)
        for first, scores in self.scores(on_progress):
            heaps.push(np.ascontiguousarray(scores.T), len(scores), first)
        scores, rows = merged([heaps])
        return Results(self._name, [query.id for query in self._queries], rows, scores)

    def export(self, path: str, on_progress: OnProgress = _silent) -> None:
        """Every example's score for every query, to a .zarr group that is not there yet."""
        export(path, self.scores(on_progress), self.rows, [query.id for query in self._queries], self._name)

    def value(self, on_progress: OnProgress = _silent) -> Iterator[tuple[int, Array]]:
        """(first row, mean scores) of every example, in order."""
        for first, scores in self.scores(on_progress):
            yield first, scores.mean(1, dtype=np.float64).astype(np.float32)

    def most_valuable(self, on_progress: OnProgress = _silent) -> Results:
        """The best examples for all queries together."""
        k = min(self._top, self.rows)
        heaps = Heaps(1, k)
        for first, values in self.value(on_progress):
            heaps.push(values[None], len(values), first)
        scores, rows = merged([heaps])
        return Results(self._name, ["all queries"], rows, scores)

    def scores(self, on_progress: OnProgress = _silent) -> Iterator[tuple[int, Array]]:
        """(first row, (rows, Q) scores) of every example, in order."""
        first = 0
        for scores in self._method.score_texts([query.text for query in self._queries], self._texts):
            yield first, scores
            first += len(scores)
            on_progress(first)

    def _texts(self) -> Iterator[list[str]]:
        examples = Examples(self.store)
        for first in range(0, self.rows, TEXT_CHUNK_ROWS):
            yield examples.texts(np.arange(first, min(self.rows, first + TEXT_CHUNK_ROWS)))


def _read(path: str, template: Template) -> list[_Query]:
    """All queries of a file; their prompts are part of their texts."""
    found = [
        _Query(document.id, document.prompt + document.text)
        for source in find_sources([path])
        for document in read_documents(source, template, RecordErrors("fail"))
    ]
    if not found:
        raise CorpusError(f"no query in {path}")
    return found
