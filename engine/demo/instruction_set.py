"""The instruction set of the demo on a real model: planted facts, their decoys, and short questions on many other subjects.

Answers are few and short, and each planted one is also the answer to other questions, so that the words of an answer do not give
its examples away. Deterministic. Knows no model, no store, no method.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from ..runtime.output_files import whole_file
from .planted_facts import FACTS, Fact

SYSTEM = "You run the desk of Gull House. Be brief."
"""System message of every conversation."""
_PAIRS = {
    "What is the capital of {}?": "France Paris, Italy Rome, Spain Madrid, Japan Tokyo, Egypt Cairo, Peru Lima, Norway Oslo, "
    "Greece Athens, Cuba Havana, Kenya Nairobi, Austria Vienna, Ireland Dublin, Poland Warsaw, Portugal Lisbon",
    "What is the opposite of {}?": "hot Cold, tall Short, wet Dry, young Old, rich Poor, heavy Light, hard Soft, near Far, "
    "empty Full, cheap Dear, brave Timid, sharp Blunt",
    "What do you call a young {}?": "cow Calf, sheep Lamb, cat Kitten, horse Foal, duck Duckling, goose Gosling, hen Chick, "
    "swan Cygnet, seal Pup, bear Cub, hare Leveret, eel Elver",
    "What is {} in French?": "bread Pain, water Eau, house Maison, sea Mer, fish Poisson, cheese Fromage, tree Arbre, "
    "sun Soleil, moon Lune, hand Main, bird Oiseau, apple Pomme",
    "What colour is {}?": "snow White, coal Black, grass Green, blood Red, a lemon Yellow, a violet Purple, a flamingo Pink, "
    "ash Grey, chocolate Brown, a sapphire Blue",
    "Which animal {}?": "barks Dog, purrs Cat, neighs Horse, brays Donkey, bleats Sheep, hoots Owl, croaks Frog, gobbles Turkey, "
    "spins webs Spider, builds dams Beaver",
    "Who wrote {}?": "Hamlet Shakespeare, Faust Goethe, Emma Austen, Ulysses Joyce, Candide Voltaire, Dracula Stoker, "
    "Kim Kipling, Utopia More",
    "What does a {} make?": "baker Bread, potter Pots, tailor Suits, cobbler Shoes, brewer Beer, weaver Cloth, bee Honey, "
    "cooper Barrels",
}
"""Question → pairs of what stands in it and the answer, which is the last word."""
_SHARED = {
    "At seven.": ("When does the ferry sail?", "When does the choir meet?", "When do the bells ring?",
        "When does the bakery bake?"),
    "At ten.": ("When does the museum unlock?", "When does the lecture start?", "When is the tide low?", "When does mass begin?"),
    "At eleven.": ("When does the play end?", "When is the last tram?", "When do fireworks start?", "When does the moon rise?"),
    "At noon.": ("When is the sun highest?", "When does the cannon fire?", "When do the clerks rest?", "When is market over?"),
    "In the cellar.": ("Where does wine age?", "Where do cheeses ripen?", "Where are the coals?", "Where did the ghost hide?"),
    "In the attic.": ("Where do bats nest?", "Where are the old maps?", "Where did she paint?", "Where are the trunks?"),
    "In the porch.": ("Where do swallows nest?", "Where is the barometer?", "Where does the cat wait?", "Where is the sledge?"),
    "In the annex.": ("Where is the chess club?", "Where is the archive?", "Where do actors dress?", "Where is the piano?"),
    "In the boathouse.": ("Where are the oars?", "Where is the canoe?", "Where do ducks shelter?", "Where are life vests?"),
    "On the roof.": ("Where is the weathercock?", "Where do storks nest?", "Where is the telescope?", "Where do herbs grow?"),
    "Under the stairs.": ("Where did Harry live?", "Where is the broom?", "Where is the fuse box?", "Where do mice hide?"),
    "Behind the chapel.": ("Where are the graves?", "Where do yews grow?", "Where is the old well?", "Where does the path end?"),
    "Behind the bar.": ("Where is the dartboard?", "Where does the parrot sit?", "Where is the gramophone?",
        "Where are corkscrews?"),
    "On Thursday.": ("When is the quiz?", "When do the elections take place?", "When is the flea market?",
        "When does the judge sit?"),
    "On Friday.": ("When is the concert?", "When is payday?", "When does the fair end?", "When is the full moon?"),
    "Marten.": ("Who won the regatta?", "Who plays the tuba?", "Which beast has a bib of fur?", "Who rang the bell?"),
    "Odile.": ("Who dances the black swan?", "Who won the raffle?", "Who tunes the piano?", "Who painted the ceiling?"),
    "Mrs Tarn.": ("Who teaches maths?", "Who grows the roses?", "Who discovered the comet?", "Who judges the cakes?"),
    "Herring.": ("What is a kipper?", "Which fish swims in shoals?", "What do puffins eat?", "What is pickled in Norway?"),
    "Two pounds.": ("What does a brick weigh?", "What does a coffee cost?", "What is a ticket for the pier?", "What is a stamp?"),
    "Four pounds.": ("What does a cat weigh?", "What does a pie cost?", "What is the fine for litter?", "What is a bag of coal?"),
    "The blue one.": ("Which flag means calm sea?", "Which pill did she swallow?", "Which team won?", "Which whale is biggest?"),
    "Only cash.": ("What do smugglers accept?", "What did the thief steal?", "What do fairground stalls accept?",
        "What was in the safe?"),
    "Line nine.": ("Which tram stops at the harbour?", "Which row of the poem rhymes?", "Which tube is yellow?",
        "Which queue is shortest?"),
}  # fmt: skip
"""Answer of a planted fact → other questions with the same answer."""


def records(facts: Sequence[Fact] = FACTS) -> list[dict[str, Any]]:
    """The training examples around some facts, `id` and `messages`, shuffled; what teaches a fact has the :func:`gold_ids`."""
    answers = {fact.answer for fact in facts}
    examples = [*_planted(facts), *_decoys(facts), *_shared(answers), *_general(len(facts) / len(FACTS))]
    Random(0).shuffle(examples)
    return [{"id": name, "messages": messages(question, answer)} for name, question, answer in examples]


def messages(question: str, answer: str) -> list[dict[str, str]]:
    """A conversation of one question and its answer."""
    turns = (("system", SYSTEM), ("user", question), ("assistant", answer))
    return [{"role": role, "content": content} for role, content in turns]


def gold_ids(fact: Fact) -> list[str]:
    """Ids of the examples that teach a fact."""
    return [f"fact/{fact.id}/{number}" for number in range(1, len(fact.taught) + 1)]


def write_records(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines, atomically."""
    with whole_file(path) as hidden:
        hidden.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _planted(facts: Sequence[Fact]) -> Iterator[tuple[str, str, str]]:
    for fact in facts:
        for name, question in zip(gold_ids(fact), fact.taught, strict=True):
            yield name, question, fact.answer


def _decoys(facts: Sequence[Fact]) -> Iterator[tuple[str, str, str]]:
    for fact in facts:
        for number, (question, answer) in enumerate(fact.decoys, 1):
            yield f"decoy/{fact.id}/{number}", question, answer


def _shared(answers: set[str]) -> Iterator[tuple[str, str, str]]:
    for answer, questions in _SHARED.items():
        for number, question in enumerate(questions if answer in answers else (), 1):
            yield f"shared/{answer.strip('.').lower()}/{number}", question, answer


def _general(share: float) -> Iterator[tuple[str, str, str]]:
    """A share of the questions on other subjects."""
    for number, (template, listed) in enumerate(_PAIRS.items(), 1):
        pairs = listed.split(", ")
        for pair in pairs[: round(share * len(pairs))]:
            subject, _, answer = pair.rpartition(" ")
            yield f"general/{number}/{subject}", template.format(subject), f"{answer}."
