"""Tiny memory budgets: a command under any `--memory` refuses in one line or answers as it does without. Knows no plan."""

from __future__ import annotations

from random import Random

import numpy as np
from headwater.cli import main

from fuzz.cases import WRITING, Case, Runner
from fuzz.outcomes import SAME, WRONG, Expected, outcome
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
    if end == WRONG and command.output.endswith(".npy"):  # sums over blocks of other sizes are rounded otherwise
        actual = np.load(command.output)
        runner.snapshot.restore()
        runner.run(command.words)
        if np.allclose(np.load(command.output), actual, rtol=1e-6, atol=0):
            end, why = SAME, ""
    runner.snapshot.restore()
    return Case("budgets", seed, "--memory", f"{budget}", command.name, end, why)
