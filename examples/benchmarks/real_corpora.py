"""Real corpora through the command line: gsm8k and instruct, 9,892 rows, into one store of stories260K.

Two ingestions into one store (the second with --append), 64 of the rows asked back as queries, every chunk verified; each
command a process of its own. Reported: rows and tokens a second, CPU seconds, peak memory, bytes an example, and how many
of the 64 find themselves first. The tokenizer of stories260K has 512 entries, so that the rows are long, 362 tokens at
the mean; --truncate cuts those beyond the model's context of 512. gsm8k's question and answer are renamed to prompt and
completion first, a store having one template; the fields of instruct are known by their names.

    python examples/benchmarks/real_corpora.py
    python examples/benchmarks/real_corpora.py --rows 300
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np

MODEL = "models/stories260K"
GSM8K, INSTRUCT = ("gsm8k/train.jsonl", "gsm8k/test.jsonl"), "instruct/instruction-data.json"
_TOLD = re.compile(r"([\d,]+) examples, ([\d,]+) read in this run, in .*\(([\d,]+) tokens")


def corpora(data: Path, rows: int | None, folder: Path) -> tuple[Path, Path]:
    """(gsm8k, instruct) as JSONL, the first `rows` of each."""
    maths = [record for name in GSM8K for record in _records(data / name)]
    renamed = [{"prompt": row["question"] + "\n", "completion": row["answer"]} for row in maths]
    instruct = json.loads((data / INSTRUCT).read_text("utf-8"))
    return _write(folder / "gsm8k.jsonl", renamed[:rows]), _write(folder / "instruct.jsonl", instruct[:rows])


def _write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
    return path


def ingest(name: str, corpus: Sequence[Path], model: Path, store: Path, *options: str) -> dict[str, Any]:
    """One ingestion, measured; the rate is over the command's whole time, loading included."""
    command = ["ingest", *map(str, corpus), "--store", str(store), "--model", str(model), *options]
    used = machine.run([*machine.headwater(), *command], store.parent)
    told = _TOLD.search(used.told)
    if told is None:
        raise SystemExit(f"headwater ingest did not say what it read: {used.told[-500:]!r}")
    _, rows, tokens = (int(number.replace(",", "")) for number in told.groups())
    return {**_took(name, used), "rows": rows, "tokens": tokens}


def _took(name: str, used: machine.Usage) -> dict[str, Any]:
    return {"step": name, "seconds": used.seconds, "cpu_seconds": used.cpu_seconds, "peak_bytes": used.peak_bytes}


def ask_back(files: Sequence[Path], model: Path, store: Path, count: int) -> tuple[dict[str, Any], float, float]:
    """Attribute rows of the corpus: what it took, the share that find themselves first, and the lowest score of these.

    Queries are never cut, so rows that were cut are not asked. A row whose text another row has as well counts as found
    when either comes first.
    """
    from tokenizers import Tokenizer

    records = [record for file in files for record in _numbered(file)]
    tokenizer, context = (
        Tokenizer.from_file(str(model / "tokenizer.json")),
        json.loads((model / "config.json").read_text()),
    )
    longest = context["max_position_embeddings"] - 1  # the begin of text
    whole = [
        i
        for i, record in enumerate(records)
        if len(tokenizer.encode(_text(record), add_special_tokens=False)) <= longest
    ]
    chosen = np.random.default_rng(0).permutation(whole)[:count]
    queries = _write(store.parent / "queries.jsonl", [records[i] for i in chosen])
    answers = store.parent / "answers.jsonl"
    command = ["attribute", str(store), "--queries", str(queries), "--top", "10", "-o", str(answers)]
    took = _took(f"attribute {len(chosen)} queries", machine.run([*machine.headwater(), *command], store.parent))
    rows = _records(answers)
    texts = {record["id"]: _text(record) for record in records}
    same = [row["query_id"] == row["example_id"] or texts[row["query_id"]] == row["text"]
            for row in rows if row["rank"] == 1]  # fmt: skip
    scores = [row["score"] for row in rows if row["query_id"] == row["example_id"]]
    return took, float(np.mean(same)), min(scores, default=float("nan"))


def _records(file: Path) -> list[dict[str, Any]]:
    """A file's lines as JSON; a line ends with a line feed alone, texts may hold Unicode's other separators."""
    with file.open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def _numbered(file: Path) -> list[dict[str, Any]]:
    """A file's records, each with the id that the store knows it by."""
    return [{**record, "id": f"{file.name}:{number}"} for number, record in enumerate(_records(file), 1)]


def _text(record: dict[str, Any]) -> str:
    """Prompt and completion as headwater joins them."""
    if "prompt" in record:
        return str(record["prompt"] + record["completion"])
    more = f"\n{record['input']}" if record["input"] else ""
    return f"{record['instruction']}{more}\n{record['output']}"


def disk_bytes(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure(data: Path, rows: int | None, queries: int, work: Path) -> dict[str, Any]:
    """All steps, in an empty folder."""
    store = work / "store"
    maths, instruct = files = corpora(data, rows, work)
    steps = [ingest("ingest gsm8k", (maths,), data / MODEL, store, "--truncate")]
    steps.append(ingest("ingest instruct, --append", (maths, instruct), data / MODEL, store, "--truncate", "--append"))
    stored = disk_bytes(store)
    took, share, lowest = ask_back(files, data / MODEL, store, queries)
    steps.append(took)
    steps.append(_took("verify", machine.run([*machine.headwater(), "verify", str(store)], work)))
    examples = sum(step.get("rows", 0) for step in steps)
    return {
        "steps": steps,
        "examples": examples,
        "store_bytes": stored,
        "bytes_per_example": stored / examples,
        "found_themselves": share,
        "lowest_own_score": lowest,
    }


def table(found: dict[str, Any]) -> str:
    """The steps, and what became of them."""
    header = ["step", "rows", "tokens", "seconds", "rows/s", "tokens/s", "CPU s", "peak MiB"]
    lines = []
    for step in found["steps"]:
        seconds, rows, tokens = step["seconds"], step.get("rows"), step.get("tokens")
        counts = [f"{rows:,}", f"{tokens:,}"] if rows else ["", ""]
        rates = [f"{rows / seconds:,.0f}", f"{tokens / seconds:,.0f}"] if rows else ["", ""]
        ends = [f"{step['cpu_seconds']:.1f}", f"{step['peak_bytes'] / 2**20:,.0f}"]
        lines.append([step["step"], *counts, f"{seconds:.1f}", *rates, *ends])
    return (
        f"{machine.markdown(header, lines)}\n\n{found['examples']:,} examples, {found['bytes_per_example']:,.0f} bytes each "
        f"on disk with their texts; {found['found_themselves']:.1%} of the queries find themselves first, the least of "
        f"their scores for themselves is {found['lowest_own_score']:.4f}; all chunks whole"
    )


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run, print, write; returns what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="folder of the real data [../shared/data beside the checkout]")
    parser.add_argument("--out", type=Path, default=machine.OUT, help="where tables and work go")
    parser.add_argument("--rows", type=int, help="the first so many rows of each corpus [all]")
    parser.add_argument("--queries", type=int, default=64)
    given = parser.parse_args(arguments)
    about = machine.describe()
    data = machine.data_folder(given.data, *GSM8K, INSTRUCT, MODEL)
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="real_corpora-", dir=given.out) as work:
        found = measure(data, given.rows, given.queries, Path(work))
    machine.save(given.out, "real_corpora", {"machine": about, **found}, table(found))
    return found


if __name__ == "__main__":
    main()
