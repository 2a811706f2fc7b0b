"""What a run came to: the same answer, one line, or a fault. Knows no part of the fuzzer."""

from __future__ import annotations

import difflib
import re
import traceback
from dataclasses import dataclass, field

from click.testing import Result

SAME, NOTED, OTHER, ONE_LINE = "same", "with a note", "other input", "one line"
TRACEBACK, WRONG, NOISE, LEFT, HANG = "traceback", "wrong", "noise", "left over", "hang"
OUTCOMES = (SAME, NOTED, OTHER, ONE_LINE, TRACEBACK, WRONG, NOISE, LEFT, HANG)
"""`with a note`: another answer, and a line that says so, or a command that writes did more than it would have, and says so.
`other input`: a file without a checksum was read as it is now."""
FAULTS = (TRACEBACK, WRONG, NOISE, LEFT, HANG)
"""Outcomes that must not be. `noise`: more than one line for an error, or a warning of a library; `left over`: a file that a run
which failed left or changed."""
_QUIET = re.compile(
    r"(note|warning|skipped|error|hint): |$|approximate: |stopp|\S.*: [\d,]+ |all examples have the same|"
    r"skipped \d+ bad records|ids? .* shared|(ingest|fit|verify|scan|compress|hidden states|\w[\w ]*): [\d,]+"
)
"""Lines that headwater's own commands write to stderr."""
_PASSING = re.compile(r"this process now has \S+|\"(seconds|rate)\": [\d.e+-]+")
_STATE = re.compile(r"/methods/\w+(/state|/zarr|$)|/methods/zarr")  # what is computed once, and kept


@dataclass
class Answer:
    """What a run gave: its exit code, its output, and what it changed on disk."""

    code: int
    out: str
    err: str
    fault: str = ""
    """The end of a traceback, or ''."""
    files: dict[str, str] = field(default_factory=dict)
    """Path → digest of all that differs from before the run and before the damage."""

    @staticmethod
    def of(result: Result, files: dict[str, str]) -> Answer:
        """From click's result."""
        fault = ""
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            fault = "".join(traceback.format_exception(result.exception)[-4:])
        return Answer(result.exit_code, result.stdout, result.stderr, fault, files)


@dataclass(frozen=True)
class Expected:
    """What a run is compared with."""

    calm: Answer
    """The undisturbed run's answer."""
    damaged: frozenset[str] = frozenset()
    """Paths that need not be as the undisturbed run left them."""
    checked: bool = True
    """Whether another answer is a fault; not so if an input without checksums was changed."""
    writes: bool = False
    """Whether the command adds to a store, so that one that fails may leave a part of its work."""


def outcome(answer: Answer, expected: Expected) -> tuple[str, str]:
    """The outcome of a run, and why."""
    calm = expected.calm
    if answer.fault or "Traceback (most recent call last)" in answer.err or "Exception ignored" in answer.err:
        return TRACEBACK, answer.fault or answer.err
    new = [line for line in answer.err.splitlines() if line not in calm.err]
    if any("Warning: " in line or (answer.code and not _QUIET.match(line)) for line in new):
        return NOISE, answer.err
    left = _other_files(answer, calm, expected.damaged)
    if answer.code:
        errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
        if answer.out and "damaged: restore" in answer.err and not errors:
            return ONE_LINE, ""  # verify
        if len(errors) != 1:
            return NOISE, answer.err
        left = (
            [] if expected.writes else [place for place in left if place in answer.files and not _STATE.search(place)]
        )
        return (LEFT, f"{left}; {answer.err}") if left else (ONE_LINE, answer.err)
    if _lasting(answer.out) == _lasting(calm.out) and not left and not calm.code:
        return SAME, ""
    if not expected.checked:
        return OTHER, ""
    noted = any(line.startswith("note: ") for line in new)
    if noted or (expected.writes and answer.out == calm.out and new):
        return NOTED, f"{left}; {answer.err}"
    lines = difflib.unified_diff(
        calm.out.splitlines(), answer.out.splitlines(), calm.err[:300], answer.err, n=0, lineterm=""
    )
    return WRONG, "\n".join([*left, *lines])


def _lasting(out: str) -> str:
    """An output without what differs from run to run: the process's memory, and forecasts of time."""
    return _PASSING.sub("", " ".join(out.split()))


def same_twice(first: Answer, second: Answer) -> bool:
    """Whether two undisturbed runs gave the same answer, and no fault."""
    return not first.fault and (first.code, _lasting(first.out), first.files) == (
        second.code,
        _lasting(second.out),
        second.files,
    )


def _other_files(answer: Answer, calm: Answer, damaged: frozenset[str]) -> list[str]:
    """Paths that differ from what the undisturbed run left."""
    places = {*answer.files, *calm.files}
    return sorted(
        place for place in places if answer.files.get(place) != calm.files.get(place) and not _below(place, damaged)
    )


def _below(place: str, damaged: frozenset[str]) -> bool:
    return any(place == path or place.startswith(f"{path}/") for path in damaged)
