"""A training set is ingested at checkpoints of a real training, as members of one method."""

from __future__ import annotations

from pathlib import Path

import headwater as hw
import numpy as np
import pytest
from headwater.store.errors import ModelError, SettingsError
from headwater.store.feature_store import FeatureStore, method_group
from small import save_model, sentences

RISE = {"kr": 16, "kh": 16, "kg": 8}


def trained(folder: Path, capture: hw.Capture, *, tokenizer: bool = True, save: str = "steps"):
    """A training of six steps that saves every second one."""
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    own = AutoTokenizer.from_pretrained(folder / "model")
    own.pad_token = own.bos_token
    rows = [own(text)["input_ids"][:64] for text in sentences(24)]
    data = [{"input_ids": ids, "labels": [-100, *ids[1:]]} for ids in rows]
    arguments = TrainingArguments(
        str(folder / "out"), max_steps=6, save_steps=2, per_device_train_batch_size=4, learning_rate=1e-2,
        save_strategy=save, report_to=[], disable_tqdm=True, use_cpu=True, logging_steps=1000,
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, DataCollatorForSeq2Seq(own, padding=True), data, callbacks=[capture],
        processing_class=own if tokenizer else None,
    )  # fmt: skip
    trainer.train()
    return data, model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("capture")
    save_model(place / "model")
    return place


def test_checkpoints_become_members(folder: Path):
    capture = hw.Capture(folder / "S", methods=hw.method("rise", **RISE), steps={2, 6}, progress=False)
    data, model = trained(folder, capture)
    assert capture.members == ["rise@step-2", "rise@step-6"]
    assert model.training, "the callback leaves the model as it was"
    opened = hw.open(folder / "S", progress=False)
    assert opened.methods == capture.members and opened.complete and len(opened) == len(data)
    store = FeatureStore.open(str(folder / "S"))
    assert store.provenance["model_path"].endswith("checkpoint-2")
    assert store.groups[method_group("rise@step-6")].model["path"].endswith("checkpoint-6")
    question = {"prompt": "river ", "completion": "stone"}
    each = [opened.scores(question, method=name) for name in capture.members]
    assert not np.array_equal(*each)
    together = opened.attribute(question, method="rise", members="all", combine="sum", top=3)
    order = np.argsort(-(each[0][0].astype(np.float64) + each[1][0]), kind="stable")[:3]
    assert together[0].rows == order.tolist()


def test_a_captured_member_has_the_rows_of_an_ingestion_from_the_checkpoint(folder: Path, tmp_path: Path):
    capture = hw.Capture(tmp_path / "S", methods=hw.method("rise", **RISE), steps=[4], progress=False)
    data, _ = trained(folder, capture)
    hw.ingest(data, tmp_path / "T", model=folder / "out" / "checkpoint-4", methods=hw.method("rise@step-4", **RISE),
              progress=False)  # fmt: skip
    stores = [hw.open(tmp_path / name, progress=False) for name in "ST"]
    scores = [opened.scores("river stone") for opened in stores]
    np.testing.assert_array_equal(*scores)


def test_what_cannot_be_captured_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(SettingsError, match="stride stores no rows"):
        hw.Capture(tmp_path / "S", methods="stride")
    with pytest.raises(SettingsError, match="no argument 'step'; did you mean steps"):
        hw.Capture(tmp_path / "S", step=3)
    with pytest.raises(ModelError, match="tokenizer"):
        trained(folder, hw.Capture(tmp_path / "S", methods=hw.method("rise", **RISE), progress=False), tokenizer=False)
    with pytest.raises(SettingsError, match="save_strategy"):
        trained(folder, hw.Capture(tmp_path / "S", methods=hw.method("rise", **RISE), progress=False), save="no")
