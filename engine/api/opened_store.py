"""A store that is held open: its examples, and questions to its methods. Keeps the model between questions.

store = hw.open("my-store")
answers = store.attribute("a text", top=10)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from ...store.completeness import is_whole
from ...store.errors import SettingsError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.json_values import JsonFields
from ...store.layout import Array
from ..attribution.generation import NEW_TOKENS
from ..fitting.fit_record import fits_of
from ..models.language_model import ModelChoice
from ..results.shown_examples import ShownExample, shown_examples
from ..results.store_info import store_facts
from ..results.table_plan import exported, no_output
from ..runtime.run import Run
from .adding import Making, added
from .arguments import PathLike, at_least, checked
from .attributions import Attributions
from .comparison import RANKED_ROWS, Comparison, compared
from .display import table_html
from .held_store import HeldStore, facts_of
from .opening import (
    MethodChoice,
    QueryKeywords,
    query_data,
    query_options,
    refuse_skip,
)
from .returned_memory import sampled_scores, score_matrix, score_vector
from .selections import Selection, SelectKeywords, features_of, predicted, selected
from .values import Values, exported_scores, refuse_scores_path

if TYPE_CHECKING:
    from ..attribution.query_session import QuerySession


class Store:
    """An open store. Questions share one loaded model, so that only the first one loads it.

    `len(store)` is the number of examples, `store[3]` one of them. It is closed by `close()`, or by the end of a `with` block.
    """

    def __init__(
        self, store: FeatureStore, model: ModelChoice, memory: int | None = None, progress: bool = True
    ) -> None:
        """`memory`: largest memory plan of an operation in bytes; None for no bound. Use :func:`headwater.open`."""
        self._held = HeldStore(store, model, memory, progress)
        self.notes: list[str] = []
        """Remarks of the ingestion that made or extended the store, one line each."""

    @property
    def path(self) -> str:
        """The store's folder or URL."""
        return self._held.opened.url

    @property
    def methods(self) -> list[str]:
        """Names of the methods and members that the store can answer with, fitted ones included."""
        store = self._held.opened
        return [*store.methods, *fits_of(store)]

    @property
    def complete(self) -> bool:
        """Whether the corpus was read to its end, and each method has a row for every example."""
        store = self._held.opened
        return is_whole(store) and all(is_whole(store, name) for name in store.methods)

    def info(self) -> JsonFields:
        """The contents of the store as JSON values, as `headwater info --json` prints them."""
        return store_facts(self._held.opened.url)

    def __len__(self) -> int:
        store = self._held.opened
        return store.rows(EXAMPLES) if EXAMPLES in store.groups else 0

    @overload
    def __getitem__(self, row: int) -> ShownExample: ...
    @overload
    def __getitem__(self, row: slice) -> list[ShownExample]: ...
    def __getitem__(self, row: int | slice) -> ShownExample | list[ShownExample]:
        """An example as it is stored, by its row number; negative numbers count from the end; of a slice, a list.

        Raises:
            IndexError: there is no such row.
        """
        if isinstance(row, slice):
            return [self[number] for number in range(len(self))[row]]
        if isinstance(row, bool) or not isinstance(row, int | np.integer):
            raise SettingsError(f"store[{row!r}]: expected a row number")
        store, count = self._held.opened, len(self)
        if not -count <= row < count:
            raise IndexError(f"store[{row}]: the store has {count} examples")
        number = int(row) % count
        return next(shown_examples(store, [range(number, number + 1)], self._held.model.tokenizer(store)))

    def show(self, *rows: int) -> None:
        """Print examples as the model reads them, target tokens marked; the first three without arguments."""
        from ..presentation.terminal import print_examples

        print_examples(self[row] for row in rows or range(min(3, len(self))))

    @checked
    def attribute(
        self, queries: object, method: str | None = None, *, top: int | None = None, bottom: int | None = None,
        **options: Unpack[QueryKeywords],
    ) -> Attributions:  # fmt: skip
        """Rank the examples by their influence on each query's completion.

        queries: a text (a completion without a prompt), a record such as {"prompt": …, "completion": …}, a list of texts or of
        records, a table, a data set, or the path of a file. method: its name; may be left out where the store has one, or rise
        among several. top: k, examples per query, 10 by default. bottom: k, the examples with the lowest scores instead, which
        speak most against the completion. `generate=True`: queries are prompts, and the model answers them. `minus`, `where` and
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
        at_least("attribute", top=(top, 1), bottom=(bottom, 1))
        if top is not None and bottom is not None:
            raise SettingsError("attribute: give either top or bottom")
        asked = query_options(options, bottom or top or 10, None, lowest=bottom is not None)
        new_tokens = options.get("new_tokens", NEW_TOKENS) if options.get("generate") else 0
        with self._held.run() as run:
            session = self._held.session(queries, method, run, asked, new_tokens=new_tokens)
            return self._held.said(Attributions(session, session.attribute()))

    @checked
    def value(self, queries: object, method: str | None = None, **options: Unpack[QueryKeywords]) -> Values:
        """The mean score of each example over all queries: how much it is worth for them together.

        >>> values = store.value("questions.jsonl")
        >>> values.scores.shape, values.best(2).shape
        ((24,), (2,))
        """
        with self._held.run() as run:
            session = self._held.session(queries, method, run, query_options(options, 1, score_vector))
            return self._held.said(Values(session, np.concatenate([part.copy() for _, part in session.value()])))

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
        refuse_skip("scores", options)
        if out is not None:
            refuse_scores_path(str(out), self.path)
        with self._held.run() as run:
            session = self._held.session(
                queries, method, run, query_options(options, 1, score_matrix if out is None else exported)
            )
            if out is not None:
                return exported_scores(session, str(out))
            scores = np.full((len(session.query_ids), session.rows), np.nan, np.float32)
            for first, part in session.scores():
                scores[:, first : first + len(part)] = part.T
            self._held.say_all(session.notes)
            return scores

    @checked
    def iter_scores(
        self, queries: object, method: str | None = None, **options: Unpack[QueryKeywords]
    ) -> Iterator[tuple[int, Array]]:
        """(first row, (Q, rows) float32) for consecutive blocks of examples; each array is a copy of the caller's own.

        >>> sum(part.shape[1] for first, part in store.iter_scores("questions.jsonl"))
        24
        """
        refuse_skip("iter_scores", options)
        session = self._held.session(queries, method, Run(self._held.memory), query_options(options, 1, no_output))
        return ((first, np.ascontiguousarray(part.T)) for first, part in session.scores())

    @checked
    def compare(self, queries: object, methods: Sequence[str], *, top: int = 10) -> Comparison:
        """Several methods on the same queries: overlap of their best examples, their rank correlation, and what each costs.

        >>> comparison = store.compare("questions.jsonl", ["rise", "grasp", "bm25"], top=5)
        >>> 0 <= comparison.pair("rise", "bm25").overlap <= 1
        True
        """
        at_least("compare", top=(top, 1))
        data, asked = query_data(queries), query_options({}, top, sampled_scores(RANKED_ROWS))
        with self._held.run() as run:

            def session(name: str) -> QuerySession:
                return self._held.session(data, name, run, asked)

            return compared(session, self._held.load_model_of, list(dict.fromkeys(methods)), top)

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
        data = query_data(task, "task")
        with self._held.run() as run:
            return self._held.said(selected(self._held.opened, self._held.model, data, count, method, options, run))

    @checked
    def predict(
        self,
        task: object,
        subsets: Any,
        method: str | None = None,
        *,
        penalty: float | None = None,
        partial: bool = False,
    ) -> Array:
        """(S,) float64: how much training on each subset helps a task, redundant examples counting less (GRASP's surrogate).

        task: as for `select`. subsets: (S, N) masks of 0 and 1, or the path of a file of subsets. method: whose rows are the
        examples' features. penalty: λ, the weight of redundancy; default: the calibrated value, or 1.

        >>> import numpy as np
        >>> store.predict("questions.jsonl", np.eye(3, len(store))).shape
        (3,)
        """
        data = query_data(task, "task")
        with self._held.run() as run:
            features = features_of(self._held.opened, method, run, partial=partial)
            return predicted(features, self._held.model, data, subsets, penalty)

    @checked
    def add(self, *methods: str | MethodChoice, seeds: int = 1) -> Store:
        """Add methods from what the store keeps: no corpus is read. Methods that are fitted, such as stride, are fitted.

        >>> store.add("graddot").methods
        ['rise', 'grasp', 'graddot']
        """
        at_least("add", seeds=(seeds, 1))
        with self._held.lock:
            added(
                self._held.opened,
                self._held.model,
                methods,
                seeds,
                Making(self._held.memory, self._held.progress, self.notes),
            )
        return self

    def close(self) -> None:
        """Forget the store and its model; further questions raise a SettingsError."""
        self._held.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._held.closed:
            return "Store(closed)"
        facts = dict(facts_of(self._held.opened))
        return f"Store({self.path!r}: " + ", ".join(f"{name} {value}" for name, value in facts.items()) + ")"

    def _repr_html_(self) -> str:
        if self._held.closed:
            return "<p>a closed store</p>"
        return table_html(("store", self.path), [(name, value) for name, value in facts_of(self._held.opened)])
