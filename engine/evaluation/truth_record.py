"""`truth.json`, the record of a folder of ground truth: settings, figures, and digests of the files that `evaluate` reads.

It carries a seal, a digest of all else in it, so that an edited or damaged record is refused. Knows no training and no metric.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...store.errors import StoreDamaged, StoreError, StoreMissing
from ...store.files import read_json, write_json
from ...store.json_values import ParsedJson

TRUTH = "truth.json"
_TRAININGS = "runs/[0-9][0-9][0-9][0-9]-[0-9][0-9]"  # folders beside it: of a subset and a seed


@dataclass(frozen=True, slots=True)
class TruthRecord:
    """What `truth.json` holds."""

    settings: ParsedJson
    """Settings and digests that decide the outcomes, which a later run must share."""
    figures: Mapping[str, float | None] = field(default_factory=dict)
    """Noise ceiling and mean loss, once all trainings are done."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Hex BLAKE2b of files of the folder, by name."""

    def write(self, folder: Path) -> None:
        """Replace the folder's record in one step."""
        values = {"settings": self.settings, **self.figures, "files": dict(self.files)}
        write_json(folder / TRUTH, {**values, "seal": _seal(values)})

    @classmethod
    def read(cls, folder: Path) -> TruthRecord | None:
        """The record of a folder; None if it has none.

        Raises:
            StoreDamaged: there is one, and it is not what was written.
        """
        try:
            values = read_json(folder / TRUTH)
            seal = values.pop("seal", None)
            if seal is None or seal != _seal(values):
                raise StoreDamaged(f"{folder / TRUTH} differs from its seal: it was edited or damaged")
        except StoreMissing:
            return None
        except StoreDamaged as error:
            advice = "remove it and run headwater ground-truth again, which uses the trainings that are done"
            raise StoreDamaged(f"{error}; {advice}") from None
        settings, files = values.pop("settings"), values.pop("files")
        return cls(settings, values, files)


def _is_sealed(file: Path) -> bool:
    """Whether a file has settings and a seal, as ours have."""
    try:
        return {"settings", "seal"} <= set(read_json(file))
    except StoreError:
        return False


def _seal(values: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Hex BLAKE2b of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def require_undamaged(path: Path) -> None:
    """Compare a file with the record of the folder that it is in, if there is one that names it.

    A `truth.json` of another program is no record: it has no seal, and there are no trainings beside it.

    Raises:
        StoreDamaged: they differ, or the record is damaged. OSError: the file cannot be read.
    """
    folder = path.absolute().parent
    if not any(folder.glob(_TRAININGS)) and not _is_sealed(folder / TRUTH):
        return
    record = TruthRecord.read(folder)
    if record is not None and record.files.get(path.name, "") not in ("", file_digest(path)):
        raise StoreDamaged(
            f"{path} differs from its digest in {TRUTH}", hint="run headwater ground-truth again, which writes it again"
        )
