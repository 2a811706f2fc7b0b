"""`fit`: hidden states of the corpus once, then a training that may be stopped anywhere, for each base model. Knows no method by
name.

fit = prepare_fit(FitJob("store", "stride", {"subsets": 300}))
finished = fit.run(lambda what, done, of, note: None)
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...store.errors import DataError, HeadwaterError, SettingsError, StoreError, StoreFull, StoreMismatch, StoreMissing
from ...store.feature_store import EXAMPLES, FeatureStore
from ...store.files import RangeLock
from ..intake.budget import TEXT_BYTES, TOKEN_BYTES
from ..intake.model import ModelChoice
from ..intake.provider import Provider
from ..memory import Plan, plan
from ..method import BATCH_EXAMPLES, Measured
from ..registry import load
from ..state import read_arrays, write_arrays
from ..steering.activations import BATCH_TOKENS, Activations
from .fitted import RECORD, corpus_of, read_record, recovery_of, refuse_other, state_folder
from .reading import base_provider

RECOVERY = ("solver", "share", "held_out", "tolerance")
"""Settings that matter when a query is asked, and bind no fit."""
Tell = Callable[[str, int, int, str], None]
"""What is being done, how much of it, of how much, and a note."""


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
    memory: int | None = None
    again: bool = False
    """Begin anew where there is a fit with other settings or of other examples."""
    commit_seconds: float = 15.0
    """A kill loses at most this much work, plus one step."""


class Fit:
    """A fit that only needs to be started; nothing is written yet."""

    def __init__(self, job: FitJob, store: FeatureStore, method: Measured, first: Provider) -> None:
        """See :func:`prepare_fit`."""
        self.job, self.store, self.method = job, store, method
        self.folder = state_folder(store, job.method)
        self.bases = method.base_models or ("",)
        self.rows = store.rows(EXAMPLES)
        method.design(self.rows)  # refuses what cannot be; so does the next
        recovery_of(method)
        self._first = first
        self.plan = self._planned(first)
        self.plan.check(job.memory, self.plan.total)

    def _planned(self, provider: Provider) -> Plan:
        """What a base model's fit holds: reading first, training after it."""
        tokens, sizes = max(BATCH_TOKENS, provider.longest()), provider.head.sizes
        layers = bool(self.method.layer(sizes) >= 0) * 4 * tokens * sizes.hidden * (sizes.layers + 3)
        return plan([
            *provider.memory(tokens),
            ("all layers' hidden states", layers),
            ("texts", 8 * BATCH_EXAMPLES * provider.longest() * (TEXT_BYTES + TOKEN_BYTES)),
            (f"{self.job.method}'s operators in training", self.method.held(sizes, self.rows)[0]),
            ("places of examples", 16 * self.rows),
        ])  # fmt: skip

    def run(self, tell: Tell, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Fit what is left; False when stopped before the end.

        Raises:
            StoreBusy: another process fits it. StoreFull: no room left. DataError: a state or an operator is not finite.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(RangeLock(self.folder / ".lock", 0, 0)):
                return self._run(tell, stopped)
        except HeadwaterError:
            raise  # some are OSErrors too
        except OSError as error:
            kind = StoreFull if error.errno in (28, 122) else StoreError  # ENOSPC, EDQUOT
            raise kind(f"{self.folder} cannot be written: {error.strerror or error}") from None

    def _run(self, tell: Tell, stopped: Callable[[], bool]) -> bool:
        record = self._begun()
        for base in range(record["done"], len(self.bases)):
            provider = self._first if base == 0 else self._provider(base)
            self._planned(provider).check(self.job.memory, self.plan.total)
            if not self._base(base, provider, tell, stopped):
                return False
            made = provider.provenance()
            record["bases"][base] = {
                "base": _absolute(self.bases[base]),
                "made": {k: made[k] for k in ("model", "tokenizer") if k in made},
            }
            record["done"] = base + 1
            self._note(record)
            (self._place(base) / "training.npz").unlink(missing_ok=True)
        return True

    def _begun(self) -> dict[str, Any]:
        """The record of a fit that was begun, or a new one.

        Raises:
            StoreMismatch: there is a fit of other settings or examples, and nobody said --again.
        """
        there = None if self.job.again else read_record(self.store, self.job.method)
        asked = self.method.settings()
        if there:
            refuse_other(self.store, self.job.method, there)
            apart = [f"{key} is {there['settings'].get(key)!r} there, {value!r} here" for key, value in asked.items()
                     if key not in RECOVERY and there["settings"].get(key) != value]  # fmt: skip
            if apart:
                raise StoreMismatch(
                    f"{self.job.method} was fitted with other settings: {'; '.join(apart)}; --again begins anew"
                )
            there["settings"] = asked
            self._note(there)
            return there
        for place in self.folder.glob("base*"):
            for file in ("training.npz", "operators.npz"):
                (place / file).unlink(missing_ok=True)
            if not (place / "done.json").exists():
                shutil.rmtree(place)
        bases = [{"base": _absolute(base), "made": {}} for base in self.bases]
        record = {"settings": asked, **corpus_of(self.store), "bases": bases, "done": 0}
        self._note(record)
        return record

    def _base(self, base: int, provider: Provider, tell: Tell, stopped: Callable[[], bool]) -> bool:
        """One base model, to the end: whether it was reached."""
        place, name = self._place(base), f" of base {base + 1}" if len(self.bases) > 1 else ""
        layer = self.method.layer(provider.head.sizes)
        activations = Activations(provider, place, layer)
        states = activations.collected(lambda rows: tell(f"hidden states{name}", rows, self.rows, "examples"), stopped)
        if states is None:
            return False
        if len(states.first) != self.rows + 1:
            raise DataError(
                f"{self.bases[base] or 'the corpus'} has {len(states.first) - 1:,} examples, the store {self.rows:,}"
            )
        fitting = self.method.begun(provider.head, states, self.method.design(self.rows, base), base)
        held = read_arrays(place / "training.npz")
        if held is not None:
            fitting.resume(held)
        kept = time.monotonic()

        def step(done: int, fidelity: float, drift: float) -> None:
            nonlocal kept
            tell(
                f"operators{name}",
                done,
                fitting.steps,
                f"steps · loss inside {fidelity:.4f}, drift outside {drift:.5f}",
            )
            if time.monotonic() - kept >= self.job.commit_seconds:
                write_arrays(place / "training.npz", fitting.arrays())
                kept = time.monotonic()

        if not fitting.run(step, stopped):
            write_arrays(place / "training.npz", fitting.arrays())
            return False
        write_arrays(place / "operators.npz", fitting.fitted())
        return True

    def _provider(self, base: int) -> Provider:
        return base_provider(self.store, self.bases[base], self.job.model, self.job.corpus)

    def _place(self, base: int) -> Path:
        return self.folder / f"base{base}"

    def _note(self, record: Mapping[str, Any]) -> None:
        hidden = self.folder / f".fit.{os.getpid()}.part"
        hidden.write_text(json.dumps(record, indent=1))
        hidden.replace(self.folder / RECORD)


def _absolute(base: str) -> str:
    """A folder or file as whoever asks a query elsewhere finds it; a hub id as it is."""
    return str(Path(base).resolve()) if base and Path(base).exists() else base


def prepare_fit(job: FitJob) -> Fit:
    """Open the store, load the (first) base model, make the plan; nothing is written.

    Raises:
        HeadwaterError: whatever of these is not as it should be.
    """
    store = FeatureStore.open(job.store)
    store.require_local()
    kind = load(job.method)
    if not issubclass(kind, Measured):
        raise SettingsError(
            f"method {job.method} has nothing to fit: headwater ingest --method {job.method} stores its rows"
        )
    if not store.rows(EXAMPLES) or not store.groups[EXAMPLES].get("complete"):
        raise StoreMissing(f"{store.url} does not hold all of its examples yet: run ingest again to go on")
    there = None if job.again else read_record(store, job.method)
    try:
        method = kind.from_settings({**(there["settings"] if there else {}), **job.settings})
    except SettingsError as error:
        raise SettingsError(f"method {job.method}: {error}") from None
    base = (method.base_models or ("",))[0]
    return Fit(job, store, method, base_provider(store, base, job.model, job.corpus))
