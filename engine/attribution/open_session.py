"""Opens the query session for a method: the entry point of attribution for commands and Python. Knows no method by name.

session = open_session("store", "rise", "questions.jsonl", QueryOptions(top=10))
results = session.attribute()          # results.rows, results.scores: (queries, 10)
"""

from __future__ import annotations

from dataclasses import replace

from ...store.errors import SettingsError, UnknownMethod
from ...store.feature_store import FeatureStore
from ..arrays.scan.stored_rows import first_plan_within_budget
from ..data.record_source import Data
from ..fitting.fit_record import fits_of
from ..ingest.member_model import MemberModel
from ..ingest.open_provider import query_provider
from ..interface.method import BlockSimilarity, TextSimilarity
from ..interface.registry import load
from ..interface.subset_method import SubsetMethod
from ..models.language_model import pick_device
from ..results.row_filter import RowFilter
from ..results.table_plan import no_output
from ..runtime.memory import Plan
from ..runtime.run import SILENT, Run
from .derived_session import Derivation, DerivedSession
from .fitted_members import FittedMembers
from .members import chosen_members, members_of, method_of
from .members_session import MemberScores, MembersSession
from .prompt_ends import prompt_end_notes
from .query_options import ONE_SCAN, TEN_BEST, MemberChoice, QueryOptions
from .query_session import QuerySession
from .recovered_session import RecoveredSession
from .stored_members import StoredMembers
from .stored_method import stored_method
from .stored_scores import StoredScores
from .stored_session import StoredSession
from .text_session import TextSession


def is_fitted(name: str, store: FeatureStore) -> bool:
    """Whether the method is a subset method, which is fitted and stores no rows."""
    if name in store.methods:
        return False
    try:
        return issubclass(load(name), SubsetMethod)
    except UnknownMethod:
        return False  # StoredScores raises the error when the method's rows are opened


def text_method_of(name: str, store: FeatureStore) -> TextSimilarity | None:
    """The method, if it compares texts; None for another kind of method, and if the store holds rows under the name."""
    if name in store.methods:
        return None
    try:
        kind = load(name)
    except UnknownMethod:
        return None  # StoredScores raises the error when the method's rows are opened
    return kind() if issubclass(kind, TextSimilarity) else None


def open_session(
    store: str, method: str, queries: Data, options: QueryOptions = TEN_BEST, run: Run = SILENT
) -> QuerySession:
    """Open the store, load its model (if the method needs one), read the queries, make the memory plan.

    Raises:
        HeadwaterError: the store, the model, the queries or an option cannot be used, or the plan exceeds the budget.
    """
    if not options.derived or _scans_for_lowest(FeatureStore.open(store), method, options):
        return _open(store, method, queries, options, run)
    return _derived(store, method, queries, options, run)


def _scans_for_lowest(store: FeatureStore, method: str, options: QueryOptions) -> bool:
    """Whether the lowest scores are those of a scan with negated queries: of stored rows, by inner products, and nothing else
    is derived.
    """
    if options.minus is not None or options.where.conditions or options.search.members.labels:
        return False
    return method in store.methods and not isinstance(stored_method(store, method), BlockSimilarity)


def _derived(store: str, method: str, queries: Data, options: QueryOptions, run: Run) -> DerivedSession:
    """A session over another one; the budget bounds the plan of both, that of contrasting queries included.

    Raises:
        SettingsError: the search is not one scan of the rows as they are stored, or queries are skipped that have contrasts of
            their own.
    """
    search, minus = replace(options.search, all_scores=True, device=None), options.minus
    if search.precision or search.certify:
        raise SettingsError(
            "--bottom, --minus and --where scan the rows as they are stored", hint="leave out --scan and --certify"
        )
    plain = replace(options, minus=None, lowest=False, where=RowFilter(), search=search, further=options.output)
    session = _open(store, method, queries, plain, run)
    contrast = None if minus is None else _contrast(store, method, minus, plain, run)
    one_model = contrast is not None and _reads_with_loaded(session.store, method, options)
    conditions = tuple(f"{column}={value}" for column, value in options.where.conditions)
    filtering = options.where.plan(session.store, session.rows)
    derivation = Derivation(contrast, options.lowest, one_model, conditions, filtering=filtering)
    unfiltered = DerivedSession(session, derivation, options.top)
    first_plan_within_budget([(unfiltered.plan, None)], Plan(()), run.budget)
    derivation = replace(derivation, eligible=options.where.mask(session.store, session.rows))
    derived = DerivedSession(session, derivation, options.top)
    first_plan_within_budget([(derived.plan, None)], Plan(()), run.budget)
    return derived


def _contrast(store: str, method: str, minus: Data, options: QueryOptions, run: Run) -> QuerySession:
    """The session of contrasting queries, of which none is skipped: they stand in the order of the queries.

    Raises:
        SettingsError: there are several, and queries may be skipped, so that one could get another one's contrast.
    """
    text = replace(options.text, on_error="fail")
    session = _open(store, method, minus, replace(options, text=text, further=no_output), run)
    if options.text.on_error == "skip" and len(session.query_ids) > 1:
        raise SettingsError(
            "--minus with a contrast for each query needs every query",
            hint="leave out --on-error skip, or give one contrast for all",
        )
    return session


def _reads_with_loaded(store: FeatureStore, method: str, options: QueryOptions) -> bool:
    """Whether queries are read by a model that is in memory already: no member that may answer has a model of its own."""
    if options.model.loaded is None or store.provenance["kind"] != "text":
        return False
    fits = fits_of(store)
    names = members_of([*store.methods, *fits], method) if options.search.members.labels else [method]
    return not any(MemberModel.of_rows(store, name).member or (name in fits and fits[name]["base"]) for name in names)


def _open(store: str, method: str, queries: Data, options: QueryOptions, run: Run) -> QuerySession:
    """A session whose scores are the method's own."""
    feature_store = FeatureStore.open(store)
    search = replace(options.search, device=scan_device(feature_store, method, options))
    if search.members.labels:
        return _members_session(feature_store, method, queries, options, run)
    text_method = text_method_of(method, feature_store)
    if text_method:
        if replace(search, all_scores=False, partial=False, device=None) != ONE_SCAN:
            raise SettingsError(f"method {method} stores no rows", hint="leave out --scan, --candidates and --certify")
        return TextSession(feature_store, (method, text_method), queries, options, run)
    if is_fitted(method, feature_store):
        if replace(search, all_scores=False, partial=False, device=None) != ONE_SCAN:
            raise SettingsError(f"method {method} stores no rows", hint="leave out --scan, --candidates and --certify")
        return RecoveredSession(feature_store, method, queries, options, run)
    stored = StoredScores(feature_store, method, run.budget, search)
    member = MemberModel.of_rows(feature_store, method)
    provider = query_provider(queries, feature_store, options.model, options.text, member)
    session = StoredSession(stored, provider, options, run)
    provider.notes += prompt_end_notes(feature_store, session.queries)
    return session


def scan_device(store: FeatureStore, method: str, options: QueryOptions) -> int | None:
    """The GPU that scans for the best rows; None: the CPU, which also scans with --device auto. Only an exact search by inner
    products can use a GPU; for other questions --device names the model's alone.
    """
    search, device = options.search, options.model.device
    if not device.startswith("cuda") or replace(search, partial=False, device=None) != ONE_SCAN:
        return search.device
    if method not in store.methods or isinstance(stored_method(store, method), BlockSimilarity):
        return None
    return pick_device(device).index or 0


def _members_session(
    store: FeatureStore, method: str, queries: Data, options: QueryOptions, run: Run
) -> MembersSession:
    """A session over several members of a method.

    Raises:
        HeadwaterError: there is no such method, or it has no members that answer together.
    """
    choice, kind = options.search.members, load(method)
    if text_method_of(method, store):
        raise SettingsError(f"method {method} compares texts and has no members", hint="leave out --members")
    if replace(options.search, all_scores=False, partial=False, members=MemberChoice(), device=None) != ONE_SCAN:
        raise SettingsError(
            "--members scans the rows as they are stored", hint="leave out --scan, --candidates and --certify"
        )
    name, fitted = method_of(method), is_fitted(method, store)
    if fitted:
        more = f"headwater fit {store.url} --method {name}@MEMBER"
    elif isinstance(kind.from_settings({}).settings().get("seed"), int):
        more = f"headwater ingest --method {name} --seeds 5"
    else:
        more = f"headwater ingest --method {name}@MEMBER, with another setting or --base,"
    available = members_of(list(fits_of(store)) if fitted else store.methods, method)
    names = chosen_members(available, method, choice.labels, f"{more} adds more")
    members: MemberScores = (FittedMembers if fitted else StoredMembers)(store, names, queries, options, run)
    return MembersSession(name, members, options, run)
