"""`ground-truth`: trains every (subset, seed) once, in parallel processes, and continues where it stopped.

| file             | content                                                                                       |
|------------------|-----------------------------------------------------------------------------------------------|
| `truth.json`     | settings and digests, which a later run must share; the noise ceiling when all runs are done  |
| `masks.npy`      | (S, N) int8                                                                                    |
| `examples.npz`, `queries.npz` | tokens                                                                            |
| `runs/S-R.npy`   | (Q,) float64: losses of the queries after training on subset S with seed R; written atomically |
| `outcomes.npy`   | (seeds, S, Q) float64, written when all runs are done                                         |

Knows no method.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...store.errors import HeadwaterError, SettingsError, StoreDamaged, StoreError, StoreMismatch
from ...store.files import write_json
from ...store.json_values import JsonFields, ParsedJson
from ...store.layout import Array
from ...store.state import has_state, read_state, remove_state, write_state
from ..evaluation.metrics import noise_ceiling
from ..runtime.output_files import whole_file
from ..runtime.run import SILENT, Run, ShouldStop
from .token_sets import TokenSet
from .training_loop import RetrainingRecipe, query_losses, train_on_subset

TRUTH = "truth.json"


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

    def settings(self) -> ParsedJson:
        """The settings and digests that decide the outcomes, as JSON values."""
        from ..models.language_model import config_digest

        masks = np.packbits(self.masks).tobytes()
        return {
            "model": config_digest(self.model, weights=self.recipe.pretrained), "examples": self.examples.digest,
            "queries": self.queries.digest, "masks": TokenSet(np.frombuffer(masks, np.uint8), *_NONE).digest,
            "shape": list(self.masks.shape), "seeds": self.seeds, "recipe": self.recipe_fields(),
        }  # fmt: skip

    def recipe_fields(self) -> JsonFields:
        """The recipe as JSON values, without the seed, in which the trainings differ."""
        return {name: value for name, value in asdict(self.recipe).items() if name != "seed"}


def written_files(folder: str) -> list[str]:
    """The files of a folder that a run would replace: the masks only if the folder is new."""
    record = Path(folder) / TRUTH
    names = ["outcomes.npy", TRUTH] if record.exists() else ["outcomes.npy", TRUTH, "masks.npy"]
    return [str(Path(folder) / name) for name in names]


_NONE = (np.zeros(0, np.int64), np.zeros(0, np.int32))


class GroundTruth:
    """A folder of ground truth, complete or not."""

    def __init__(self, folder: str, task: RetrainingTask, processes: int = 1) -> None:
        """Create the folder, or open an existing one with the same settings. `processes`: most trainings that run at a time.

        Raises:
            StoreMismatch: the folder has other settings; the first difference is named. SettingsError: it cannot be written.
        """
        self.folder, self.task, self.processes, self._settings = Path(folder), task, processes, task.settings()
        record_path = self.folder / TRUTH
        if record_path.exists():
            _require_same(json.loads(record_path.read_text()), self._settings, folder)
            return
        try:
            (self.folder / "runs").mkdir(parents=True, exist_ok=True)
            task.examples.save(self.folder / "examples")
            task.queries.save(self.folder / "queries")
            _save(self.folder / "masks.npy", task.masks.view(np.int8))
            self._note({})
        except (OSError, StoreError) as error:
            raise SettingsError(f"{folder} cannot be written: {error}") from None

    def remaining_runs(self) -> list[tuple[int, int]]:
        """(subset, seed) of each run that is not done; all subsets of a seed come before the next seed."""
        jobs = [(subset, seed) for seed in range(self.task.seeds) for subset in range(len(self.task.masks))]
        return [job for job in jobs if not has_state(self._run(*job))]

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
        record = json.loads((self.folder / TRUTH).read_text())
        if record.get("ceiling") is None:
            return "the noise ceiling needs two seeds"
        return f"two trainings of a subset agree at {record['between_seeds']:.3f}; ceiling {record['ceiling']:.3f}"

    def _run_trainings(self, jobs: list[tuple[int, int]], processes: int, should_stop: ShouldStop) -> Iterator[None]:
        """Runs as they end; no more are begun than there are processes, so that a stop takes effect soon."""
        context, waiting = multiprocessing.get_context("spawn"), iter(jobs)
        with ProcessPoolExecutor(max(1, min(processes, len(jobs))), context, _ignore_interrupts) as pool:
            running: set[Future[None]] = set()
            try:
                while True:
                    while len(running) < processes and not should_stop() and (job := next(waiting, None)):
                        recipe = self.task.recipe_fields()
                        running.add(pool.submit(run_training, str(self.folder), self.task.model, recipe, *job))
                    if not running:
                        return
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        yield
            except BrokenProcessPool:
                raise HeadwaterError("a training process was killed; run the same command again to continue") from None
            except BaseException:  # do not wait for running trainings
                for process in multiprocessing.active_children():
                    process.terminate()
                raise

    def _run(self, subset: int, seed: int) -> Path:
        return _run_path(self.folder, subset, seed)

    def _finish(self) -> None:
        subsets = range(len(self.task.masks))
        outcomes = np.array([[_losses_of(self._run(s, r)) for s in subsets] for r in range(self.task.seeds)])
        _save(self.folder / "outcomes.npy", outcomes)
        between, ceiling = noise_ceiling(outcomes)
        figures = {"between_seeds": between, "ceiling": ceiling, "mean_loss": float(outcomes.mean())}
        self._note({key: value if np.isfinite(value) else None for key, value in figures.items()})

    def _note(self, more: ParsedJson) -> None:
        write_json(self.folder / TRUTH, {"settings": self._settings, **more})


def _ignore_interrupts() -> None:
    """Ignore SIGINT in a training process; the parent handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_training(folder: str, model: str, recipe: JsonFields, subset: int, seed: int) -> None:
    """Run one training in the current process, and write the losses of the queries."""
    import torch

    torch.set_num_threads(1)
    truth_folder = Path(folder)
    examples = TokenSet.load(truth_folder / "examples")
    has_targets = np.diff(examples.ends, prepend=0) > examples.first  # an example of one token has no target
    rows = np.flatnonzero(np.load(truth_folder / "masks.npy", mmap_mode="r")[subset] & has_targets).tolist()
    trained_model = train_on_subset(model, examples, rows, RetrainingRecipe(**recipe, seed=seed))  # type: ignore[arg-type]
    losses = query_losses(trained_model, TokenSet.load(truth_folder / "queries"))
    write_state(_run_path(truth_folder, subset, seed), {}, {"losses": losses})


def _run_path(folder: Path, subset: int, seed: int) -> Path:
    return folder / "runs" / f"{subset:04}-{seed:02}"


def _save(path: Path, values: Array) -> None:
    with whole_file(path) as hidden, hidden.open("wb") as file:
        np.save(file, values)


def _losses_of(folder: Path) -> Array:
    """The losses of one training; one that is damaged is removed, to be trained again.

    Raises:
        StoreDamaged: it is not what was written.
    """
    try:
        state = read_state(folder)
    except StoreDamaged as error:
        remove_state(folder)
        raise StoreDamaged(f"{error}; the same command trains it again") from None
    if state is None or set(state.arrays) != {"losses"}:
        raise StoreDamaged(f"{folder} holds no losses of a training: remove it, and the same command trains it again")
    return state.arrays["losses"]


def _require_same(record: ParsedJson, settings: ParsedJson, folder: str) -> None:
    existing = record.get("settings", {})
    for key, value in settings.items():
        if existing.get(key) != value:
            raise StoreMismatch(
                f"{folder} was begun with another {key}: {existing.get(key)} in the folder, {value} in this run; use a new folder"
            )
