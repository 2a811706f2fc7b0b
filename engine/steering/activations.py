"""The hidden states of a whole corpus, in files: one forward pass, and every step of training reads from them.

`hidden.bin` (P, D), `inner.bin` (P, D') where another layer is wanted too, `targets.bin` (P,) and `first.bin` (N + 1,) grow by
some examples at a time, and `done.json` says, whenever that many are safely there, how many and of what they are. A pass that was
interrupted goes on behind them. States keep the model's own precision. Knows a provider.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...store.errors import DataError
from ...store.layout import Array
from ..intake.examples import Example, Place, batches
from ..intake.provider import Provider
from ..intake.readout import merged_needs
from ..method import Needs, Sizes
from .training import States

_PART = 512  # examples that are written at once, at most
_POSITIONS = 1 << 14  # of those, at most, but for a last example
BATCH_TOKENS = 4096
"""Padded tokens of a batch."""
_AS_STORED = {
    torch.float32: torch.float32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}  # NumPy has no bfloat16
Tell = Callable[[int], None]


@dataclass(slots=True)
class Activations:
    """Where a corpus's hidden states are, or will be."""

    provider: Provider
    folder: Path
    layer: int = -1
    """The layer whose states are kept beside the last one's; -1: none."""
    rows: int = -1
    """Examples that there are, where that is known."""

    @property
    def _names(self) -> tuple[str, ...]:
        return ("hidden", "targets", "first") if self.layer < 0 else ("hidden", "inner", "targets", "first")

    def collected(self, tell: Tell = lambda done: None, stopped: Callable[[], bool] = lambda: False) -> States | None:
        """States of all examples, positions without a target left out, from the files as far as they are there; None if stopped.

        Raises:
            DataError: a hidden state is not finite. OSError: the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        told = self._told()
        held = self._resumed(told)
        if held["rows"] == self.rows:
            states = self.opened()
            if _is_whole(states, self.provider.head.sizes):
                return states
            held = {"rows": 0, "positions": 0, "bytes": {}}
        with ExitStack() as stack:
            files = {name: stack.enter_context((self.folder / f"{name}.bin").open("r+b")) for name in self._names}
            for name, file in files.items():
                size = held["bytes"].get(name, 8 * (name == "first"))
                file.truncate(size if held["rows"] else 0)
                file.truncate(size)  # what is longer was not safely there; the first row's begin becomes 0
                file.seek(size)
            for part in _parts(self._behind(held["rows"])):
                if stopped():
                    return None
                found, counts = self._read(part)
                found["first"] = held["positions"] + np.cumsum(counts)
                for name, file in files.items():
                    file.write(np.ascontiguousarray(found.pop(name)).data)
                    file.flush()
                    os.fsync(file.fileno())
                held |= {"rows": held["rows"] + len(part), "positions": held["positions"] + int(counts.sum())}
                held["bytes"] = {name: file.tell() for name, file in files.items()}
                self._keep(told | held)
                tell(held["rows"])
        return self.opened()

    def opened(self) -> States:
        """What was collected, mapped from its files."""
        dtype = self.provider.head.weight.dtype
        found = {name: self._mapped(name, dtype) for name in self._names}
        width = self.provider.head.sizes.hidden
        inner = found["inner"].view(len(found["targets"]), -1) if "inner" in found else None
        return States(found["hidden"].view(-1, width), found["targets"], found["first"].numpy().copy(), inner=inner)

    def _mapped(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        kept = torch.int64 if name in ("targets", "first") else _AS_STORED[dtype]
        file, kind = self.folder / f"{name}.bin", torch.empty(0, dtype=kept).numpy().dtype
        array = np.memmap(file, kind, "c") if file.stat().st_size else np.zeros(0, kind)
        found = torch.from_numpy(np.asarray(array))
        return found if name in ("targets", "first") else found.view(dtype)

    def _told(self) -> dict[str, Any]:
        """What the states are of."""
        sources = [[source.name, source.digest] for source in self.provider.sources]
        told = {"sources": sources, "of": self.provider.provenance(), "layer": self.layer}
        found: dict[str, Any] = json.loads(json.dumps(told))
        return found

    def _behind(self, rows: int) -> Iterator[Example]:
        """Examples after so many."""
        examples = self.provider.examples(Place())
        for _ in range(rows):
            next(examples, None)
        return examples

    def _read(self, part: list[Example]) -> tuple[dict[str, Array], Array]:
        """Arrays of some examples, in their order, and how many positions each has."""
        counts = np.array([example.counted for example in part], np.int64)
        wanted = [example for example in part if example.counted]
        parts: dict[str, list[Any]] = {name: [None] * len(wanted) for name in self._names if name != "first"}
        for batch in batches(wanted, max(BATCH_TOKENS, *(one.length for one in wanted), 1)) if wanted else ():
            some = [wanted[at] for at in batch]
            for name, values in self._states(some).items():
                for at, value in zip(batch, values, strict=True):
                    parts[name][at] = value
        none = np.zeros(0, np.int64)
        return {name: np.concatenate(values) if values else none for name, values in parts.items()}, counts

    def _states(self, batch: list[Example]) -> dict[str, list[Array]]:
        """Arrays of each example of a batch."""
        needs = merged_needs([Needs(layers=(self.layer,) if self.layer >= 0 else ())])
        with torch.inference_mode():
            readout = self.provider.read(batch, needs)
            tensors = {"hidden": readout.hidden(), "targets": readout.targets}
            if self.layer >= 0:
                tensors["inner"] = readout.hidden(self.layer)
            finite = torch.isfinite(tensors["hidden"].float().sum(1))
            if not finite.all():
                raise DataError(
                    f"a hidden state of example {batch[int(readout.owners[int(finite.int().argmin())])].id} is not finite"
                )
            dtype = self.provider.head.weight.dtype
            arrays = {name: (value if name == "targets" else value.to(dtype).view(_AS_STORED[dtype])).cpu().numpy()
                      for name, value in tensors.items()}  # fmt: skip
        ends = np.cumsum([example.counted for example in batch])[:-1]
        return {name: np.split(value, ends) for name, value in arrays.items()}

    def _resumed(self, told: dict[str, Any]) -> dict[str, Any]:
        """Rows, positions and files' bytes that are there of the same corpus and model; else everything is begun anew."""
        for name in self._names:
            (self.folder / f"{name}.bin").touch()
        try:
            held = json.loads((self.folder / "done.json").read_text())
            found = {name: held.pop(name) for name in ("rows", "positions", "bytes")}
            numbers = (found["rows"], found["positions"], *found["bytes"].values())
            if set(found["bytes"]) != set(self._names) or not all(type(one) is int and one >= 0 for one in numbers):
                found = {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            found = {}
        whole = found and all(
            (self.folder / f"{name}.bin").stat().st_size >= found["bytes"][name] for name in self._names
        )
        return found if whole and held == told else {"rows": 0, "positions": 0, "bytes": {}}

    @property
    def digest(self) -> str:
        """Of what the states are of."""
        return hashlib.sha256(json.dumps(self._told(), sort_keys=True).encode()).hexdigest()

    def _keep(self, held: dict[str, Any]) -> None:
        hidden = self.folder / f".done.{os.getpid()}.part"
        hidden.write_text(json.dumps(held))
        hidden.replace(self.folder / "done.json")


def part_bytes(sizes: Sizes, *, inner: bool) -> int:
    """What is held of a part while it is written: as it was read, and in one piece."""
    return 8 * (1 + inner) * sizes.hidden * (_POSITIONS + sizes.max_length)


def _is_whole(states: States, sizes: Sizes) -> bool:
    """Whether places ascend to the last position, and targets are of the vocabulary."""
    first, count = states.first, len(states.targets)
    ends = bool(len(first)) and first[0] == 0 and first[-1] == count == len(states.hidden)
    within = not count or (int(states.targets.min()) >= 0 and int(states.targets.max()) < sizes.vocabulary)
    return bool(ends and (np.diff(first) >= 0).all() and within)


def _parts(examples: Iterator[Example]) -> Iterator[list[Example]]:
    """Examples that are written together."""
    part: list[Example] = []
    positions = 0
    for example in examples:
        if part and (len(part) == _PART or positions + example.counted > _POSITIONS):
            yield part
            part, positions = [], 0
        part.append(example)
        positions += example.counted
    if part:
        yield part
