"""Sparse recovery: the time of a solution beside celer, scikit-learn and plain FISTA, at size, and how much can be recovered.

    python examples/benchmarks/recovery_speed.py --out /scratch [--celer PYTHON]

*Beside others*: N = 20,000, K = 1,000, d = 10, 40 causes, one query, λ = 0.1 λ_max, all to a duality gap of 1e-6 of ½‖y − ȳ‖²
(scikit-learn by its own tolerance, FISTA until its objective is within 1e-6 of the best), the matrix given to each as it likes
it. *At size*: K = 10,000, d = 8, 16 queries of 200 causes with a tenth of noise, gap 1e-4, in a process of its own. *Recovered*:
the share of ten planted signals whose k causes are exactly the k largest weights, over K and k, N = 2,000; a figure of it, with
the line K = C·k·ln(N/k) fitted to where half are (arXiv 2606.05165 has K ≈ k·ln(N/k)).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
from headwater.engine.recovery.design import PartitionDesign
from headwater.engine.recovery.lasso import Lasso, Sparse, predicted
from headwater.engine.recovery.membership import TableMembership

CELER = """
import json, sys, time
import numpy as np
from scipy.sparse import load_npz
from celer import Lasso
matrix, told = load_npz(sys.argv[1]).tocsc(), np.load(sys.argv[2])
y, alpha, scale = told["y"], float(told["alpha"]), float(told["scale"])
def fit():
    return Lasso(alpha=alpha, tol=1e-6, fit_intercept=True, max_iter=100).fit(matrix, y)
fit()
times = []
for _ in range(7):
    begun = time.perf_counter(); found = fit(); times.append(time.perf_counter() - begun)
np.save(sys.argv[3], np.append(found.coef_, found.intercept_))
print(json.dumps(min(times)))
"""
TRIALS, ROWS, DEGREE = 10, 2000, 10


def planted(
    design: PartitionDesign, queries: int, causes: int, noise: float, seed: int
) -> tuple[list[Sparse], np.ndarray]:
    """Signals of normal weights of at least 0.3, and their measurements (Q, K) with noise, a share of their spread."""
    chance = np.random.default_rng(seed)
    signals = []
    for _ in range(queries):
        rows = np.sort(chance.choice(design.rows, causes, replace=False))
        weights = chance.normal(size=causes)
        signals.append(Sparse(rows, weights + 0.3 * np.sign(weights)))
    y = predicted(design, signals, np.zeros(queries))
    return signals, y + noise * y.std() * chance.normal(size=y.shape)


def best_of(function: Callable[[], Any], times: int = 7) -> tuple[float, Any]:
    """Least seconds, and what came of it; once before, so that kernels are there."""
    found, least = function(), np.inf
    for _ in range(times):
        begun = time.perf_counter()
        found = function()
        least = min(least, time.perf_counter() - begun)
    return float(least), found


def beside(work: Path, celer: str) -> dict[str, Any]:
    """Seconds and objective of each, of one problem."""
    from scipy import sparse
    from sklearn.linear_model import Lasso as Reference

    design = TableMembership.of_design(PartitionDesign(20_000, 1000, 10, 0))
    _, y = planted(PartitionDesign(20_000, 1000, 10, 0), 1, 40, 0.05, 0)
    penalty = 0.1 * float(Lasso(design, y).largest()[0])
    columns = np.repeat(np.arange(design.rows), design.table.shape[1])
    matrix = sparse.csc_matrix((np.ones(design.table.size), (design.table.ravel(), columns)), (1000, design.rows))

    def objective(weights: np.ndarray, intercept: float) -> float:
        left = y[0] - intercept - matrix @ weights
        return float(0.5 * left @ left + penalty * np.abs(weights).sum())

    def ours() -> Any:
        return Lasso(design, y).fit(np.array([penalty]), 1e-6)

    def theirs() -> Any:
        return Reference(alpha=penalty / 1000, tol=1e-7, max_iter=100_000).fit(matrix, y[0])

    seconds, fit = best_of(ours)
    found = {
        "headwater": {"seconds": seconds, "objective": float(fit.objective[0]), "nonzero": len(fit.weights[0].rows)}
    }
    seconds, reference = best_of(theirs, 3)
    found["scikit-learn"] = {"seconds": seconds, "objective": objective(reference.coef_, reference.intercept_)}
    if celer:
        sparse.save_npz(work / "m.npz", matrix)
        np.savez(work / "y.npz", y=y[0], alpha=penalty / 1000, scale=1.0)
        words = [celer, "-c", CELER, str(work / "m.npz"), str(work / "y.npz"), str(work / "w.npy")]
        seconds = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        told = np.load(work / "w.npy")
        found["celer"] = {"seconds": seconds, "objective": objective(told[:-1], told[-1])}
    least = min(one["objective"] for one in found.values())
    seconds, weights = best_of(lambda: fista(matrix, y[0], penalty, least * (1 + 1e-6)), 1)
    found["FISTA"] = {
        "seconds": seconds,
        "objective": objective(weights, float(y[0].mean() - (matrix @ weights).mean())),
    }
    return found


def fista(matrix: Any, y: np.ndarray, penalty: float, enough: float) -> np.ndarray:
    """Accelerated proximal steps over all rows (Beck & Teboulle 2009) until the objective is `enough`."""
    rows = matrix.tocsr().T.tocsr()
    centred, mean = y - y.mean(), np.asarray(matrix.mean(0)).ravel()

    def image(weights: np.ndarray) -> np.ndarray:
        return np.asarray(matrix @ weights - mean @ weights)

    probe = np.random.default_rng(0).normal(size=matrix.shape[1])
    for _ in range(30):
        probe = rows @ image(probe)
        probe /= np.linalg.norm(probe)
    step = 1 / (1.05 * np.linalg.norm(rows @ image(probe)))
    weights = ahead = np.zeros(matrix.shape[1])
    pace = 1.0
    for _ in range(20_000):
        moved = ahead + step * (rows @ (centred - image(ahead)))
        new = np.sign(moved) * np.maximum(np.abs(moved) - step * penalty, 0)
        faster = (1 + np.sqrt(1 + 4 * pace * pace)) / 2
        ahead, weights, pace = new + (pace - 1) / faster * (new - weights), new, faster
        left = centred - image(weights)
        if 0.5 * left @ left + penalty * np.abs(weights).sum() <= enough:
            break
    return weights


AT_SIZE = """
import json, resource, sys, time
import numpy as np
sys.path.insert(0, sys.argv[3])
from recovery_speed import PartitionDesign, Lasso, TableMembership, planted
rows, how = int(sys.argv[1]), sys.argv[2]
_, y = planted(PartitionDesign(300, 40, 2, 0), 16, 4, 0.1, 0)
Lasso(TableMembership.of_design(PartitionDesign(300, 40, 2, 0)), y).fit(np.full(16, 0.5))  # kernels are compiled
design = PartitionDesign(rows, 10_000, 8, 0)
_, y = planted(design, 16, 200, 0.1, 1)
wall, begun = time.monotonic(), time.process_time()
of = TableMembership.of_design(design) if how == "held" else design
problem = Lasso(of, y, 2)
fit = problem.fit(0.1 * problem.largest(), 1e-4)
print(json.dumps({"rows": rows, "ids": how, "cpu": time.process_time() - begun, "wall": time.monotonic() - wall,
    "passes": fit.passes, "gap": float(fit.gap.max()), "nonzero": int(np.mean([len(one.rows) for one in fit.weights])),
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def at_size(rows: int, how: str) -> dict[str, Any]:
    """CPU seconds, passes and peak memory; ids of rows held, or computed at every pass."""
    words = [sys.executable, "-c", AT_SIZE, str(rows), how, str(Path(__file__).parent)]
    found: dict[str, Any] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    print(json.dumps(found), flush=True)
    return found


def recovered(subsets: int, causes: int, degree: int, noise: float) -> float:
    """Share of planted signals whose causes are the largest weights."""
    design = PartitionDesign(ROWS, subsets, degree, 5)
    signals, y = planted(design, TRIALS, causes, noise, subsets + 1000 * causes)
    problem = Lasso(TableMembership.of_design(design), y)
    top = problem.largest()
    for share in (0.3, 0.1, 0.03, 0.01) if noise == 0 else (0.3, 0.1, 0.05):
        fit = problem.fit(share * top, 1e-5)
    right = 0
    for true, one in zip(signals, fit.weights, strict=True):
        strong = one.rows[np.argsort(-np.abs(one.weights))[:causes]]
        right += np.array_equal(np.sort(strong), true.rows)
    return right / TRIALS


def phases(subsets: Sequence[int], causes: Sequence[int]) -> dict[str, Any]:
    """Recovery over K and k, for three degrees without noise, and with a twentieth of noise."""
    found: dict[str, Any] = {"subsets": list(subsets), "causes": list(causes), "rates": {}}
    for degree, noise in ((5, 0.0), (10, 0.0), (20, 0.0), (10, 0.05)):
        found["rates"][f"d = {degree}, noise {noise:g}"] = [
            [recovered(one, k, degree, noise) for one in subsets] for k in causes
        ]
    return found


def constant(rates: Sequence[Sequence[float]], subsets: Sequence[int], causes: Sequence[int]) -> float:
    """C of K = C·k·ln(N/k) at which half of the signals are recovered: the median over k of the first such K."""
    found = []
    for k, line in zip(causes, rates, strict=True):
        enough = [one for one, rate in zip(subsets, line, strict=True) if rate >= 0.5]
        if enough and enough[0] > subsets[0]:
            found.append(enough[0] / (k * np.log(ROWS / k)))
    return float(np.median(found)) if found else float("nan")


def draw(found: dict[str, Any], file: Path) -> None:
    """A panel a design; the rule of K and the fitted one as lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(found["rates"]), 4), layout="constrained")
    subsets, causes = np.array(found["subsets"]), np.array(found["causes"])
    for at, (name, rates) in enumerate(found["rates"].items()):
        axes = figure.add_subplot(1, len(found["rates"]), at + 1)
        image = axes.pcolormesh(subsets, causes, np.array(rates), vmin=0, vmax=1, cmap="viridis", shading="nearest")
        fitted = constant(rates, found["subsets"], found["causes"])
        for factor, style, label in ((1.0, "w--", "k ln(N/k)"), (fitted, "w-", f"{fitted:.2f} k ln(N/k)")):
            axes.plot(factor * causes * np.log(ROWS / causes), causes, style, label=label)
        axes.set(xlim=(subsets[0], subsets[-1]), title=name, xlabel="K measurements", ylabel="k causes")
        axes.legend(loc="upper left")
    figure.colorbar(image, label="recovered")
    figure.savefig(file, dpi=120)


def show(found: dict[str, Any]) -> str:
    """Tables."""
    ours = found["beside"]["headwater"]["seconds"]
    least = min(one["objective"] for one in found["beside"].values())
    lines = [[name, f"{1000 * one['seconds']:.1f} ({one['seconds'] / ours:.2f})", f"{one['objective'] / least - 1:.1e}"]
             for name, one in found["beside"].items()]  # fmt: skip
    sizes = [[f"{one['rows']:,}", one["ids"], f"{one['cpu']:.1f}", f"{one['wall']:.1f}", str(one["passes"]),
              f"{one['gap']:.0e}", str(one["nonzero"]), f"{one['peak'] / 1e6:.0f}"] for one in found["size"]]  # fmt: skip
    told = found["phases"]
    constants = [
        [name, f"{constant(rates, told['subsets'], told['causes']):.2f}"] for name, rates in told["rates"].items()
    ]
    return "\n\n".join([
        machine.markdown(["solver", "ms (times ours)", "objective over the least"], lines),
        machine.markdown(["rows", "ids", "CPU s", "s", "passes", "gap", "nonzero", "MB"], sizes),
        machine.markdown(["design", "C: half recovered at K = C·k·ln(N/k)"], constants),
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=machine.OUT)
    parser.add_argument("--celer", default="", help="a Python that has celer")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--subsets", type=int, nargs="+", default=list(range(50, 601, 50)))
    parser.add_argument("--causes", type=int, nargs="+", default=[2, 4, 8, 12, 16, 24, 32, 48, 64])
    given = parser.parse_args(arguments)
    work = given.out.resolve() / "recovery"
    work.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": machine.describe(), "beside": beside(work, given.celer)}
    print(json.dumps(found["beside"]), flush=True)
    found["size"] = [at_size(rows, how) for rows in given.rows for how in ("held", "computed")]
    found["phases"] = phases(given.subsets, given.causes)
    draw(found["phases"], given.out / "recovery.png")
    machine.save(given.out, "recovery_speed", found, show(found))
    return found


if __name__ == "__main__":
    main()
