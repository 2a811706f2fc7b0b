"""What ingestion costs beside the bare forward pass of the same batches: `model(input_ids).logits`, and nothing kept.

    python examples/benchmarks/ingest_cost.py

A GPT-NeoX of hidden 512, 6 layers, vocabulary 50,304 with random weights; texts of 128 tokens; RISE with its default
settings, and smaller; headkfac, whose corpus statistics come first and are counted apart. Ours is the whole ingestion:
tokenising, the pass, the sketches, writing and committing. Every batch goes through the bare model just before it is ingested,
in the same process, so that whatever else the machine does falls on both alike. CPU seconds on one thread (with more, waiting
ones spin and count); opening the model is left out of both.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
from beside_bergson import WORK, make_corpus, make_model

TOKENS = 128
METHODS: dict[str, tuple[str, dict[str, int]]] = {
    "rise, default": ("rise", {}),
    "rise 48/64/16": ("rise", {"kr": 48, "kh": 64, "kg": 16}),
    "headkfac": ("headkfac", {}),
    "headkfac, rank 512": ("headkfac", {"rank": 512}),
}
ROWS = 100_000
"""Number of texts of the corpus that the printed share of corpus statistics is of."""


class Clock:
    """CPU seconds of named parts, each counted on the thread that runs it."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted under a part's name."""

        def call(*values: Any, **named: Any) -> Any:
            begun = time.thread_time()
            try:
                return function(*values, **named)
            finally:
                self.seconds[part] += time.thread_time() - begun

        return call

    def watch(self, owner: Any, name: str, part: str) -> Callable[[], None]:
        """Count calls of owner.name; returns what undoes it."""
        before = getattr(owner, name)
        setattr(owner, name, self.timed(part, before))
        return lambda: setattr(owner, name, before)


class Beside:
    """A provider that runs every batch through the bare model before it is read out."""

    def __init__(self, inner: Any, bare: Any, clock: Clock) -> None:
        """`bare` maps token ids to nothing."""
        self._inner, self._bare = inner, clock.timed("bare", bare)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def read(self, batch: Any, needs: Any) -> Any:
        """The bare pass, then the provider's own."""
        import torch

        ids = torch.zeros(len(batch), max(example.length for example in batch), dtype=torch.int64)
        for row, example in enumerate(batch):
            ids[row, : example.length] = torch.tensor(example.payload[0])
        self._bare(ids)
        return self._inner.read(batch, needs)


def bare_pass(model: str) -> Callable[[Any], None]:
    """The model as transformers runs it."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model).eval()

    def run(ids: Any) -> None:
        with torch.inference_mode():
            _ = loaded(input_ids=ids, use_cache=False).logits

    return run


def watched(clock: Clock) -> list[Callable[[], None]]:
    """Count the parts of an ingestion; `reductions` holds `head product`, so it is taken off again when shown."""
    from headwater.engine.ingest.text_provider import TextProvider
    from headwater.engine.models.batch_outputs import LinearHead, PackedOutputs
    from headwater.plugins.rise import Rise
    from headwater.store.writer import GroupWriter

    parts: list[tuple[Any, str, str]] = [
        (TextProvider, "read", "trunk"), (LinearHead, "logits", "head product"), (PackedOutputs, "_reduce", "reductions"),
        (Rise, "rows", "sketch"), (GroupWriter, "append", "write"), (GroupWriter, "commit", "write"),
    ]  # fmt: skip
    return [clock.watch(*part) for part in parts]


def spent() -> float:
    """CPU seconds of this process so far, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def cost(
    corpus: str, model: str, store: Path, named: tuple[str, dict[str, int]], bare: Callable[[Any], None]
) -> dict[str, Any]:
    """Ingest beside the bare pass: CPU seconds of both, and ours by parts. named: a method and its settings."""
    from headwater.engine.ingest.corpus_statistics import SAMPLE, Pacing, collect_statistics
    from headwater.engine.ingest.ingest_job import IngestJob, prepare
    from headwater.engine.ingest.ingestion import Ingestion
    from headwater.engine.models.language_model import ModelChoice
    from headwater.engine.runtime.run import SILENT
    from headwater.engine.sketches.head_fisher import FisherSums

    shutil.rmtree(store, ignore_errors=True)
    clock = Clock()
    prepared = prepare(IngestJob([corpus], str(store), ModelChoice(model), dict([named])))
    opened = prepared.open()
    fit, end = -spent(), Clock()
    undo_finish = end.watch(FisherSums, "finish", "finish")  # costs the same for any number of texts
    collect_statistics(opened.store, prepared.provider, prepared.methods, Pacing(prepared.tokens, 1e9), SILENT)
    undo_finish()
    fit += spent()
    ingestion = Ingestion(Beside(prepared.provider, bare, clock), opened.store, prepared.methods, prepared.tokens, 15.0)
    undo = watched(clock)
    begun = spent()
    outcome = ingestion.run()
    total = spent() - begun
    for step in undo:
        step()
    shutil.rmtree(store)
    parts = dict(clock.seconds)
    ours = total - parts.pop("bare")
    parts["reductions"] -= parts["head product"]
    parts["tokenising and the rest"] = ours - sum(parts.values())
    finish, texts = end.seconds["finish"], outcome.rows
    whole_fit = finish + (fit - finish) * SAMPLE / min(SAMPLE, texts)
    return {
        "fit": fit,
        "fit share": whole_fit / (whole_fit + ours * ROWS / texts) if finish else 0.0,
        "tokens": outcome.tokens,
        "bare": total - ours,
        "ours": ours,
        "ratio": ours / (total - ours),
        "parts": parts,
    }


def show(runs: dict[str, dict[str, Any]]) -> None:
    """Print the ratios and the parts."""
    print(
        f"{'settings':<20}{'tokens':>8}{'bare CPU s':>12}{'ours CPU s':>12}{'ratio':>8}{'fit CPU s':>11}{'of 100,000 rows':>17}"
    )
    for name, run in runs.items():
        print(f"{name:<20}{run['tokens']:>8,}{run['bare']:>12.2f}{run['ours']:>12.2f}{run['ratio']:>8.3f}"
              f"{run['fit']:>11.2f}{run['fit share']:>17.1%}")  # fmt: skip
    for name, run in runs.items():
        print(f"\n{name}: parts of ours, CPU s and share of the bare pass")
        for part, seconds in run["parts"].items():
            print(f"  {part:<26}{seconds:>8.2f}{seconds / run['bare']:>8.1%}")


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WORK, help="folder for model, texts, store and results")
    parser.add_argument("--texts", type=int, default=512, help="texts of 128 tokens")
    parser.add_argument("--small", action="store_true", help="the model of beside_bergson.py in place of the large one")
    options = parser.parse_args()
    if "OMP_NUM_THREADS" not in os.environ:  # read by libraries when they are loaded, so it must be there at the start
        env = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        raise SystemExit(subprocess.call([sys.executable, *sys.argv], env=env))
    work: Path = options.out.resolve()
    work.mkdir(parents=True, exist_ok=True)
    model, corpus = work / ("small" if options.small else "large"), work / "cost.jsonl"
    make_model(model, *((128, 4, 4096) if options.small else (512, 6, 50_304)))
    make_corpus(corpus, model, 8, TOKENS)
    bare = bare_pass(str(model))
    cost(str(corpus), str(model), work / "cost.store", ("rise", {}), bare)  # loads the kernels, fills the pools
    make_corpus(corpus, model, options.texts, TOKENS)
    runs = {n: cost(str(corpus), str(model), work / "cost.store", s, bare) for n, s in METHODS.items()}
    show(runs)
    found = {"machine": machine.describe(), "threads": os.environ["OMP_NUM_THREADS"], "runs": runs}
    (work / f"ingest_cost{'_small' * options.small}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
