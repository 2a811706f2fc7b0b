"""The cost of an index beside bergson's: the same model, texts and cores; CPU seconds, memory and bytes an example.

A GPT-NeoX of hidden 128, 4 layers, vocabulary 4,096 with random weights, and 2,000 texts of exactly 128 tokens. Each tool
runs by its own command line in a fresh process, interpreter start and imports included; what start alone costs is a row
of its own. bergson runs only where it is installed:

    python -m venv B && B/bin/pip install bergson==2.5.1
    python examples/benchmarks/beside_bergson.py --bergson B/bin/python

Without it the figure printed beside ours is quoted, and says so. This process imports no torch: a child's peak memory, as
the system tells it, is never less than its parent's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import machine

WORK = Path(__file__).parent / "work"
TEXTS, TOKENS = 2000, 128
OURS = {
    "headwater rise 64/64/64": ["--set", "rise.kr", "64", "--set", "rise.kh", "64", "--set", "rise.kg", "64"],
    "headwater rise (default)": [],
}


@dataclass(frozen=True, slots=True)
class Run:
    """What one command took."""

    name: str
    cpu_seconds: float
    """User and system time of the process and its children."""
    wall_seconds: float
    peak_bytes: int
    """Largest resident memory of one of its processes."""
    bytes_per_example: float


QUOTED = Run("bergson 2.5.1 (quoted, not run)", 42.0, float("nan"), 1_050_000_000, 16_405)
"""What an earlier run on two shared cores took; printed where bergson is not at hand."""


def measured(name: str, command: list[str], folder: Path | None, examples: int, cwd: Path | None = None) -> Run:
    """Run a command to its end; `folder` is what it leaves on disk.

    Raises:
        SystemExit: it failed; its last lines are told.
    """
    begun, log = time.monotonic(), WORK / "command.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=cwd)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{name} failed ({child.returncode}):\n" + "\n".join(log.read_text().splitlines()[-15:]))
    size = sum(f.stat().st_blocks * 512 for f in folder.rglob("*") if f.is_file()) if folder else 0
    seconds = time.monotonic() - begun
    print(f"{name}: {usage.ru_utime + usage.ru_stime:.1f} CPU s", file=sys.stderr, flush=True)
    return Run(name, usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss * 1024, size / max(1, examples))


def words(count: int, seed: int = 0) -> list[str]:
    """Pronounceable words, all different, the frequent ones short."""
    chosen, draw = dict[str, None](), random.Random(seed)
    syllables = [consonant + vowel for consonant in "bcdfghklmnprstvwz" for vowel in "aeiou"]
    while len(chosen) < count:
        longest = 2 + len(chosen) * 3 // count
        chosen["".join(draw.choices(syllables, k=draw.randint(1, longest)))] = None
    return list(chosen)


def make_model(folder: Path, hidden: int, layers: int, vocabulary: int, context: int = 2048) -> None:
    """A GPT-NeoX with random weights, and a byte-level BPE of at most 4,096 tokens trained on made-up words (made once)."""
    if (folder / "tokenizer.json").exists():
        return
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    known = [f" {word}" for word in words(min(vocabulary, 4096))]
    bpe.train_from_iterator(known, min(vocabulary, 4096), 1, show_progress=False, special_tokens=["<end>"])
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=max(1, hidden // 32),
        intermediate_size=4 * hidden, max_position_embeddings=context, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<end>", pad_token="<end>")
    tokenizer.save_pretrained(folder)


def make_corpus(path: Path, model: Path, count: int, tokens: int, seed: int = 2) -> None:
    """`count` texts of exactly `tokens` tokens: of words that are one token each, by a heavy-tailed frequency."""
    known = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    whole = [token[1:] for token in known if token[0] == "Ġ" and token[1:].isascii() and token[1:].isalpha()]
    weights, draw = [1 / (8 + rank) for rank in range(len(whole))], random.Random(seed)
    with path.open("w") as file:
        for row in range(count):
            text = " " + " ".join(draw.choices(whole, weights, k=tokens))
            file.write(json.dumps({"id": f"t{row}", "text": text}) + "\n")


def ours(work: Path, dtype: str) -> list[Run]:
    """`headwater ingest` with each of the settings."""
    runs = []
    for name, settings in OURS.items():
        store = work / "beside.store"
        shutil.rmtree(store, ignore_errors=True)
        command = [sys.executable, "-m", "headwater", "ingest", str(work / "small.jsonl"), "--store", str(store)]
        command += ["--model", str(work / "small"), "--max-length", str(TOKENS), "--dtype", dtype, *settings]
        runs.append(measured(f"{name} {dtype}", command, store / "shards/0/methods", TEXTS))
        shutil.rmtree(store)
    return runs


def bergson(python: str, work: Path) -> list[Run]:
    """bergson's `build` with projected gradients: 16 × 16 of each of the model's 16 linear maps, 4,096 float32 numbers."""
    index = work / "beside.bergson"
    shutil.rmtree(index, ignore_errors=True)
    command = [python, "-m", "bergson", "build", str(index), "--model", str(work / "small"), "--dataset",
               str(work / "small.jsonl"), "--projection_dim", "16", "--token_batch_size", "2048", "--truncation"]  # fmt: skip
    runs = [measured("bergson 2.5.1", command, index, TEXTS)]
    shutil.rmtree(index, ignore_errors=True)
    return [measured("bergson start and imports", [python, "-m", "bergson", "build", "--help"], None, 1), *runs]


def starts() -> Run:
    """What our command takes before it reads anything: the interpreter, and every import of an ingestion."""
    imports = "import headwater.engine.ingest.ingest_job, transformers.models.gpt_neox.modeling_gpt_neox"
    return measured("headwater start and imports", [sys.executable, "-c", imports], None, 1)


BARE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, texts, length = sys.argv[1], open(sys.argv[2]), int(sys.argv[3])
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
ids = tokenizer([json.loads(line)["text"] for line in texts], truncation=True, max_length=length)["input_ids"]
with torch.inference_mode():
    for first in range(0, len(ids), 4096 // length):
        model(input_ids=torch.tensor(ids[first : first + 4096 // length]), use_cache=False)
"""


def bare(work: Path) -> Run:
    """The model's forward pass to its logits alone, batches of 4,096 tokens: what nothing that reads it out goes below."""
    command = [sys.executable, "-c", BARE, str(work / "small"), str(work / "small.jsonl"), str(TOKENS)]
    return measured("bare forward pass, start included", command, None, 1)


def show(runs: list[Run]) -> None:
    """Print the table."""
    print(f"{'tool':<36}{'CPU s':>8}{'wall s':>8}{'peak':>10}{'bytes an example':>18}")
    for run in runs:
        print(f"{run.name:<36}{run.cpu_seconds:>8.1f}{run.wall_seconds:>8.1f}{run.peak_bytes / 1e6:>8.0f}MB"
              f"{run.bytes_per_example:>18,.0f}")  # fmt: skip


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WORK, help="folder for model, texts and results")
    parser.add_argument("--bergson", metavar="PYTHON", default="", help="interpreter that has bergson 2.5.1")
    parser.add_argument("--threads", default="1", help="threads of every tool; more than the idle cores only spin")
    parser.add_argument("--dtype", nargs="+", default=["float32"], help="ours besides float32, such as bfloat16")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_model(options.make / "small", 128, 4, 4096)
        make_corpus(options.make / "small.jsonl", options.make / "small", TEXTS, TOKENS)
        return
    work: Path = options.out.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), options.threads) | {"HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, __file__, "--make", str(work)], check=True)
    runs = [starts(), bare(work)]
    for dtype in options.dtype:
        runs += ours(work, dtype)
    runs += bergson(options.bergson, work) if options.bergson else [QUOTED]
    show(runs)
    best = next(run for run in runs if "64/64/64" in run.name)
    print(f"{best.name}: {best.cpu_seconds / runs[-1].cpu_seconds:.2f} of the CPU seconds of {runs[-1].name}")
    found = {"machine": machine.describe(), "threads": options.threads, "runs": [asdict(run) for run in runs]}
    (work / "beside_bergson.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
