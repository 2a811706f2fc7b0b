"""A store that is held open: its examples, and questions to its methods. Keeps the model between questions.

store = hw.open("my-store")
answers = store.attribute("a text", top=10)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from ...store.completeness import is_whole
from ...store.errors import ModelError, SettingsError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.json_values import JsonFields
from ...store.layout import Array
from ..attribution.open_session import open_session
from ..fitting.fit_record import fits_of
from ..models.language_model import ModelChoice
from ..results.shown_examples import ShownExample, shown_examples
from ..results.store_info import store_facts
from ..runtime.run import Run
from .adding import added
from .arguments import PathLike, checked
from .attributions import Attributions
from .comparison import Comparison, compared
from .display import table_html
from .opening import MethodChoice, ModelHolder, QueryKeywords, chosen_method, query_data, query_options
from .progress_choice import shown_run
from .selections import Selection, SelectKeywords, predicted, selected
from .values import Values, exported_scores

if TYPE_CHECKING:
    from ..attribution.query_session import QuerySession
    from ..models.transformers_types import HfTokenizer


class Store:
    """An open store. Questions share one loaded model, so that only the first one loads it.

    `len(store)` is the number of examples, `store[3]` one of them. It is closed by `close()`, or by the end of a `with` block.
    """

    def __init__(
        self, store: FeatureStore, model: ModelChoice, memory: int | None = None, progress: bool = True
    ) -> None:
        """`memory`: largest memory plan of an operation in bytes; None for no bound. Use :func:`headwater.open`."""
        self._store: FeatureStore | None = store
        self._model, self._memory, self._progress = ModelHolder(model), memory, progress
        self.notes: list[str] = []
        """Remarks of the ingestion that made or extended the store, one line each."""

    @property
    def path(self) -> str:
        """The store's folder or URL."""
        return self._opened.url

    @property
    def methods(self) -> list[str]:
        """Names of the methods and members that the store can answer with, fitted ones included."""
        store = self._opened
        return [*store.methods, *fits_of(store)]

    @property
    def complete(self) -> bool:
        """Whether the corpus was read to its end, and each method has a row for every example."""
        store = self._opened
        return is_whole(store) and all(is_whole(store, name) for name in store.methods)

    def info(self) -> JsonFields:
        """The contents of the store as JSON values, as `headwater info --json` prints them."""
        return store_facts(self._opened.url)

    def __len__(self) -> int:
        store = self._opened
        return store.rows(EXAMPLES) if EXAMPLES in store.groups else 0

    def __getitem__(self, row: int) -> ShownExample:
        """An example as it is stored, by its row number; negative numbers count from the end.

        Raises:
            IndexError: there is no such row.
        """
        if isinstance(row, bool) or not isinstance(row, int | np.integer):
            raise SettingsError(f"store[{row!r}]: expected a row number")
        number = range(len(self))[int(row)]
        return next(shown_examples(self._opened, [range(number, number + 1)], self._tokenizer()))

    def show(self, *rows: int) -> None:
        """Print examples as the model reads them, target tokens marked; the first three without arguments."""
        from ..presentation.terminal import print_examples

        print_examples(self[row] for row in rows or range(min(3, len(self))))

    @checked
    def attribute(
        self, queries: object, method: str | None = None, *, top: int = 10, bottom: int = 0,
        **options: Unpack[QueryKeywords],
    ) -> Attributions:  # fmt: skip
        """Rank the examples by their influence on each query's completion.

        queries: a text (a completion without a prompt), a record such as {"prompt": …, "completion": …}, a list of either, a
        table, a data set, or the path of a file. method: its name; may be left out where the store has one. top: k, examples per
        query. bottom: k, the examples with the lowest scores instead, which speak most against it. `minus`, `where` and
        others: see :class:`QueryKeywords`.

        Raises:
            HeadwaterError: the queries, the model or an option cannot be used, or the plan exceeds the memory budget.

        >>> question = {"prompt": "river stone ", "completion": "light"}
        >>> answers = store.attribute(question, top=3)
        >>> answers.rows.shape, len(answers[0].texts)
        ((1, 3), 3)
        >>> opponents = store.attribute("a bare text", bottom=3)
        >>> contrast = store.attribute(question, minus={"prompt": "river stone ", "completion": "winter"})
        >>> of_one_file = store.attribute(question, where={"source": "corpus.jsonl"})
        """
        if bottom < 0 or top < 1:
            raise SettingsError("attribute: top and bottom are numbers of examples, at least 1")
        with self._run() as run:
            session = self._session(queries, method, bottom or top, run, options, lowest=bool(bottom))
            return Attributions(session, session.attribute())

    @checked
    def value(self, queries: object, method: str | None = None, **options: Unpack[QueryKeywords]) -> Values:
        """The mean score of each example over all queries: how much it is worth for them together.

        >>> values = store.value("questions.jsonl")
        >>> values.scores.shape, values.best(2).shape
        ((24,), (2,))
        """
        with self._run() as run:
            session = self._session(queries, method, 1, run, options, every=True)
            return Values(session, np.concatenate([part.copy() for _, part in session.value()]))

    @checked
    def scores(
        self, queries: object, method: str | None = None, *, out: PathLike | None = None,
        **options: Unpack[QueryKeywords],
    ) -> Any:  # fmt: skip
        """The scores of all examples: (Q, N) float32, an array of the caller's own.

        out: a new path that ends in .zarr; the scores are streamed there instead, and the Zarr array (N, Q) is returned, which
        reads from disk.

        >>> scores = store.scores("questions.jsonl")
        >>> scores.shape, scores.dtype
        ((2, 24), dtype('float32'))
        """
        with self._run() as run:
            session = self._session(queries, method, 1, run, options, every=True)
            if out is not None:
                return exported_scores(session, str(out))
            scores = np.empty((len(session.query_ids), session.rows), np.float32)
            for first, part in session.scores():
                scores[:, first : first + len(part)] = part.T
            return scores

    @checked
    def iter_scores(
        self, queries: object, method: str | None = None, **options: Unpack[QueryKeywords]
    ) -> Iterator[tuple[int, Array]]:
        """(first row, (Q, rows) float32) for consecutive blocks of examples; each array is a copy of the caller's own.

        >>> sum(part.shape[1] for first, part in store.iter_scores("questions.jsonl"))
        24
        """
        session = self._session(queries, method, 1, Run(self._memory), options, every=True)
        return ((first, np.ascontiguousarray(part.T)) for first, part in session.scores())

    @checked
    def compare(self, queries: object, methods: Sequence[str], *, top: int = 10) -> Comparison:
        """Several methods on the same queries: overlap of their best examples, their rank correlation, and what each costs.

        >>> comparison = store.compare("questions.jsonl", ["rise", "grasp", "bm25"], top=5)
        >>> 0 <= comparison.pair("rise", "bm25").overlap <= 1
        True
        """
        with self._run() as run:

            def session(name: str) -> QuerySession:
                return self._session(data, name, top, run, {}, every=True)

            data = query_data(queries)
            return compared(session, list(dict.fromkeys(methods)), top)

    @checked
    def select(
        self, task: object, *, count: int | str | None = None, method: str | None = None,
        **options: Unpack[SelectKeywords],
    ) -> Selection:  # fmt: skip
        """Choose training examples for a task, each by what it adds to those before it: exact greedy selection.

        task: examples of the task, as queries are given. count: how many, or a part such as "10%". method: whose rows are the
        examples' features; "grasp" by default if the store has it. `tokens`, `quotas`, `distinct` and others: see
        :class:`SelectKeywords`.

        >>> chosen = store.select("questions.jsonl", count="25%")
        >>> len(chosen), sorted(chosen.records()[0])
        (6, ['gain', 'id', 'order', 'row', 'source', 'text', 'tokens'])
        """
        with self._run() as run:
            return selected(self._opened, self._model, query_data(task, "task"), count, method, options, run)

    @checked
    def predict(
        self, task: object, subsets: Any, method: str | None = None, **options: Unpack[SelectKeywords]
    ) -> Array:
        """(S,) float64: how much training on each subset helps a task, redundant examples counting less (GRASP's surrogate).

        task: as for `select`. subsets: (S, N) masks of 0 and 1, or the path of a file of subsets. method: whose rows are the
        examples' features.

        >>> import numpy as np
        >>> store.predict("questions.jsonl", np.eye(3, len(store))).shape
        (3,)
        """
        with self._run() as run:
            return predicted(self._opened, self._model, query_data(task, "task"), subsets, method, options, run)

    @checked
    def add(self, *methods: str | MethodChoice, seeds: int = 1) -> Store:
        """Add methods from what the store keeps: no corpus is read. Methods that are fitted, such as stride, are fitted.

        >>> store.add("graddot").methods
        ['rise', 'grasp', 'graddot']
        """
        store = self._opened
        self.notes += added(store, self._model, methods, seeds, self._memory, progress=self._progress)
        self._store = FeatureStore.open(store.url)
        return self

    def close(self) -> None:
        """Forget the store and its model; further questions raise a SettingsError."""
        self._store, self._model = None, ModelHolder(ModelChoice(""))

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._store is None:
            return "Store(closed)"
        facts = dict(self._facts())
        return f"Store({self.path!r}: " + ", ".join(f"{name} {value}" for name, value in facts.items()) + ")"

    def _repr_html_(self) -> str:
        if self._store is None:
            return "<p>a closed store</p>"
        return table_html(("store", self.path), [(name, value) for name, value in self._facts()])

    def _facts(self) -> Iterator[tuple[str, str]]:
        provenance = self._opened.provenance
        yield "rows", f"{len(self):,}"
        yield "methods", " ".join(self.methods) or "none"
        yield (
            "model",
            str(provenance.get("model_path") or ("an object in memory" if provenance["kind"] == "text" else "arrays")),
        )
        template = {name: value for name, value in provenance.get("template", {}).items() if value}
        if template:
            yield "template", str(template)
        yield "state", "complete" if self.complete else "unfinished"

    @property
    def _opened(self) -> FeatureStore:
        if self._store is None:
            raise SettingsError("the store is closed: headwater.open opens it again")
        return self._store

    def _run(self) -> AbstractContextManager[Run]:
        return shown_run(self._memory, self._model.choice.device, progress=self._progress)

    def _session(
        self, queries: object, method: str | None, top: int, run: Run, options: QueryKeywords, *,
        lowest: bool = False, every: bool = False,
    ) -> QuerySession:  # fmt: skip
        """Open the session of a question."""
        store = self._opened
        name = chosen_method(store, method)
        model = self._model.for_method(store, name)
        asked = query_options(options, top, model, lowest=lowest, every=every)
        return open_session(store.url, name, query_data(queries), asked, run)

    def _tokenizer(self) -> HfTokenizer | None:
        """The tokenizer of the store's model; None if the store is of arrays, or it is not there."""
        from ..models.language_model import tokenizer_of

        provenance, loaded = self._opened.provenance, self._model.choice.loaded
        if loaded is not None:
            return loaded.tokenizer
        path = self._model.choice.path or str(provenance.get("model_path", ""))
        try:
            return (
                tokenizer_of(path, self._model.choice.trust_remote_code, str(provenance.get("tokenizer")))
                if path
                else None
            )
        except ModelError:
            return None
