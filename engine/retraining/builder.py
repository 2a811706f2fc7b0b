"""`ground-truth`: every (subset, seed) trained once, in processes beside each other, resumed where it stopped.

| file             | what                                                                                          |
|------------------|-----------------------------------------------------------------------------------------------|
| `truth.json`     | settings and digests, which a later run must share; the noise ceiling when all is done         |
| `masks.npy`      | (S, N) int8                                                                                    |
| `examples`, `queries` | tokens: states of checksummed arrays                                                      |
| `runs/S-R`       | (Q,) float64: the queries' losses after training on subset S with seed R: a state             |
| `outcomes.npy`   | (seeds, S, Q) float64, when all runs are there                                                |

Knows no method.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...store.errors import HeadwaterError, SettingsError, StoreDamaged, StoreError, StoreMismatch
from ...store.files import write_file, write_json
from ...store.layout import Array
from ...store.state import has_state, read_state, remove_state, write_state
from ..evaluation.metrics import noise_ceiling
from .token_sets import TokenSet
from .training_loop import RetrainingRecipe, losses, retrained

TRUTH = "truth.json"


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be trained and asked."""

    model: str
    """Folder of the model's config (and, to start from them, weights)."""
    examples: TokenSet
    queries: TokenSet
    masks: Array
    """(S, N) boolean."""
    seeds: int
    recipe: RetrainingRecipe

    def settings(self) -> dict[str, Any]:
        """What decides the outcomes, as JSON values."""
        from ..models.language_model import config_digest

        masks = np.packbits(self.masks).tobytes()
        return {
            "model": config_digest(self.model, weights=self.recipe.pretrained), "examples": self.examples.digest,
            "queries": self.queries.digest, "masks": TokenSet(np.frombuffer(masks, np.uint8), *_NONE).digest,
            "shape": list(self.masks.shape), "seeds": self.seeds, "recipe": asdict(self.recipe),
        }  # fmt: skip


_NONE = (np.zeros(0, np.int64), np.zeros(0, np.int32))


class GroundTruth:
    """A folder of ground truth, finished or not."""

    def __init__(self, folder: str, task: Task) -> None:
        """Make the folder, or take up the one that is there.

        Raises:
            StoreMismatch: it is of other settings, which are named. SettingsError: it cannot be written.
        """
        self.folder, self.task, self._settings = Path(folder), task, task.settings()
        held = self.folder / TRUTH
        if held.exists():
            _require_same(json.loads(held.read_text()), self._settings, folder)
            return
        try:
            (self.folder / "runs").mkdir(parents=True, exist_ok=True)
            task.examples.save(self.folder / "examples")
            task.queries.save(self.folder / "queries")
            _save(self.folder / "masks.npy", task.masks.astype(np.int8))
            self._note({})
        except (OSError, StoreError) as error:
            raise SettingsError(f"{folder} cannot be written: {error}") from None

    def left(self) -> list[tuple[int, int]]:
        """(subset, seed) of what is still to be trained; all subsets of a seed come before the next seed's."""
        jobs = [(subset, seed) for seed in range(self.task.seeds) for subset in range(len(self.task.masks))]
        return [job for job in jobs if not has_state(self._run(*job))]

    def build(
        self, processes: int, on_progress: Callable[[int], None], should_stop: Callable[[], bool] = lambda: False
    ) -> bool:
        """Train what is left; False when stopped before the end. `on_progress` hears how many runs are done.

        Raises:
            HeadwaterError: a training failed; what was finished stays.
        """
        jobs, total = self.left(), self.task.seeds * len(self.task.masks)
        done = total - len(jobs)
        on_progress(done)
        for _ in self._trained(jobs, processes, should_stop):
            done += 1
            on_progress(done)
        if done < total:
            return False
        self._finish()
        return True

    def told(self) -> str:
        """The noise ceiling, in words."""
        found = json.loads((self.folder / TRUTH).read_text())
        if found.get("ceiling") is None:
            return "the noise ceiling needs two seeds"
        return f"two trainings of a subset agree at {found['between_seeds']:.3f}; ceiling {found['ceiling']:.3f}"

    def _trained(self, jobs: list[tuple[int, int]], processes: int, should_stop: Callable[[], bool]) -> Iterator[None]:
        """Runs as they end; no more are begun than processes can take, so that a stop is soon."""
        context, waiting = multiprocessing.get_context("spawn"), iter(jobs)
        with ProcessPoolExecutor(max(1, min(processes, len(jobs))), context, _deaf) as pool:
            running: set[Future[None]] = set()
            try:
                while True:
                    while len(running) < processes and not should_stop() and (job := next(waiting, None)):
                        recipe = asdict(self.task.recipe)
                        running.add(pool.submit(train_one, str(self.folder), self.task.model, recipe, *job))
                    if not running:
                        return
                    ended, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        future.result()
                        yield
            except BrokenProcessPool:
                raise HeadwaterError("a training process was killed; the same command goes on") from None
            except BaseException:  # whoever cannot wait for what is in work
                for process in multiprocessing.active_children():
                    process.terminate()
                raise

    def _run(self, subset: int, seed: int) -> Path:
        return _run_path(self.folder, subset, seed)

    def _finish(self) -> None:
        subsets = range(len(self.task.masks))
        found = np.array([[_losses_of(self._run(s, r)) for s in subsets] for r in range(self.task.seeds)])
        _save(self.folder / "outcomes.npy", found)
        between, ceiling = noise_ceiling(found)
        told = {"between_seeds": between, "ceiling": ceiling, "mean_loss": float(found.mean())}
        self._note({key: value if np.isfinite(value) else None for key, value in told.items()})

    def _note(self, more: dict[str, Any]) -> None:
        write_json(self.folder / TRUTH, {"settings": self._settings, **more})


def _deaf() -> None:
    """In a training process: Ctrl-C is the parent's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def train_one(folder: str, model: str, recipe: dict[str, Any], subset: int, seed: int) -> None:
    """One run, in a process of its own."""
    import torch

    torch.set_num_threads(1)
    here = Path(folder)
    examples = TokenSet.load(here / "examples")
    teaching = np.diff(examples.ends, prepend=0) > examples.first  # an example of one token teaches nothing
    rows = np.flatnonzero(np.load(here / "masks.npy", mmap_mode="r")[subset] & teaching).tolist()
    trained = retrained(model, examples, rows, RetrainingRecipe(**recipe), seed)
    write_state(_run_path(here, subset, seed), {}, {"losses": losses(trained, TokenSet.load(here / "queries"))})


def _run_path(folder: Path, subset: int, seed: int) -> Path:
    return folder / "runs" / f"{subset:04}-{seed:02}"


def _save(path: Path, values: Array) -> None:
    body = io.BytesIO()
    np.save(body, values)
    write_file(path, [body.getbuffer()])


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


def _require_same(there: dict[str, Any], wanted: dict[str, Any], folder: str) -> None:
    held = there.get("settings", {})
    for key, value in wanted.items():
        if held.get(key) != value:
            raise StoreMismatch(f"{folder} was begun with another {key}: {held.get(key)} there, {value} here")
