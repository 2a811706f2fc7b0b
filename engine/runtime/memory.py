"""The memory plan: the peak of an operation as a sum of named parts, refused before any work if it exceeds the budget.

The budget bounds what headwater allocates for the work. The memory of the interpreter and its libraries is measured and shown
with the plan, but is not part of the budget. Knows nothing of what the parts hold.
"""

from __future__ import annotations

import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from ...store.errors import BudgetError, SettingsError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclass(frozen=True, slots=True)
class Part:
    """One named part of the peak."""

    name: str
    """What the memory holds."""
    bytes: int
    """Its upper bound."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts of an operation's peak memory."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, *parts: Part) -> Plan:
        """A plan of these parts; parts of 0 bytes are left out."""
        return cls(tuple(part for part in parts if part.bytes > 0))

    def __add__(self, other: Plan) -> Plan:
        """The plan of both operations at the same time; parts of the same name are added up."""
        sizes: dict[str, int] = {}
        for part in (*self.parts, *other.parts):
            sizes[part.name] = sizes.get(part.name, 0) + part.bytes
        return Plan(tuple(Part(name, size) for name, size in sizes.items()))

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts)

    def check(self, budget: int | None, smallest: int) -> None:
        """Refuse a plan above the budget. `smallest`: the total of the plan with the smallest block or batch.

        Raises:
            BudgetError: with both numbers, the largest part, and the smallest budget that works.
        """
        if budget is not None and self.total > budget:
            largest = max(self.parts, key=lambda part: part.bytes)
            raise BudgetError(
                f"the plan needs {show_bytes(self.total)}, --memory allows {show_bytes(budget)}; the largest part is "
                f"{largest.name} ({show_bytes(largest.bytes)}); the smallest budget that works is "
                f"{show_bytes(smallest, up=True)}",
                hint=f"give --memory {show_bytes(smallest, up=True)} or more",
            )


def parse_bytes(text: str) -> int:
    """`2GB`, `512 MiB`, `1.5e9` → bytes.

    Raises:
        SettingsError: it is not an amount of memory.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMGT]?I?)B?\s*", text.upper().replace("E", "e"))
    try:
        if not match:
            raise ValueError
        return round(float(match[1]) * _UNITS[match[2]])
    except (ValueError, KeyError, OverflowError):
        raise SettingsError(f"{text!r} is not an amount of memory", hint="write 512MB, 2GB or 1.5GiB") from None


def show_bytes(count: int, *, up: bool = False) -> str:
    """Bytes as text, in decimal units that :func:`parse_bytes` reads back; `up` rounds upwards."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            value = count / size
            return f"{-(-count * 100 // size) / 100 if up else value:.2f}".rstrip("0").rstrip(".") + unit
    return f"{count}B"


def resident_bytes() -> int:
    """Resident memory of this process now; the peak so far on systems that do not report it."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return peak_bytes()


def peak_bytes() -> int:
    """Largest resident memory of this process so far, or since :func:`reset_peak`."""
    status = Path("/proc/self/status")
    if status.exists():
        match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if match:
            return int(match[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak() -> bool:
    """Reset the recorded peak; False if the system does not allow it (all but Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
