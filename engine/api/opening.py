"""What a question from Python asks: its method, its queries as data, its options. Knows no store's contents and no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore
from ...store.json_values import JsonObject
from ..attribution.query_options import MemberChoice, QueryOptions, SearchOptions
from ..data.array_files import is_array_path
from ..data.documents import Template
from ..data.python_data import data_of
from ..data.record_source import Data
from ..data.sources import find_sources
from ..fitting.fit_record import fits_of
from ..ingest.requested_methods import DEFAULT_METHOD
from ..ingest.text_settings import TextSettings
from ..interface.registry import load as load_method
from ..models.language_model import ModelChoice
from ..results.row_filter import RowFilter
from ..results.table_plan import Output
from .arguments import PathLike, at_least
from .returned_memory import whole_table


class QueryKeywords(TypedDict, total=False):
    """Further options of a question."""

    generate: bool
    """Whether queries are prompts, whose completions are the model's own greedy answers: `answers[0].completion` is the first."""
    new_tokens: int
    """With `generate`: most tokens of an answer; default: 64."""
    minus: object
    """Contrasting queries, as many as there are queries, or one: the score is that of a query minus that of its contrast."""
    where: str | Sequence[str] | Mapping[str, str | Sequence[str]]
    """Rank these examples only: "source=a.jsonl", or {"source": "a.jsonl"}; of several columns all conditions must be met."""
    columns: PathLike
    """A file with each example's id and the column of `where`, if it is not the store's."""
    members: str | Sequence[str]
    """Labels of the members whose scores are combined, or "all"."""
    combine: Literal["mean", "sum"]
    """How scores of members are combined."""
    scan: str
    """Precision of the copy that is scanned first, such as "int8" or "sign8192"."""
    candidates: int
    """With `scan`: number of rows per query that are scored again."""
    certify: bool
    """Whether an int8 scan proves that its answer is exact."""
    partial: bool
    """Whether an unfinished store or method is accepted."""
    prompt_template: str
    completion_template: str
    text_template: str
    """Which fields of a query's record are read, such as "{question}"; default: as the store's examples were."""
    on_error: Literal["fail", "skip"]
    """Whether a bad query is an error, or is skipped."""


def chosen_method(store: FeatureStore, name: str | None) -> str:
    """The method of a question: the one that is named, or the only one of the store, or the default if it is there.

    Raises:
        SettingsError: none is named, and the store has none, or several without the default.
    """
    if name is not None:
        return name
    names = [*store.methods, *fits_of(store)]
    if len(names) == 1 or DEFAULT_METHOD in names:
        return DEFAULT_METHOD if DEFAULT_METHOD in names else names[0]
    there = f"it has {', '.join(names)}" if names else "it has none"
    raise SettingsError(
        f"name a method of {store.url}: {there}; methods that compare texts, such as bm25, need no rows"
    )


def query_data(queries: object, name: str = "query") -> Data:
    """Queries as data: a text, a record, several of these, a path or a table.

    Raises:
        CorpusError: they are of another type. SettingsError: they are several paths.
    """
    data = data_of(queries, texts=True, name=name)
    if len(data) != 1:
        raise SettingsError(f"{len(data)} files of queries: give one, or a list of records")
    return data[0]


def require_method(store: FeatureStore, name: str) -> None:
    """Raise UnknownMethod, with what is similar, if a method is neither in the store nor installed."""
    if name not in store.methods and name not in fits_of(store):
        load_method(name)


def require_data(data: Data) -> None:
    """Raise CorpusError if data are a path at which nothing is."""
    if isinstance(data, str) and not is_array_path(data):
        find_sources([data])


def template_of(options: Mapping[str, object]) -> Template:
    """The template that options name."""
    text, prompt, completion = (str(options.get(f"{name}_template", "")) for name in ("text", "prompt", "completion"))
    return Template(text, prompt, completion)


def query_options(options: QueryKeywords, top: int, output: Output | None, *, lowest: bool = False) -> QueryOptions:
    """Options of a query session. `output`: what becomes of the scores of all examples; None: the best are asked for.

    Raises:
        SettingsError: an option is out of range, or needs another one.
    """
    at_least("attribute", candidates=(options.get("candidates"), 1), new_tokens=(options.get("new_tokens"), 1))
    if ("combine" in options and "members" not in options) or ("columns" in options and "where" not in options):
        raise SettingsError("combine needs members, and columns needs where")
    members = options.get("members", ())
    labels = (members,) if isinstance(members, str) else tuple(members)
    search = SearchOptions(
        options.get("scan", ""), options.get("candidates"), options.get("certify", False),
        members=MemberChoice(labels, options.get("combine", "mean")), partial=options.get("partial", False),
    )  # fmt: skip
    text = TextSettings(template_of(options), options.get("on_error", "fail"))
    minus = None if options.get("minus") is None else query_data(options["minus"], "minus")
    where = filter_of(options.get("where", ()), options.get("columns", ""))
    search = replace(search, all_scores=output is not None)
    return QueryOptions(top, ModelChoice(""), text, search, output or whole_table(top), minus, lowest, where)


def refuse_skip(function: str, options: QueryKeywords) -> None:
    """Raise SettingsError for `on_error="skip"`: rows of scores could not be distinguished."""
    if options.get("on_error") == "skip":
        raise SettingsError(
            f'{function}: on_error="skip" would leave out rows: remove the bad queries, or use attribute'
        )


def filter_of(where: str | Sequence[str] | Mapping[str, str | Sequence[str]], columns: PathLike = "") -> RowFilter:
    """The conditions of `where`, and the file of their columns.

    Raises:
        SettingsError: a text is not COLUMN=VALUE, or a column has an empty list of values.
    """
    if isinstance(where, Mapping):
        return RowFilter.of(where, str(columns))
    return RowFilter.parsed([where] if isinstance(where, str) else where, str(columns))


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """An attribution method with its settings, as :func:`method` makes it."""

    name: str
    settings: JsonObject

    def __repr__(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"method({self.name!r}{settings})"


def method_choice(name: str, settings: JsonObject) -> MethodChoice:
    """A method with settings that exist and have the right types.

    Raises:
        UnknownMethod: no such method is installed. SettingsError: a setting is unknown or of the wrong type.
    """
    try:
        load_method(name).from_settings(settings)
    except SettingsError as error:
        raise SettingsError(f"method {name}: {error}") from None
    return MethodChoice(name, dict(settings))
