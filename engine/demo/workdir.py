"""The demo's folder: which steps are finished in it, so that a second run continues. A name without a dot in front is
finished.

Nothing that another program left is deleted, and of a demo's own only what was made from a model that is gone. Knows neither
models nor questions.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ...store.errors import SettingsError, StoreMismatch
from ...store.files import JsonObject, hidden_name, whole_file

_NOTE = "demo.json"


class Workdir:
    """A folder that holds one demo, finished or not."""

    def __init__(self, path: str) -> None:
        """Nothing is touched before :meth:`claim`."""
        self.path = Path(path)
        self.corpus = self.path / "corpus.jsonl"
        self.questions = self.path / "questions.jsonl"
        self.model = self.path / "model"
        self.store = self.path / "store"
        self.answers = self.path / "answers.jsonl"

    def claim(self, made_with: JsonObject) -> None:
        """Make the folder, or see that what is in it was made by a demo with the same settings.

        Raises:
            SettingsError: it holds something else, or cannot be written.
            StoreMismatch: it holds a demo made otherwise; only the differences are listed.
        """
        note = self.path / _NOTE
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not note.exists():
                self._refuse_strangers()
                with whole_file(note) as hidden:
                    hidden.write_text(json.dumps(made_with) + "\n", encoding="utf-8")
            there = json.loads(note.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"{self.path} cannot be used as a folder: {error.strerror or error}") from None
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise SettingsError(f"{note} is not the note of a demo: name another --workdir") from None
        if not isinstance(there, dict):
            raise SettingsError(f"{note} is not the note of a demo: name another --workdir")
        apart = [f"{key} is {there.get(key)!r} there, {value!r} here" for key, value in made_with.items()
                 if there.get(key) != value]  # fmt: skip
        if apart:
            raise StoreMismatch(f"{self.path} holds a demo made otherwise: {'; '.join(apart)}; name another --workdir")

    def _refuse_strangers(self) -> None:
        strangers = sorted(
            entry.name for entry in self.path.iterdir() if entry.name != hidden_name(self.path / _NOTE).name
        )
        if strangers:
            raise SettingsError(f"{self.path} holds something else ({', '.join(strangers[:3])}): "
                                "--workdir needs a folder that is new, empty or a demo's own")  # fmt: skip

    def has_corpus(self) -> bool:
        """Whether both files of texts are there."""
        return self.corpus.is_file() and self.questions.is_file()

    def has_model(self) -> bool:
        """Whether a trained model is there; its folder appears when it is finished."""
        return self.model.exists()

    def drop_store(self) -> bool:
        """Remove the store of a model that is gone: its rows mean nothing to the next one. Whether there was one."""
        there = self.store.is_dir()
        shutil.rmtree(self.store, ignore_errors=True)
        return there
