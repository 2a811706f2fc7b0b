"""`make fuzz`: runs cases for a given time or number, prints what fails, and tables of all. Knows no case's content.

make fuzz                                                an hour of all parts
make fuzz FUZZ="--only mutations --seed 7 --count 1"     one case
make fuzz FUZZ="--only kills --count 1000"
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click
from command_server import CommandServer

from fuzz.campaign import Worker, environment, table
from fuzz.cases import Case, mutation_kind
from fuzz.kills import Killer
from fuzz.kinds import KINDS
from fuzz.outcomes import FAULTS
from fuzz.world import install_plugin

PARTS = {"mutations": 0.45, "kills": 0.35, "hostile": 0.15, "budgets": 0.05}
"""Each part, and its share of the time."""
SEEDS = Path(__file__).with_name("seeds.txt")
"""Cases that failed once; tests/fuzz/test_fuzz.py runs them again."""


def recorded() -> list[tuple[str, int]]:
    """The cases of `seeds.txt`: part and seed."""
    lines = [line.split("#")[0].split() for line in SEEDS.read_text("utf-8").splitlines()]
    return [(words[0], int(words[1])) for words in lines if words]


def run_part(part: str, seeds: Iterator[int], worker: Worker, seconds: float) -> Iterator[Case]:
    """Cases of one part, until there are no more seeds or the time is over."""
    end = time.monotonic() + seconds
    with ExitStack() as stack:
        killer = None
        if part == "kills":
            if not (worker.folder / "pristine").exists():
                worker.start()  # it builds the world
                worker.stop()
            killer = Killer(worker.folder, stack.enter_context(CommandServer()))
        for seed in seeds:
            if time.monotonic() > end:
                return
            yield killer.case(seed) if killer else worker.run(part, seed)


def _seeds(part: str, first: int, count: int | None, kinds: tuple[str, ...]) -> Iterator[int]:
    numbers = itertools.count(first)
    if part == "mutations" and kinds:
        numbers = (seed for seed in numbers if mutation_kind(seed).name in kinds)  # type: ignore[assignment]
    return itertools.islice(numbers, count)


@click.command()
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True, help="Run these parts only. [default: all]")
@click.option("--seed", default=0, show_default=True, help="The first case.")
@click.option("--count", type=click.IntRange(1), help="Cases of each part. [default: as many as there is time for]")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([kind.name for kind in KINDS]),
    multiple=True,
    help="Damage these kinds of files only.",
)
@click.option("--minutes", default=60.0, show_default=True, help="Limit of time for all parts.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where the world is built, or is already. [default: a temporary folder]",
)
@click.option("--log", type=click.Path(path_type=Path), help="Write each case as a JSON line.")
def main(
    only: tuple[str, ...],
    seed: int,
    count: int | None,
    kinds: tuple[str, ...],
    minutes: float,
    folder: Path | None,
    log: Path | None,
) -> None:
    """Damage files, kill commands, and give hostile inputs and tiny budgets; exit with 1 if a case fails."""
    shares = {part: share for part, share in PARTS.items() if not only or part in only}
    cases: list[Case] = []
    with tempfile.TemporaryDirectory(
        prefix="hw-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as temporary:
        place = (folder or Path(temporary)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        install_plugin(place)
        with environment(place), open(log or os.devnull, "a", encoding="utf-8") as file:  # noqa: PTH123 — either
            worker = Worker(place)
            for part, share in shares.items():
                seconds = 60 * minutes * share / sum(shares.values())
                for case in run_part(part, _seeds(part, seed, count, kinds), worker, seconds):
                    cases.append(case)
                    file.write(case.to_json() + "\n")
                    file.flush()
                    if case.outcome in FAULTS:
                        click.echo(
                            f"{case.outcome}: {part} {case.seed}  # {case.what}: {case.how}: {case.command}\n{case.why}\n"
                        )
            worker.stop()
    _print_tables(cases)
    sys.exit(any(case.outcome in FAULTS for case in cases))


def _print_tables(cases: list[Case]) -> None:
    for part in PARTS:
        of_part = [case for case in cases if case.part == part]
        for by in ("what", "command"):
            if of_part:
                click.echo(f"\n{part}\n{table(of_part, by)}")


if __name__ == "__main__":
    main()
