"""A stranger's store: an odd value in a root or a state, sealed anew, so that only what readers check themselves is left."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

from headwater.store.errors import StoreError
from headwater.store.state import read_state, write_state
from headwater.store.store_record import seal_of

from fuzz.mutations import Target, with_odd_value

_ROOT, _STATE = re.compile(r"[SPFAV]/zarr\.json"), re.compile(r"[SPFAV]/methods/\w+/state/.+/zarr\.json")


def is_sealed(path: Path) -> bool:
    """Whether a file says what a store or a state holds."""
    return bool(_ROOT.fullmatch(str(path)) or _STATE.fullmatch(str(path)))


def odd_and_sealed(random: Random, target: Target) -> None:
    """Replace one value of the record by an odd one, and seal it; what is no JSON any more is left as it is."""
    try:
        if _ROOT.fullmatch(str(target.path)):
            metadata = json.loads(target.path.read_text("utf-8"))
            record = json.loads(with_odd_value(random, json.dumps(metadata["attributes"]["headwater"])))
            record["seal"] = seal_of(record)
            metadata["attributes"]["headwater"] = record
            target.path.write_text(json.dumps(metadata), "utf-8")
            return
        state = read_state(target.path.parent)
        if state is not None:
            values = json.loads(with_odd_value(random, json.dumps(state.values)))
            write_state(target.path.parent, values, state.arrays)
    except (ValueError, TypeError, RecursionError, StoreError):
        return
