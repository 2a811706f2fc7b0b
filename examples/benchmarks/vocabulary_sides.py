"""The residuals' side of `headkfac` three ways, at a vocabulary of 4,096: whole, by a range finder, and read through the head.

The task of `large_vocabulary.py`: SmolLM2-135M-Instruct, 500 rows of `instruct`, 49 questions. So that the whole B (V × V) can be
computed, the head is cut to 4,096 tokens: all that occur as targets, and those that the model finds most likely besides. Mean
reciprocal rank of the right row, by the m pairs of eigenvectors with the largest λ_b λ_a, in float64 by NumPy alone:

    python examples/benchmarks/vocabulary_sides.py --model-cache /scratch/models --out /scratch
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import large_vocabulary
import machine
import numpy as np
from head_forms import unit
from head_tasks import Array, Positions

TOKENS, RANK, OVERSAMPLING, DAMPING = 4096, 512, 32, 0.1


def read(model: Path, files: Sequence[Path]) -> tuple[list[Positions], Array]:
    """The completions' positions of each file, by headwater's own reading, and the head's weight (V, D)."""
    import torch
    from headwater.engine.ingest.examples import Place
    from headwater.engine.ingest.open_provider import corpus_provider
    from headwater.engine.ingest.text_settings import TextSettings
    from headwater.engine.interface.model_view import OutputSpec
    from headwater.engine.models.language_model import ModelChoice

    parts = []
    for file in files:
        provider = corpus_provider([str(file)], ModelChoice(str(model), "cpu"), TextSettings())
        hidden, targets, counts = [], [], []
        with torch.inference_mode():
            for example in provider.examples(Place()):
                outputs = provider.read([example], OutputSpec())
                hidden.append(outputs.hidden().float().numpy())
                targets.append(outputs.targets.numpy())
                counts.append(len(targets[-1]))
        ids = np.repeat(np.arange(len(counts)), counts)
        parts.append(Positions(np.concatenate(hidden), np.concatenate(targets), ids, len(counts)))
    weight: Array = provider.head.weight.float().numpy()
    return parts, weight


def softmax(logits: Array) -> Array:
    """(P, V)."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(p / p.sum(1, keepdims=True))


def cut(parts: Sequence[Positions], weight: Array) -> tuple[list[Positions], Array]:
    """The positions with numbers of the tokens that stay, and these tokens' rows of the weight."""
    own = np.unique(np.concatenate([part.targets for part in parts]))
    likely = np.zeros(len(weight))
    for start in range(0, len(parts[0].hidden), 256):
        likely += softmax(parts[0].hidden[start : start + 256] @ weight.T).sum(0)
    likely[own] = -1
    tokens = np.concatenate([own, np.argsort(-likely)[: TOKENS - len(own)]])
    number = np.zeros(len(weight), np.int64)
    number[tokens] = np.arange(len(tokens))
    return [Positions(p.hidden, number[p.targets], p.example_ids, p.examples) for p in parts], weight[tokens]


def sides(p: Array, weight: Array) -> dict[str, tuple[Array, Array]]:
    """Way → eigenvalues (r,), descending, and what residuals are multiplied with (V, r)."""
    whole = np.diag(p.mean(0)) - p.T @ p / len(p)
    values, vectors = np.linalg.eigh(whole)
    omega = np.random.default_rng(0).standard_normal((len(whole), RANK + OVERSAMPLING))
    product = whole @ omega
    core, rotation = np.linalg.eigh(omega.T @ product)
    sound = core > 1e-12 * core[-1]
    root = product @ (rotation[:, sound] / np.sqrt(core[sound]))  # Nyström: B ≈ root rootᵀ
    basis, lengths, _ = np.linalg.svd(root, full_matrices=False)
    through, directions = np.linalg.eigh(weight.T @ whole @ weight)
    return {
        "whole B": (values[::-1][:RANK].clip(0), vectors[:, ::-1][:, :RANK]),
        "range finder": (lengths[:RANK] ** 2, basis[:, :RANK]),
        "through the head": (through[::-1].clip(0), weight @ directions[:, ::-1]),
    }


def rows(parts: Sequence[Positions], weight: Array, side: tuple[Array, Array], count: int) -> list[Array]:
    """(n, count) whitened coordinates of each part."""
    hidden = parts[0].hidden.astype(np.float64)
    a, input_basis = np.linalg.eigh(hidden.T @ hidden / len(hidden))
    products = np.outer(side[0], a[::-1].clip(0)).ravel()
    leading = np.argsort(-products, kind="stable")[:count]
    weights = 1 / np.sqrt(products[leading] + DAMPING * products[leading].mean())
    made = []
    for part in parts:
        residual = softmax(part.hidden.astype(np.float64) @ weight.T)
        residual[np.arange(len(residual)), part.targets] -= 1
        left, right = residual @ side[1], part.hidden @ input_basis[:, ::-1]
        starts = np.searchsorted(part.example_ids, np.arange(part.examples + 1))
        made.append(np.stack([(left[i:j].T @ right[i:j]).ravel()[leading] * weights for i, j in pairwise(starts)]))
    return made


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Read, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of real data")
    parser.add_argument("--model-cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    given = parser.parse_args(arguments)
    data, folder = machine.data_folder(given.data, large_vocabulary.INSTRUCT), given.out.resolve() / "vocabulary_sides"
    folder.mkdir(parents=True, exist_ok=True)
    right = large_vocabulary.write_task(data, 500, None, folder)
    model = large_vocabulary.model_folder(given.model_cache.resolve())
    parts, weight = cut(*read(model, [folder / "rows.jsonl", folder / "questions.jsonl"]))
    weight, lines = weight.astype(np.float64), list[dict[str, Any]]()
    for way, side in sides(softmax(parts[0].hidden.astype(np.float64) @ weight.T), weight).items():
        for count in (1024, 2048, 4096):
            corpus, queries = rows(parts, weight, side, count)
            forms = {"influence": queries @ corpus.T, "cosine": unit(queries) @ unit(corpus).T}
            ranks = {form: large_vocabulary.ranks(scores, right) for form, scores in forms.items()}
            lines.append(
                {"way": way, "m": count, **{form: float(np.mean(1 / np.array(r))) for form, r in ranks.items()}}
            )
            print(lines[-1], flush=True)
    cells = [[line["way"], f"{line['m']:,}", f"{line['influence']:.3f}", f"{line['cosine']:.3f}"] for line in lines]
    table = machine.markdown(["residuals' side", "m", "influence", "cosine"], cells)
    machine.save(given.out, "vocabulary_sides", {"machine": machine.describe(), "lines": lines}, table)
    return lines


if __name__ == "__main__":
    main()
