"""`fit` as one call: computes hidden states, then runs an interruptible fit. Knows no method by name.

fit = prepare_fit(FitJob("store", "stride@early", {"subsets": 300}, base="early-checkpoint"))
finished = fit.run()
"""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import cast

import numpy as np

from ...store.errors import (
    BrokenMethod,
    HeadwaterError,
    SettingsError,
    StoreBusy,
    StoreError,
    StoreFull,
)
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.locks import OwnerLock, locked
from ...store.reader import open_column
from ...store.state import remove_state, write_state
from ...store.store_record import FITTED, HIDDEN, hidden_group
from ..ingest.ingest_plan import TEXT_BYTES, TOKEN_BYTES, layers_part
from ..ingest.member_model import fingerprints_of
from ..ingest.method_code import fit_memory, plugin_code
from ..ingest.outputs import BATCH_TOKENS
from ..ingest.provider import Provider, RandomAccessProvider
from ..interface.model_view import BATCH_EXAMPLES
from ..interface.registry import distribution_of
from ..interface.subset_method import FitSession, HiddenStates, SubsetMethod
from ..runtime.memory import Part, Plan, show_bytes
from ..runtime.run import SILENT, Run
from .checkpoint import Checkpoint
from .fit_corpus import base_provider, require_rows
from .fit_record import (
    RECORD,
    FitRecord,
    fit_digests,
    next_draw,
    readable_record,
    record_bytes,
    recovery_of,
    same_fit,
    state_folder,
)
from .fit_request import FitJob, requested
from .stored_states import StoredStates, writing_bytes
from .streamed_states import StreamedStates


class FitRun:
    """A fit that is ready to start; nothing is written yet."""

    def __init__(
        self, job: FitJob, store: FeatureStore, method: SubsetMethod, record: FitRecord, budget: int | None = None
    ) -> None:
        """`record`: that of the existing fit, or a new one. See :func:`prepare_fit`."""
        self.job, self.store, self.method, self._record, self._budget = job, store, method, record, budget
        self.folder = state_folder(store, job.method)
        self._record_bytes = record_bytes(store, job.method)
        self.rows = store.rows(EXAMPLES)
        design, recovery = method.design(self.rows, record["draw"]), recovery_of(method)  # both raise SettingsError
        if not 1 <= round(recovery.held_out * design.subsets) <= design.subsets - 2:
            raise SettingsError(
                f"held_out {recovery.held_out:g} of {design.subsets} subsets must be at least 1 subset and leave at least 2: "
                "change either"
            )
        self._provider: Provider | None = None
        self.plan = Plan(())
        if not record["done"]:
            self._provider = self._opened()
            self.plan = self._plan(self._provider)
            self.plan.check(budget, self.plan.total)

    @property
    def notes(self) -> list[str]:
        """Remarks for the user before the start, one line each."""
        if self._provider is None:
            return []
        if self.method.states_from == "forward":
            return [*self.method.notes(self.rows), "hidden states are not stored: the model runs at each step"]
        head = self._provider.head
        positions = open_column(self.store, EXAMPLES, "counted").gather(np.arange(self.rows)).sum(dtype=np.int64)
        layers = 2 if self.method.layer(head.model_shape) >= 0 else 1
        position_bytes = head.weight.element_size() * head.model_shape.hidden * layers + 8
        size = show_bytes(int(positions) * position_bytes)
        return [f"hidden states will take about {size} on disk, in {self.store.url}", *self.method.notes(self.rows)]

    def _plan(self, provider: Provider) -> Plan:
        """The memory of the fit: of reading hidden states and of the training."""
        tokens, model_shape = max(BATCH_TOKENS, provider.longest()), provider.head.model_shape
        inner, stored = self.method.layer(model_shape) >= 0, self.method.states_from == "cache"
        operators = fit_memory(self.job.method, self.method, model_shape, self.rows).fitting
        written = writing_bytes(model_shape, provider.head.weight.dtype, inner=inner) if stored else 0
        return provider.memory(tokens) + Plan.of(
            layers_part(model_shape, [self.method.needs(model_shape)], tokens),
            Part("hidden states being written", written),
            Part("texts", 8 * BATCH_EXAMPLES * provider.longest() * (TEXT_BYTES + TOKEN_BYTES)),
            Part(f"{self.job.method}'s operators in training", operators),
            Part("positions of examples among hidden states", (16 if stored else 96) * self.rows),
        )

    def run(self, run: Run = SILENT) -> bool:
        """Fit what is not done; False if stopped before the end.

        Raises:
            StoreBusy: another process fits it. StoreFull: the disk is full. DataError: a state or an operator is not finite.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(self._locked()):
                if record_bytes(self.store, self.job.method) != self._record_bytes:
                    raise StoreBusy(
                        f"another process fitted {self.job.method} to {self.store.url} meanwhile",
                        hint="run the command again",
                    )
                for unfinished in self.folder.rglob(".*.new"):
                    unfinished.unlink()  # a killed run left it
                return self._run(run)
        except HeadwaterError:
            raise  # some are also OSErrors, which the next clause would catch
        except OSError as error:
            kind = StoreFull if error.errno in (27, 28, 122) else StoreError  # EFBIG, ENOSPC, EDQUOT
            raise kind(f"{self.folder} cannot be written: {error.strerror or error}") from None

    def _locked(self) -> OwnerLock:
        return OwnerLock(self.folder, f"fits {self.job.method} to {self.store.url}")

    def _run(self, run: Run) -> bool:
        record, provider = self._record, self._provider
        if provider is None:
            self._write_record(record)  # settings of the recovery may have changed
            return True
        self._remove_other_fit(record)
        record["made"] = fingerprints_of(provider.provenance())
        with locked(self.store.path):  # so that two members that begin together have different draws
            if readable_record(self.store, self.job.method) is None:
                record["draw"] = next_draw(self.store, self.job.method, record["settings"])
            self._write_record(record)
        if not self._fit(provider, run):
            return False
        record["done"] = True
        self._write_record(record)
        remove_state(self._fitted / "training")  # also of a run that was killed here
        return True

    def _remove_other_fit(self, record: FitRecord) -> None:
        """Remove checkpoints and operators of a fit with another record; hidden states are used again if they are the same."""
        stored = readable_record(self.store, self.job.method)
        if stored is None or not same_fit(stored, record):
            remove_state(self.folder / RECORD)
            for folder in self.folder.glob("base*"):
                for name in ("training", "operators"):
                    remove_state(folder / name)
                if folder != self._fitted:  # of several base models in one fit, as earlier versions made it
                    self.store.remove_group(f"{HIDDEN}/{self.job.method}.{folder.name}")
                    shutil.rmtree(folder)

    def _fit(self, provider: Provider, run: Run) -> bool:
        """Fit to the hidden states; False if stopped before the end."""
        try:
            corpus, digest = self._corpus(provider, run)
        except _StopRequested:
            return False
        session, checkpoint = self._resumed_session(provider, corpus, digest)

        def step(done: int, fidelity: float, drift: float) -> None:
            note = f"steps · loss on own subset {fidelity:.4f}, drift on other rows {drift:.5f}"
            run.report("operators", done, session.steps, note)
            checkpoint.write(session, due=True)

        with plugin_code(self.job.method, "run of the fit"):
            finished = session.run(step, run.should_stop)
        if not isinstance(finished, bool):
            raise BrokenMethod(
                f"method {self.job.method} of {distribution_of(self.job.method)}: run of the fit gives {finished!r}; "
                "it must give True at the end of the fit, and False if it was stopped"
            )
        if not finished:
            checkpoint.write(session)
            return False
        with plugin_code(self.job.method, "parameters of the fit"):
            parameters = session.parameters()
        write_state(self._fitted / "operators", {"of": fit_digests(self._record)[0]}, parameters)
        return True

    def _resumed_session(self, provider: Provider, corpus: HiddenStates, digest: str) -> tuple[FitSession, Checkpoint]:
        """The session, at the step of its checkpoint or at step 0. `digest`: identifies the hidden states."""
        checkpoint, draw = Checkpoint(self._fitted / "training", digest, self.job.commit_seconds), self._record["draw"]
        design = self.method.design(self.rows, draw)

        def start() -> FitSession:
            with plugin_code(self.job.method, "start_fit"):
                return self.method.start_fit(provider.head, corpus, design, draw)

        session = start()
        if not checkpoint.resume(session):
            session = start()  # the first one may have loaded a part of a damaged checkpoint
        return session, checkpoint

    def _corpus(self, provider: Provider, run: Run) -> tuple[HiddenStates, str]:
        """The hidden states that operators are fitted to, and a digest of what they depend on.

        Raises:
            _StopRequested: the run was asked to stop.
        """
        layer = self.method.layer(provider.head.model_shape)
        states = StoredStates(provider, self.store, hidden_group(self.job.method), layer, self.job.commit_seconds)

        def report_weights(rows: int) -> None:
            run.report("weights of examples", rows, self.rows, "examples")
            if run.should_stop():
                raise _StopRequested

        corpus: HiddenStates | None
        if self.method.states_from == "cache":
            corpus = states.collected(run.counter("hidden states", self.rows), run.should_stop)
        else:
            self.store.remove_group(states.group)
            random_access = cast(RandomAccessProvider, provider)  # see require_source
            lengths = run.counter("lengths of examples", self.rows)
            corpus = StreamedStates.of_provider(random_access, layer, lengths, run.should_stop)
        if corpus is None:
            raise _StopRequested
        with plugin_code(self.job.method, "example_weights"):
            return self.method.example_weights(provider.head, corpus, report_weights), states.digest

    def _opened(self) -> Provider:
        """The examples, read by the model of the fit."""
        provider = base_provider(self.store, self._record["base"], self.job.model, self.job.corpus)
        require_rows(self.store, provider)
        return provider

    @property
    def _fitted(self) -> Path:
        return self.folder / FITTED

    def _write_record(self, record: FitRecord) -> None:
        write_state(self.folder / RECORD, record)


class _StopRequested(BaseException):  # not an Exception: a method's own `except Exception` must not swallow it
    """The run was asked to stop while the corpus of a fit was prepared."""


def prepare_fit(job: FitJob, run: Run = SILENT) -> FitRun:
    """Open the store, load the model, and make a plan within the run's budget; nothing is written.

    Raises:
        HeadwaterError: one of these fails.
    """
    store = FeatureStore.open(job.store)
    store.require_writable()
    method, record = requested(store, job)
    return FitRun(job, store, method, record, run.budget)
