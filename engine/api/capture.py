"""Ingests a training set at chosen checkpoints of a training, as members of one method: a callback of transformers' Trainer.

trainer = Trainer(…, callbacks=[hw.Capture("my-store", methods=["rise"])])

Knows no method by name.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from transformers import TrainerCallback

from ...store.errors import ModelError, SettingsError
from ...store.feature_store import EXAMPLES, FeatureStore
from ..data.python_data import data_of
from ..models.language_model import ModelChoice
from ..models.loaded_model import from_objects
from .adding import Making, Methods, divided, ingested
from .arguments import PathLike, checked
from .ingesting import ReadingKeywords, absolute, job_of, memory_of
from .model_holder import ModelHolder

if TYPE_CHECKING:
    from ..models.language_model import LanguageModel
    from ..models.transformers_types import HfModel, HfTokenizer

_log = logging.getLogger(__name__)


class Capture(TrainerCallback):
    """A callback that ingests a training set whenever the Trainer has saved one of the chosen checkpoints.

    The rows of a method become its member NAME@step-STEP. Each member records its checkpoint's folder, from which its queries are
    read later: keep the folders (the Trainer deletes old ones if `save_total_limit` is set). The first checkpoint's model is the
    store's own.
    """

    @checked
    def __init__(
        self, store: PathLike, *, methods: Methods = "rise", data: Any = None, steps: Collection[int] | None = None,
        **options: Unpack[ReadingKeywords],
    ) -> None:  # fmt: skip
        """store: the store's folder. methods: as for `hw.ingest`, all with stored rows. data: the training set, as for
        `hw.ingest`; None: the Trainer's own data set, which holds token ids. steps: the steps whose checkpoints are captured;
        None: all that the Trainer saves.

        Raises:
            SettingsError: a method stores no rows, or an argument is of the wrong type.
        """
        self._store, self._data, self._options = absolute(store), data, options
        self._methods, fitted = divided(methods)
        if fitted:
            raise SettingsError(f"Capture: {fitted[0].name} stores no rows: fit it to the finished store")
        self._steps = None if steps is None else frozenset(steps)
        self.members: list[str] = []
        """Names of the members that were captured, in order."""
        self.notes: list[str] = []
        """Remarks of the ingestions, one line each."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Called by the Trainer before the first step: refuse a training that would capture nothing.

        Raises:
            SettingsError: the Trainer saves no checkpoints. ModelError: there is no tokenizer.
        """
        if str(getattr(args.save_strategy, "value", args.save_strategy)) == "no":
            raise SettingsError(
                "Capture ingests the checkpoints that the Trainer saves, and it saves none: set save_strategy"
            )
        self._tokenizer(objects)

    def on_save(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Called by the Trainer when it has saved a checkpoint."""
        step = int(state.global_step)
        if state.is_world_process_zero and (self._steps is None or step in self._steps):
            self.capture(Path(args.output_dir) / f"checkpoint-{step}", objects["model"], f"step-{step}", objects)

    def capture(self, folder: Path, model: HfModel, label: str, objects: Mapping[str, Any]) -> None:
        """Ingest the training set by the model that was saved in a folder, as members with a label.

        Raises:
            ModelError: there is no tokenizer: give the Trainer a `processing_class`. HeadwaterError: the ingestion fails.
        """
        loaded = self._loaded(folder, model, objects)
        methods = {f"{name}@{label}": settings for name, settings in self._methods.items()}
        choice = ModelChoice(str(folder.resolve()), loaded=loaded)
        is_first = not (FeatureStore.exists(self._store) and EXAMPLES in FeatureStore.open(self._store).groups)
        base = "" if is_first else choice.path
        corpus = data_of(self._data if self._data is not None else objects["train_dataloader"].dataset, texts=False)
        job = replace(job_of(corpus, self._store, choice, methods, self._options), base=base)
        making = Making(memory_of(self._options), self._options.get("progress", True), self.notes)
        ingested(job, ModelHolder(choice), making)
        self.members += methods
        _log.info("captured %s in %s", ", ".join(methods), self._store)

    def _loaded(self, folder: Path, model: HfModel, objects: Mapping[str, Any]) -> LanguageModel:
        return replace(from_objects(model, self._tokenizer(objects)), path=str(folder.resolve()))

    def _tokenizer(self, objects: Mapping[str, Any]) -> HfTokenizer:
        tokenizer = self._options.get("tokenizer") or objects.get("processing_class") or objects.get("tokenizer")
        if tokenizer is None:
            raise ModelError("Capture needs the tokenizer: give the Trainer processing_class, or Capture tokenizer")
        return tokenizer
