"""Tables of utilities and calibrations for a terminal. Computes nothing."""

from __future__ import annotations

from ..results.printable import printable
from ..selection.calibration import Calibration
from ..selection.prediction import UTILITY_FIELDS, Utilities


def print_utilities(utilities: Utilities) -> None:
    """Print one line per subset and task."""
    fields = [name for name in UTILITY_FIELDS if name != "adds" or utilities.adds is not None]
    print("  ".join(f"{name:<16}" if name in ("subset", "task") else f"{name:>10}" for name in fields))
    for line in utilities.lines():
        print(
            "  ".join(
                f"{printable(line[name]):<16}" if name in ("subset", "task") else f"{line[name]:>10.5g}"
                for name in fields
            )
        )


def print_calibration(calibration: Calibration) -> None:
    """Print one line per candidate λ, and the chosen one."""
    print(f"{'λ':>8}  {'correlation':>11}  {'gain':>8}  {'bound':>8}")
    for candidate in calibration.candidates:
        mark = "  chosen" if candidate.chosen else ""
        print(
            f"{candidate.penalty:>8g}  {candidate.correlation:>11.4f}  {candidate.ahead:>8.4f}  {candidate.bound:>8.4f}{mark}"
        )
    print(f"λ = {calibration.penalty:g} by {calibration.subsets} subsets, {len(calibration.tasks)} tasks")
    if calibration.held_out is not None:
        print(f"held-out correlation: {calibration.held_out:.4f}")
