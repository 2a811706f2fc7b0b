"""Commands in processes of their own, each a fork of one process that has imported the libraries already: real kills, cheap.

Run as a script, this file is that process: it reads one JSON line per command and answers with one. It must never have computed
anything itself, since OpenMP's threads do not survive a fork; but see `warm`.
"""

from __future__ import annotations

import importlib
import io
import json
import mmap
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate"}
"""Audit events of a change of the disk, besides opening a file to write."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    """Its exit code; -9 if it was killed."""
    out: str
    err: str
    changes: int
    """How often it changed the disk below the folder that was watched."""


class CommandServer:
    """The process that forks; a context manager."""

    def __enter__(self) -> CommandServer:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def warm(self, *words: object, folder: Path) -> None:
        """Run a command in the process itself, so that later ones begin with what it compiled and loaded. There must be one
        thread of OpenMP, and Numba's threads must survive a fork (NUMBA_THREADING_LAYER=workqueue).
        """
        assert self._process.stdin and self._process.stdout
        request = {"words": [str(word) for word in words], "folder": str(folder), "warm": True}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        assert json.loads(self._process.stdout.readline()) == 0, words

    def run(
        self,
        *words: object,
        below: Path | None = None,
        killed_at: int | None = None,
        killed_after: float | None = None,
        signal_number: int = signal.SIGKILL,
        folder: Path | None = None,
    ) -> Ended:
        """Run `headwater words`, with `folder` as the current one.

        With `killed_at` it gets a signal just before its n-th change of the disk below a folder, with `killed_after` after so
        many seconds: SIGKILL, or another one, to which it responds as it can.
        """
        assert self._process.stdin and self._process.stdout
        request = {"words": [str(word) for word in words], "below": str(below), "killed_at": killed_at,
                   "killed_after": killed_after, "signal": signal_number, "folder": str(folder or ".")}  # fmt: skip
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))


def count_changes(below: str, count: mmap.mmap, killed_at: int | None, signal_number: int) -> None:
    """Count this process's changes of the disk below a folder in shared memory; send it a signal just before the n-th."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" and event not in CHANGES:
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        if below in str(Path(os.fsdecode(arguments[0])).absolute() if isinstance(arguments[0], str | bytes) else ""):
            changes = int.from_bytes(count[:4], "little") + 1
            count[:4] = changes.to_bytes(4, "little")
            if changes == killed_at:
                os.kill(os.getpid(), signal_number)

    sys.addaudithook(watch)


def exit_code(command: Callable[[], object]) -> int:
    """Run a command; its exit code, without the second that tearing the libraries down takes."""
    try:
        command()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def exit_code_here(words: list[str], folder: str) -> int:
    """Run a command in this process, without its output."""
    from headwater.cli import main

    before = Path.cwd()
    os.chdir(folder)
    sys.argv = ["headwater", *words]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        code = exit_code(main)
    os.chdir(before)
    return code


def serve() -> None:
    """Answer requests until there are no more."""
    import headwater
    from headwater.cli import main
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401 — imported once, for all

    for module in pkgutil.walk_packages(headwater.__path__, "headwater."):
        if module.name.startswith(("headwater.store.", "headwater.engine.", "headwater.plugins.")):
            importlib.import_module(module.name)
    count = mmap.mmap(-1, 4)
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("warm"):
            print(exit_code_here(request["words"], request["folder"]), flush=True)
            continue
        count[:4] = bytes(4)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = os.fork()
            if not child:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                os.chdir(request["folder"])
                sys.argv = ["headwater", *request["words"]]
                count_changes(request["below"], count, request["killed_at"], request["signal"])
                os._exit(exit_code(main))
            if request["killed_after"] is not None:
                time.sleep(request["killed_after"])
                os.kill(child, request["signal"])
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = [file.seek(0) or file.read() for file in (out, err)]
        print(json.dumps([code, *texts, int.from_bytes(count[:4], "little")]), flush=True)


if __name__ == "__main__":
    serve()
