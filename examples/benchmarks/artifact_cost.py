"""What GRASP's features cost to build, beside per-example gradient projection: CPU seconds and bytes, at about equal width.

    python examples/benchmarks/artifact_cost.py --out /scratch

Three models, texts of 128 tokens, one thread. GRASP, LoGra (a k·k projection of every linear map's gradient, by hooks in one
backward pass) and TRAK's kernel on sketches are whole ingestions by the command line; two sizes of corpus are taken in, and their
difference counted, so that starting and loading cancel. TRAK's own form is written out here: each example's whole gradient, times
a dense matrix of random signs, made block by block, as it is too large to be held; making the signs is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # of this process, before torch is there, and of the commands
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"

import machine
import numpy as np
import torch
from beside_bergson import make_corpus, make_model

WIDTH, TOKENS, BATCH, BLOCK = 1024, 128, 16, 1 << 16
SIZES = {
    "64 × 5, V 512": (64, 5, 512, 256),
    "256 × 4, V 4,096": (256, 4, 4096, 128),
    "512 × 6, V 50,304": (512, 6, 50304, 40),
}
"""Width, layers, vocabulary; texts of the smaller corpus, the larger has four times as many."""
MAPS = 4  # linear maps of a layer


def ingest_cost(method: str, settings: Sequence[str], few: int, model: Path, work: Path) -> tuple[float, float]:
    """CPU seconds and stored bytes of an example."""
    taken = list[float]()
    for count in (few, 4 * few):
        store = work / "S"
        shutil.rmtree(store, ignore_errors=True)
        words = ["ingest", str(model / f"{count}.jsonl"), "--store", str(store), "--model", str(model)]
        used = machine.run(
            [*machine.headwater(), *words, "--max-length", str(TOKENS), "--method", method, *settings], work
        )
        taken.append(used.cpu_seconds)
    return (taken[1] - taken[0]) / (3 * few), row_bytes(store / "shards/0/methods")


def row_bytes(methods: Path) -> float:
    """Bytes of an example's rows as they are stored."""
    told = [json.loads(file.read_text()) for file in methods.glob("*/columns/*/zarr.json")]
    return float(sum(np.dtype(one["data_type"]).itemsize * np.prod(one["shape"][1:]) for one in told))


def bare_cost(model: Path, count: int) -> float:
    """CPU seconds of an example of the forward pass alone, logits and all."""
    net, ids = _opened(model, count)
    begun = None
    with torch.inference_mode():
        for start in range(0, len(ids), 16):
            if start == 32:  # the first two warm up
                begun = time.process_time()
            net(ids[start : start + 16])
    assert begun is not None
    return (time.process_time() - begun) / (len(ids) - 32)


def trak_cost(model: Path, count: int) -> float:
    """CPU seconds of an example in TRAK's own form, over one batch."""
    net, ids = _opened(model, count)
    weights = [one for one in net.parameters() if one.requires_grad]
    count = sum(one.numel() for one in weights)
    gradients = torch.empty(BATCH, count)

    def gradient(row: int) -> torch.Tensor:
        logits = net(ids[row : row + 1]).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits.float(), ids[row, 1:])
        return torch.cat([one.flatten() for one in torch.autograd.grad(loss, weights)])

    gradient(0)  # warm
    begun = time.process_time()
    for row in range(BATCH):
        gradients[row] = gradient(row)
    taken = time.process_time() - begun
    found, chance = torch.zeros(BATCH, WIDTH), np.random.default_rng(0)
    for start in range(0, count, BLOCK):
        part = gradients[:, start : start + BLOCK]
        bits = np.unpackbits(np.frombuffer(chance.bytes(part.shape[1] * WIDTH // 8), np.uint8))
        signs = torch.from_numpy(bits).view(part.shape[1], WIDTH).float().mul_(2).sub_(1)
        begun = time.process_time()
        found.addmm_(part, signs)
        taken += time.process_time() - begun
    return taken / BATCH


def _opened(model: Path, count: int) -> tuple[Any, torch.Tensor]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    net, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    texts = [one["text"] for one in machine.records(model / f"{count}.jsonl")][:128]
    return net.eval(), torch.tensor([tokenizer(text)["input_ids"][:TOKENS] for text in texts])


def run(names: Sequence[str], work: Path) -> dict[str, dict[str, Any]]:
    """Every model, every form."""
    found = {}
    for name in names:
        hidden, layers, vocabulary, few = SIZES[name]
        model = work / f"{hidden}-{layers}-{vocabulary}"
        make_model(model, hidden, layers, vocabulary)
        for count in (few, 4 * few):
            make_corpus(model / f"{count}.jsonl", model, count, TOKENS)
        rank = max(1, round((WIDTH / (MAPS * layers)) ** 0.5))
        one: dict[str, Any] = {"bare forward": (bare_cost(model, 4 * few), 0)}
        one["GRASP"] = ingest_cost("grasp", (), few, model, work)
        one["LoGra's form"] = ingest_cost("logra", ("--set", "logra.k", str(rank)), few, model, work)
        one["TRAK, sketched"] = ingest_cost("trak", (), few, model, work)
        one["TRAK's form"] = (trak_cost(model, 4 * few), 4 * WIDTH)
        found[name] = one
        print(name, json.dumps(one), flush=True)
    return found


def show(found: dict[str, dict[str, Any]]) -> str:
    """A row a form; of each model milliseconds of an example, times GRASP's, and bytes."""
    rows = []
    for form in next(iter(found.values())):
        cells = []
        for one in found.values():
            seconds, size = one[form]
            cells.append(f"{1000 * seconds:.1f} ({seconds / one['GRASP'][0]:.2f}); {size:,.0f}")
        rows.append([form, *cells])
    return machine.markdown(["CPU ms an example (times GRASP's); bytes", *found], rows)


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    work = given.out.resolve() / "artifact"
    work.mkdir(parents=True, exist_ok=True)
    found = run(given.models, work)
    machine.save(given.out, "artifact_cost", {"machine": machine.describe(), "found": found}, show(found))
    return found


if __name__ == "__main__":
    main()
