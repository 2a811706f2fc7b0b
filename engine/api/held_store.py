"""A store that a program holds open, with its model, its budget and its lock. Opens sessions; knows no kind of question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING, Protocol, TypeVar

from ...store.completeness import is_whole
from ...store.errors import SettingsError
from ...store.feature_store import EXAMPLES, FeatureStore
from ..attribution.generation import Generation, with_answers
from ..attribution.open_session import open_session
from ..attribution.query_options import QueryOptions
from ..fitting.fit_record import fits_of
from ..models.language_model import ModelChoice
from ..runtime.messages import say
from ..runtime.run import Run
from .model_holder import ModelHolder
from .opening import chosen_method, query_data, require_data, require_method
from .progress_choice import shown_run

if TYPE_CHECKING:
    from ..attribution.query_session import QuerySession


class _WithNotes(Protocol):
    """An answer with remarks for the user."""

    notes: list[str]


A = TypeVar("A", bound=_WithNotes)


class HeldStore:
    """What the questions to one open store share."""

    def __init__(self, store: FeatureStore, model: ModelChoice, memory: int | None, progress: bool) -> None:
        self._store: FeatureStore | None = store
        self.model, self.memory, self.progress, self.lock = ModelHolder(model), memory, progress, RLock()

    @property
    def closed(self) -> bool:
        """Whether the store is forgotten."""
        return self._store is None

    def close(self) -> None:
        """Forget the store and its model."""
        self._store, self.model = None, ModelHolder(ModelChoice(""))

    @property
    def opened(self) -> FeatureStore:
        """The store as it is now: another process may have added to it."""
        if self._store is None:
            raise SettingsError("the store is closed: headwater.open opens it again")
        if not self._store.remote:
            self._store.refresh()
        return self._store

    @contextmanager
    def run(self) -> Iterator[Run]:
        """One question at a time: they share the model."""
        with self.lock, shown_run(self.memory, self.model.choice.device, progress=self.progress) as run:
            yield run

    def said(self, answer: A) -> A:
        """An answer, whose notes are printed if progress is shown."""
        self.say_all(answer.notes)
        return answer

    def say_all(self, notes: Sequence[str]) -> None:
        for line in notes if self.progress else ():
            say(line if line.startswith("skipped") else f"note: {line}")

    def load_model_of(self, method: str) -> None:
        """Load the model of a method's questions, before they are timed."""
        self.model.for_method(self.opened, method)

    def session(
        self, queries: object, method: str | None, run: Run, options: QueryOptions, *, new_tokens: int = 0
    ) -> QuerySession:
        """Open the session of a question. The model is loaded last, when all else is known to be right. `new_tokens`: most tokens
        of the model's own answers, which are the completions of the queries; 0: the queries have completions.
        """
        store = self.opened
        name, data = chosen_method(store, method), query_data(queries)
        require_method(store, name)
        require_data(data)
        several = bool(options.search.members.labels)
        model = self.model.for_method(store, name, members=several)
        if new_tokens:
            data = with_answers(data, store, Generation(self.model.loaded(store), options.text, new_tokens))
        return open_session(store.url, name, data, replace(options, model=model), run)


def facts_of(store: FeatureStore) -> Iterator[tuple[str, str]]:
    """What a store says of itself in one line or table: (name, value)."""
    provenance = store.provenance
    is_text = provenance["kind"] == "text"
    yield "rows", f"{store.rows(EXAMPLES) if EXAMPLES in store.groups else 0:,}"
    yield "methods", " ".join([*store.methods, *fits_of(store)]) or "none"
    yield "model", str(provenance.get("model_path") or ("an object in memory" if is_text else "arrays"))
    template = {name: value for name, value in provenance.get("template", {}).items() if value}
    if template:
        yield "template", str(template)
    complete = is_whole(store) and all(is_whole(store, name) for name in store.methods)
    yield "state", "complete" if complete else "unfinished"
