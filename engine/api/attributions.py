"""Answers: the best examples of each query with their scores and texts, as tables that show themselves. Computes no score."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, overload

from ...store.errors import SettingsError
from ...store.layout import Array
from ..results.answers_origin import Origin
from ..results.example_table import Cell, Columns
from ..results.output_path import refuse_output
from ..results.result_files import Fields, ResultFile
from ..results.result_tables import About, fields_of, result_rows
from .arguments import PathLike
from .display import answers_html, answers_text

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

    from ..attribution.query_session import QuerySession
    from ..results.results import Results


@dataclass(frozen=True, slots=True)
class ScoredExample:
    """One example of an answer."""

    rank: int
    """1 for the first."""
    score: float
    row: int
    """Row number in the store."""
    id: str
    source: str
    prompt: str
    """The text before the completion; empty if the example has none."""
    completion: str
    """The completion, or the whole text."""

    @property
    def text(self) -> str:
        """Prompt and completion together."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Answer:
    """The best examples of one query, best first; those with the lowest scores first if these were asked for."""

    id: str
    """The query's id."""
    prompt: str
    """The query's prompt."""
    completion: str
    """The query's completion, whose causes are asked for."""
    examples: tuple[ScoredExample, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[ScoredExample]:
        return iter(self.examples)

    def __getitem__(self, place: int) -> ScoredExample:
        """An example by its place from 0 on: the first has rank 1."""
        return self.examples[place]

    @property
    def texts(self) -> list[str]:
        """Prompt and completion of each example, together."""
        return [example.text for example in self.examples]

    @property
    def ids(self) -> list[str]:
        """The examples' ids."""
        return [example.id for example in self.examples]

    @property
    def scores(self) -> list[float]:
        """The examples' scores."""
        return [example.score for example in self.examples]

    @property
    def rows(self) -> list[int]:
        """The examples' row numbers."""
        return [example.row for example in self.examples]

    def __repr__(self) -> str:
        return answers_text([self])

    def _repr_html_(self) -> str:
        return answers_html([self])


class Attributions:
    """The best examples of several queries. A table with one row per query and example; it owns its arrays."""

    def __init__(self, session: QuerySession, results: Results) -> None:
        """Read the examples' ids and texts."""
        self.origin: Origin = session.origin
        """Store, model, method, settings and version that the answers are of."""
        about = About(session.queries, self.origin)
        parts = list(result_rows(results, session.store, session.parts, about))
        self._columns: dict[str, list[Cell]] = {
            name: [cell for part in parts for cell in part[name]] for name in (parts[0] if parts else ())
        }
        self._fields = fields_of(results)
        self._texts = session.queries
        self.method = results.method
        """The method's name."""
        self.queries = list(results.queries)
        """(Q,) ids of the queries."""
        self.rows: Array = results.rows
        """(Q, k) int64 row numbers in the store, best first."""
        self.scores: Array = results.scores
        """(Q, k) float32 scores."""
        self.exact = results.exact
        """Whether no other stored row has a higher score."""
        self.notes = list(session.notes)
        """Remarks on the answers, one line each."""

    def __len__(self) -> int:
        return len(self.queries)

    def __iter__(self) -> Iterator[Answer]:
        return (self[number] for number in range(len(self)))

    @overload
    def __getitem__(self, number: int) -> Answer: ...
    @overload
    def __getitem__(self, number: slice) -> list[Answer]: ...
    def __getitem__(self, number: int | slice) -> Answer | list[Answer]:
        """The answer of one query, by its number from 0 on; of a slice, a list of answers.

        Raises:
            IndexError: there is no such query.
        """
        if isinstance(number, slice):
            return [self._answer(at) for at in range(len(self))[number]]
        if not -len(self) <= number < len(self):
            raise IndexError(f"answers[{number}]: there are {len(self)} queries")
        return self._answer(range(len(self))[number])

    def _answer(self, at: int) -> Answer:
        k = self.rows.shape[1]
        examples = tuple(self._example(index) for index in range(at * k, (at + 1) * k))
        return Answer(self.queries[at], self._texts[at].prompt, self._texts[at].completion, examples)

    def _example(self, index: int) -> ScoredExample:
        cells = {name: values[index] for name, values in self._columns.items()}
        rank, row, score = cast(int, cells["rank"]), cast(int, cells["row"]), cast(float, cells["score"])
        texts = [str(cells[name]) for name in ("example_id", "source", "prompt", "completion")]
        return ScoredExample(rank, score, row, *texts)

    def to_arrow(self) -> pa.Table:
        """A pyarrow.Table with a row per query and example."""
        import pyarrow as pa

        return pa.table(self._columns, pa.schema(list(self._fields.items())))

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas.DataFrame with a row per query and example.

        Raises:
            SettingsError: pandas is not installed.
        """
        return as_pandas(self.to_arrow())

    def to_html(self) -> str:
        """A table of all answers as a fragment of HTML, in which all texts are escaped."""
        return answers_html(list(self), whole=True)

    def save(self, path: PathLike) -> None:
        """Write the table to a file: .jsonl, .json, .csv, .parquet or .html.

        Raises:
            SettingsError: another suffix, or the path lies in the store or is one of its corpus's files.
        """
        save_tables(path, self._fields, [self._columns], self.origin)

    def __repr__(self) -> str:
        return "\n".join([*(f"[{line}]" for line in self._order()), answers_text(list(self))])

    def _repr_html_(self) -> str:
        return "".join([*(f"<p>{html.escape(line)}</p>" for line in self._order()), answers_html(list(self))])

    def _order(self) -> Iterator[str]:
        """How examples are ranked, where it is not by the highest score of the query."""
        if self.origin.lowest:
            yield "lowest scores first: these examples speak most against the completions"
        if self.origin.contrast:
            yield "scores minus those of the contrasting queries"
        if self.origin.conditions:
            yield f"only examples with {' and '.join(self.origin.conditions)}"


def save_tables(path: PathLike, fields: Fields, tables: Iterable[Columns], origin: Origin) -> None:
    """Write tables to a file in the format of its suffix, which appears whole or not at all.

    Raises:
        SettingsError: another suffix, or the path lies in the store or is one of its corpus's files.
    """
    from ..presentation.html_page import HtmlPage

    refuse_output(str(path), (), origin.store)
    with ResultFile(str(path), fields, origin.to_json(), {"html": HtmlPage}) as file:
        for table in tables:
            file.write(table)


def as_pandas(table: pa.Table) -> pandas.DataFrame:
    """A table as a DataFrame.

    Raises:
        SettingsError: pandas is not installed.
    """
    try:
        import pandas  # noqa: F401
    except ImportError:
        raise SettingsError("to_pandas needs pandas: pip install pandas, or use to_arrow") from None
    return table.to_pandas()
