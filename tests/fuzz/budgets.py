"""Tiny memory budgets: a command under any `--memory` refuses in one line or answers as it does without. Knows no plan."""

from __future__ import annotations

from random import Random

from headwater.cli import main

from fuzz.cases import WRITING, Case, Runner
from fuzz.outcomes import Expected, outcome
from fuzz.tool_commands import ALL, Command


def _takes_memory(command: Command) -> bool:
    group = main.commands[command.words[0]]
    if command.words[0] in ("plan", "evaluate"):
        return False  # `plan` prints its budget
    return any(parameter.name == "memory" for parameter in group.params)


COMMANDS = tuple(command for command in ALL if _takes_memory(command))


def budgeted(runner: Runner, seed: int) -> Case:
    """Run each command in turn with a budget between 1 byte and 2 GB."""
    random, command = Random(f"budgets {seed}"), COMMANDS[seed % len(COMMANDS)]
    budget = int(10 ** random.uniform(0, 9.3)) if random.random() < 0.3 else int(10 ** random.uniform(5.5, 8.5))
    runner.begin(*command.words)
    calm = runner.calm(command.words)
    answer = runner.run((*command.words, "--memory", str(budget)))
    end, why = outcome(answer, Expected(calm, writes=command.verb in WRITING))
    runner.snapshot.restore()
    return Case("budgets", seed, "--memory", f"{budget}", command.name, end, why)
