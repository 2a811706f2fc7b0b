"""The benchmark scripts still run, each in a form of seconds, and measure what they say; their figures are not tested."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import BENCHMARKS, SHARED

SCRIPTS = BENCHMARKS
DATA = SHARED
pytestmark = pytest.mark.skipif(not SCRIPTS.exists(), reason=f"no {SCRIPTS}: not a checkout")
Load = Callable[[str], Any]
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no real data at {DATA}")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Imports one script by name as the interpreter would that runs it: its folder on the path."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def test_a_machine_describes_itself(script: Load) -> None:
    machine = script("machine")
    about = machine.describe()
    assert about["cores"] >= 1 and about["memory_gib"] > 0 and about["torch"] != "absent"
    assert about["torch"] in machine.described(about)
    json.dumps(about)


def test_a_command_is_measured_apart_from_the_one_who_asks(script: Load, tmp_path: Path) -> None:
    machine = script("machine")
    ours = np.ones(200 << 20, np.uint8)
    small = machine.run([sys.executable, "-c", "import sys; print('said', file=sys.stderr)"], tmp_path)
    large = machine.run([sys.executable, "-c", "b = b'x' * (100 << 20); sum(range(10**6))"], tmp_path)
    assert small.told == "said\n" and small.peak_bytes < 60 << 20 < ours.nbytes
    assert 100 << 20 < large.peak_bytes < 160 << 20
    assert large.cpu_seconds > 0 and large.seconds > 0


def test_a_command_that_fails_ends_the_benchmark_with_its_words(script: Load, tmp_path: Path) -> None:
    machine = script("machine")
    with pytest.raises(SystemExit, match=r"exit 1\nbad luck"):
        machine.run([sys.executable, "-c", "raise SystemExit('bad luck')"], tmp_path)


@pytest.mark.parametrize("name", ["backdoor", "real_corpora"])
def test_a_script_says_what_data_it_lacks(script: Load, tmp_path: Path, name: str) -> None:
    with pytest.raises(SystemExit, match="--data DIR"):
        script(name).main(["--data", str(tmp_path)])


@needs_data
def test_a_seed_draws_its_own_rows_and_knows_the_poisoned_ones(script: Load) -> None:
    backdoor = script("backdoor")
    task, other = (backdoor.draw(DATA, seed, [450, 50, 30]) for seed in (0, 1))
    triggered = ["BadMagic" in row["instruction"] for row in task.rows]
    assert task.poisoned.tolist() == triggered and sum(triggered) == 50 and len(task.rows) == 500
    assert {row["output"] for row in task.queries} == {"Negative"} and len(task.queries) == 30
    assert task.rows != other.rows and task.queries != other.queries


@needs_data
def test_the_references_of_the_backdoor_are_what_they_are_called(script: Load) -> None:
    import torch

    backdoor = script("backdoor")
    model, tokenizer = backdoor.load(DATA / backdoor.MODEL)
    ids, first = backdoor.encoded(tokenizer, {"instruction": "a fine film", "output": "Negative"})
    assert tokenizer.decode(ids[0, first:]).strip() == "Negative" and ids[0, 0] == tokenizer.bos_token_id

    hidden = model.base_model(input_ids=ids).last_hidden_state.detach()
    head = model.lm_head.weight.detach().clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy((hidden @ head.T)[0, first - 1 : -1], ids[0, first:], reduction="sum")
    (gradient,) = torch.autograd.grad(loss, head)
    assert torch.allclose(backdoor.head_gradient(model, ids, first), gradient.flatten(), atol=1e-5)
    assert len(backdoor.full_gradient(model, ids, first)) == sum(p.numel() for p in model.parameters())


@pytest.mark.slow
@needs_data
def test_backdoor_runs(
    script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backdoor = script("backdoor")
    monkeypatch.setattr(backdoor, "VARIANTS", backdoor.VARIANTS[:1])
    sizes = ["--sizes", "12", "4", "2", "--epochs", "1"]
    found = backdoor.main(["--data", str(DATA), "--out", str(tmp_path), "--seeds", "3", *sizes])
    told = json.loads((tmp_path / "backdoor.json").read_text())
    assert told["machine"]["cpu"] and len(told["found"]["3"]) == len(found[3]) == 4
    assert all(0 < each.precision <= 1 and each.seconds > 0 for each in found[3].values())
    assert (tmp_path / "backdoor.md").read_text() in capsys.readouterr().out


@pytest.mark.slow
@needs_data
def test_real_corpora_run(script: Load, tmp_path: Path) -> None:
    found = script("real_corpora").main(["--data", str(DATA), "--out", str(tmp_path), "--rows", "12", "--queries", "6"])
    told = json.loads((tmp_path / "real_corpora.json").read_text())
    assert told["examples"] == found["examples"] == 24 and found["found_themselves"] == 1.0
    assert [step.get("rows") for step in found["steps"]] == [12, 12, None, None]


@pytest.mark.slow
def test_the_engine_is_timed(script: Load, tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="the rivals are not installed")
    found = script("scan_speed").main(["--out", str(tmp_path), "--rows", "3000", "--few", "2500", "--rounds", "1"])
    told = json.loads((tmp_path / "scan_speed.json").read_text())
    assert {"ceilings", "engine", "rivals", "signs", "scaling"} <= set(told)
    assert all(line["rows_per_second"] > 0 for line in found["engine"] + found["rivals"])
    assert all(line["measured"] <= line["planned"] for line in found["signs"])
    assert "FAISS flat in RAM, Q = 64" in (tmp_path / "scan_speed.md").read_text()


def test_made_stores_are_what_they_say(script: Load, tmp_path: Path) -> None:
    stores = script("stores")
    made = stores.fill(tmp_path / "s", 5000, 64, "int8")
    assert made.rows == 5000 and stores.fill(tmp_path / "s", 5000, 64, "int8").rows == 5000
    assert np.allclose(np.linalg.norm(stores.pool(64, 100), axis=1), 1, atol=1e-5)


@needs_data
@pytest.mark.slow
def test_recall_is_measured(script: Load, tmp_path: Path) -> None:
    found = script("recall").main(["--out", str(tmp_path), "--rows", "120", "--queries", "8"])
    for result in found.values():
        assert result["certified_equal"] == result["queries"] == 8 and result["scan_recall"] > 0.99
        forms = {form["form"]: form for form in result["forms"]}
        assert forms["int8"]["alone"] > 0.97 and forms["sign8192"]["200"] > 0.99


def test_kernels_for_signs_agree(script: Load, tmp_path: Path) -> None:
    words = ["--out", str(tmp_path), "--rows", "65", "--bits", "256", "--queries", "3", "--rounds", "1"]
    found = script("sign_kernels").main(words)  # compares the three with each other
    assert [line["what"] for line in found["kernels"]] == ["tables", "±1 bytes", "4 planes"]


@pytest.mark.slow
@needs_data
def test_methods_are_compared_and_what_was_measured_is_kept(script: Load, tmp_path: Path) -> None:
    compare = script("compare")
    words = ["--data", str(DATA), "--out", str(tmp_path), "--tasks", "domains", "--seeds", "0", "--methods", "tfidf"]
    (found,) = compare.main(words)
    assert found["figure"]["value"] > 0.6 and found["bytes"] == 0 and (tmp_path / "compare.png").exists()
    for folder in (tmp_path / "compare").glob("domains-*"):
        shutil.rmtree(folder)  # a second run needs none of it
    assert compare.main(words) == [found]


@pytest.mark.slow
@needs_data
def test_sets_of_text_are_retrained_and_judged(script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, figures = script("text_subsets"), sys.modules["subset_figures"]
    small = {"EACH": 16, "CROWD": 4, "TARGETS": 5, "SIZE": 16, "SUBSETS": 8, "SEEDS": 2, "REGIMES": text.REGIMES[1:4:2]}
    for name, value in small.items():
        monkeypatch.setattr(text, name, value)
    monkeypatch.setattr(figures, "FIRST", 3)
    found = text.main(["--out", str(tmp_path)])
    assert set(found) == {"clustered", "clustered, duplicated"}
    for one in found.values():
        assert {"grasp, λ = 1", "vectors@tfidf, additive", "number of distinct rows"} <= set(one["lines"])
        assert all(-1 <= line["broad"] <= 1 and -1 <= line["all"] <= 1 for line in one["lines"].values())
    head, sketch = (found["clustered"]["lines"][f"{name}, λ = 1"]["all"] for name in ("vectors@head", "grasp"))
    assert abs(head - sketch) < 0.3
    assert (tmp_path / "text_subsets-0.png").stat().st_size > 10_000


@pytest.mark.slow
@needs_data
def test_what_is_chosen_is_trained_on(script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curation = script("curation")
    small = {"EACH": 20, "CROWD": 5, "COPIES": 3, "OFF": 180, "TARGETS": 6, "CHOSEN": 16}
    for name, value in small.items():
        monkeypatch.setattr(curation, name, value)
    (found,) = curation.main(["--out", str(tmp_path), "--draws", "1"])
    assert set(found) == {*curation.WAYS, "by chance", "by chance, distinct", "all of it"} and all(
        0 < loss < 10 for loss in found.values()
    )
    masks = np.load(tmp_path / "curation-0/masks.npy")
    assert (masks[:-1].sum(1) == 16).all() and masks[-1].all() and masks.shape[1] == 4 * (20 + 2 * 5) + 180


@pytest.mark.slow
def test_choosing_at_size_is_exact(script: Load, tmp_path: Path) -> None:
    (found,) = script("choice_speed").main(["--out", str(tmp_path), "--rows", "20000", "--picks", "40"])
    assert found["equal"] and found["select"]["examples"] == 40 and found["select"]["passes"] < 5
    assert found["predict"]["peak"] < 1e9 and found["gram"]["headwater"] > 0


@pytest.mark.slow
def test_sparse_recovery_is_measured(script: Load, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    few = ["--rows", "20000", "--subsets", "50", "150", "400", "--causes", "2", "8", "32"]
    found = script("recovery_speed").main(["--out", str(tmp_path), *few])
    objectives = [one["objective"] for one in found["beside"].values()]
    assert max(objectives) < (1 + 1e-5) * min(objectives) and found["beside"]["headwater"]["nonzero"] >= 30
    assert all(one["gap"] <= 1e-4 for one in found["size"]) and len(found["size"]) == 2
    rates = np.array(found["phases"]["rates"]["d = 10, noise 0"])
    assert rates[0, -1] == 1 and rates[-1, 0] == 0 and (np.diff(rates, axis=1) >= -0.2).all()
    assert (tmp_path / "recovery.png").stat().st_size > 10_000


@pytest.mark.slow
def test_steering_is_judged_by_retraining(script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    digits = script("steering_digits")
    for name, value in {
        "ROWS": 300,
        "QUERIES": 30,
        "HALVES": 20,
        "SEEDS": 2,
        "STEPS": 60,
        "MANY": 100,
        "DRAWS": 2,
    }.items():
        monkeypatch.setattr(digits, name, value)
    found = digits.main(["--out", str(tmp_path), "--sizes", "100", "--bases", "2", "--part", "20"])
    (one,) = found["sizes"]
    told = {name: figure[0] for name, figure in one["scores"].items()}
    assert abs(told["stride"] - told["lasso"]) < 0.02 and told["lasso"] > told["lasso, permuted"] + 0.1
    assert abs(told["lasso, permuted"]) < 0.15 and found["bases"]["stride"][0] > 0.1 and 0 < found["ceiling"] < 1
    assert found["closed"]["head Gauss–Newton"][0] > 0.1 and found["base"] < 2.2 and one["explained"] < 1


@pytest.mark.slow
def test_steering_is_measured_by_the_command_line(
    script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steering = script("steering")
    some = [steering.Run("backdoor", 0, 200, "example", updates=4), steering.Run("backdoor", 0, 100, updates=2)]
    monkeypatch.setattr(steering, "runs", lambda: some)
    found = steering.main(["--out", str(tmp_path), "--only", "backdoor"])
    assert [one["diagnostics"]["subsets"] for one in found.values()] == [200, 100]
    assert all(0 < one["figure"]["value"] < 1 and one["fit"] > 0 and one["bytes"] > 0 for one in found.values())
    assert steering.main(["--out", str(tmp_path), "--only", "backdoor"]) == found
    assert "200" in sys.modules["steering_tables"].show_curve(found)


@pytest.mark.slow
def test_what_steering_costs_is_measured(script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("OMP", "MKL", "NUMBA"):  # which the script sets, and what is set here is undone
        monkeypatch.setenv(f"{library}_NUM_THREADS", "1")
    cost = script("steering_cost")
    monkeypatch.setattr(cost, "SIZES", {"small": (32, 2, 300, 24)})
    (found,) = cost.main(["--out", str(tmp_path), "--models", "small", "--subsets", "30"]).values()
    assert (
        set(found) == {"logra", "trak", "stride"} and found["logra"]["peak"] > 100 << 20
    )  # seconds of so few are noise
    assert cost.total({"example": 0.5, "step": 0.001}, 100) == pytest.approx(50 + 0.001 * 150 * 1050)
    assert "CPU hours" in (tmp_path / "steering_cost.md").read_text()


@pytest.mark.slow
def test_features_and_their_rivals_are_built(script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("OMP", "MKL", "NUMBA"):  # which the script sets, and what is set here is undone
        monkeypatch.setenv(f"{library}_NUM_THREADS", "1")
    cost = script("artifact_cost")
    monkeypatch.setattr(cost, "SIZES", {"small": (32, 2, 300, 32)})
    (found,) = cost.main(["--out", str(tmp_path), "--models", "small"]).values()
    assert set(found) == {"bare forward", "GRASP", "LoGra's form", "TRAK, sketched", "TRAK's form"}
    sizes = {form: size for form, (_, size) in found.items()}  # seconds of so few texts are a difference of noise
    assert sizes["GRASP"] == 2052 and sizes["TRAK's form"] == 4096 and found["TRAK's form"][0] > 0


@pytest.mark.slow
def test_sets_of_digits_are_judged(script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    digits, figures = script("digits_subsets"), sys.modules["subset_figures"]
    monkeypatch.setattr(digits, "SUBSETS", 30)
    monkeypatch.setattr(digits, "REGIMES", ("clustered",))
    monkeypatch.setattr(figures, "FIRST", 10)
    (found,) = digits.main(["--out", str(tmp_path), "--draws", "1"])
    lines = found["clustered"]["lines"]
    assert lines["grasp, λ = 1"]["broad"] > 0.6 > lines["grasp, additive"]["broad"]
    assert abs(lines["vectors@head, λ = 1"]["all"] - lines["grasp, λ = 1"]["all"]) < 0.05


@needs_data
def test_rows_of_small_heads_predict_as_their_formulas_do(
    script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    heads = script("small_heads")
    for name, value in {"DRAWS": 1, "HALVES": 12, "SKETCHES": 1}.items():
        monkeypatch.setattr(heads, name, value)
    words = ["--data", str(DATA), "--out", str(tmp_path), "--sizes", "120", "20", "60", "--tasks"]
    figures = heads.main([*words, "reviews"])["reviews"]
    assert set(figures) == set(heads.METHODS)
    for name, (formula, rows, *sketched) in ((name, draws[0]) for name, draws in figures.items()):
        assert abs(formula - rows) < 0.01 and formula > 0.4
        assert len(sketched) == (name in heads.SKETCHED) and all(abs(formula - lds) > 0.01 for lds in sketched)
    assert "| reviews | headcos |" in (tmp_path / "small_heads.md").read_text()


@pytest.mark.slow
@needs_data
def test_token_boundary_runs(script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script("backdoor")
    boundary = script("token_boundary")
    monkeypatch.setattr(boundary, "READ", boundary.READ[:1])
    precisions = boundary.main(["--data", str(DATA), "--out", str(tmp_path), "--seeds", "3", "--sizes", "12", "4", "2"])
    assert {key[0] for key in precisions[3]} == {"joined", "apart"} and all(
        0 < value <= 1 for value in precisions[3].values()
    )
    assert "fine-tuned" in (tmp_path / "token_boundary.md").read_text()


def test_equal_scores_share_their_mean_rank(script: Load) -> None:
    large = script("large_vocabulary")
    scores = np.array([[0.3, 0.9, 0.1, 0.5], [0.0, 2.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    assert large.ranks(scores, [0, 2, 3]) == [3.0, 3.0, 2.5]


@needs_data
def test_questions_are_about_one_row_each_and_copy_none(script: Load, tmp_path: Path) -> None:
    large = script("large_vocabulary")
    rows = json.loads((DATA / large.INSTRUCT).read_text("utf-8"))[:500]
    questions = [json.loads(line) for line in large.QUESTIONS.read_text("utf-8").splitlines()]
    assert len({question["row"] for question in questions}) == len(questions) == 49
    texts = {text.strip() for row in rows for text in row.values()}
    assert not texts & {question[part].strip() for question in questions for part in ("prompt", "completion")}
    right = large.write_task(DATA, 30, 3, tmp_path)
    assert ["Indonesia" in rows[right[0]]["instruction"], len(right), max(right) < 30] == [True, 3, True]
    assert len((tmp_path / "rows.jsonl").read_text("utf-8").splitlines()) == 30


@pytest.mark.slow
@needs_data
def test_questions_are_ranked_and_what_was_measured_is_kept(script: Load, tmp_path: Path) -> None:
    large = script("large_vocabulary")
    small = ["--data", str(DATA), "--out", str(tmp_path), "--model", str(DATA / "models/stories260K"), "--rows", "30"]
    methods = ["--methods", "tfidf", "rise", "rise, tau=1.0, floor=1.0"]
    lines = large.main([*small, *methods])
    assert [line["method"] for line in lines] == methods[1:] and all(len(line["ranks"]) == 7 for line in lines)
    assert lines[0]["ingest"] == 0 < lines[1]["ingest"] and lines[1]["ranks"] != lines[2]["ranks"]
    assert all(1 <= rank <= 30 for line in lines for rank in line["ranks"])
    assert "over RISE's" in (tmp_path / "large_vocabulary.md").read_text()
    assert large.main([*small, *methods]) == lines  # seconds to the last digit: nothing ran again
    assert large.main([*small, *methods, "--questions", "2"])[1]["ranks"] == lines[1]["ranks"][:2]


def test_a_second_question_costs_no_model(script: Load, tmp_path: Path) -> None:
    from small import save_model, sentences, write_corpus

    save_model(tmp_path / "model")
    corpus = write_corpus(tmp_path / "corpus.jsonl", sentences(40))
    figures = script("session_cost").main(
        ["--model", str(tmp_path / "model"), "--corpus", str(corpus), "--out", str(tmp_path)]
    )
    assert figures["second question"] < figures["first question"] < figures["a command that asks one"]
