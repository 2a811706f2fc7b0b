"""The last hidden states of a whole corpus, in files: one forward pass, and every step of training reads from them.

`hidden.bin` (P, D), `targets.bin` (P,) and `first.bin` (N + 1,) grow by some examples at a time, and `done.json` says, whenever
that many are safely there, how many and of what they are. A pass that was interrupted goes on behind them. Knows a provider.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...store.errors import DataError
from ...store.layout import Array
from ..intake.examples import Example, Place, batches, windows
from ..intake.provider import Provider
from ..intake.readout import merged_needs
from .training import States

_PART = 512  # examples that are written at once
_TOKENS = 4096
_KINDS: dict[str, Any] = {"hidden": np.dtype(np.float32), "targets": np.dtype(np.int64), "first": np.dtype(np.int64)}
Tell = Callable[[int], None]


def collected(provider: Provider, folder: Path, tell: Tell = lambda done: None) -> States:
    """Hidden states of all of a provider's examples, positions without a target left out; from `folder` as far as they are there.

    Raises:
        DataError: a hidden state is not finite. OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = {"sources": [[source.name, source.digest] for source in provider.sources], "of": provider.provenance()}
    rows, positions = _resumed(folder, told)
    width = provider.head.sizes.hidden
    with (folder / "hidden.bin").open("r+b") as hidden, (folder / "targets.bin").open("r+b") as targets, \
            (folder / "first.bin").open("r+b") as first:  # fmt: skip
        files, sizes = (hidden, targets, first), (4 * width * positions, 8 * positions, 8 * (rows + 1))
        for file, size in zip(files, sizes, strict=True):
            file.truncate(
                size
            )  # what is longer was not safely there; what is shorter, the first row's begin, becomes 0
            file.seek(size)
        for part in windows(_behind(provider, rows), _PART):
            states, labels, counts = _read(provider, part)
            hidden.write(states.tobytes())
            targets.write(labels.tobytes())
            first.write((positions + np.cumsum(counts)).tobytes())
            rows, positions = rows + len(part), positions + len(labels)
            for file in files:
                file.flush()
                os.fsync(file.fileno())
            _keep(folder, told | {"rows": rows, "positions": positions})
            tell(rows)
    return opened(folder, width)


def opened(folder: Path, width: int) -> States:
    """What was collected, mapped from its files."""
    at = {name: folder / f"{name}.bin" for name in _KINDS}
    arrays = {name: np.memmap(file, _KINDS[name], "c") if file.stat().st_size else np.zeros(0, _KINDS[name])
              for name, file in at.items()}  # fmt: skip
    hidden, targets = (torch.from_numpy(np.asarray(arrays[name])) for name in ("hidden", "targets"))
    return States(hidden.view(-1, width), targets, np.array(arrays["first"]))


def _behind(provider: Provider, rows: int) -> Any:
    """Examples after so many."""
    examples = provider.examples(Place())
    for _ in range(rows):
        next(examples)
    return examples


def _read(provider: Provider, part: list[Example]) -> tuple[Array, Array, Array]:
    """Hidden states (p, D) and targets (p,) of some examples, in their order, and how many positions each has."""
    counted = [at for at, example in enumerate(part) if example.counted]
    found: dict[int, tuple[Array, Array]] = {}
    wanted = [part[at] for at in counted]
    for batch in batches(wanted, max(_TOKENS, *(one.length for one in wanted), 1)) if wanted else ():
        with torch.inference_mode():
            readout = provider.read([wanted[at] for at in batch], merged_needs([]))
            states, owners = readout.hidden().float().cpu().numpy(), readout.owners.cpu().numpy()
            labels = readout.targets.cpu().numpy()
        if not np.isfinite(states).all():
            at = batch[int(owners[np.argmin(np.isfinite(states).all(1))])]
            raise DataError(f"a hidden state of example {wanted[at].id} is not finite")
        ends = np.searchsorted(owners, np.arange(len(batch) + 1))
        for place, start, stop in zip(batch, ends[:-1], ends[1:], strict=True):
            found[counted[place]] = states[start:stop], labels[start:stop].astype(np.int64)
    width = provider.head.sizes.hidden
    none = np.zeros((0, width), np.float32), np.zeros(0, np.int64)
    parts = [found.get(at, none) for at in range(len(part))]
    counts = np.array([len(labels) for _, labels in parts], np.int64)
    return np.concatenate([states for states, _ in parts]), np.concatenate([labels for _, labels in parts]), counts


def _resumed(folder: Path, told: dict[str, Any]) -> tuple[int, int]:
    """Rows and positions that are there of the same corpus and model; all of the files begun anew where there are none."""
    for name in _KINDS:
        (folder / f"{name}.bin").touch()
    try:
        held = json.loads((folder / "done.json").read_text())
        rows, positions = int(held.pop("rows")), int(held.pop("positions"))
    except (OSError, ValueError, KeyError):
        return 0, 0
    return (rows, positions) if held == json.loads(json.dumps(told)) else (0, 0)


def _keep(folder: Path, held: dict[str, Any]) -> None:
    hidden = folder / f".done.{os.getpid()}.part"
    hidden.write_text(json.dumps(held))
    hidden.replace(folder / "done.json")
