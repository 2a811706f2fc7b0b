"""A method's rows, computed by another process. Knows no check.

Starting a process and loading torch there takes seconds, so one process serves all methods of a run.
"""

from __future__ import annotations

import importlib
import json
import operator
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np

from ...engine.interface.method import Method
from ...engine.interface.model_view import LinearLayer, ModelShape
from ...store.json_values import JsonObject
from ...store.layout import Array
from .trial import LENGTHS, Trial

_HASH_SEED = "7"


class NotImportable(Exception):
    """The method's module cannot be imported by another process, such as a test file."""


def rows_in_fresh_process(method: Method, model: ModelShape) -> dict[str, Array]:
    """Column name → the rows of a trial's examples, from a process with another hash seed.

    Raises:
        NotImportable: the process cannot import the method.
        AssertionError: the method fails there.
    """
    kind = type(method)
    with tempfile.TemporaryDirectory() as folder:
        rows_file = Path(folder, "rows.npz")
        request = [kind.__module__, kind.__qualname__, method.settings(), asdict(model), str(rows_file)]
        reply = _row_process(tuple(sys.path)).ask(json.dumps(request))
        if "absent" in reply:
            raise NotImportable(reply["absent"])
        if "error" in reply:
            raise AssertionError(f"rows fail in another process: {reply['error']}")
        with np.load(rows_file) as rows:
            return dict(rows)


class RowProcess:
    """A process that computes rows of trials, one request after the other, until its input ends."""

    def __init__(self, path: tuple[str, ...]) -> None:
        """`path`: where it looks for modules."""
        code = f"import sys; sys.path[:] = {list(path)!r}\nfrom {__name__} import serve\nserve()"
        environment = {**os.environ, "PYTHONHASHSEED": _HASH_SEED}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process is
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment,
        )  # fmt: skip
        weakref.finalize(self, _end, self._process, self._errors)

    def ask(self, request: str) -> Mapping[str, str]:
        """The reply to one request.

        Raises:
            AssertionError: the process ends before it replies.
        """
        process = self._process
        assert process.stdin and process.stdout
        try:
            process.stdin.write(request + "\n")
            process.stdin.flush()
            reply = process.stdout.readline()
        except OSError:
            reply = ""
        if not reply:
            _row_process.cache_clear()
            raise AssertionError(f"rows fail in another process: {self._last_error()}")
        fields: dict[str, str] = json.loads(reply)
        return fields

    def _last_error(self) -> str:
        """The last line that the process wrote to stderr, or its exit status."""
        status = self._process.wait()
        self._errors.seek(0)
        return "".join(self._errors.read().strip().splitlines()[-1:]) or f"it exits with status {status}"


def _end(process: subprocess.Popen[str], errors: IO[str]) -> None:
    process.kill()
    process.wait()
    for file in (process.stdin, process.stdout, errors):
        if file:
            with suppress(OSError):  # what was not read by a process that has ended
                file.close()


@lru_cache(maxsize=1)
def _row_process(path: tuple[str, ...]) -> RowProcess:
    """The running process; another one if the module path is another one."""
    return RowProcess(path)


def serve() -> None:
    """Reply to the requests on stdin: a line of JSON each. What a method prints goes to stderr."""
    replies = sys.stdout
    with redirect_stdout(sys.stderr):
        for line in sys.stdin:
            print(json.dumps(_reply(*json.loads(line))), file=replies, flush=True)


def _reply(module: str, name: str, settings: JsonObject, model: JsonObject, rows_file: str) -> dict[str, str]:
    """Write the rows to a file: {} for success, else {"absent": …} or {"error": …}."""
    try:
        kind = operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError):
        return {"absent": f"{module} cannot be imported by another process"}
    try:
        rows = Trial(kind.from_settings(settings), _model_shape(model)).rows(range(len(LENGTHS)))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    with Path(rows_file).open("wb") as file:
        np.savez(file, allow_pickle=False, **{column: values.numpy() for column, values in rows.items()})
    return {}


def _model_shape(fields: JsonObject) -> ModelShape:
    layers = fields["linear_layers"]
    assert isinstance(layers, list)
    linear_layers = tuple(LinearLayer(**layer) for layer in layers)
    return ModelShape(**{**fields, "linear_layers": linear_layers})  # type: ignore[arg-type]
