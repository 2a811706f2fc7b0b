"""A folder that is brought back to what it was after each case. Knows nothing of what the files mean."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple


class Sign(NamedTuple):
    """By what a file is taken to be the same as before."""

    kind: int
    """The type bits of its mode."""
    size: int
    changed: int
    """Nanoseconds of its last change."""
    inode: int


FOLDER = Sign(stat.S_IFDIR, 0, 0, 0)


def signs(folder: Path, within: Collection[str] | None = None) -> dict[str, Sign]:
    """Every file and folder below a folder, by relative path; links are not followed. `within`: folders directly below it whose
    files are listed; None: all.
    """
    root, entries, waiting = str(folder), dict[str, Sign](), [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(f"{root}/{below}") as names:
            for entry in names:
                place = below + entry.name
                if entry.is_dir(follow_symlinks=False):
                    entries[place] = FOLDER
                    if below or within is None or place in within:
                        waiting.append(f"{place}/")
                else:
                    facts = entry.stat(follow_symlinks=False)
                    kind = stat.S_IFMT(facts.st_mode)
                    entries[place] = Sign(kind, facts.st_size, facts.st_mtime_ns, facts.st_ino)
    return entries


def digest(path: Path) -> str:
    """What lies at a path: the digest of a file's bytes, or another word."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if path.is_dir():
        return "folder"
    return hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest() if path.exists() else "nothing"


class Snapshot:
    """A working folder and its pristine copy."""

    def __init__(self, work: Path, pristine: Path) -> None:
        """`pristine` holds what `work` shall be brought back to; `work` is brought there at once."""
        self.work, self.pristine = work, pristine
        self.within: Collection[str] | None = None
        """Folders that are looked at, of those directly below; None: all. A case that changes nothing else is thus faster."""
        self._known: dict[str, Sign] = {}
        self._expected = signs(pristine)
        self.restore()

    def changed(self) -> list[str]:
        """Paths that were changed, removed or added since the last `restore`."""
        now = signs(self.work, self.within)
        known = self._known
        if self.within is not None:
            known = {
                place: sign
                for place, sign in known.items()
                if "/" not in place or place[: place.index("/")] in self.within
            }
        return sorted(place for place in {*now, *known} if now.get(place) != known.get(place))

    def differences(self) -> dict[str, str]:
        """Path → digest, of all that now differs from the pristine copy in its bytes or kind."""
        digests = {place: digest(self.work / place) for place in self.changed()}
        return {place: now for place, now in digests.items() if now != digest(self.pristine / place)}

    def restore(self) -> None:
        """Bring the working folder back."""
        places = self.changed() if self._known else sorted({*signs(self.work), *self._expected})
        for place in reversed(places):  # what lies in a folder before the folder
            path = self.work / place
            if path.is_dir() and not path.is_symlink():
                if self._expected.get(place) != FOLDER:
                    shutil.rmtree(path)
            elif path.is_symlink() or path.exists():
                path.unlink()
        for place in places:
            if place not in self._expected:
                continue
            if self._expected[place] == FOLDER:
                (self.work / place).mkdir(exist_ok=True)
            else:
                shutil.copy2(self.pristine / place, self.work / place, follow_symlinks=False)
        if not self._known:
            self._known = signs(self.work)
            return
        for place in places:
            self._known.pop(place, None)
            if place in self._expected:
                self._known[place] = _sign(self.work / place)


def _sign(path: Path) -> Sign:
    facts = path.lstat()
    if stat.S_ISDIR(facts.st_mode):
        return FOLDER
    return Sign(stat.S_IFMT(facts.st_mode), facts.st_size, facts.st_mtime_ns, facts.st_ino)
