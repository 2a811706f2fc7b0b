"""Does a change of the code change an answer? Two versions of headwater build the same small stores and are asked the same.

The earlier version is a commit, checked out into a temporary git worktree with a virtual environment of its own, which shares
the running interpreter's packages; the later one is this checkout, under the running interpreter, where it must be installed
editable (`make test` does it). Both are driven by their command lines alone, so that modules may move freely between them:

    python examples/benchmarks/same_answers.py --before e9996f3
    python examples/benchmarks/same_answers.py --before main~20 --stores text --out /tmp/answers

Three runs: `before` (earlier code, its own stores), `after` (later code, its own stores) and `reread` (later code, the stores
that the earlier code wrote). Every answer of `after` and `reread` must equal that of `before` to the last bit; the methods
named by --rounding may differ by --tolerance, relative to the largest number of the same field. Exit code 1 otherwise, and
where a command fails. Needs os.fork: a command starts from a process that has imported torch and transformers already.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from same_answers_commands import STORES, Command, Job, jobs_of, write_inputs

ROOT = Path(__file__).resolve().parents[2]


def add_environment(checkout: Path) -> str:
    """A virtual environment in a checkout, with the running interpreter's packages; its interpreter's path."""
    environment = checkout / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = next(environment.glob("lib/python*/site-packages"))
    shared = [path for path in sys.path if path.endswith("-packages")]
    (packages / "zz_shared.pth").write_text("".join(f"{path}\n" for path in shared), "utf-8")
    python = str(environment / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", "."], cwd=checkout, check=True)
    return python


def perform(jobs: list[Job], folder: Path, python: str, package: Path) -> dict[str, str]:
    """Run commands in a folder by an interpreter whose headwater is `package`; the failed ones' outputs and last messages."""
    for job in jobs:
        (folder / job.output).parent.mkdir(parents=True, exist_ok=True)
    listed = [[job.words, job.output] for job in jobs]
    (folder / "jobs.json").write_text(json.dumps(listed), "utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "passive"}
    environment.pop("PYTHONPATH", None)
    began = time.monotonic()
    words = [python, Path(__file__).resolve(), "--jobs", "jobs.json", "--package", package]
    subprocess.run(words, cwd=folder, env=environment, check=True)
    codes = json.loads((folder / "jobs.json").read_text("utf-8"))
    failed = [job for job, code in zip(jobs, codes, strict=True) if code]
    print(
        f"{folder.name}: {len(jobs)} commands, {len(failed)} failed, {time.monotonic() - began:.0f} s", file=sys.stderr
    )
    return {job.answer: (folder / f"{job.output}.err").read_text("utf-8").strip()[-300:] for job in failed}


def serve(path: Path, package: Path) -> None:
    """Run the commands listed in a file, each in a fork of this process; exit codes replace the list."""
    from importlib import metadata

    import headwater
    import torch  # noqa: F401 — imported once, for all
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401

    if Path(headwater.__file__).resolve().parent != package.resolve():
        raise SystemExit(
            f"{sys.executable} imports headwater from {headwater.__file__}, not from {package}: install it there"
        )
    (entry,) = {
        point.value: point for point in metadata.entry_points(group="console_scripts", name="headwater")
    }.values()
    codes = []
    for words, output in json.loads(path.read_text("utf-8")):
        child = os.fork()
        if not child:
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.dup2(os.open(f"{output}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            sys.argv = ["headwater", *words]
            raise SystemExit(entry.load()())
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    path.write_text(json.dumps(codes), "utf-8")


def read_answer(path: Path, command: Command) -> dict[str, list[Any]]:
    """An answer as fields: name → values in order, for JSON the leaves below that name."""
    if command.answer == ".npy":
        return {"": np.load(path).ravel().tolist()}
    if command.answer == ".zarr":
        import zarr

        return {name: array[:].ravel().tolist() for name, array in zarr.open_group(path, mode="r").arrays()}
    text = path.read_text("utf-8")
    if command.answer == ".err":
        return {"": [int(number) for number in re.findall(r"\d+", text)]}
    fields: dict[str, list[Any]] = {}
    decoder, end = json.JSONDecoder(), 0
    while text[end:].strip():
        end += len(text[end:]) - len(text[end:].lstrip())
        value, end = decoder.raw_decode(text, end)
        add_leaves(value, "", fields, command.ignored)
    return fields


def add_leaves(value: Any, name: str, fields: dict[str, list[Any]], ignored: tuple[str, ...]) -> None:
    """Append the leaves of a JSON value to the fields that they are in."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in ignored:
                add_leaves(part, f"{name}.{key}" if name else key, fields, ignored)
    elif isinstance(value, list):
        fields.setdefault(f"{name}.length", []).append(len(value))
        for part in value:
            add_leaves(part, name, fields, ignored)
    else:
        fields.setdefault(name, []).append(value)


def compare(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> tuple[float, list[str]]:
    """The largest difference of numbers, relative to the largest number of their field, and the fields that differ otherwise."""
    largest, others = 0.0, [f"{name or 'values'} in one alone" for name in sorted(before.keys() ^ after.keys())]
    for name in before.keys() & after.keys():
        one, two = before[name], after[name]
        if repr(one) == repr(two):  # floats that print alike are equal; so are NaNs
            continue
        if len(one) != len(two) or not all(isinstance(value, float) for value in (*one, *two)):
            others.append(f"{name or 'values'} differ: {first_difference(one, two)}")
            continue
        a, b = np.array(one), np.array(two)
        off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        scale = np.nanmax(np.abs(a), initial=0.0) or 1.0
        largest = max(largest, float(np.nan_to_num(off / scale, nan=np.inf).max()))
    return largest, others


def first_difference(one: list[Any], two: list[Any]) -> str:
    """Where two lists part, in words."""
    place = next((place for place, (a, b) in enumerate(zip(one, two, strict=False)) if repr(a) != repr(b)), None)
    if place is None:
        return f"{len(one)} values became {len(two)}"
    return f"value {place} of {len(one)} was {one[place]!r:.60} and is {two[place]!r:.60}"


class Verdict(NamedTuple):
    """Of one answer: what the table says, and where it is not as it must be, why."""

    cell: str
    fault: str = ""


def judge(job: Job, folders: tuple[Path, Path], failed: dict[str, str], tolerance: float) -> Verdict:
    """Compare one answer of two runs; a tolerance of 0 asks for equal bits."""
    if failed:
        return Verdict("failed", "; ".join(f"{run}: {message}" for run, message in failed.items()))
    before, after = (read_answer(folder / job.answer, job.command) for folder in folders)
    if not any(before.values()):
        return Verdict("EMPTY", "the answer before is empty, so that nothing is compared")
    largest, others = compare(before, after)
    if largest > tolerance:
        others.append(f"numbers differ by {largest:.1e} of the largest")
    cell = "DIFFERS" if others else f"{largest:.0e}" if largest else "="
    return Verdict(cell, "; ".join(others))


def show(title: str, verdicts: dict[tuple[str, str, str], Verdict]) -> None:
    """A table method × command of each store, and below it what is wrong."""
    for store in dict.fromkeys(store for store, _, _ in verdicts):
        mine = {(method, name): verdict for (of, method, name), verdict in verdicts.items() if of == store}
        names = list(dict.fromkeys(name for _, name in mine))
        methods = list(dict.fromkeys(method for method, _ in mine))
        lines = [["", *names], ["---"] * (len(names) + 1)]
        lines += [[method, *(mine[method, n].cell if (method, n) in mine else "" for n in names)] for method in methods]
        widths = [max(len(line[place]) for line in lines) for place in range(len(names) + 1)]
        print(f"\n{title}, store {store}\n")
        for line in lines:
            print("| " + " | ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) + " |")
    for (store, method, name), verdict in verdicts.items():
        if verdict.fault:
            print(f"\n{title}: {store}, {method}, {name}: {verdict.fault}")


def run_all(out: Path, checkout: Path, stores: list[str]) -> dict[str, dict[str, str]]:
    """Everything is built and asked, below `out`; the outputs of failed commands by run."""
    (out / "inputs").mkdir(parents=True)
    write_inputs(out / "inputs", checkout)
    earlier = add_environment(checkout)
    failed: dict[str, dict[str, str]] = {}
    for run, python, package in (
        ("before", earlier, checkout), ("reread", sys.executable, ROOT), ("after", sys.executable, ROOT),
    ):  # fmt: skip
        (out / run).mkdir(exist_ok=True)
        jobs = jobs_of(run, stores)
        if run == "before":
            built = [job for job in jobs if job.method == "build"]
            failed[run] = perform(built, out / run, python, package)
            for store in {job.store for job in built}:
                shutil.copytree(out / run / store / "store", out / "reread" / store / "store")
            jobs = [job for job in jobs if job.method != "build"]
        failed.setdefault(run, {}).update(perform(jobs, out / run, python, package))
    return failed


def report(out: Path, failed: dict[str, dict[str, str]], options: argparse.Namespace) -> int:
    """Print how `after` and `reread` stand to `before`; how much is not as it must be."""
    record_errors = 0
    for run in ("after", "reread"):
        verdicts: dict[tuple[str, str, str], Verdict] = {}
        for job in jobs_of(run, options.stores):
            errors = {name: failed[name][job.answer] for name in ("before", run) if job.answer in failed[name]}
            key = (job.store, job.method, job.command.name)
            if job.method != "build":
                tolerance = options.tolerance if job.method in options.rounding else 0.0
                verdicts[key] = judge(job, (out / "before", out / run), errors, tolerance)
            elif errors:
                verdicts[key] = Verdict("failed", str(errors))
        show(f"{run} against before", verdicts)
        wrong = sum(bool(verdict.fault) for verdict in verdicts.values())
        same = sum(verdict.cell == "=" for verdict in verdicts.values())
        print(f"\n{run}: {len(verdicts)} answers, {same} equal to the last bit, {wrong} not as they must be")
        record_errors += wrong
    return record_errors


def main() -> None:
    """Check out, build, ask, compare; exit 1 if an answer changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="COMMIT", help="the earlier version")
    parser.add_argument(
        "--out", type=Path, help="keep stores and answers in this new folder (default: a temporary one)"
    )
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES), help="which stores (default: all)")
    parser.add_argument(
        "--rounding", nargs="*", default=["grasp", "trak", "trackstar"], help="methods whose last bits may differ"
    )
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, help="how much these may differ (default: %(default)g)"
    )
    parser.add_argument(
        "--jobs", type=Path, help="only run the commands that this file lists, here (the script's own use)"
    )
    parser.add_argument("--package", type=Path, help="folder that headwater must be imported from, with --jobs")
    options = parser.parse_args()
    if options.jobs:
        serve(options.jobs, options.package)
        return
    if not options.before:
        parser.error("--before COMMIT is needed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the worktree is removed
    with tempfile.TemporaryDirectory() as temporary:
        checkout, out = Path(temporary) / "checkout", (options.out or Path(temporary) / "out").resolve()
        git = ["git", "-C", ROOT, "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", checkout, options.before], check=True)
        try:
            record_errors = report(out, run_all(out, checkout, options.stores), options)
        finally:
            subprocess.run([*git, "remove", "--force", checkout], check=True)
    raise SystemExit(1 if record_errors else 0)


if __name__ == "__main__":
    main()
