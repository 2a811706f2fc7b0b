"""What `same_answers.py` asks: small stores, the commands that build and ask them, and the files that they read.

Knows command lines and files alone, nothing of how they are run or compared. Where an option has another name in the earlier
version, its command line goes into `before`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROWS, QUERIES, SUBSETS, WIDTH, CLASSES = 90, 12, 16, 24, 7
WORDS = (
    "river",
    "stone",
    "light",
    "garden",
    "engine",
    "window",
    "paper",
    "winter",
    "music",
    "bridge",
    "silver",
    "orange",
)


@dataclass(frozen=True, slots=True)
class Command:
    """A command line that both versions are given; {store}, {method}, {inputs}, {answer} and {own} are filled in."""

    name: str
    words: str
    """Of this version."""
    groups: str
    """Which groups of methods (see STORES) it is asked of."""
    answer: str = ""
    """Suffix of the file that it writes; none: the answer is its standard output, in JSON; .err: the numbers in its messages."""
    before: str = ""
    """Of the earlier version, where an option was called otherwise."""
    reread: bool = True
    """Whether the later version can be asked it of a store that the earlier one wrote."""
    ignored: tuple[str, ...] = ()
    """Fields of the answer that are not compared."""


GRADIENTS = ("graddot", "gradcos", "logra", "trackstar", "trak", "rapidin")
OF_HEAD = ("repsim", "headcos", "headgn", "grasp", "vectors")
STORES: dict[str, dict[str, str]] = {
    "text": {
        "rise": "rows forms",
        **dict.fromkeys((*GRADIENTS, *OF_HEAD), "rows"),
        "stride": "fitted",
        "tfidf": "words",
        "bm25": "words",
    },
    "arrays": {**dict.fromkeys(("rise", *OF_HEAD), "rows"), "stride": "fitted"},
    "seeds": {"rise": "seeds"},
    "golden": {"store_v1": "golden", "store_v2": "golden"},
}
"""Store → method → its groups, which say what it is asked; of the golden stores, the store's name stands for a method."""

FIT = "--set stride.subsets 60 --set stride.degree 8 --set stride.updates 12 --set stride.checked 10"
BUILD: dict[str, list[Command]] = {
    "text": [
        Command("ingest", "ingest {inputs}/a.jsonl {inputs}/b.jsonl --store {store} --model {model} {methods}", ""),
        Command("int8", "compress {store} --precision int8", ""),
        Command("sign", "compress {store} --precision sign --bits 256", ""),
        Command("fit", f"fit {{store}} --method stride {FIT}", ""),
    ],
    "arrays": [
        Command("ingest", "ingest {inputs}/corpus.npz --store {store} {methods}", ""),
        Command("fit", f"fit {{store}} --method stride {FIT} --corpus {{inputs}}/corpus.npz", ""),
    ],
    "seeds": [
        Command("ingest", "ingest {inputs}/a.jsonl {inputs}/b.jsonl --store {store} --model {model} --seeds 3", "")
    ],
    "golden": [],
}
"""What makes each store; of the arrays' queries and the texts' alike, the file is {queries}."""

UPGRADE = {
    store: [Command("upgrade", "upgrade {store}", ""), *(command for command in commands if command.name == "fit")]
    for store, commands in BUILD.items()
    if store in ("text", "arrays")
}
"""What a store that the earlier version wrote needs before it can be fitted and a fit be asked: fits of format 2 are not read."""

SCORES = "--scores {own}/all_scores.zarr"
ASKED = "--method {method} --queries {queries}"
TASK = "--method {method} --queries {queries}"
TRUTH = "--subsets {inputs}/masks.npy --outcomes {inputs}/task.npy"
ANY = "rows words fitted"
INFO = ("version", "path", "model_path", "forms", "precisions")
"""Fields of `info` that depend on the machine or the version, or whose name has changed."""
ASK: list[Command] = [
    Command("attribute", f"attribute {{store}} {ASKED} --top 5 --json", ANY),
    Command("attribute -o", f"attribute {{store}} {ASKED} --top 40 -o {{answer}}", ANY, ".jsonl"),
    Command("value", f"value {{store}} {ASKED} -o {{answer}}", ANY, ".jsonl"),
    Command("all scores", f"attribute {{store}} {ASKED} --all-scores {{answer}}", ANY, ".zarr"),
    Command("self", "self-influence {store} --method {method} --model {head} -o {answer}", "rows", ".jsonl"),
    Command("select", f"select {{store}} {TASK} --count 15 -o {{answer}}", "rows", ".jsonl"),
    Command("tokens", f"select {{store}} {TASK} --tokens 300 --per-step 2 --json -o {{own}}/tokens.jsonl", "rows"),
    Command("predict", f"predict {{store}} {TASK} --subsets {{inputs}}/masks.npy -o {{answer}}", "rows", ".npy"),
    Command("retrieval", "evaluate retrieval --results {own}/attribute_-o.jsonl --labels {inputs}/labels.jsonl --json", ANY),
    Command("of all", f"evaluate retrieval {SCORES} --store {{store}} --labels {{inputs}}/labels.jsonl --json", ANY),
    Command("lds", f"evaluate lds {SCORES} --masks {{inputs}}/masks.npy --outcomes {{inputs}}/outcomes.npy --json", ANY),
    Command("int8", f"attribute {{store}} {ASKED} --scan int8 --json", "forms"),
    Command("sign", f"attribute {{store}} {ASKED} --scan sign256 --candidates 20 --json", "forms"),
    Command("certify", f"attribute {{store}} {ASKED} --certify --json", "forms"),
    Command("by source", f"attribute {{store}} {ASKED} --by source --json", "forms"),
    Command("value by", f"value {{store}} {ASKED} --by source -o {{answer}}", "forms", ".jsonl"),
    Command("predict by", f"predict {{store}} {TASK} --subsets-by source --json", "forms"),
    Command("calibrate", f"calibrate {{store}} {TASK} {TRUTH} --json", "forms"),
    Command("calibrated", f"predict {{store}} {TASK} --subsets {{inputs}}/masks.npy -o {{answer}}", "forms", ".npy"),
    Command("seeds", f"attribute {{store}} {ASKED} --members all --json", "seeds"),
    Command("value seeds", f"value {{store}} {ASKED} --members all -o {{answer}}", "seeds", ".jsonl"),
    Command("info", "info {inputs}/{method} --json", "golden", ignored=INFO),
    Command("verify", "verify {inputs}/{method}", "golden", ".err"),
]  # fmt: skip


class Job(NamedTuple):
    """A command of one run: what it was made from, and where its answer goes, relative to the run's folder."""

    store: str
    method: str
    command: Command
    words: list[str]
    output: str
    """File that standard output goes to; messages go beside it, with .err."""
    answer: str


def jobs_of(run: str, stores: list[str]) -> list[Job]:
    """What a run does, in order; `reread` builds nothing, and upgrades a store after most questions, before those to a fit."""
    jobs = []
    for store in stores:
        steps = [] if run == "reread" else [("build", command) for command in BUILD[store]]
        for method, groups in STORES[store].items():
            if run == "reread" and groups == "fitted":
                steps += [("build", command) for command in UPGRADE[store]]
            asked = [command for command in ASK if set(groups.split()) & set(command.groups.split())]
            steps += [(method, command) for command in asked if run != "reread" or command.reread]
        jobs += [job_of(run, store, method, command) for method, command in steps]
    return jobs


def job_of(run: str, store: str, method: str, command: Command) -> Job:
    """A command, its words filled in."""
    inputs, own = f"../inputs/{store}", f"{store}/{method}"
    stem = f"{own}/{command.name.replace(' ', '_')}"
    answer = stem + {"": ".out", ".err": ".out.err"}.get(command.answer, command.answer)
    names = {
        "store": f"{store}/store", "method": method, "inputs": inputs, "own": own, "answer": answer, "model": "../inputs/model",
        "head": f"{inputs}/corpus.npz" if store == "arrays" else "../inputs/model",
        "queries": f"{inputs}/queries.{'npz' if store == 'arrays' else 'jsonl'}",
        "methods": " ".join(f"--method {name}" for name, groups in STORES[store].items() if "rows" in groups),
    }  # fmt: skip
    words = command.before if run == "before" and command.before else command.words
    return Job(store, method, command, words.format(**names).split(), stem + ".out", answer)


def write_inputs(folder: Path, checkout: Path) -> None:
    """A tiny random model, corpora, queries, subsets and labels; the golden stores of the earlier version."""
    draw = np.random.default_rng(0)
    texts = [f"{row} " + " ".join(draw.choice(WORDS, draw.integers(4, 40))) for row in range(ROWS + QUERIES)]
    write_model(folder / "model", texts)
    for store in ("text", "arrays", "seeds"):
        (folder / store).mkdir()
        masks = np.array([draw.permutation(ROWS) < ROWS // 2 for _ in range(SUBSETS)])
        np.save(folder / store / "masks.npy", masks)
        np.save(folder / store / "outcomes.npy", draw.normal(size=(SUBSETS, QUERIES)).astype(np.float32))
        np.save(folder / store / "task.npy", draw.normal(size=SUBSETS).astype(np.float32))
        pairs = [(query, row) for query in range(QUERIES) for row in draw.permutation(ROWS)[:8]]
        labels = [{"query_id": f"q{query}", "example_id": f"t{row}"} for query, row in pairs]
        write_lines(folder / store / "labels.jsonl", labels)
    for store in ("text", "seeds"):
        records: list[dict[str, Any]] = [{"id": f"t{row}", **prompted(texts[row], row % 3 > 0)} for row in range(ROWS)]
        write_lines(folder / store / "a.jsonl", records[:55])
        write_lines(folder / store / "b.jsonl", records[55:])
        asked = [{"id": f"q{query}", **prompted(text, True)} for query, text in enumerate(texts[ROWS:])]
        write_lines(folder / store / "queries.jsonl", asked)
    weight = draw.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    for name, letter, count in (("corpus", "t", ROWS), ("queries", "q", QUERIES)):
        hidden = draw.normal(size=(count, 5, WIDTH)).astype(np.float32)
        labels = draw.integers(-1, CLASSES, (count, 5))
        ids = np.array([f"{letter}{row}" for row in range(count)])
        np.savez(folder / "arrays" / f"{name}.npz", hidden=hidden, labels=labels, weight=weight, id=ids)
    (folder / "golden").mkdir()
    for name in STORES["golden"]:
        shutil.copytree(next(checkout.glob(f"tests/**/{name}")), folder / "golden" / name)


def prompted(text: str, prompt: bool) -> dict[str, str]:
    """A text as a record, with or without a prompt."""
    return {"prompt": text.split()[1] + ":", "completion": " " + text} if prompt else {"text": text}


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """Records as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


def write_model(folder: Path, texts: list[str]) -> None:
    """A random Llama of two layers and a byte-level BPE of 320 tokens, as a Hugging Face folder."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(
        **sizes,
        num_attention_heads=4,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=320, special_tokens=["<s>"], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, bos_token="<s>").save_pretrained(folder)
