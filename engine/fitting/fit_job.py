"""`fit` as one call: computes hidden states, then runs an interruptible fit for each base model. Knows no method by name.

fit = prepare_fit(FitJob("store", "stride", {"subsets": 300}))
finished = fit.run()
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from ...store.errors import BrokenMethod, HeadwaterError, SettingsError, StoreBusy, StoreError, StoreFull, StoreMissing
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.json_values import JsonObject
from ...store.locks import OwnerLock
from ...store.reader import open_column
from ...store.state import remove_state, write_state
from ...store.store_record import HIDDEN, hidden_group
from ..ingest.ingest_plan import TEXT_BYTES, TOKEN_BYTES, layers_part
from ..ingest.method_code import fit_memory, plugin_code
from ..ingest.outputs import BATCH_TOKENS
from ..ingest.provider import Provider, RandomAccessProvider
from ..interface.model_view import BATCH_EXAMPLES
from ..interface.registry import distribution_of, load
from ..interface.subset_method import FitSession, HiddenStates, SubsetMethod
from ..models.language_model import ModelChoice
from ..runtime.memory import Part, Plan, show_bytes
from ..runtime.run import SILENT, Run
from .checkpoint import Checkpoint
from .fit_corpus import absolute, base_provider, fingerprints, require_rows, require_source
from .fit_record import (
    RECORD,
    FitRecord,
    fit_digest,
    intact_bases,
    new_record,
    read_record,
    readable_record,
    record_bytes,
    recovery_of,
    require_same_corpus,
    require_same_settings,
    same_fit,
    state_folder,
)
from .stored_states import StoredStates, writing_bytes
from .streamed_states import StreamedStates


@dataclass(frozen=True, slots=True)
class FitJob:
    """Which method to fit to which store."""

    store: str
    method: str
    settings: JsonObject = field(default_factory=dict)
    """Settings that differ from the default, or from those of the existing fit."""
    corpus: Sequence[str] = ()
    """Paths of the corpus's files, if they are needed and have moved."""
    model: ModelChoice = field(default_factory=lambda: ModelChoice(""))
    again: bool = False
    """Whether to replace a fit with other settings or of other examples."""
    commit_seconds: float = 15.0
    """Seconds between checkpoints: a kill loses at most this much work, plus one step."""


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
        design, recovery = method.design(self.rows), recovery_of(method)  # both raise SettingsError
        if not 1 <= round(recovery.held_out * design.subsets) <= design.subsets - 2:
            raise SettingsError(
                f"held_out {recovery.held_out:g} of {design.subsets} subsets must be at least 1 subset and leave at least 2: "
                "change either"
            )
        self._next_provider: Provider | None = None
        self.plan = Plan(())
        if record["done"] < len(record["bases"]):
            self._next_provider = self._provider(record["done"])
            self.plan = self._plan(self._next_provider)
            self.plan.check(budget, self.plan.total)
            for base in range(record["done"] + 1, len(record["bases"])):
                self._provider(base)  # opened only for its errors, before an older fit is replaced

    @property
    def notes(self) -> list[str]:
        """Remarks for the user before the start, one line each."""
        if self._next_provider is None:
            return []
        if self.method.states_from == "forward":
            return [*self.method.notes(self.rows), "hidden states are not stored: the model runs at each step"]
        head, bases = self._next_provider.head, len(self._record["bases"])
        positions = open_column(self.store, EXAMPLES, "counted").gather(np.arange(self.rows)).sum(dtype=np.int64)
        layers = 2 if self.method.layer(head.model_shape) >= 0 else 1
        position_bytes = head.weight.element_size() * head.model_shape.hidden * layers + 8
        size = show_bytes(int(positions) * position_bytes * bases)
        return [f"hidden states will take about {size} on disk, in {self.store.url}", *self.method.notes(self.rows)]

    def _plan(self, provider: Provider) -> Plan:
        """The memory of the fit for a base model: of reading hidden states and of the training."""
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
        """Fit the remaining base models; False if stopped before the end.

        Raises:
            StoreBusy: another process fits it. StoreFull: the disk is full. DataError: a state or an operator is not finite.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(self._locked()):
                if record_bytes(self.store, self.job.method) != self._record_bytes:
                    raise StoreBusy(
                        f"another process fitted {self.job.method} to {self.store.url} meanwhile: run the command again"
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
        record = self._record
        if not record["done"]:
            self._remove_other_fit(record)
        self._write_record(record)
        for base in range(record["done"], len(record["bases"])):
            provider, self._next_provider = self._next_provider or self._provider(base), None
            self._plan(provider).check(self._budget, self.plan.total)
            record["bases"][base]["made"] = fingerprints(provider)
            self._write_record(record)
            if not self._fit_base(base, provider, run):
                return False
            record["done"] = base + 1
            self._write_record(record)
            del provider  # before the next is loaded
        for folder in self.folder.glob("base*/training"):  # also of a run that was killed here
            remove_state(folder)
        return True

    def _remove_other_fit(self, record: FitRecord) -> None:
        """Remove checkpoints and operators of a fit with another record; hidden states are used again if they are the same."""
        stored = readable_record(self.store, self.job.method)
        if stored is None or not same_fit(stored, record):
            for folder in self.folder.glob("base*"):
                for name in ("training", "operators"):
                    remove_state(folder / name)
                if folder.name not in {f"base{base}" for base in range(len(record["bases"]))}:
                    self.store.remove_group(f"{HIDDEN}/{self.job.method}.{folder.name}")
                    shutil.rmtree(folder)

    def _fit_base(self, base: int, provider: Provider, run: Run) -> bool:
        """Fit one base model; False if stopped before the end."""
        folder, bases = self._base_folder(base), len(self._record["bases"])
        name = f" of base {base + 1}" if bases > 1 else ""
        try:
            corpus, digest = self._corpus(base, provider, name, run)
        except _StopRequested:
            return False
        session, checkpoint = self._resumed_session(base, provider, corpus, digest)

        def step(done: int, fidelity: float, drift: float) -> None:
            note = f"steps · loss on own subset {fidelity:.4f}, drift on other rows {drift:.5f}"
            run.report(f"operators{name}", done, session.steps, note)
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
        write_state(folder / "operators", {"of": fit_digest(self._record, base)}, parameters)
        return True

    def _resumed_session(
        self, base: int, provider: Provider, corpus: HiddenStates, digest: str
    ) -> tuple[FitSession, Checkpoint]:
        """A base model's session, at the step of its checkpoint or at step 0. `digest`: identifies the hidden states."""
        checkpoint = Checkpoint(self._base_folder(base) / "training", digest, self.job.commit_seconds)
        design = self.method.design(self.rows, base)

        def start() -> FitSession:
            with plugin_code(self.job.method, "start_fit"):
                return self.method.start_fit(provider.head, corpus, design, base)

        session = start()
        if not checkpoint.resume(session):
            session = start()  # the first one may have loaded a part of a damaged checkpoint
        return session, checkpoint

    def _corpus(self, base: int, provider: Provider, name: str, run: Run) -> tuple[HiddenStates, str]:
        """The hidden states that operators are fitted to, and a digest of what they depend on. `name`: suffix of stage names.

        Raises:
            _StopRequested: the run was asked to stop.
        """
        layer = self.method.layer(provider.head.model_shape)
        states = StoredStates(provider, self.store, hidden_group(self.job.method, base), layer, self.job.commit_seconds)

        def report_weights(rows: int) -> None:
            run.report(f"weights of examples{name}", rows, self.rows, "examples")
            if run.should_stop():
                raise _StopRequested

        corpus: HiddenStates | None
        if self.method.states_from == "cache":
            corpus = states.collected(run.counter(f"hidden states{name}", self.rows), run.should_stop)
        else:
            self.store.remove_group(states.group)
            random_access = cast(RandomAccessProvider, provider)  # see require_source
            lengths = run.counter(f"lengths of examples{name}", self.rows)
            corpus = StreamedStates.of_provider(random_access, layer, lengths, run.should_stop)
        if corpus is None:
            raise _StopRequested
        with plugin_code(self.job.method, "example_weights"):
            return self.method.example_weights(provider.head, corpus, report_weights), states.digest

    def _provider(self, base: int) -> Provider:
        provider = base_provider(self.store, self._record["bases"][base]["base"], self.job.model, self.job.corpus)
        require_rows(self.store, provider)
        return provider

    def _base_folder(self, base: int) -> Path:
        return self.folder / f"base{base}"

    def _write_record(self, record: FitRecord) -> None:
        write_state(self.folder / RECORD, record)


class _StopRequested(BaseException):  # not an Exception: a method's own `except Exception` must not swallow it
    """The run was asked to stop while the corpus of a fit was prepared."""


def prepare_fit(job: FitJob, run: Run = SILENT) -> FitRun:
    """Open the store, load the next base model, and make a plan within the run's budget; nothing is written.

    Raises:
        HeadwaterError: one of these fails.
    """
    store = FeatureStore.open(job.store)
    store.require_writable()
    kind = load(job.method)
    if not issubclass(kind, SubsetMethod):
        raise SettingsError(
            f"method {job.method} has nothing to fit: headwater ingest --method {job.method} stores its rows"
        )
    if EXAMPLES not in store.groups or not store.rows(EXAMPLES) or not store.is_complete(EXAMPLES):
        raise StoreMissing(f"{store.url} does not hold all of its examples yet: run ingest again to continue")
    stored = readable_record(store, job.method) if job.again else read_record(store, job.method)
    try:
        method = kind.from_settings({**(stored["settings"] if stored and not job.again else {}), **job.settings})
    except SettingsError as error:
        raise SettingsError(f"method {job.method}: {error}") from None
    require_source(store, job.method, method)
    record = new_record(store, method, [absolute(base) for base in method.base_models or ("",)])
    if stored and not job.again:
        require_same_corpus(store, job.method, stored)
        require_same_settings(job.method, kind.from_settings(stored["settings"]).settings(), record["settings"])
        record = {**stored, "settings": record["settings"], "done": intact_bases(store, job.method, stored)}
    elif stored and same_fit(stored, record) and stored["done"] < len(record["bases"]):
        record = {**stored, "settings": record["settings"]}  # a run with --again was stopped
    return FitRun(job, store, method, record, run.budget)
