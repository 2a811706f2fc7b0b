"""A folder of ground truth whose files are damaged gives the same outcomes or one line; its workers end with their parent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headwater.engine.evaluation.matrices import read_array
from headwater.engine.ingest import text_settings
from headwater.engine.retraining.retraining_job import GroundTruthJob, prepare_ground_truth
from headwater.engine.retraining.training_loop import RetrainingRecipe
from headwater.store.errors import StoreDamaged, StoreMismatch
from running import done, headwater
from small import save_model, sentences, write_corpus


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    save_model(folder / "model")
    write_corpus(folder / "c.jsonl", sentences(16))
    write_corpus(folder / "q.jsonl", sentences(16)[:4])
    np.save(folder / "scores.npy", np.random.default_rng(0).normal(size=(4, 16)))
    done(*words(folder, folder / "truth"))
    return folder


def words(place: Path, folder: Path, *more: object) -> list[object]:
    common = ["--subset-count", 3, "--seeds", 1, "--epochs", 1, "--batch", 8, "--processes", 1]
    return ["ground-truth", place / "c.jsonl", "--queries", place / "q.jsonl", "--model-config", place / "model", "-o", folder,
            *common, *more]  # fmt: skip


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 << (at % 8)
    path.write_bytes(bytes(data))


def test_a_flipped_bit_in_any_file_is_mended_or_one_line(place: Path, tmp_path: Path) -> None:
    files = [file for file in sorted((place / "truth").rglob("*")) if file.is_file() and file.parts[-2] != "runs"]
    ours = [file for file in files if "runs" not in file.parts or file.is_relative_to(place / "truth/runs/0000-00")]
    assert len(ours) > 15
    for number, file in enumerate(ours):
        folder = shutil.copytree(place / "truth", tmp_path / str(number))
        damaged = folder / file.relative_to(place / "truth")
        flip(damaged, 7919 * (number + 1))
        if "runs" in file.parts and file.name != "0":  # one of its files is enough to see the training itself
            task = GroundTruthJob([str(place / "c.jsonl")], str(place / "q.jsonl"), str(place / "model"), str(folder), subsets=3,
                                  seeds=1, recipe=RetrainingRecipe(epochs=1, batch=8))  # fmt: skip
            no_numbers = file.parent.parent.name == "0000-00"  # the metadata of a group, which nothing is read from
            assert prepare_ground_truth(task).remaining_runs() == ([] if no_numbers else [(0, 0)]), file
            continue
        ended = headwater(*words(place, folder))
        if damaged.name == "truth.json":
            assert ended.exit_code == 1 and ended.stderr.splitlines()[-1].startswith("error: "), ended.output
            damaged.unlink()
            ended = headwater(*words(place, folder))
        assert ended.exit_code == 0, (file, ended.output)
        for name in ("outcomes.npy", "masks.npy", "truth.json"):
            assert (folder / name).read_bytes() == (place / "truth" / name).read_bytes(), (file, name)


@pytest.mark.parametrize("name", ["outcomes.npy", "masks.npy"])
def test_bytes_after_the_numbers_are_removed(place: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(place / "truth", tmp_path / "t")
    with (folder / name).open("ab") as file:
        file.write(b"more")
    done(*words(place, folder))
    for other in ("outcomes.npy", "masks.npy", "truth.json"):
        assert (folder / other).read_bytes() == (place / "truth" / other).read_bytes()


def test_a_record_that_is_a_circle_of_links_is_one_line(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(place / "truth", tmp_path / "t")
    (folder / "truth.json").unlink()
    (folder / "truth.json").symlink_to(folder / "truth.json")
    refused = headwater(*words(place, folder))
    assert refused.exit_code == 1 and refused.stderr.splitlines()[-1].startswith("error: cannot read ")


@pytest.mark.parametrize("name", ["outcomes.npy", "masks.npy", "truth.json"])
def test_evaluate_refuses_damaged_ground_truth(place: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(place / "truth", tmp_path / "t")
    command = ["evaluate", "lds", "--scores", place / "scores.npy", "--masks", folder / "masks.npy", "--outcomes",
               folder / "outcomes.npy", "--resamples", 2]  # fmt: skip
    done(*command)
    flip(folder / name, -8)  # the lowest bit: a mask stays one of 0 and 1
    refused = headwater(*command)
    assert refused.exit_code == 1 and len(refused.stderr.splitlines()) <= 2 and "ground-truth again" in refused.stderr


@pytest.mark.parametrize("content", ["[1, 2]", "not JSON", '{"seal": "of another program"}', "{}"])
def test_a_record_of_another_program_stops_no_reading(tmp_path: Path, content: str) -> None:
    (tmp_path / "truth.json").write_text(content)
    (tmp_path / "runs/first").mkdir(parents=True)
    values = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "scores.npy", values)
    assert np.array_equal(read_array(str(tmp_path / "scores.npy"), "scores"), values)


def test_a_damaged_record_apart_from_its_trainings_is_refused(place: Path, tmp_path: Path) -> None:
    for name in ("truth.json", "outcomes.npy"):
        shutil.copy(place / "truth" / name, tmp_path / name)
    read_array(str(tmp_path / "outcomes.npy"), "outcomes")
    record = tmp_path / "truth.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "noise ceiling": 2}))
    with pytest.raises(StoreDamaged, match="ground-truth again"):
        read_array(str(tmp_path / "outcomes.npy"), "outcomes")


def test_runs_of_other_settings_are_not_used(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(place / "truth", tmp_path / "t")
    (folder / "truth.json").unlink()
    done(*words(place, folder, "--learning-rate", 0.1))
    done(*words(place, tmp_path / "fresh", "--learning-rate", 0.1))
    assert (folder / "outcomes.npy").read_bytes() == (tmp_path / "fresh/outcomes.npy").read_bytes()


def test_texts_are_read_as_asked_and_with_the_first_day(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shutil.copytree(place / "model", tmp_path / "model")
    template = "{{ strftime_now('%d %b') }}{% for m in messages %} {{ m.content }}{% endfor %}"
    (model / "chat_template.jinja").write_text(template)
    talk = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two three"}]
    corpus, queries = tmp_path / "c.jsonl", tmp_path / "q.jsonl"
    for path, records in (
        (corpus, [{"messages": talk}, {"prompt": "the ri", "completion": "ver"}]),
        (queries, [{"text": "sea"}]),
    ):
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    tasks = []
    for day, boundary in (("2026-01-02", "joined"), ("2026-03-04", "joined"), ("2026-03-04", "apart")):
        monkeypatch.setattr(
            text_settings, "date", type("Day", (date,), {"today": lambda day=day: date.fromisoformat(day)})
        )
        folder = tmp_path / boundary
        task = GroundTruthJob([str(corpus)], str(queries), str(model), str(folder), subsets=1, boundary=boundary)  # type: ignore[arg-type]
        tasks.append(prepare_ground_truth(task).task)
    assert [task.clock for task in tasks] == ["2026-01-02", "2026-01-02", "2026-03-04"]  # the folder keeps its day
    assert tasks[0].examples.digest == tasks[1].examples.digest != tasks[2].examples.digest


def test_clusters_drawn_otherwise_are_refused(place: Path, tmp_path: Path) -> None:
    def job(**more: Any) -> GroundTruthJob:
        settings = {"subsets": 2, "clusters": 4, **more}
        return GroundTruthJob(
            [str(place / "c.jsonl")], str(place / "q.jsonl"), str(place / "model"), str(tmp_path / "t"), **settings
        )

    first = prepare_ground_truth(job())
    assert np.array_equal(prepare_ground_truth(job()).task.masks, first.task.masks)
    with pytest.raises(StoreMismatch, match="another drawn"):
        prepare_ground_truth(job(subsets=3))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="lists children by /proc")
def test_workers_end_with_their_parent(place: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headwater", *map(str, words(place, tmp_path / "t", "--epochs", 400))]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 200
    while len(workers := children.read_text().split()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(5)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while any(_runs(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(workers) >= 2 and not any(_runs(worker) for worker in workers)


def _runs(process: str) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
