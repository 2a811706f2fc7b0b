"""Tables of utilities and calibrations for a terminal."""

from __future__ import annotations

from ..results.printable import printable
from ..selection.calibration import Calibration
from ..selection.prediction import UTILITY_FIELDS, Utilities


def print_utilities(found: Utilities) -> None:
    """A line a subset and task."""
    fields = [name for name in UTILITY_FIELDS if name != "adds" or found.adds is not None]
    print("  ".join(f"{name:<16}" if name in ("subset", "task") else f"{name:>10}" for name in fields))
    for line in found.lines():
        print(
            "  ".join(
                f"{printable(line[name]):<16}" if name in ("subset", "task") else f"{line[name]:>10.5g}"
                for name in fields
            )
        )


def print_calibration(found: Calibration) -> None:
    """A line a candidate, and what was chosen."""
    print(f"{'λ':>8}  {'correlation':>11}  {'ahead':>8}  {'at least':>8}")
    for one in found.candidates:
        mark = "  chosen" if one.chosen else ""
        print(f"{one.penalty:>8g}  {one.correlation:>11.4f}  {one.ahead:>8.4f}  {one.bound:>8.4f}{mark}")
    print(f"λ = {found.penalty:g} by {found.subsets} subsets, {len(found.tasks)} tasks")
    if found.held_out is not None:
        print(f"on the subsets held out: {found.held_out:.4f}")
