"""`ground-truth`: trains every (subset, seed) once, in parallel processes, and continues where it stopped.

| file             | content                                                                                       |
|------------------|-----------------------------------------------------------------------------------------------|
| `truth.json`     | settings, which a later run must share; the noise ceiling when all runs are done; digests      |
| `masks.npy`      | (S, N) int8                                                                                    |
| `examples/`, `queries/` | tokens                                                                                  |
| `runs/S-R/`      | (Q,) float64: losses of the queries after training on subset S with seed R                     |
| `outcomes.npy`   | (seeds, S, Q) float64, written when all runs are done                                         |

Each file appears whole and has a digest or checksums. A run that is damaged, or of other settings, is trained again, and damaged
masks and tokens are written again. Training processes end with the one that started them. Knows no method.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait as wait_for
from pathlib import Path

import numpy as np

from ...store.errors import DataError, HeadwaterError, SettingsError, StoreDamaged, StoreError, StoreMismatch
from ...store.json_values import JsonFields, ParsedJson
from ...store.layout import Array
from ...store.state import whole_state, write_state
from ..data.stored_arrays import reading
from ..evaluation.metrics import noise_ceiling
from ..evaluation.truth_record import TRUTH, TruthRecord, file_digest
from ..runtime.output_files import whole_file
from ..runtime.run import SILENT, Run, ShouldStop
from .token_sets import TokenSet
from .training_loop import RetrainingRecipe, query_losses, train_on_subset

_MASKS, _OUTCOMES = "masks.npy", "outcomes.npy"


@dataclass(frozen=True, slots=True)
class RetrainingTask:
    """The retrainings to run: model, examples, queries, subsets and seeds."""

    model: str
    """Folder of the model's config and, if training starts from them, its weights."""
    examples: TokenSet
    queries: TokenSet
    masks: Array
    """Which examples each subset has, (S, N) bool."""
    seeds: int
    """Trainings of each subset, with seeds 0, 1, …"""
    recipe: RetrainingRecipe
    """Hyperparameters of all trainings, whose seeds differ."""
    clock: str = ""
    """The date that the chat template sees, as YYYY-MM-DD; empty if it sees none."""
    drawn: JsonFields = field(default_factory=dict)
    """The settings by which the subsets were drawn; empty if they were read."""

    def settings(self) -> ParsedJson:
        """The settings and digests that decide the outcomes, as JSON values."""
        from ..models.language_model import config_digest

        masks = hashlib.blake2b(np.packbits(self.masks).tobytes(), digest_size=16).hexdigest()
        return {
            "model": config_digest(self.model, weights=self.recipe.pretrained), "examples": self.examples.digest,
            "queries": self.queries.digest, "masks": masks,
            "shape": list(self.masks.shape), "seeds": self.seeds, "recipe": self.recipe_fields(), "clock": self.clock,
            "drawn": self.drawn,
        }  # fmt: skip

    def recipe_fields(self) -> JsonFields:
        """The recipe as JSON values, without the seed, in which the trainings differ."""
        return {name: value for name, value in asdict(self.recipe).items() if name != "seed"}


def written_files(folder: str) -> list[str]:
    """The files of a folder that a run would replace: the masks only if the folder is new."""
    names = [_OUTCOMES, TRUTH, *([] if (Path(folder) / TRUTH).exists() else [_MASKS])]
    return [str(Path(folder) / name) for name in names]


class GroundTruth:
    """A folder of ground truth, complete or not."""

    def __init__(self, folder: str, task: RetrainingTask, processes: int = 1) -> None:
        """Create the folder, or open an existing one with the same settings. `processes`: most trainings that run at a time.

        Raises:
            StoreMismatch: the folder has other settings; the first difference is named. SettingsError: it cannot be written.
            StoreDamaged: its record is not what was written.
        """
        self.folder, self.task, self.processes, self._settings = Path(folder), task, processes, task.settings()
        record = TruthRecord.read(self.folder)
        if record is not None:
            _require_same(record, self._settings, folder)
            self._settings = record.settings  # equal, and of the same types: 1 and 1.0 have different digests
        self._digest = hashlib.blake2b(json.dumps(self._settings, sort_keys=True).encode(), digest_size=16).hexdigest()
        try:
            (self.folder / "runs").mkdir(parents=True, exist_ok=True)
            self._write_inputs()
            if record is None:
                self._write_record({}, [_MASKS])
        except StoreDamaged:
            raise
        except (OSError, StoreError) as error:
            raise SettingsError(f"{folder} cannot be written: {error}") from None

    def _write_inputs(self) -> None:
        """Write tokens and masks, unless they are there undamaged."""
        for name, tokens in (("examples", self.task.examples), ("queries", self.task.queries)):
            if not tokens.is_saved(self.folder / name):
                tokens.save(self.folder / name)
        masks = self.task.masks.view(np.int8)
        if not _holds(self.folder / _MASKS, masks):
            _save(self.folder / _MASKS, masks)

    def remaining_runs(self) -> list[tuple[int, int]]:
        """(subset, seed) of each run that is not done, or damaged; all subsets of a seed come before the next seed."""
        jobs = [(subset, seed) for seed in range(self.task.seeds) for subset in range(len(self.task.masks))]
        return [job for job in jobs if self._losses(*job) is None]

    def build(self, processes: int, run: Run = SILENT) -> bool:
        """Train what is left; False when stopped before the end. Progress counts the trainings that are done.

        Raises:
            HeadwaterError: a training process failed; finished runs are kept.
        """
        jobs, total = self.remaining_runs(), self.task.seeds * len(self.task.masks)
        done, on_progress = total - len(jobs), run.counter("ground-truth", total, "trainings")
        on_progress(done)
        for _ in self._run_trainings(jobs, processes, run.should_stop):
            done += 1
            on_progress(done)
        if done < total:
            return False
        self._finish()
        return True

    def noise_ceiling_line(self) -> str:
        """One line about the noise ceiling."""
        record = TruthRecord.read(self.folder)
        between, ceiling = (record.figures.get(name) if record else None for name in ("between_seeds", "ceiling"))
        if between is None or ceiling is None:
            return "the noise ceiling needs two seeds"
        return f"two trainings of a subset agree at {between:.3f}; ceiling {ceiling:.3f}"

    def _run_trainings(self, jobs: list[tuple[int, int]], processes: int, should_stop: ShouldStop) -> Iterator[None]:
        """Runs as they end; no more are begun than there are processes, so that a stop takes effect soon."""
        context, waiting = multiprocessing.get_context("spawn"), iter(jobs)
        with ProcessPoolExecutor(max(1, min(processes, len(jobs))), context, _start_worker) as pool:
            running: set[Future[None]] = set()
            try:
                while True:
                    while len(running) < processes and not should_stop() and (job := next(waiting, None)):
                        recipe = self.task.recipe_fields()
                        training = RetrainingInputs(str(self.folder), self.task.model, self._digest, recipe)
                        running.add(pool.submit(run_training, training, *job))
                    if not running:
                        return
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        yield
            except BrokenProcessPool:
                raise HeadwaterError(
                    "a training process was killed", hint="run the same command again to continue"
                ) from None
            except BaseException:  # do not wait for running trainings
                for process in multiprocessing.active_children():
                    process.terminate()
                raise

    def _losses(self, subset: int, seed: int) -> Array | None:
        """(Q,) float64: the losses of a run; None if it is not done, or damaged, or of other settings."""
        state = whole_state(_run_path(self.folder, subset, seed))
        if state is None or set(state.arrays) != {"losses"} or dict(state.values) != {"settings": self._digest}:
            return None
        return state.arrays["losses"]

    def _finish(self) -> None:
        outcomes = np.zeros((self.task.seeds, len(self.task.masks), len(self.task.queries)))
        for seed, subset in np.ndindex(outcomes.shape[:2]):
            losses = self._losses(subset, seed)
            if losses is None:
                raise StoreDamaged(
                    f"{_run_path(self.folder, subset, seed)} is damaged: the same command trains it again"
                )
            outcomes[seed, subset] = losses
        if not _holds(self.folder / _OUTCOMES, outcomes):
            _save(self.folder / _OUTCOMES, outcomes)
        between, ceiling = noise_ceiling(outcomes)
        figures = {"between_seeds": between, "ceiling": ceiling, "mean_loss": float(outcomes.mean())}
        finite = {key: value if np.isfinite(value) else None for key, value in figures.items()}
        self._write_record(finite, [_MASKS, _OUTCOMES])

    def _write_record(self, figures: dict[str, float | None], names: list[str]) -> None:
        digests = {name: file_digest(self.folder / name) for name in names}
        TruthRecord(self._settings, figures, digests).write(self.folder)


def _start_worker() -> None:
    """Ignore SIGINT in a training process, as the parent handles Ctrl-C; and end with the parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@dataclass(frozen=True, slots=True)
class RetrainingInputs:
    """What all trainings of a folder share."""

    folder: str
    model: str
    """Folder of the model."""
    settings: str
    """Digest of the folder's settings."""
    recipe: JsonFields
    """The recipe without the seed."""


def run_training(training: RetrainingInputs, subset: int, seed: int) -> None:
    """Run one training in the current process, and write the losses of the queries."""
    import torch

    torch.set_num_threads(1)
    truth_folder = Path(training.folder)
    examples = TokenSet.load(truth_folder / "examples")
    masks = np.load(truth_folder / _MASKS, mmap_mode="r")
    rows = np.flatnonzero(masks[subset] & (examples.target_counts > 0)).tolist()
    recipe = RetrainingRecipe(**training.recipe, seed=seed)  # type: ignore[arg-type]
    trained_model = train_on_subset(training.model, examples, rows, recipe)
    losses = query_losses(trained_model, TokenSet.load(truth_folder / "queries"))
    write_state(_run_path(truth_folder, subset, seed), {"settings": training.settings}, {"losses": losses})


def _run_path(folder: Path, subset: int, seed: int) -> Path:
    return folder / "runs" / f"{subset:04}-{seed:02}"


def _save(path: Path, values: Array) -> None:
    with whole_file(path) as hidden, hidden.open("wb") as file:
        np.save(file, values)


def _holds(path: Path, values: Array) -> bool:
    """Whether a .npy file holds exactly these numbers, and nothing after them."""
    try:
        with reading(str(path), DataError):
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except DataError:
        return False
    ends_with_them = isinstance(stored, np.memmap) and path.stat().st_size == stored.offset + stored.nbytes
    return ends_with_them and stored.dtype == values.dtype and np.array_equal(stored, values)


def _require_same(record: TruthRecord, settings: ParsedJson, folder: str) -> None:
    for key, value in settings.items():
        existing = record.settings.get(key)
        if existing != value:
            raise StoreMismatch(
                f"{folder} was begun with another {key}: {existing} in the folder, {value} in this run",
                hint="use a new folder",
            )
