"""Hostile inputs: corpora, queries, tables, arrays, paths and numbers that are meant to break it. Knows no format's reader.

A run may do its work or end with one line; it must not fail in another way, print control characters, or remove other files.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from random import Random

import click
import numpy as np
import zstandard
from headwater.cli import main
from small import sentences

from fuzz.cases import Case, Runner
from fuzz.hostile_values import IDS, NUMBERS, PATHS, PIECES, TEXTS, WHOLES
from fuzz.mutations import ODD
from fuzz.outcomes import NOISE, ONE_LINE, Expected, outcome
from fuzz.tool_commands import ALL, Command

SUFFIXES = (".jsonl", ".jsonl", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".md", ".parquet", ".ndjson", ".xyz")
HUGE = 1 << 20
"""Numbers from here on are not tried where they say how long a training or a drawing lasts."""
LONG = ("subsets", "seeds", "epochs", "processes", "resamples", "updates", "clusters", "learning_rate", "calibrate")
_STORES = ("S", "P", "F", "A", "V", "O1", "O2", "truth")
"""Folders in which commands may replace files."""
_CONTROL = {chr(code) for code in (*range(32), *range(127, 160))} - {"\n", "\t"} | set(
    "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"
)


def record(random: Random) -> str:
    """A line of JSON with odd fields."""
    value: dict[str, object] = {}
    for name in random.sample(
        [
            "text",
            "id",
            "prompt",
            "completion",
            "messages",
            "input_ids",
            "labels",
            "chosen",
            "rejected",
            "source",
            "question",
        ],
        3,
    ):
        odd, text = random.choice(IDS), random.choice(TEXTS)
        value[name] = random.choice([text, odd, [odd], [{"role": "user", "content": text}]])
    value.setdefault("text", random.choice(TEXTS))
    line = json.dumps(value, ensure_ascii=random.random() < 0.5)
    if random.random() < 0.3:
        line = line[:-1] + f', "{random.choice(["text", "id", "input_ids", "x"])}": {random.choice(ODD)}}}'
    return line


def document(random: Random, suffix: str) -> bytes:
    """A file's bytes: good records among odd ones, in a format that fits its suffix, or in none."""
    good = [json.dumps({"text": text}) for text in sentences(3, seed=random.randrange(99))]
    lines = [*good, *(record(random) for _ in range(random.randrange(4)))]
    random.shuffle(lines)
    if suffix in (".csv", ".tsv"):
        table = io.StringIO()
        rows = [["id", "text"], *([str(random.choice(IDS)), random.choice(TEXTS)] for _ in range(4))]
        quoting, delimiter = random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), "\t" if suffix == ".tsv" else ","
        csv.writer(table, delimiter=delimiter, quoting=quoting).writerows(rows)
        lines = table.getvalue().split("\n")
    if suffix == ".json":
        lines = ["[" + ",".join(lines) + "]"]
    if suffix == ".txt":
        lines = [random.choice(TEXTS) for _ in range(5)]
    data = "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n" * random.randrange(2)
    way = random.randrange(12)
    if way < 5:
        at = random.randrange(len(data) + 1)
        data = data[:at] + random.choice(PIECES) + data[at:]
    elif way == 5:
        data = random.choice(WHOLES)
    return data


def packed(random: Random, name: str, data: bytes) -> tuple[str, bytes]:
    """The bytes under a suffix of compression, at times a wrong or a swollen one."""
    packers = {
        ".gz": gzip.compress,
        ".zst": zstandard.ZstdCompressor().compress,
        ".xz": lzma.compress,
        ".bz2": bz2.compress,
    }
    suffix = random.choice(["", "", "", *packers])
    if not suffix:
        return name, data
    if random.random() < 0.15:
        data = b"\0" * (1 << 19)  # a small file of half a megabyte
    whole = packers[suffix](data)
    way = random.randrange(6)
    return name + suffix, [whole, whole, whole, whole[: random.randrange(len(whole) + 1)], whole * 2, data[:1000]][way]


def arrays(random: Random, path: Path) -> None:
    """An .npz file of odd arrays."""
    numbers = np.random.default_rng(random.randrange(99))
    good = {
        "hidden": numbers.normal(size=(6, 8)).astype(np.float32),
        "labels": numbers.integers(0, 5, 6),
        "weight": numbers.normal(size=(5, 8)),
    }
    odd = [
        np.zeros((0, 8)), np.array(1.0), np.full((6, 8), np.nan), np.full(6, 2**62), np.array(["a"] * 6), np.zeros((6, 0)),
        np.zeros((6, 8), complex), np.full((6, 8), 1e300), np.array([b"x"] * 6), np.zeros((6, 8, 2, 1)),
        np.zeros(6, "datetime64[s]"), np.zeros((6, 8), bool),
    ]  # fmt: skip
    name = random.choice(["hidden", "labels", "weight", "bias", "id", "text", "vectors", "logits", "../../x", "other"])
    np.savez(path, **{**good, name: random.choice(odd)})
    if random.random() < 0.2:
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(
                random.choice(["hidden.npy", "../out.npy", "labels", "x"]),
                random.choice([b"", b"\x93NUMPY", b"\x93NUMPY\x01\0v\0" + b"{" * 118]),
            )


_OF_ARRAYS = (
    *(f"ingest FILE --store N --method {method}" for method in ("repsim", "rise", "vectors", "grasp")),
    "attribute A --queries FILE",
    "attribute V --method vectors --queries FILE",
)
_OF_CORPUS = (
    "", "", "--on-error skip", "--text-template {text}", "--text-template {nothing}", "--text-template {",
    "--text-template {text!r:>{id}}", "--text-template {0}", "--text-template {text.__class__}",
    "--prompt-template {prompt} --completion-template {completion}", "--lines", "--truncate --max-length 8", "--response chosen",
)  # fmt: skip
_OF_RECORDS = (
    "attribute S --top 2 --queries FILE",
    "attribute S --top 2 --text-template {text} --queries FILE",
    "attribute S --method bm25 -o out.csv --queries FILE",
    "attribute S --method bm25 -o out.parquet --queries FILE",
    "attribute S --method bm25 -o out.jsonl --queries FILE",
    "select S --count 2 -o out.jsonl --queries FILE",
    "select S --queries q.jsonl --count 2 -o out.jsonl --exclude FILE",
    "predict S --queries q.jsonl --subsets FILE",
    "value S --queries q.jsonl --by id --columns FILE",
    "evaluate retrieval --results answers.jsonl --labels FILE",
    "evaluate retrieval --match river --results FILE",
)


def _input_case(random: Random) -> tuple[tuple[str, ...], str]:
    """A file of odd records or arrays, and a command that reads it."""
    Path("hostile").mkdir()
    if random.random() < 0.2:
        arrays(random, Path("hostile/x.npz"))
        return _with_file(random.choice(_OF_ARRAYS), "hostile/x.npz"), "arrays"
    suffix = random.choice(SUFFIXES)
    stem = random.choice(["a", "a", "a", "ä b", "-x", "[x]", "a\nb", "\x1b[31m", "..", "a" * 200])
    name, data = packed(random, f"{stem}{suffix}", document(random, suffix))
    Path("hostile", name).write_bytes(data)
    words = random.choice(_OF_RECORDS)
    if random.random() < 0.4:
        words = f"ingest FILE --store N --model model --method repsim {random.choice(_OF_CORPUS)}"
    return _with_file(words, f"hostile/{name}"), "records"


def _with_file(words: str, path: str) -> tuple[str, ...]:
    return tuple(path if word == "FILE" else word for word in words.split())


def _option_case(random: Random) -> tuple[tuple[str, ...], str]:
    """One option of a command with an odd value."""
    command = random.choice(ALL)
    parameters = [
        parameter
        for parameter in _click_command(command).params
        if isinstance(parameter, click.Option) and not parameter.is_flag
    ]
    if not parameters:
        return command.words, "no option"
    option = random.choice(parameters)
    name = max(option.opts, key=len)
    is_path = bool(option.metavar and any(word in option.metavar for word in ("FILE", "DIR", "PATH")))
    if is_path:
        value, what = random.choice(PATHS), "path"
    else:
        value, what = random.choice([*NUMBERS, *NUMBERS, *(str(text) for text in (*TEXTS[:24], *IDS[:12]))]), "value"
        if option.name in LONG and _number(value) >= HUGE:
            value = "0"
    value = value.replace("\0", "")  # which no argument of a process can hold
    if option.name == "output" and value in ("/dev/zero", "/dev/null", "/dev/full"):
        value = f"{value}.jsonl"
    if option.nargs == 2:
        return (
            *command.words,
            name,
            random.choice(
                [f"{command.method or 'rise'}.seed", "rise.kr", "stride.rank", "x", "rise.", ".kr", "rise.kr.x"]
            ),
            value,
        ), "setting"
    return (*command.words, name, value), what


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0


def _click_command(command: Command) -> click.Command:
    group: click.Command = main
    for word in command.words[:2]:
        if isinstance(group, click.Group):
            group = group.commands[word]
    return group


def hostile(runner: Runner, seed: int) -> Case:
    """One odd input or option."""
    random = Random(f"hostile {seed}")
    words, what = _input_case(random) if seed % 2 else _option_case(random)
    runner.snapshot.within = None
    answer = runner.run(words)
    inputs = frozenset(
        {"hostile", "N", "N.zarr", *(place for place in answer.files if not place.startswith(("model", "c", "q")))}
    )
    end, why = outcome(answer, Expected(answer, inputs, writes=True))
    if not why or end == ONE_LINE:
        raw = sorted(_CONTROL & set(answer.out + answer.err))
        if raw:
            end, why = NOISE, f"control characters {raw}: {answer.out[:300]}{answer.err[:300]}"
        lost = [place for place, now in answer.files.items() if now == "nothing" and place.split("/")[0] not in _STORES]
        if lost:
            end, why = "left over", f"removed: {lost}"
    runner.snapshot.restore()
    return Case("hostile", seed, what, " ".join(repr(word)[:60] for word in words[-4:]), words[0], end, why)
