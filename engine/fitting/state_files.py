"""The cache of a corpus's hidden states in files: written by one forward pass, read by every training step.

`hidden.bin` (P, D), `inner.bin` (P, D') where another layer is wanted too, `targets.bin` (P,) and `first.bin` (N + 1,) grow by
some examples at a time, and `done.json` says, whenever that many are safely there, how many and of what they are. A pass that was
interrupted goes on behind them. States keep the model's own precision; each file's CRC32C is kept too, and files that changed
are not believed. Knows a provider.
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

import crc32c
import numpy as np
import torch

from ...store.layout import Array
from ..ingest.examples import Example, Place
from ..ingest.provider import Provider
from ..interface.model_view import ModelShape
from .hidden_states import MemoryStates
from .read_states import states_of

_PART = 512  # examples that are written at once, at most
_POSITIONS = 1 << 14  # of those, at most, but for a last example
_SUMMED = 1 << 24  # bytes whose checksum is taken together
_AS_STORED = {
    torch.float32: torch.float32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}  # NumPy has no bfloat16
OnProgress = Callable[[int], None]


@dataclass(slots=True)
class StateFiles:
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

    def collected(
        self, on_progress: OnProgress = lambda done: None, should_stop: Callable[[], bool] = lambda: False
    ) -> MemoryStates | None:
        """States of all examples, positions without a target left out, from the files as far as they are there; None if stopped.

        Raises:
            DataError: a hidden state is not finite. OSError: the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        told = self._told()
        held = self._resumed(told)
        with ExitStack() as stack:
            files = {name: stack.enter_context((self.folder / f"{name}.bin").open("r+b")) for name in self._names}
            for name, file in files.items():
                size = held["bytes"].get(name, 8 * (name == "first"))
                file.truncate(size if held["rows"] else 0)
                file.truncate(size)  # what is longer was not safely there; the first row's begin becomes 0
                file.seek(size)
            if held["rows"] == self.rows:
                return self._opened()
            for part in _parts(self._behind(held["rows"])):
                if should_stop():
                    return None
                held = self._appended(part, files, held)
                self._keep(told | held)
                on_progress(held["rows"])
        return self._opened()

    def _appended(self, part: list[Example], files: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
        """What the files hold with some examples more."""
        found, counts = self._read(part)
        found["first"] = held["positions"] + np.cumsum(counts)
        sums = dict(held["sums"]) or {name: crc32c.crc32c(bytes(file.tell())) for name, file in files.items()}
        for name, file in files.items():
            data = np.ascontiguousarray(found.pop(name)).tobytes()
            sums[name] = crc32c.crc32c(data, sums[name])
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sizes = {name: file.tell() for name, file in files.items()}
        rows, positions = held["rows"] + len(part), held["positions"] + int(counts.sum())
        return {"rows": rows, "positions": positions, "bytes": sizes, "sums": sums}

    def removed(self) -> None:
        """A folder without any of them, for what reads the model itself."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("done.json", *(f"{name}.bin" for name in ("hidden", "inner", "targets", "first"))):
            (self.folder / name).unlink(missing_ok=True)

    def _opened(self) -> MemoryStates:
        """What was collected, mapped from its files."""
        dtype = self.provider.head.weight.dtype
        found = {name: self._mapped(name, dtype) for name in self._names}
        width = self.provider.head.model_shape.hidden
        count = len(found["targets"])
        inner = found["inner"].view(count, -1 if count else width) if "inner" in found else None
        return MemoryStates(
            found["hidden"].view(-1, width), found["targets"], found["first"].numpy().copy(), inner=inner
        )

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
        counts, found = states_of(self.provider, part, self.layer)
        dtype = self.provider.head.weight.dtype
        return {name: (value if name == "targets" else value.view(_AS_STORED[dtype])).numpy()
                for name, value in found.items()}, counts  # fmt: skip

    def _resumed(self, told: dict[str, Any]) -> dict[str, Any]:
        """Rows, positions and files' bytes that are there of the same corpus and model; else everything is begun anew."""
        for name in self._names:
            (self.folder / f"{name}.bin").touch()
        try:
            held = json.loads((self.folder / "done.json").read_text())
            found = {name: held.pop(name) for name in _nothing()}
            numbers = (found["rows"], found["positions"], *found["bytes"].values(), *found["sums"].values())
            known = {*found["bytes"]} == {*self._names} == {*found["sums"]}
            if not known or not all(type(one) is int and one >= 0 for one in numbers):
                found = {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            found = {}
        return found if found and held == told and self._agrees(found) else _nothing()

    def _agrees(self, found: dict[str, Any]) -> bool:
        """Whether files are as long as their rows and positions want, and as they were written, and places ascend."""
        sizes, rows, positions = found["bytes"], found["rows"], found["positions"]
        width = self.provider.head.model_shape.hidden * self.provider.head.weight.element_size()
        wanted = {"first": 8 * (rows + 1), "targets": 8 * positions, "hidden": width * positions}
        if any(sizes[name] != size for name, size in wanted.items()) or not rows:
            return False
        files = {name: self.folder / f"{name}.bin" for name in self._names}
        if any(_summed(file, sizes[name]) != found["sums"][name] for name, file in files.items()):
            return False
        first = np.fromfile(files["first"], np.int64, rows + 1)
        return bool(first[0] == 0 and first[-1] == positions and (np.diff(first) >= 0).all())

    @property
    def digest(self) -> str:
        """Of what the states are of."""
        return hashlib.sha256(json.dumps(self._told(), sort_keys=True).encode()).hexdigest()

    def _keep(self, held: dict[str, Any]) -> None:
        hidden = self.folder / f".done.{os.getpid()}.part"
        hidden.write_text(json.dumps(held))
        hidden.replace(self.folder / "done.json")


def _nothing() -> dict[str, Any]:
    """What a pass holds that has not begun."""
    return {"rows": 0, "positions": 0, "bytes": {}, "sums": {}}


def _summed(file: Path, size: int) -> int:
    """CRC32C of the first `size` bytes; -1 where there are fewer."""
    found = 0
    with file.open("rb") as opened:
        while size:
            part = opened.read(min(size, _SUMMED))
            if not part:
                return -1
            found, size = crc32c.crc32c(part, found), size - len(part)
    return found


def part_bytes(sizes: ModelShape, *, inner: bool) -> int:
    """What is held of a part while it is written: as it was read, and in one piece."""
    return 8 * (1 + inner) * sizes.hidden * (_POSITIONS + sizes.max_length)


def _parts(examples: Iterator[Example]) -> Iterator[list[Example]]:
    """Examples that are written together."""
    part: list[Example] = []
    positions = 0
    for example in examples:
        if part and (len(part) == _PART or positions + example.target_count > _POSITIONS):
            yield part
            part, positions = [], 0
        part.append(example)
        positions += example.target_count
    if part:
        yield part
