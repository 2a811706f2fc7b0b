"""Makes stores of an old format out of new ones: their layout and root, as older versions wrote them."""

import shutil
from pathlib import Path

from headwater.store.feature_store import FeatureStore
from headwater.store.files import write_json
from headwater.store.layout import group_metadata


def make_old(path: Path, number: int = 2) -> None:
    """Give a finished store without ragged columns the layout of format 1 or 2, in place."""
    store = FeatureStore.open(path)
    groups = {}
    for name, record in store.groups.items():
        entry = store.entry(name)
        flat = {"done": [[0, entry.rows]] if entry.rows else [], "complete": entry.complete, **store.resume_notes(name)}
        groups[name] = record.to_json() | flat
    provenance = {key: value for key, value in store.provenance.items() if key != "upgraded_from"}
    values = {"format": number, "version": store.version, "provenance": provenance, "groups": groups}
    shutil.copytree(path / "shards/0", path, dirs_exist_ok=True)
    shutil.rmtree(path / "shards")
    shutil.rmtree(path / "manifests", ignore_errors=True)
    for name in groups:
        write_json(path / name / "zarr.json", group_metadata({}))
    write_json(path / "zarr.json", group_metadata({"headwater": values}))
