"""`fit` as one call: hidden states once, then an interruptible training for each base model. Knows no method by name.

fit = prepare_fit(FitJob("store", "stride", {"subsets": 300}))
finished = fit.run()
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...store.errors import HeadwaterError, SettingsError, StoreBusy, StoreError, StoreFull, StoreMissing
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.files import OwnerLock
from ...store.manifest import HIDDEN, hidden_group
from ...store.reader import open_column
from ...store.state import remove_state, write_state
from ..ingest.ingest_plan import TEXT_BYTES, TOKEN_BYTES, layers_part
from ..ingest.outputs import BATCH_TOKENS
from ..ingest.provider import Provider, RandomAccessProvider
from ..interface.model_view import BATCH_EXAMPLES
from ..interface.registry import load
from ..interface.subset_method import HiddenStates, SubsetMethod
from ..models.language_model import ModelChoice
from ..runtime.memory import Part, Plan, show_bytes
from ..runtime.run import SILENT, Run
from .checkpoint import Checkpoint
from .fit_corpus import absolute, base_provider, made_of, require_rows, require_source
from .fit_record import (
    RECORD,
    corpus_of,
    fit_digest,
    held_record,
    read_record,
    record_bytes,
    recovery_of,
    refuse_other,
    refuse_settings,
    same_fit,
    state_folder,
    whole_operators,
)
from .stored_states import StoredStates, writing_bytes
from .streamed_states import StreamedStates


@dataclass(frozen=True, slots=True)
class FitJob:
    """What to fit to which store."""

    store: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Those that are not the default, or not those of the fit that is there."""
    corpus: Sequence[str] = ()
    """Where the corpus's files are now, if they are needed and have moved."""
    model: ModelChoice = field(default_factory=lambda: ModelChoice(""))
    again: bool = False
    """Begin anew where there is a fit with other settings or of other examples."""
    commit_seconds: float = 15.0
    """A kill loses at most this much work, plus one step."""


class FitRun:
    """A fit that only needs to be started; nothing is written yet."""

    def __init__(
        self, job: FitJob, store: FeatureStore, method: SubsetMethod, record: dict[str, Any], budget: int | None = None
    ) -> None:
        """`record`: of the fit that is there, or of a new one. See :func:`prepare_fit`."""
        self.job, self.store, self.method, self._record, self._budget = job, store, method, record, budget
        self.folder = state_folder(store, job.method)
        self._seen = record_bytes(store, job.method)
        self.rows = store.rows(EXAMPLES)
        design, recovery = method.design(self.rows), recovery_of(method)  # both refuse what cannot be
        if not 1 <= round(recovery.held_out * design.subsets) <= design.subsets - 2:
            raise SettingsError(
                f"{design.subsets} operators are too few to hold out {recovery.held_out:.0%}: more subsets"
            )
        self._next: Provider | None = None
        self.plan = Plan(())
        if record["done"] < len(record["bases"]):
            self._next = self._provider(record["done"])
            self.plan = self._planned(self._next)
            self.plan.check(budget, self.plan.total)
            for base in range(record["done"] + 1, len(record["bases"])):
                self._provider(base)  # before an older fit is given up for this one

    @property
    def notes(self) -> list[str]:
        """What whoever starts it should know: a line each."""
        if self._next is None:
            return []
        if self.method.states_from == "forward":
            return [*self.method.notes(self.rows), "hidden states are not kept: the model runs at every step"]
        model_shape, bases = self._next.head.model_shape, len(self._record["bases"])
        counted = open_column(self.store, EXAMPLES, "counted").gather(np.arange(self.rows)).sum(dtype=np.int64)
        width = (
            self._next.head.weight.element_size()
            * model_shape.hidden
            * (2 if self.method.layer(model_shape) >= 0 else 1)
            + 8
        )
        told = f"hidden states take some {show_bytes(int(counted) * width * bases)} in {self.store.url}"
        return [told, *self.method.notes(self.rows)]

    def _planned(self, provider: Provider) -> Plan:
        """What a base model's fit holds: reading first, training after it."""
        tokens, model_shape = max(BATCH_TOKENS, provider.longest()), provider.head.model_shape
        inner, stored = self.method.layer(model_shape) >= 0, self.method.states_from == "cache"
        written = writing_bytes(model_shape, provider.head.weight.dtype, inner=inner) if stored else 0
        return provider.memory(tokens) + Plan.of(
            layers_part(model_shape, [self.method.needs(model_shape)], tokens),
            Part("hidden states being written", written),
            Part("texts", 8 * BATCH_EXAMPLES * provider.longest() * (TEXT_BYTES + TOKEN_BYTES)),
            Part(f"{self.job.method}'s operators in training", self.method.memory(model_shape, self.rows).fitting),
            Part("places of examples", (16 if stored else 96) * self.rows),
        )

    def run(self, run: Run = SILENT) -> bool:
        """Fit what is left; False when stopped before the end.

        Raises:
            StoreBusy: another process fits it. StoreFull: no room left. DataError: a state or an operator is not finite.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(self._locked()):
                if record_bytes(self.store, self.job.method) != self._seen:
                    raise StoreBusy(
                        f"another process fitted {self.job.method} to {self.store.url} meanwhile: run it again"
                    )
                for torn in self.folder.rglob(".*.new"):
                    torn.unlink()  # of a run that was killed
                return self._run(run)
        except HeadwaterError:
            raise  # some are OSErrors too
        except OSError as error:
            kind = StoreFull if error.errno in (27, 28, 122) else StoreError  # EFBIG, ENOSPC, EDQUOT
            raise kind(f"{self.folder} cannot be written: {error.strerror or error}") from None

    def _locked(self) -> OwnerLock:
        return OwnerLock(self.folder, f"fits {self.job.method} to {self.store.url}")

    def _run(self, run: Run) -> bool:
        record = self._record
        if not record["done"]:
            self._sweep(record)
        self._note(record)
        for base in range(record["done"], len(record["bases"])):
            provider, self._next = self._next or self._provider(base), None
            self._planned(provider).check(self._budget, self.plan.total)
            record["bases"][base]["made"] = made_of(provider)
            self._note(record)
            if not self._base(base, provider, run):
                return False
            record["done"] = base + 1
            self._note(record)
            remove_state(self._place(base) / "training")
            del provider  # before the next is loaded
        return True

    def _sweep(self, record: Mapping[str, Any]) -> None:
        """What another fit left is gone, unless it is this one's beginning; hidden states stay, and know what they are of."""
        there = held_record(self.store, self.job.method)
        if there is None or not same_fit(there, record):
            for place in self.folder.glob("base*"):
                for name in ("training", "operators"):
                    remove_state(place / name)
                if place.name not in {f"base{base}" for base in range(len(record["bases"]))}:
                    self.store.remove_group(f"{HIDDEN}/{self.job.method}.{place.name}")
                    shutil.rmtree(place)

    def _base(self, base: int, provider: Provider, run: Run) -> bool:
        """One base model, to the end: whether it was reached."""
        place, bases = self._place(base), len(self._record["bases"])
        name = f" of base {base + 1}" if bases > 1 else ""
        try:
            corpus, digest = self._corpus(base, provider, name, run)
        except _StoppedError:
            return False
        begun = partial(self.method.start_fit, provider.head, corpus, self.method.design(self.rows, base), base)
        fitting, keep = begun(), Checkpoint(place / "training", digest, self.job.commit_seconds)
        if not keep.resumed(fitting):  # from the beginning: what is kept may have been taken up in part
            fitting = begun()

        def step(done: int, fidelity: float, drift: float) -> None:
            note = f"steps · loss inside {fidelity:.4f}, drift outside {drift:.5f}"
            run.report(f"operators{name}", done, fitting.steps, note)
            keep.write(fitting, due=True)

        if not fitting.run(step, run.should_stop):
            keep.write(fitting)
            return False
        write_state(place / "operators", {"of": fit_digest(self._record, base)}, fitting.parameters())
        return True

    def _corpus(self, base: int, provider: Provider, name: str, run: Run) -> tuple[HiddenStates, str]:
        """What operators are trained on, and a digest of what decides its states. `name`: of the base, behind each stage's.

        Raises:
            _StoppedError: it was asked to stop.
        """
        layer = self.method.layer(provider.head.model_shape)
        states = StoredStates(provider, self.store, hidden_group(self.job.method, base), layer, self.job.commit_seconds)

        def weighing(rows: int) -> None:
            run.report(f"weights of examples{name}", rows, self.rows, "examples")
            if run.should_stop():
                raise _StoppedError

        corpus: HiddenStates | None
        if self.method.states_from == "cache":
            corpus = states.collected(run.counter(f"hidden states{name}", self.rows), run.should_stop)
        else:
            self.store.remove_group(states.group)
            random = cast(RandomAccessProvider, provider)  # see require_source
            lengths = run.counter(f"lengths of examples{name}", self.rows)
            corpus = StreamedStates.measured(random, layer, lengths, run.should_stop)
        if corpus is None:
            raise _StoppedError
        return self.method.example_weights(provider.head, corpus, weighing), states.digest

    def _provider(self, base: int) -> Provider:
        provider = base_provider(self.store, self._record["bases"][base]["base"], self.job.model, self.job.corpus)
        require_rows(self.store, provider)
        return provider

    def _place(self, base: int) -> Path:
        return self.folder / f"base{base}"

    def _note(self, record: Mapping[str, Any]) -> None:
        write_state(self.folder / RECORD, record)


class _StoppedError(Exception):
    """Somebody asked to stop while a corpus was made ready."""


def prepare_fit(job: FitJob, run: Run = SILENT) -> FitRun:
    """Open the store, load the next base model, make the plan, which fits the run's budget; nothing is written.

    Raises:
        HeadwaterError: whatever of these is not as it should be.
    """
    store = FeatureStore.open(job.store)
    store.require_writable()
    kind = load(job.method)
    if not issubclass(kind, SubsetMethod):
        raise SettingsError(
            f"method {job.method} has nothing to fit: headwater ingest --method {job.method} stores its rows"
        )
    if EXAMPLES not in store.groups or not store.rows(EXAMPLES) or not store.is_complete(EXAMPLES):
        raise StoreMissing(f"{store.url} does not hold all of its examples yet: run ingest again to go on")
    there = held_record(store, job.method) if job.again else read_record(store, job.method)
    try:
        method = kind.from_settings({**(there["settings"] if there and not job.again else {}), **job.settings})
    except SettingsError as error:
        raise SettingsError(f"method {job.method}: {error}") from None
    require_source(store, job.method, method)
    bases = [{"base": absolute(base), "made": {}} for base in method.base_models or ("",)]
    record = {"settings": method.settings(), **corpus_of(store), "bases": bases, "done": 0}
    if there and not job.again:
        refuse_other(store, job.method, there)
        refuse_settings(job.method, kind.from_settings(there["settings"]).settings(), record["settings"])
        files = [state_folder(store, job.method) / f"base{base}/operators" for base in range(there["done"])]
        torn = (base for base, file in enumerate(files) if not whole_operators(file, fit_digest(there, base)))
        done = next(torn, there["done"])
        record = {**there, "settings": record["settings"], "done": done}
    elif there and same_fit(there, record) and there.get("done", 0) < len(bases):
        record = {**there, "settings": record["settings"]}  # --again was begun already
    return FitRun(job, store, method, record, run.budget)
