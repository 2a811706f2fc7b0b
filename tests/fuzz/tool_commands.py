"""The commands that are run after a file was damaged, with what they read and write. Names in the world's folder only."""

from __future__ import annotations

from dataclasses import dataclass

SMALL = {
    "rise": {"kr": 8, "kh": 8, "kg": 4},
    "repsim": {},
    "graddot": {"k": 4},
    "gradcos": {"k": 4},
    "logra": {"k": 2},
    "headcos": {"k": 6},
    "headgn": {"k": 6},
    "trackstar": {"k": 3},
    "trak": {"k": 3},
    "rapidin": {"groups": 64},
    "grasp": {"m": 32},
    "fitted_mean": {},
}
"""Methods with stored rows, and settings that keep their rows short; the last one is not headwater's own."""
LEXICAL = ("tfidf", "bm25")
_SETTINGS = {"subsets": 12, "degree": 4, "updates": 3, "checked": 3, "rank": 4}
STRIDE = tuple(word for name, value in _SETTINGS.items() for word in ("--set", f"stride.{name}", str(value)))
"""Settings of a fit that takes a moment."""


@dataclass(frozen=True)
class Command:
    """One command line, and where its answer appears."""

    name: str
    """Short, for tables."""
    words: tuple[str, ...]
    output: str = ""
    """The file or folder that it writes; '' if it only prints."""
    method: str = ""
    """The method whose files it reads; '' if it reads no method's or many."""

    @property
    def verb(self) -> str:
        """The command's own name, without its options."""
        return " ".join(self.words[:2]) if self.words[0] in ("evaluate", "plan") else self.words[0]

    @property
    def store(self) -> str:
        """The store of a command that writes to one."""
        return self.words[self.words.index("--store") + 1] if "--store" in self.words else self.words[1]


def named(words: str, *, name: str = "", output: str = "", method: str = "") -> Command:
    """A command of words that a line holds."""
    parts = tuple(words.split())
    return Command(name or parts[0], parts, output, method)


def methods_and_settings(methods: list[str]) -> list[str]:
    """Options of `ingest` that name methods and their settings."""
    options = [word for method in methods for word in ("--method", method)]
    settings = [(method, name, value) for method in methods for name, value in SMALL[method].items()]
    return [*options, *(word for method, name, value in settings for word in ("--set", f"{method}.{name}", str(value)))]


def ingest_words(store: str, files: list[str], methods: list[str], *more: str) -> tuple[str, ...]:
    """`ingest` of texts."""
    return ("ingest", *files, "--store", store, "--model", "model", *methods_and_settings(methods), *more)


def _attributions() -> list[Command]:
    asked = [(m, f"attribute S --method {m} --queries q.jsonl --top 3 --json") for m in (*SMALL, *LEXICAL, "stride")]
    return [named(words, name=f"attribute {method}", method=method) for method, words in asked]


OF_STORE: tuple[Command, ...] = (
    *_attributions(),
    named("attribute S --queries q.jsonl --scan int8 --top 3 --json", name="attribute int8", method="rise.int8"),
    named(
        "attribute S --queries q.jsonl --scan sign128 --top 3 --json", name="attribute sign128", method="rise.sign128"
    ),
    named("attribute S --queries q.jsonl --certify --top 3 --json", name="attribute certify", method="rise.int8"),
    named("attribute S --queries q.jsonl --by source --json", name="attribute by", method="rise"),
    named(
        "attribute S --method grasp --queries q.jsonl --all-scores out.zarr",
        name="attribute all",
        output="out.zarr",
        method="grasp",
    ),
    named(
        "attribute S --method headgn --queries q.jsonl --top 3 -o out.csv",
        name="attribute -o",
        output="out.csv",
        method="headgn",
    ),
    named(
        "value S --method logra --queries q.jsonl -o out.parquet", name="value", output="out.parquet", method="logra"
    ),
    named("value S --method stride --queries q.jsonl --json", name="value stride", method="stride"),
    named("self-influence S --method graddot -o out.jsonl", output="out.jsonl", method="graddot"),
    named("self-influence S --method trak --json", method="trak"),
    named(
        "select S --queries q.jsonl --count 5 --quota source=c1.jsonl:0.5 --exclude ids.txt -o out.jsonl",
        output="out.jsonl",
        method="grasp",
    ),
    named("predict S --queries q.jsonl --subsets masks.npy --json", method="grasp"),
    named("predict S --queries q.jsonl --subsets-by source -o out.npy", output="out.npy", method="grasp"),
    named("calibrate S --queries q.jsonl --subsets masks.npy --outcomes gains.npy --json", method="grasp"),
    named("verify S"),
    named("info S --json"),
    named("info S"),
    named("show S --json"),
    named("show S --rows 0,17,39"),
    named("compress S --precision int8", method="rise.int8"),
    named("compress S --precision bf16 --method headcos", method="headcos.bf16"),
    Command("fit", ("fit", "S", *STRIDE), method="stride"),
    Command("fit again", ("fit", "S", *STRIDE, "--set", "stride.seed", "1", "--again"), method="stride"),
    Command("ingest", ingest_words("S", ["c1.jsonl", "c2.jsonl"], list(SMALL))),
    Command("append", ingest_words("S", ["c1.jsonl", "c2.jsonl", "c3.jsonl.gz"], list(SMALL), "--append")),
    named("plan attribute S --queries q.jsonl --json --memory 4GB", name="plan attribute", method="rise"),
    Command("plan fit", ("plan", "fit", "S", *STRIDE), method="stride"),
    named("evaluate retrieval --scores scores.zarr --store S --match river --json", name="evaluate retrieval"),
)
"""All that reads the finished store S."""

OF_UNFINISHED: tuple[Command, ...] = (
    Command("ingest resumed", ingest_words("P", ["many.jsonl"], ["rise", "grasp"])),
    named("attribute P --queries q.jsonl --partial --top 3 --json", name="attribute partial", method="rise"),
    named("compress P --precision int8 --partial", name="compress partial", method="rise"),
    named("verify P"),
    named("info P --json"),
    named("show P --json"),
)
"""All that reads P, an ingestion that was stopped."""

OF_UNFITTED: tuple[Command, ...] = (
    Command("fit resumed", ("fit", "F", *STRIDE), method="stride"),
    named("attribute F --method stride --queries q.jsonl --top 3 --json", name="attribute unfitted", method="stride"),
    named("verify F"),
    named("info F --json"),
)
"""All that reads F, whose fit was stopped."""

OF_OLD: tuple[Command, ...] = tuple(
    named(words)
    for words in (
        "upgrade O1",
        "upgrade O2",
        "verify O1",
        "verify O2",
        "info O1 --json",
        "info O2 --json",
        "show O1 --json",
    )
)
"""All that reads O1 and O2, stores of older formats."""

OF_ARRAYS: tuple[Command, ...] = (
    named("attribute A --queries features.npz --top 3 --json", name="attribute arrays", method="rise"),
    Command("fit arrays", ("fit", "A", *STRIDE), method="stride"),
    named("self-influence A --method rise --json", name="self-influence arrays"),
    named("verify A"),
    named("ingest features.npz --store A2 --method repsim", name="ingest arrays", output="A2"),
    named("attribute V --method vectors --queries qv.npz --top 3 --json", name="attribute vectors", method="vectors"),
    named(
        "value V --method vectors --queries qv.npz -o out.csv", name="value vectors", output="out.csv", method="vectors"
    ),
    named("ingest vectors.npz --store V2 --method vectors", name="ingest vectors", output="V2"),
)
"""All that reads arrays: A of hidden states, V of vectors, and the files that they were made from."""

OF_FILES: tuple[Command, ...] = (
    *(
        named(f"evaluate retrieval --results answers.{kind} --labels gold.jsonl --json", name=f"evaluate {kind}")
        for kind in ("jsonl", "csv", "parquet")
    ),
    *(
        named(f"evaluate retrieval --results answers.{kind} --match river --json", name=f"evaluate {kind}")
        for kind in ("jsonl", "csv", "parquet")
    ),
    named("evaluate retrieval --scores scores.zarr --store S --match river --json", name="evaluate scores"),
    named(
        "evaluate lds --scores scores.zarr --masks masks.npy --outcomes outcomes.npy --resamples 20 --json",
        name="evaluate lds",
    ),
    named(
        "evaluate lds --scores scores.npy --masks masks.parquet --outcomes outcomes.npy --resamples 20 --json",
        name="evaluate lds",
    ),
    named(
        "evaluate subsets --predicted utilities.npy --outcomes gains.npy --resamples 20 --json", name="evaluate subsets"
    ),
    named("evaluate brittleness --outcomes without.npy --json", name="evaluate brittleness"),
    named("predict S --queries q.jsonl --subsets subsets.jsonl --json", name="predict subsets"),
    named("predict S --queries q.jsonl --subsets masks.parquet --json", name="predict parquet"),
    named("predict S --queries chosen.jsonl --subsets-by topic --columns columns.csv --json", name="predict by"),
    named(
        "select S --queries q.jsonl --count 3 --among mask.npy --columns columns.csv --quota topic=a:0.7 -o out.jsonl",
        output="out.jsonl",
    ),
    named("value S --queries q.jsonl --by topic --columns columns.csv --json", name="value by"),
    named("attribute S --queries chosen.jsonl --top 2 --json", name="attribute chosen"),
    named(
        "ingest c3.jsonl.gz c4.jsonl.zst c5.csv c6.parquet chosen.jsonl --store N --model model --method repsim",
        name="ingest files",
        output="N",
    ),
    named(
        "ingest c7.jsonl.xz c8.jsonl.bz2 c9.json c10.txt --store N --model model --method repsim",
        name="ingest files",
        output="N",
    ),
)
"""All that reads single files which headwater or a user wrote."""

OF_TRUTH: tuple[Command, ...] = (
    named(
        "ground-truth c1.jsonl --queries q.jsonl --model-config model -o truth --subset-count 3 --seeds 1 --epochs 1 "
        "--processes 1"
    ),
    named(
        "evaluate lds --scores scores1.npy --masks truth/masks.npy --outcomes truth/outcomes.npy --resamples 20 --json",
        name="evaluate truth",
    ),
)
"""All that reads a folder of ground truth."""

ALL = (*OF_STORE, *OF_UNFINISHED, *OF_UNFITTED, *OF_OLD, *OF_ARRAYS, *OF_FILES, *OF_TRUTH)
