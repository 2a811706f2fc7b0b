"""What the demo on a real model prints: answers before and after the training, one question in full, a table of what each finds.

Knows no model, no store, no method beyond its name.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..results.printable import printable
from ..runtime.progress import clock
from .hit_rates import DEPTH
from .instruction_set import gold_ids
from .planted_facts import Fact
from .workdir import Workdir


@dataclass(frozen=True, slots=True)
class Reply:
    """The model's answers to one question."""

    fact: Fact
    before: str
    """Its answer before the training."""
    after: str
    """Its answer after the training."""

    @property
    def is_as_taught(self) -> bool:
        """Whether the trained model gives the taught answer and no more."""
        return self.after == self.fact.answer


@dataclass(frozen=True, slots=True)
class FirstExamples:
    """The first examples of each question by one way of ranking."""

    name: str
    """Name of the method, or of what words were compared."""
    examples: tuple[tuple[str, ...], ...]
    """For each question, ids of `DEPTH` examples, best first."""

    def hits(self, learnt: Sequence[Reply]) -> list[int]:
        """For each question, how many of these examples taught the fact."""
        return [len({*gold_ids(reply.fact)} & {*ids}) for reply, ids in zip(learnt, self.examples, strict=True)]


def log(line: str) -> None:
    """Print a line about a step to stderr."""
    print(line, file=sys.stderr, flush=True)


def show_replies(replies: Sequence[Reply]) -> None:
    """One line a question: the answers before and after."""
    learnt = sum(reply.is_as_taught for reply in replies)
    print(
        f"\nWhat guests ask, in other words than the examples that teach the answer, and what the model says: {learnt} of"
    )
    print(f"{len(replies)} answers are as taught (✓) after the training.\n")
    print(f"    {'question':<40}  {'before':<40}  after")
    for reply in replies:
        mark = "✓" if reply.is_as_taught else "·"
        print(f"  {mark} {_cut(reply.fact.question)}  {_cut(reply.before)}  {_cut(reply.after, 24)}")


def show_case(
    learnt: Sequence[Reply], rankings: Sequence[FirstExamples], texts: Mapping[str, Sequence[Mapping[str, str]]]
) -> None:
    """One question in full: where the first method is furthest ahead of the words of question and answer."""
    method, words = rankings[0], rankings[-1]
    ahead = [ours - theirs for ours, theirs in zip(method.hits(learnt), words.hits(learnt), strict=True)]
    number = ahead.index(max(ahead))
    reply = learnt[number]
    print(f"\n{reply.fact.question!r} → {reply.after!r}: the first {DEPTH} examples (* taught this fact)")
    for ranking in (method, words):
        print(f"\n  {ranking.name}")
        for rank, example in enumerate(ranking.examples[number], 1):
            _, question, answer = texts[example]
            mark = "*" if example in gold_ids(reply.fact) else " "
            print(f"   {rank} {mark} {question['content']} → {answer['content']}")


def show_figures(learnt: Sequence[Reply], rankings: Sequence[FirstExamples], corpus: int) -> None:
    """How many of the examples that taught the answers are among the first, and for which questions none is."""
    taught = sum(len(reply.fact.taught) for reply in learnt)
    print(f"\nOf the {taught} examples that taught these {len(learnt)} answers, so many are among the first {DEPTH}:\n")
    for ranking in rankings:
        hits = ranking.hits(learnt)
        print(
            f"  {ranking.name:<36} {sum(hits):>4} of {taught}    questions without any: {hits.count(0):>2} of {len(learnt)}"
        )
    print(f"  {'chance':<36} {taught * DEPTH / corpus:>4.1f} of {taught}")
    for ranking in (rankings[0], rankings[-1]):
        missed = [reply.fact.question for reply, hits in zip(learnt, ranking.hits(learnt), strict=True) if not hits]
        print(f"\nNot one with {ranking.name}: {' · '.join(missed) or 'no question'}")
    best = max(rankings, key=lambda ranking: sum(ranking.hits(learnt)))
    if best is not rankings[0]:
        print(f"\nIn this run {best.name} has more than {rankings[0].name}.")


def show_next(place: Workdir, method: str, seconds: float) -> None:
    """What can be run on the folder."""
    store, questions = (shlex.quote(str(path)) for path in (place.store, place.questions))
    print(f"\nAll this took {clock(seconds)}. To go on:\n")
    print(f"  headwater info {store}")
    print(f"  headwater attribute {store} --method {method} --queries {questions} --top 5")
    print(f"  headwater attribute {store} --method bm25 --queries {questions} --top 5", flush=True)


def _cut(text: str, width: int = 40) -> str:
    """Text cut or filled up to a width."""
    line = " ".join(printable(text).split())
    return f"{line if len(line) <= width else line[: width - 1] + '…':<{width}}"
