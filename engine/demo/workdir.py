"""The demo's folder: which steps are finished in it, so that a second run continues. A name without a dot in front is
finished.

Files of other programs are never deleted; of a demo's own files, only what was made with a model that no longer exists.
Knows neither models nor questions.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ...store.errors import HeadwaterError, SettingsError, StoreMismatch
from ...store.json_values import ParsedJson
from ...store.root import store_around
from ..runtime.output_files import hidden_beside, whole_file

_NOTE = "demo.json"


class Workdir:
    """A folder that holds one demo, finished or not."""

    def __init__(self, path: str) -> None:
        """Only stores the paths; the folder is created by :meth:`claim`."""
        self.path = Path(path)
        self.corpus = self.path / "corpus.jsonl"
        self.questions = self.path / "questions.jsonl"
        self.model = self.path / "model"
        self.store = self.path / "store"
        self.answers = self.path / "answers.jsonl"

    def claim(self, made_with: ParsedJson) -> None:
        """Create the folder, or check that it was made by a demo with the same settings.

        Raises:
            SettingsError: it belongs to something else, or it cannot be written.
            StoreMismatch: it holds a demo with other settings; the differences are listed.
        """
        note = self.path / _NOTE
        if store_around(self.path) is not None:
            raise SettingsError(f"{self.path} lies inside a store", hint="name another --workdir")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not note.exists():
                self._refuse_foreign_files()
                with whole_file(note) as hidden:
                    hidden.write_text(json.dumps(made_with) + "\n", encoding="utf-8")
            recorded = json.loads(note.read_text(encoding="utf-8"))
        except HeadwaterError:
            raise
        except OSError as error:
            raise SettingsError(f"{self.path} cannot be used as a folder: {error.strerror or error}") from None
        except (ValueError, RecursionError):
            raise SettingsError(f"{note} is not the note of a demo", hint="name another --workdir") from None
        if not isinstance(recorded, dict):
            raise SettingsError(f"{note} is not the note of a demo", hint="name another --workdir")
        differences = [f"{key} is {recorded.get(key)!r} in the folder, {value!r} in this run" for key, value in made_with.items()
                 if recorded.get(key) != value]  # fmt: skip
        if differences:
            raise StoreMismatch(
                f"{self.path} holds a demo with other settings: {'; '.join(differences)}", hint="name another --workdir"
            )

    def _refuse_foreign_files(self) -> None:
        foreign_files = sorted(entry.name for entry in set(self.path.iterdir()) - set(hidden_beside(self.path / _NOTE)))
        if foreign_files:
            raise SettingsError(f"{self.path} holds something else ({', '.join(foreign_files[:3])}): "
                                "--workdir needs a folder that is new, empty or a demo's own")  # fmt: skip

    def has_corpus(self) -> bool:
        """Whether both text files exist."""
        return self.corpus.is_file() and self.questions.is_file()

    def has_model(self) -> bool:
        """Whether the trained model exists; its folder appears when training is finished."""
        return self.model.exists()

    def drop_store(self) -> bool:
        """Remove the store of a model that no longer exists: its rows do not fit the next one. Returns whether there was one."""
        existed = self.store.is_dir()
        shutil.rmtree(self.store, ignore_errors=True)
        return existed
