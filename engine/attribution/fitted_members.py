"""Members of a subset method that were fitted to a store: each measures the queries by its operators, and recovers a weight of
each example. Knows no method by name and no rule of combination.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...store.completeness import require_whole
from ...store.errors import DataError, SettingsError, StoreMissing
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.json_values import JsonFields
from ...store.layout import Array
from ...store.reader import open_column
from ..arrays.scan.scan_loop import ScanShape, cores
from ..arrays.scan.stored_rows import first_plan_within_budget
from ..data.record_source import Data
from ..fitting.fit_record import StoredFit, fits_of, read_fit, read_record, recovery_of
from ..ingest.method_code import DeclaredOutputs, checked_measurements, plugin_code
from ..ingest.outputs import outputs
from ..interface.subset_method import Design
from ..models.batch_outputs import PackedOutputs, merge_specs
from ..models.language_model import pick_device
from ..recovery.gpu_pass import DevicePass, cupy_on
from ..recovery.membership import MaskedMembership, Membership, TableMembership
from ..recovery.recover import RecoveryResources, recovered
from ..results.diagnostics import RecoveryDiagnostics
from ..results.example_table import PartSize
from ..results.table_plan import PartsPlan, with_output
from ..runtime.memory import Plan
from ..runtime.run import Run, Stage
from .member_queries import MemberQueries, options_of, release_others
from .members import hint, members_of, same_but_seed
from .queries import query_batching
from .query_options import QueryOptions
from .query_session import Capability, MemberBlocks
from .recovered_weights import BLOCK, MemberWeights, RecoveredWeights
from .recovery_plan import MemberRecovery, RecoveryWay, recovery_plans

DIAGNOSTICS = ("explained", "reliability", "gap")
"""Of a query, in results: fields of `RecoveryDiagnostics`."""


class FittedMembers:
    """The weights of one fitted member or of several for the same queries."""

    capabilities: frozenset[Capability] = frozenset()
    """No capabilities: there are no stored rows, and the time depends on how sparse the weights are."""
    further_columns: tuple[str, ...] = ("tie", *DIAGNOSTICS)
    scale = "the standard deviation of the query's measurements"
    block_rows = BLOCK

    def __init__(
        self, store: FeatureStore, names: Sequence[str], queries: Data, options: QueryOptions, run: Run
    ) -> None:
        """Read the queries, by one model after the other.

        Raises:
            StoreMissing: there is no complete fit. StoreMismatch: a fit is of other examples, or a model differs.
            DataError: another model reads other queries.
        """  # fmt: skip
        self.store, self.names, self._run, self._top = store, list(names), run, options.top
        self._unfinished = require_whole(store, partial=options.search.partial)
        self._fits = [_fit_of(store, name) for name in names]
        self.rows = self._fits[0].rows
        self.alike = same_but_seed((fit.method.settings(), fit.model.fingerprints) for fit in self._fits)
        self._readers = list[MemberQueries]()
        sizes = list[MemberRecovery]()
        for fit, data in zip(self._fits, self._query_data(queries), strict=True):
            reader = self._reader(fit, data, options)
            release_others(self._readers, reader)
            self._readers.append(reader)
            sizes.append(MemberRecovery.of(fit, reader.provider(), reader.examples))
        self._sizes, self._way = sizes, RecoveryWay(True, 1)
        device = options.model.device
        self._device = pick_device(device).index or 0 if device.startswith("cuda") else None
        self._cupy = cupy_on(self._device) if self._device is not None else None
        self._weights = list[MemberWeights]()
        self.diagnostics: RecoveryDiagnostics | None = None

    def _query_data(self, queries: Data) -> list[Data]:
        """The query file of each member: one file for all, or one file of arrays for each, separated by commas.

        Raises:
            SettingsError: members were fitted to several files of arrays, and `queries` are not one file for each. That the heads
            in these files are equal says nothing of their hidden states.
        """
        count = len(self._fits)
        several = isinstance(queries, str) and self.store.provenance["kind"] == "arrays" and count > 1
        files: list[Data] = list(queries.split(",")) if isinstance(queries, str) and several else [queries]
        bases = {fit.model.path for fit in self._fits}
        if len(files) == 1 and (len(bases) == 1 or self.store.provenance["kind"] == "text"):
            return files * count
        if len(files) != count:
            raise SettingsError(
                f"{', '.join(self.names)} were fitted to {len(bases)} files of arrays",
                hint=f"give --queries {count} files, one for each in this order, separated by commas",
            )
        return files

    def _reader(self, fit: StoredFit, data: Data, options: QueryOptions) -> MemberQueries:
        """The queries of a member; members of one model read them once, and of several models one is in memory."""
        for fit_before, reader in zip(self._fits, self._readers, strict=False):
            if fit_before.model.fingerprints == fit.model.fingerprints and reader.data == data:
                return reader
        release_others(self._readers)
        own_options = options if len(self._fits) == 1 else options_of(fit.model, options)
        reader = MemberQueries(data, self.store, fit.model, own_options)
        if self._readers:
            self._readers[0].require_same(reader)
        return reader

    @property
    def queries(self) -> MemberQueries:
        """The queries, as the first member's model reads them."""
        return self._readers[0]

    @property
    def shape(self) -> ScanShape:
        """Rows per block; one worker."""
        return ScanShape(BLOCK, 1)

    @property
    def notes(self) -> list[str]:
        """How the queries were read, and how many examples of how many there are if some are missing; and remarks on the results,
        once there are results.
        """
        reading = dict.fromkeys(line for reader in self._readers for line in reader.notes)
        name = ", ".join(self.names)
        diagnostics = [f"{name}: {line}" for line in self.diagnostics.notes] if self.diagnostics else []
        return [*reading, *self._unfinished, *diagnostics]

    def planned(self, further: Plan, output: PartsPlan) -> tuple[Plan, PartSize]:
        """The first plan that fits the budget together with `further` and with the output, and the size of its parts.

        Raises:
            BudgetError: none fits.
        """
        plans = with_output(recovery_plans(self._sizes, self.queries.examples, self._top), output)
        plan, (self._way, parts) = first_plan_within_budget(plans, further, self._run.budget)
        return plan, parts

    def cache(self) -> int:
        """0: no rows are stored."""
        return 0

    def weights(self, *, scaled: bool) -> RecoveredWeights:
        """The weights of all members, recovered at the first call. `scaled`: whether they are divided by `scale`."""
        if not self._weights:
            self._weights = [
                self._member_weights(fit, reader) for fit, reader in zip(self._fits, self._readers, strict=True)
            ]
            self.diagnostics = _diagnosed(self._weights, self.rows)
        weights = [member.scaled() for member in self._weights] if scaled else self._weights
        return RecoveredWeights(weights, self.rows)

    def blocks(self, *, scaled: bool) -> MemberBlocks:
        """(first row, (members, rows, Q) float32 weights), over all examples in order; zeros are replaced by scores of ties."""
        stage = self._run.stage("scores", self.rows)
        for first, weights in self.weights(scaled=scaled).blocks():
            yield first, weights
            stage.report(first + weights.shape[1])

    def values(self, *, scaled: bool) -> MemberBlocks:
        """(first row, (members, rows) float64 mean weights over queries), over all examples in order."""
        stage = self._run.stage("value", self.rows)
        for first, means in self.weights(scaled=scaled).values():
            yield first, means
            stage.report(first + means.shape[1])

    def _member_weights(self, fit: StoredFit, reader: MemberQueries) -> MemberWeights:
        """One member's measurements, and the weights recovered from them.

        Raises:
            DataError: a measurement is not finite; the query and the operator are named.
        """
        release_others(self._readers, reader)
        name = f" of {fit.name}" if len(self._fits) > 1 else ""
        y, reliability = self._measured(fit, reader, self._run.stage(f"measurements{name}", len(reader.ids), "queries"))
        bad = np.argwhere(~np.isfinite(y))
        if len(bad):
            query, operator = bad[0].tolist()
            raise DataError(f"the measurement of query {reader.ids[query]} by operator {operator} is not finite")
        design = fit.design()
        membership = self._membership(design)
        device = DevicePass(self._cupy, membership) if self._cupy is not None else None
        resources = RecoveryResources(cores(), self._way.batch, device)
        weights = recovered(membership, y, recovery_of(fit.method), resources, self._run.stage(f"recovery{name}", None))
        centred = y - y.mean(1, keepdims=True)
        return MemberWeights(membership, design.degree, centred.T, weights, np.ones(len(y)), reliability)

    def _membership(self, design: Design) -> Membership:
        """The design without examples that have no target position: without a loss, training on them changes nothing."""
        column = open_column(self.store, EXAMPLES, "counted")
        no_targets = np.zeros(self.rows, bool)
        for start in range(0, self.rows, BLOCK):
            stop = min(start + BLOCK, self.rows)
            no_targets[start:stop] = column.gather(np.arange(start, stop)) == 0
        membership: Membership = MaskedMembership(design, no_targets) if no_targets.any() else design
        return TableMembership.of_design(membership) if self._way.in_memory else membership

    def _measured(self, fit: StoredFit, reader: MemberQueries, stage: Stage) -> tuple[Array, Array]:
        """y (Q, K) float64, and its reliability (Q,): the rank correlation between two fits."""
        method, operators, provider, queries = fit.method, fit.operators(), reader.provider(), reader.examples
        done = 0
        y, reliability = np.zeros((len(queries), fit.design().subsets)), np.zeros(len(queries))
        spec = method.needs(provider.head.model_shape)

        def measure(batch_outputs: PackedOutputs) -> tuple[Array, Array]:
            declared = DeclaredOutputs(batch_outputs, spec, "measure")
            with plugin_code(fit.name, "measure"):
                measurements = method.measure(declared, operators)
            return checked_measurements(fit.name, declared, measurements, y.shape[1])

        for batch, measurements in outputs(provider, queries, merge_specs([spec]), measure, query_batching(queries)):
            y[batch], reliability[batch] = measurements
            done += len(batch)
            stage.report(done)
        return y, reliability

    def further(self, scores: Array, *, scaled: bool, together: bool) -> dict[str, Array]:
        """Further columns of results, from the means over members (Q, k): whether they are ties, and diagnostics of their query;
        these are NaN for all queries together.
        """
        weights, diagnostics = self.weights(scaled=scaled), self.diagnostics
        span = np.array([weights.mean_span]) if together else weights.spans
        assert diagnostics is not None  # the weights are recovered
        per_query = {name: getattr(diagnostics, name) for name in DIAGNOSTICS}
        if together:
            per_query = {name: np.full(len(scores), np.nan) for name in per_query}
        columns = {name: np.broadcast_to(value[:, None], scores.shape) for name, value in per_query.items()}
        return {"tie": abs(scores) <= 2 * span[:, None], **columns}  # 2: float32 may round up

    def facts(self) -> JsonFields:
        """The diagnostics, for an export."""
        self.weights(scaled=False)
        assert self.diagnostics is not None
        return {"diagnostics": self.diagnostics.facts()}


def _fit_of(store: FeatureStore, name: str) -> StoredFit:
    """A finished fit; see :func:`read_fit`. If there are only members of the method, the error lists them."""
    members = members_of(list(fits_of(store)), name)
    if "@" not in name and members and read_record(store, name) is None:
        raise StoreMissing(f"{store.url} holds no fit of {name}{hint(members)}")
    return read_fit(store, name)


def _diagnosed(members: Sequence[MemberWeights], rows: int) -> RecoveryDiagnostics:
    """Diagnostics over all members."""
    results = [member.weights for member in members]
    return RecoveryDiagnostics(
        members[0].membership.subsets, rows,
        tuple(f"{result.solver} at {result.regularization:.2g}" for result in results),
        np.mean([member.reliability for member in members], 0), np.mean([result.explained for result in results], 0),
        np.max([result.gap for result in results], 0), np.all([result.converged for result in results], 0),
    )  # fmt: skip
