"""Query session of subset methods: measures each query by the fitted operators, and recovers a weight for each example.

A positive weight means that the example lowered the query's loss. Most weights of a sparse answer are zero. Examples of weight
zero rank below positive and above negative weights, in the order of their back-projection Mᵀ(y − ȳ), and are marked as ties.
Knows no method by name.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...store.completeness import require_whole
from ...store.errors import DataError, InputError, SettingsError
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.layout import Array
from ...store.reader import open_column
from ..arrays.scan.forecast import Forecast
from ..arrays.scan.scan_loop import ScanShape, cores
from ..fitting.fit_record import read_fit, recovery_of
from ..ingest.examples import Example
from ..ingest.member_model import MemberModel
from ..ingest.method_code import DeclaredOutputs, checked_measurements, plugin_code
from ..ingest.open_provider import query_provider
from ..ingest.outputs import outputs
from ..ingest.provider import Provider
from ..interface.subset_method import Design
from ..models.batch_outputs import PackedOutputs, merge_specs
from ..models.language_model import pick_device
from ..recovery.gpu_pass import DevicePass, cupy_on
from ..recovery.membership import MaskedMembership, Membership, TableMembership
from ..recovery.recover import RecoveryResources, recovered
from ..results.diagnostics import RecoveryDiagnostics
from ..results.results import Results
from ..runtime.run import SILENT, Run, Stage
from .queries import query_batching, read_queries
from .query_options import QueryOptions
from .query_session import (
    TOGETHER,
    Capability,
    ScoreBlocks,
    best_examples,
    best_values,
    export_session,
    missing,
    with_progress,
)
from .recovered_weights import BLOCK, BaseWeights, RecoveredWeights
from .recovery_plan import RecoveryTask


class RecoveredSession:
    """A :class:`QuerySession` of a subset method that was fitted to the store."""

    def __init__(self, store: FeatureStore, name: str, queries: str, options: QueryOptions, run: Run = SILENT) -> None:
        """Read the queries, make the memory plan.

        Raises:
            StoreMissing: there is no complete fit. StoreMismatch: the fit is of other examples, or the model differs.
            BudgetError: the plan exceeds the budget.
        """  # fmt: skip
        self.store, self.name, self._options, self._top, self._run = store, name, options, options.top, run
        self._unfinished = require_whole(store, partial=options.search.partial)
        self._fitted = read_fit(store, name)
        self.rows = self._fitted.rows
        self._files = self._query_files(queries)
        self._provider: Provider | None = self._opened(0)
        self._reading_notes = self._provider.notes
        self._queries = read_queries(self._provider)
        self.shape = ScanShape(BLOCK, 1)
        task = RecoveryTask(name, self._fitted, store, self._queries, options)
        self._recovery = task.planned(self._provider, run.budget)
        self.plan, self.parts = self._recovery.memory, self._recovery.parts
        device = options.model.device
        self._device = pick_device(device).index or 0 if device.startswith("cuda") else None
        self._cupy = cupy_on(self._device) if self._device is not None else None
        self._weights: RecoveredWeights | None = None
        self.diagnostics: RecoveryDiagnostics | None = None

    def _query_files(self, queries: str) -> list[str]:
        """The query file of each base model: one file of texts for all, or one file of arrays for each, separated by commas."""
        bases = len(self._fitted.bases)
        if self.store.provenance["kind"] != "arrays":
            return [queries] * bases
        files = queries.split(",") if bases > 1 else [queries]
        if len(files) != bases:
            raise SettingsError(
                f"{self.name} was fitted to {bases} files of arrays: give --queries {bases} files, separated by commas"
            )
        return files

    def _opened(self, base: int) -> Provider:
        path = self._fitted.bases[base]
        choice = replace(self._options.model, path=path) if path else self._options.model
        return query_provider(
            self._files[base],
            self.store,
            choice,
            self._options.text,
            MemberModel(path, self._fitted.fingerprints[base], self.name) if path else None,
        )

    @property
    def query_ids(self) -> list[str]:
        """(Q,) ids, in the file's order."""
        return [query.id for query in self._queries]

    @property
    def queries(self) -> dict[str, str]:
        """Query id → prompt and text."""
        return {query.id: query.prompt + query.text for query in self._queries}

    @property
    def notes(self) -> list[str]:
        """How the queries were read, how many examples of how many there are if some are missing; and remarks on the results,
        once there are results.
        """
        diagnostics = [f"{self.name}: {line}" for line in self.diagnostics.notes] if self.diagnostics else []
        return [*self._reading_notes, *self._unfinished, *diagnostics]

    @property
    def capabilities(self) -> frozenset[Capability]:
        """No capabilities: there are no stored rows, and the time depends on how sparse the weights are."""
        return frozenset()

    def forecast(self) -> Forecast:
        """Raise SettingsError: the time depends on how sparse the weights are."""
        raise missing(self.name, "forecast")

    def cache(self) -> int:
        """Raise SettingsError: no rows are stored."""
        raise missing(self.name, "cache")

    def attribute(self) -> Results:
        """The best examples of each query."""
        scores, rows = best_examples(self.scores(), len(self._queries), min(self._top, self.rows))
        return self._results(self.query_ids, rows, scores)

    def _results(self, ids: list[str], rows: Array, scores: Array, *, together: bool = False) -> Results:
        """Results with their diagnostics; ties have score 0."""
        weights, diagnostics = self._recovered(), self.diagnostics
        assert diagnostics is not None
        tie = abs(scores) <= 2 * (weights.mean_span if together else weights.spans[:, None])  # 2: float32 may round up
        per_query = {name: getattr(diagnostics, name) for name in ("explained", "reliability", "gap")}
        if together:
            per_query = {name: np.full(len(ids), np.nan) for name in per_query}
        columns = {name: np.broadcast_to(value[:, None], rows.shape) for name, value in per_query.items()}
        scores = np.where(tie, np.float32(0), scores)
        return Results(self.name, ids, rows, scores, further_columns={"tie": tie, **columns})

    def export(self, path: str) -> None:
        """Write the weights of all examples for all queries to a new .zarr group, with the diagnostics among its attributes."""
        self._recovered()
        assert self.diagnostics is not None
        export_session(self, path, {"diagnostics": self.diagnostics.facts()})

    def value(self) -> ScoreBlocks:
        """(first row, (rows,) mean weights), over all examples in order; zeros are replaced by scores of ties."""
        return with_progress(self._recovered().means(), self._run.stage("value", self.rows))

    def most_valuable(self) -> Results:
        """The best examples for all queries together."""
        scores, rows = best_values(self.value(), min(self._top, self.rows))
        return self._results([TOGETHER], rows, scores, together=True)

    def scores(self) -> ScoreBlocks:
        """(first row, (rows, Q) weights), over all examples in order; zeros are replaced by scores of ties."""
        return with_progress(self._recovered().scores(), self._run.stage("scores", self.rows))

    def _recovered(self) -> RecoveredWeights:
        """The weights of all base models, computed at the first call."""
        if self._weights is None:
            bases = [self._base_weights(base) for base in range(len(self._fitted.bases))]
            self.diagnostics = self._diagnosed(bases)
            self._weights = RecoveredWeights(bases, self.rows, self._fitted.method.design(self.rows).degree)
        return self._weights

    def _diagnosed(self, bases: list[BaseWeights]) -> RecoveryDiagnostics:
        """Diagnostics over all base models."""
        results = [base.weights for base in bases]
        return RecoveryDiagnostics(
            bases[0].membership.subsets, self.rows,
            tuple(f"{result.solver} at {result.regularization:.2g}" for result in results),
            np.mean([base.reliability for base in bases], 0), np.mean([result.explained for result in results], 0),
            np.max([result.gap for result in results], 0), np.all([result.converged for result in results], 0),
        )  # fmt: skip

    def _base_weights(self, base: int) -> BaseWeights:
        """One base model's measurements, and the weights recovered from them.

        Raises:
            DataError: a measurement is not finite; the query and the operator are named.
        """
        method = self._fitted.method
        name = f" of base {base + 1}" if len(self._fitted.bases) > 1 else ""
        if base:
            self._provider = None  # frees the model before another is loaded
        provider = self._provider = self._provider or self._opened(base)
        queries = self._base_queries(provider, base) if base else self._queries
        self._require_same(queries, base)
        y, reliability = self._measured(base, queries, self._run.stage(f"measurements{name}", len(queries), "queries"))
        bad = np.argwhere(~np.isfinite(y))
        if len(bad):
            query, operator = bad[0].tolist()
            raise DataError(f"the measurement of query {queries[query].id} by operator {operator} is not finite")
        design = method.design(self.rows, base)
        membership = self._membership(design)
        device = DevicePass(self._cupy, membership) if self._cupy is not None else None
        resources = RecoveryResources(cores(), self._recovery.batch, device)
        stage = self._run.stage(f"recovery{name}", None)
        weights = recovered(membership, y, recovery_of(method), resources, stage)
        centred = y - y.mean(1, keepdims=True)
        unit = np.ones(len(y))
        if len(self._fitted.bases) > 1:
            spread = centred.std(1)
            unit = np.where(spread > 0, spread, 1.0)
        return BaseWeights(membership, centred.T, weights, unit, reliability)

    def _membership(self, design: Design) -> Membership:
        """The design without examples that have no target position: without a loss, training on them changes nothing."""
        column = open_column(self.store, EXAMPLES, "counted")
        no_targets = np.zeros(self.rows, bool)
        for start in range(0, self.rows, BLOCK):
            stop = min(start + BLOCK, self.rows)
            no_targets[start:stop] = column.gather(np.arange(start, stop)) == 0
        membership: Membership = MaskedMembership(design, no_targets) if no_targets.any() else design
        return TableMembership.of_design(membership) if self._recovery.in_memory else membership

    def _require_same(self, queries: list[Example], base: int) -> None:
        """Raise DataError unless a base model's queries are those of the first, in the same order."""
        if len(queries) != len(self._queries):
            counts = f"{len(queries)} queries, but {self._files[0]} has {len(self._queries)}"
            raise DataError(f"{self._files[base]} has {counts}")
        for first, query in zip(self._queries, queries, strict=True):
            if first.id.removeprefix(first.source) != query.id.removeprefix(query.source):
                raise DataError(f"{self._files[base]} has query {query.id} where {self._files[0]} has {first.id}")

    def _base_queries(self, provider: Provider, base: int) -> list[Example]:
        """The queries as another base model reads them."""
        try:
            return read_queries(provider)
        except InputError as error:
            raise InputError(f"base model {self._fitted.bases[base]}: {error}") from None

    def _measured(self, base: int, queries: list[Example], stage: Stage) -> tuple[Array, Array]:
        """y (Q, K) float64, and its reliability (Q,): the rank correlation between two fits."""
        method, operators, provider = self._fitted.method, self._fitted.operators(base), self._provider
        assert provider is not None
        done = 0
        y, reliability = np.zeros((len(queries), method.design(self.rows, base).subsets)), np.zeros(len(queries))
        needs = merge_specs([method.needs(provider.head.model_shape)])
        spec = method.needs(provider.head.model_shape)

        def measure(batch_outputs: PackedOutputs) -> tuple[Array, Array]:
            declared = DeclaredOutputs(batch_outputs, spec, "measure")
            with plugin_code(self.name, "measure"):
                measurements = method.measure(declared, operators)
            return checked_measurements(self.name, declared, measurements, y.shape[1])

        for batch, measurements in outputs(provider, queries, needs, measure, query_batching(queries)):
            y[batch], reliability[batch] = measurements
            done += len(batch)
            stage.report(done)
        return y, reliability
