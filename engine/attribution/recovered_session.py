"""Query session of subset methods: measures each query, recovers a weight of every example.

It is a :class:`QuerySession`. Positive: the example lowered the query's loss. Most
weights of a sparse answer are zero; these examples are ordered by back-projection, Mᵀ(y − ȳ), below all that helped and above all
that harmed, and marked as ties. Knows no method by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...store.errors import DataError, InputError, SettingsError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import TEXT_CHUNK_ROWS, Array
from ...store.reader import open_column
from ..arrays.kernels.heaps import heap_bytes
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.scan_loop import Shape, cores
from ..fitting.fit_record import read_fit, recovery_of
from ..ingest.examples import Example
from ..ingest.first_batch import DeclaredOutputs, checked_measurements, plugin_code
from ..ingest.ingest_plan import TEXT_BYTES, layers_part
from ..ingest.open_provider import query_provider
from ..ingest.outputs import outputs
from ..ingest.provider import Provider
from ..interface.subset_method import Design
from ..models.batch_outputs import PackedOutputs, merge_specs
from ..models.language_model import pick_device
from ..recovery.gpu_pass import DevicePass, cupy_on
from ..recovery.membership import MaskedMembership, Membership, TableMembership
from ..recovery.recover import recovered, recovery_bytes
from ..results.diagnostics import RecoveryDiagnostics
from ..results.results import RESULT_QUERIES, Results
from ..results.score_export import export_parts
from ..runtime.memory import Part, Plan
from ..runtime.run import SILENT, Run
from .queries import batch_tokens, queries_part, query_batching, read_queries
from .query_options import QueryOptions
from .query_session import (
    TOGETHER,
    Capability,
    ScoreBlocks,
    advancing,
    best_examples,
    best_values,
    export_session,
    missing,
)
from .recovered_weights import BLOCK, BaseWeights, RecoveredWeights


class RecoveredSession:
    """Queries to a fit, planned, with nothing computed yet."""

    def __init__(self, store: FeatureStore, name: str, queries: str, options: QueryOptions, run: Run = SILENT) -> None:
        """Read the queries, make the plan.

        Raises:
            StoreMissing: nothing was fitted, or not to its end. StoreMismatch: it was fitted to other examples, or the model is
            another one. BudgetError: it does not fit.
        """  # fmt: skip
        self.store, self.name, self._options, self._top, self._run = store, name, options, options.top, run
        self._fitted = read_fit(store, name)
        self.rows = self._fitted.rows
        self._files = self._query_files(queries)
        self._provider: Provider | None = self._opened(0)
        self._queries = read_queries(self._provider)
        self.shape = Shape(BLOCK, 1)
        self._held, self._together, self.plan = self._planned(run.budget)
        device = options.model.device
        self._device = pick_device(device).index or 0 if device.startswith("cuda") else None
        self._cupy = cupy_on(self._device) if self._device is not None else None
        self._answer: RecoveredWeights | None = None
        self.trust: RecoveryDiagnostics | None = None

    def _query_files(self, queries: str) -> list[str]:
        """Of each base model: texts serve all of them; arrays are each base's own, with commas between them."""
        bases = len(self._fitted.bases)
        if self.store.provenance["kind"] != "arrays":
            return [queries] * bases
        files = queries.split(",") if bases > 1 else [queries]
        if len(files) != bases:
            raise SettingsError(
                f"{self.name} was fitted to {bases} files of arrays: --queries has as many, with commas between"
            )
        return files

    def _opened(self, base: int) -> Provider:
        path = self._fitted.bases[base]
        choice = replace(self._options.model, path=path) if path else self._options.model
        return query_provider(
            self._files[base],
            self.store,
            choice,
            self._options.template,
            self._fitted.fingerprints[base] if path else None,
        )

    def _planned(self, memory: int | None) -> tuple[bool, int, Plan]:
        """Whether subsets of all examples are held, how many queries are solved together, and the plan.

        Raises:
            BudgetError: it does not fit, however it is done.
        """
        tried = [(held, together, self._plan(held, together)) for held in (True, False) for together in (64, 16, 4, 1)]
        fits = [one for one in tried if memory is None or one[2].total <= memory]
        least = min((one[2] for one in tried), key=lambda one: one.total)
        if not fits:
            least.check(memory, least.total)
        return fits[0]

    def _plan(self, held: bool, together: int) -> Plan:
        provider = self._provider
        assert provider is not None
        method, model_shape, count = self._fitted.method, provider.head.model_shape, len(self._queries)
        design, tokens, k = method.design(self.rows), batch_tokens(self._queries), min(self._top, self.rows)
        subsets, block = design.subsets, min(BLOCK, self.rows)
        table = self.rows * design.degree * (2 if subsets < 1 << 16 else 4)
        bases = len(self._fitted.bases)
        longest = (
            int(self.store.provenance.get("max_length", 0)) * TEXT_BYTES if self.store.provenance.get("text") else 0
        )
        return (
            provider.memory(tokens)
            + export_parts(count, self.rows)
            + Plan.of(
                layers_part(model_shape, [method.needs(model_shape)], tokens),
                Part(f"{self.name}'s operators", method.memory(model_shape, self.rows).measuring),
                Part("measurements", 24 * count * subsets * bases),
                Part("recovery", recovery_bytes(count, subsets, together, cores())),
                Part("subsets of examples", (held * table + self.rows) * bases),
                Part("weights", 16 * min(count * self.rows, count * subsets) * bases + 24 * block * count),
                Part("results", 6 * heap_bytes(count, k)),
                Part("texts of results", (3 * min(TEXT_CHUNK_ROWS, self.rows) + 2 * RESULT_QUERIES * k) * longest),
                queries_part(self._queries),
            )
        )

    @property
    def query_ids(self) -> list[str]:
        """(Q,) ids, in the file's order."""
        return [query.id for query in self._queries]

    @property
    def queries(self) -> dict[str, str]:
        """Query id → its text, prompt first."""
        return {query.id: query.prompt + query.text for query in self._queries}

    @property
    def notes(self) -> list[str]:
        """What whoever reads the answers should know, once there are some."""
        return [f"{self.name}: {line}" for line in self.trust.notes] if self.trust else []

    @property
    def capabilities(self) -> frozenset[Capability]:
        """None: how long it takes depends on how sparse the answers are, and no rows are stored."""
        return frozenset()

    def forecast(self) -> Forecast:
        """Raise SettingsError: it depends on how sparse the answers are."""
        raise missing(self.name, "forecast")

    def cache(self) -> int:
        """Raise SettingsError: no rows are stored."""
        raise missing(self.name, "cache")

    def attribute(self) -> Results:
        """The best examples of each query."""
        scores, rows = best_examples(self.scores(), len(self._queries), min(self._top, self.rows))
        return self._results(self.query_ids, rows, scores)

    def _results(self, ids: list[str], rows: Array, scores: Array, *, together: bool = False) -> Results:
        """Results with what speaks for them; ties score nothing."""
        answer, trust = self._answered(), self.trust
        assert trust is not None
        tie = abs(scores) <= 2 * (answer.mean_span if together else answer.spans[:, None])  # float32 rounds up
        each = {"explained": trust.explained, "reliability": trust.reliability, "gap": trust.gap}
        if together:
            each = {name: np.full(len(ids), np.nan) for name in each}
        more = {name: np.broadcast_to(value[:, None], rows.shape) for name, value in each.items()}
        return Results(self.name, ids, rows, np.where(tie, np.float32(0), scores), more={"tie": tie, **more})

    def export(self, path: str) -> None:
        """Every example's weight for every query, to a .zarr group that is not there yet, with what speaks for them among its
        attributes; ties differ by next to nothing.
        """
        self._answered()
        assert self.trust is not None
        export_session(self, path, {"trust": self.trust.facts()})

    def value(self) -> ScoreBlocks:
        """(first row, mean weights) of every example, in order; zeros are told apart within a hair of zero."""
        return advancing(self._answered().means(), self._run.counter("value", self.rows))

    def most_valuable(self) -> Results:
        """The best examples for all queries together."""
        scores, rows = best_values(self.value(), min(self._top, self.rows))
        return self._results([TOGETHER], rows, scores, together=True)

    def scores(self) -> ScoreBlocks:
        """(first row, (rows, Q) weights) of every example, in order; zeros are told apart within a hair of zero."""
        return advancing(self._answered().scores(), self._run.counter("scores", self.rows))

    def _answered(self) -> RecoveredWeights:
        """All bases' answers, made once."""
        if self._answer is None:
            bases = [self._solved(base) for base in range(len(self._fitted.bases))]
            each = [base.weights for base in bases]
            self.trust = RecoveryDiagnostics(
                bases[0].membership.subsets, self.rows, tuple(f"{one.solver} at {one.regularization:.2g}" for one in each),
                np.mean([base.reliability for base in bases], 0), np.mean([one.explained for one in each], 0),
                np.max([one.gap for one in each], 0), np.all([one.converged for one in each], 0),
            )  # fmt: skip
            self._answer = RecoveredWeights(bases, self.rows, self._fitted.method.design(self.rows).degree)
        return self._answer

    def _solved(self, base: int) -> BaseWeights:
        """One base model's measurements, and the weights that explain them.

        Raises:
            DataError: a measurement is not finite; the query and the operator are named.
        """
        method = self._fitted.method
        name = f" of base {base + 1}" if len(self._fitted.bases) > 1 else ""
        if base:
            self._provider = None  # before another is loaded
        provider = self._provider = self._provider or self._opened(base)
        queries = self._again(provider, base) if base else self._queries
        self._require_same(queries, base)
        y, reliability = self._measured(
            base, queries, self._run.counter(f"measurements{name}", len(queries), "queries")
        )
        bad = np.argwhere(~np.isfinite(y))
        if len(bad):
            query, operator = bad[0].tolist()
            raise DataError(f"operator {operator} measures no finite number of query {queries[query].id}")
        design = method.design(self.rows, base)
        membership = self._membership(design)
        device = DevicePass(self._cupy, membership) if self._cupy is not None else None
        steps = itertools.count(1)
        weights = recovered(membership, y, recovery_of(method), cores(), together=self._together, device=device,
                            on_progress=lambda what: self._run.report(f"recovery{name}", next(steps), None, what))  # fmt: skip
        centred = y - y.mean(1, keepdims=True)
        unit = np.ones(len(y))
        if len(self._fitted.bases) > 1:
            spread = centred.std(1)
            unit = np.where(spread > 0, spread, 1.0)
        return BaseWeights(membership, centred.T, weights, unit, reliability)

    def _membership(self, design: Design) -> Membership:
        """The design without examples of which nothing counts: they cannot have done anything."""
        column = open_column(self.store, EXAMPLES, "counted")
        silent = np.zeros(self.rows, bool)
        for start in range(0, self.rows, BLOCK):
            stop = min(start + BLOCK, self.rows)
            silent[start:stop] = column.gather(np.arange(start, stop)) == 0
        found: Membership = MaskedMembership(design, silent) if silent.any() else design
        return TableMembership.held(found) if self._held else found

    def _require_same(self, queries: list[Example], base: int) -> None:
        """Raise DataError unless a base's queries are the first's, one for one."""
        if len(queries) != len(self._queries):
            told = f"{len(queries)} queries, {self._files[0]} has {len(self._queries)}"
            raise DataError(f"{self._files[base]} has {told}")
        for one, other in zip(self._queries, queries, strict=True):
            if one.id.removeprefix(one.source) != other.id.removeprefix(other.source):
                raise DataError(f"{self._files[base]}: query {other.id} stands where {self._files[0]} has {one.id}")

    def _again(self, provider: Provider, base: int) -> list[Example]:
        """The queries, as another base model reads them."""
        try:
            return read_queries(provider)
        except InputError as error:
            raise InputError(f"base {self._fitted.bases[base]}: {error}") from None

    def _measured(self, base: int, queries: list[Example], on_progress: Callable[[int], None]) -> tuple[Array, Array]:
        """y (Q, K) float64, and how reliable it is (Q,)."""
        method, operators, provider = self._fitted.method, self._fitted.operators(base), self._provider
        assert provider is not None
        done = 0
        y, reliability = np.zeros((len(queries), method.design(self.rows, base).subsets)), np.zeros(len(queries))
        needs = merge_specs([method.needs(provider.head.model_shape)])
        spec = method.needs(provider.head.model_shape)

        def measure(read: PackedOutputs) -> tuple[Array, Array]:
            declared = DeclaredOutputs(read, spec, "measure")
            with plugin_code(self.name, "measure"):
                answer = method.measure(declared, operators)
            return checked_measurements(self.name, declared, answer, y.shape[1])

        for batch, measurements in outputs(provider, queries, needs, measure, query_batching(queries)):
            y[batch], reliability[batch] = measurements
            done += len(batch)
            on_progress(done)
        return y, reliability
