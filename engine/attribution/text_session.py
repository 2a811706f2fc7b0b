"""Query session of methods that compare texts and need no model. Knows no method by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...store.completeness import require_whole
from ...store.errors import CorpusError, SettingsError, StoreMissing
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.json_values import JsonFields
from ...store.layout import TEXT_CHUNK_ROWS, Array
from ..arrays.kernels.heaps import heap_bytes
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.scan_loop import ScanShape
from ..arrays.scan.stored_rows import first_plan_within_budget
from ..data.documents import RecordErrors, read_documents
from ..data.record_source import Data, name_of_data
from ..data.sources import find_sources
from ..ingest.open_provider import query_settings
from ..ingest.text_settings import TextSettings
from ..interface.method import TextSimilarity
from ..results.answers_origin import Origin, origin_of
from ..results.example_table import Examples, PartSize, joined_texts
from ..results.results import QueryText, Results
from ..results.table_plan import Scored, with_output
from ..runtime.memory import Part, Plan
from ..runtime.run import SILENT, Run
from .queries import skipped_clause, skipped_lines
from .query_options import QueryOptions
from .query_session import (
    TOGETHER,
    Capability,
    ScoreBlocks,
    best_examples,
    best_values,
    export_session,
    mean_scores,
    missing,
    with_progress,
)

_READ = PartSize(TEXT_CHUNK_ROWS, 4 << 20)  # examples whose texts are read together
_COPIES = 10  # of a byte of UTF-8: strings of at most four bytes, prompt and text apart and joined


@dataclass(frozen=True, slots=True)
class _Query:
    id: str
    asked: QueryText

    @property
    def text(self) -> str:
        """Prompt and completion, joined."""
        return str(self.asked)


class TextSession:
    """A :class:`QuerySession` of a method that compares texts."""

    def __init__(
        self,
        store: FeatureStore,
        method: tuple[str, TextSimilarity],
        queries: Data,
        options: QueryOptions,
        run: Run = SILENT,
    ) -> None:
        """Read the queries, make the memory plan. `method`: its name, and the method.

        Raises:
            SettingsError: the store keeps no texts. StoreMissing: the store lacks examples. BudgetError: the plan exceeds
            the budget.
        """  # fmt: skip
        name = method[0]
        if not store.provenance.get("text"):
            raise SettingsError(
                f"{store.url} keeps no texts, which method {name} compares", hint="ingest without --no-text"
            )
        self.store, self.name, self._method, self._top, self._run = store, name, method[1], options.top, run
        self.rows = store.rows(EXAMPLES)
        if not self.rows:
            raise StoreMissing(f"{store.url} has no examples yet", hint="run ingest again to continue")
        self._unfinished = require_whole(store, partial=options.search.partial)
        record_errors = RecordErrors(options.text.on_error)
        self._queries = _read(queries, query_settings(queries, store.provenance, options.text), record_errors)
        self._skipped = skipped_lines(record_errors)
        self.shape = ScanShape(TEXT_CHUNK_ROWS, 1)
        output = options.output(Scored(store, self.rows, len(self._queries), TEXT_CHUNK_ROWS, run.budget))
        planned = with_output([(self._planned(run.budget), None)], output)
        self.parts: PartSize
        self.plan, (_, self.parts) = first_plan_within_budget(planned, Plan(()), run.budget)

    def _planned(self, budget: int | None) -> Plan:
        examples, count, k = Examples(self.store), len(self._queries), min(self._top, self.rows)
        tokens = int(examples.numbers("tokens").sum())
        longest = examples.longest(("prompt", "text"), None if budget is None else _READ.text_bytes)
        return Plan.of(
            Part(f"{self.name}'s words", self._method.memory(self.rows, tokens, count)),
            Part(
                "texts",
                _COPIES * max(longest, min(_READ.text_bytes, self.rows * longest))
                + examples.scratch_bytes(("prompt", "text")),
            ),
            Part("scores", 12 * min(TEXT_CHUNK_ROWS, self.rows) * count),
            Part("results", 6 * heap_bytes(count, k)),
            Part("queries' texts", sum(4 * (len(query.id) + len(query.text)) + 800 for query in self._queries)),
        )

    @property
    def title(self) -> str:
        """The method's name."""
        return self.name

    @property
    def origin(self) -> Origin:
        """What the scores are computed from."""
        return origin_of(self.store, self.name, self.rows)

    @property
    def further_columns(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def query_ids(self) -> list[str]:
        """(Q,) ids, in the file's order."""
        return [query.id for query in self._queries]

    @property
    def queries(self) -> list[QueryText]:
        """(Q,) texts, in the file's order."""
        return [query.asked for query in self._queries]

    @property
    def estimated(self) -> bool:
        """False."""
        return False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """No capabilities: there are no stored rows, and the time of comparing texts is not known beforehand."""
        return frozenset()

    def forecast(self) -> Forecast:
        """Raise SettingsError: the time of comparing texts is not known beforehand."""
        raise missing(self.name, "forecast")

    def cache(self) -> int:
        """Raise SettingsError: no rows are stored."""
        raise missing(self.name, "cache")

    @property
    def notes(self) -> list[str]:
        """The skipped queries, and how many examples of how many there are if some are missing."""
        return [*self._skipped, *self._unfinished]

    def attribute(self) -> Results:
        """The best examples of each query."""
        scores, rows = best_examples(self.scores(), len(self._queries), min(self._top, self.rows))
        return self.chosen(rows, scores)

    def most_valuable(self) -> Results:
        """The best examples for all queries together."""
        scores, rows = best_values(self.value(), min(self._top, self.rows))
        return self.chosen(rows, scores, together=True)

    def chosen(self, rows: Array, scores: Array, *, together: bool = False, lowest: bool = False) -> Results:
        """Results of examples that were chosen by these scores."""
        return Results(self.name, [TOGETHER] if together else self.query_ids, rows, scores)

    def value(self) -> ScoreBlocks:
        """(first row, (rows,) mean scores over the queries), over all examples in order."""
        return mean_scores(self.scores())

    def facts(self) -> JsonFields:
        """None."""
        return {}

    def export(self, path: str) -> None:
        """Write the scores of all examples for all queries to a new .zarr group."""
        export_session(self, path)

    def scores(self) -> ScoreBlocks:
        """(first row, (rows, Q) scores), over all examples in order."""
        return with_progress(self._text_scores(), self._run.stage("scores", self.rows))

    def _text_scores(self) -> ScoreBlocks:
        first = 0
        for scores in self._method.score_texts([query.text for query in self._queries], self._texts):
            yield first, scores
            first += len(scores)

    def _texts(self) -> Iterator[list[str]]:
        examples = Examples(self.store)
        for first in range(0, self.rows, TEXT_CHUNK_ROWS):
            rows = np.arange(first, min(self.rows, first + TEXT_CHUNK_ROWS))
            for _, columns in examples.parts(("prompt", "text"), rows, _READ):
                yield joined_texts(columns)


def _read(data: Data, settings: TextSettings, record_errors: RecordErrors) -> list[_Query]:
    """The usable queries of a file; a query's text includes its prompt."""
    queries = []
    for source in find_sources([data], lines=bool(settings.lines)):
        for document in read_documents(source, settings.template, record_errors):
            if document.tokens:
                record_errors.report(
                    f"{source.path}:{document.line}: the query is token ids, but the method compares texts"
                )
            else:
                queries.append(_Query(document.id, QueryText(document.prompt, document.text)))
    if not queries:
        raise CorpusError(f"no query in {name_of_data(data)}{skipped_clause(record_errors)}")
    return queries
