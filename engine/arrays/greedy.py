"""Greedy choice of rows by marginal gain, out of core and exact: what brute force over all rows would choose, ties to the lower.

The gain of row j beside a chosen sum Φ_S is Δ(j|S) = ⟨v − cΦ_S, φ_j⟩ − (c/2)‖φ_j‖², divided by the row's cost where rows cost
differently. A pool of rows is in memory, and their gains are computed at every step. What every other row may gain is bounded
(bounds.py); those that may reach the pool's best are fetched, and known from then on. So that not all bounds are computed at each
step, some rows are watched, and a few of these more closely (watch.py). Where very many rows may reach the pool's best, all are
read again: another pass.
Gains that decide are computed in float64, one row at a time, so that equal rows tie. Knows columns and forms; no method.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...store.errors import DataError, SettingsError
from ...store.layout import Array
from .bounds import Bounds
from .choice import Choice, Limits, Objective, Room, sampled
from .kept import Kept, Source
from .pool import Pool
from .scan import Tell
from .watch import Watch

_SLACK = 2e-5  # of ‖w‖‖φ‖: far above the rounding of float32 products of a few thousand numbers
_FEW, _SMALL = 64, 1 << 17  # rows are fetched so many at a time at least, or as many as have so many numbers
_MANY = 4  # where one row in so many may be the best, a pass is shorter than fetching


def greedy(
    source: Source,
    objective: Objective,
    limits: Limits,
    room: Room,
    tell: Tell,
    stopped: Callable[[], bool] = lambda: False,
) -> Choice:
    """Choose up to `limits.count` rows.

    `tell` hears how many are chosen. Where a cost is set, the choice ends as no affordable row gains anything; else it goes on
    to the count.

    Raises:
        StoreDamaged: a chunk differs from its checksum. DataError: a row is not finite. SettingsError: a batch beyond the pool.
    """
    if limits.batch > max(1, min(room.pool, source.rows)):
        raise SettingsError(
            f"a batch of {limits.batch} is chosen from a pool of {room.pool} rows: a smaller batch, or more memory"
        )
    return _Greedy(source, objective, limits, room).run(tell, stopped)


class _Greedy:
    def __init__(self, source: Source, objective: Objective, limits: Limits, room: Room) -> None:
        self._v, self._c, self._limits, self._shape = objective.vector, objective.penalty, limits, room.shape
        self._sum, self._kept = np.zeros_like(self._v), Kept(source, room.kept)
        self._pool = Pool(max(1, min(room.pool, source.rows)), len(self._v), source.rows)
        self._bounds = Bounds(source.rows, self._principal(min(room.directions, len(self._v), source.rows)), self._c)
        self._may = limits.open.copy()
        if limits.cost is not None:
            self._may[limits.cost > limits.budget] = False
        if limits.group is not None and limits.caps is not None:
            self._may[limits.caps[limits.group] <= 0] = False
        self._spent, self._taken = 0.0, np.zeros(1 if limits.caps is None else len(limits.caps), np.int64)
        total = source.rows
        self._far = Watch(self._bounds, self._c, total // 16, total // 2)
        self._near = Watch(self._bounds, self._c, total // 256, total // 16)

    def run(self, tell: Tell, stopped: Callable[[], bool]) -> Choice:
        chosen: list[int] = []
        gains: list[float] = []
        self._read_all()
        while len(chosen) < self._limits.count and not stopped():
            best = self._best(min(self._limits.batch, self._limits.count - len(chosen)))
            if not best or (self._limits.cost is not None and best[0][0] <= 0):
                break
            w = self._v - self._c * self._sum  # of a batch, every gain is beside what was chosen before it
            for key, row, feature in best:
                if self._may[row] and (key > 0 or self._limits.cost is None):
                    gains.append(self._gain(feature, w))
                    chosen.append(row)
                    self._take(row, feature)
            tell(len(chosen))
        return Choice(np.array(chosen, np.int64), np.array(gains), self._sum, self._kept.passes, self._kept.fetched)

    def _best(self, count: int) -> list[tuple[float, int, Array]]:
        """(key, row, feature) of the best rows that may be chosen, none if none may; no other row is better."""
        count = min(count, self._pool.size, int(self._may.sum()))
        while count:
            w, slack = self._v - self._c * self._sum, self._slack()
            keys = self._pool_keys(w)
            if np.isfinite(keys).sum() < count:
                self._fill()
                continue
            rounding = slack * self._bounds.length[self._pool.rows]
            least = float(np.partition(keys - rounding, len(keys) - count)[len(keys) - count])
            near = self._pool.rows[keys + rounding >= least]
            reaching = self._reaching(least, slack)
            unsure = reaching[~self._bounds.certain(reaching, self._sum)]
            if not len(unsure):  # what reaches all the same is equal, or nearly so
                return self._resolved(np.sort(np.concatenate([near, reaching])), w, count)
            self._bring(unsure)
        return []

    def _slack(self) -> float:
        """By how much a float32 gain may be wrong, for a row of length 1."""
        far = max(float(np.linalg.norm(self._sum)), self._bounds.farthest)
        return _SLACK * (float(np.linalg.norm(self._v)) + 2 * self._c * far + self._c / 2 * self._bounds.largest)

    def _reaching(self, least: float, slack: float) -> Array:
        """Rows outside the pool that may have a key of `least`."""
        if not self._far.holds(least, self._sum, slack):
            self._look_far(least, slack)
            self._near.forget()
        if not self._near.holds(least, self._sum, slack):
            rows = self._outside(self._far.rows)
            bound = self._highest(rows, slack)
            self._near.renew(rows, bound, self._sum, max(self._pool.size, 2 * int((bound >= least).sum())))
        rows = self._outside(self._near.rows)
        found: Array = rows[self._highest(rows, slack) >= least]
        return found

    def _look_far(self, least: float, slack: float) -> None:
        """Compute all bounds; where very many rows may reach the key, from a pass."""
        rows = self._outside(np.arange(len(self._may)))
        bound = self._highest(rows, slack)
        reaching = int((bound >= least).sum())
        if reaching > max(self._pool.size, len(self._may) // _MANY) and not self._fresh:
            self._read_all()
            self._look_far(least, slack)
            return
        self._far.renew(rows, bound, self._sum, max(self._pool.size, 4 * reaching))

    def _outside(self, rows: Array) -> Array:
        """Those of some rows that may be chosen and are not in the pool."""
        found: Array = rows[self._may[rows] & (self._pool.slot[rows] < 0)]
        return found

    def _highest(self, rows: Array, slack: float) -> Array:
        """(n,) float32: bounds, rounding included."""
        found: Array = self._bounds.highest(rows, self._sum) + np.float32(slack) * self._bounds.length[rows]
        return found

    def _bring(self, rows: Array) -> None:
        """Know the gains of some rows beside the present sum, and hold the rows in place of the pool's worst."""
        part = max(_FEW, self._pool.size // 2, _SMALL // len(self._v))
        for start in range(0, len(rows), part):
            features, few = self._kept.gathered(rows[start : start + part]), rows[start : start + part]
            keys = self._keys(few, features, np.einsum("nd,nd->n", features, features, dtype=np.float64))
            self._bounds.note(few, keys, self._sum)
            best = np.argsort(-keys, kind="stable")[: max(1, self._pool.size // 2)]
            self._hold(few[best], features[best])

    def _hold(self, rows: Array, features: Array) -> None:
        """Rows into the pool, in place of its worst, whose gains are noted."""
        held = self._pool_keys(self._v - self._c * self._sum)
        over = max(0, self._pool.count + len(rows) - self._pool.size)
        given_up = np.argpartition(held, over - 1)[:over] if over else np.zeros(0, np.int64)
        known = given_up[np.isfinite(held[given_up])]  # the others are never asked for again
        if len(known):
            self._bounds.note(self._pool.rows[known], held[known], self._sum)
            for watch in (self._far, self._near):
                watch.add(self._pool.rows[known])  # they are outside now
        new = self._pool.count + np.arange(len(rows) - over)
        self._pool.put(rows, features, np.concatenate([given_up, new]))

    def _fill(self) -> None:
        """Half a pool of the rows that may gain most."""
        rows = self._outside(np.arange(len(self._may)))
        count = min(len(rows), max(self._limits.batch, self._pool.size // 2, 1))
        order = np.argpartition(-self._bounds.highest(rows, self._sum), count - 1)[:count]
        self._bring(np.sort(rows[order]))

    def _resolved(self, rows: Array, w: Array, count: int) -> list[tuple[float, int, Array]]:
        """The best of some rows, by their exact keys; ties to the lower row."""
        best: list[tuple[float, int, Array]] = []
        for start in range(0, len(rows), self._pool.size):
            part = rows[start : start + self._pool.size]
            features, absent = self._pool.take(part), self._pool.slot[part] < 0
            if absent.any():
                features[absent] = self._kept.gathered(part[absent])
            if len(best) == count:
                other = self._unlike(part, features, best[-1])
                part, features = part[other], features[other]
            exact = [
                (self._exact_key(row, feature, w), row, feature)
                for row, feature in zip(part.tolist(), features, strict=True)
            ]
            best = sorted([*best, *exact], key=lambda one: (-one[0], one[1]))[:count]
        return best

    def _unlike(self, rows: Array, features: Array, last: tuple[float, int, Array]) -> Array:
        """(n,) bool: which rows are not equal to a lower one, beside which they cannot be chosen."""
        _, row, feature = last
        same = (features == feature).all(1) & (rows > row)
        if self._limits.cost is not None:
            same &= self._limits.cost[rows] == self._limits.cost[row]
        found: Array = ~same
        return found

    def _pool_keys(self, w: Array) -> Array:
        """Keys of the pool's rows; -inf where one may not be chosen."""
        keys = self._keys(self._pool.rows, self._pool.features, self._pool.squares)
        found: Array = np.where(self._may[self._pool.rows], keys, -np.inf)
        return found

    def _keys(self, rows: Array, features: Array, squares: Array) -> Array:
        """(n,) gains over the cost, by a float32 product."""
        w = (self._v - self._c * self._sum).astype(np.float32)
        keys: Array = features @ w - self._c / 2 * squares
        if self._limits.cost is not None:
            keys /= self._limits.cost[rows]
        return keys

    def _read_all(self) -> None:
        """Learn every row anew: a pass."""
        self._bounds.restart(self._sum)
        for start, tile in self._kept.tiles(self._shape):
            part = slice(start, start + len(tile))
            keys = self._keys(np.arange(start, part.stop), tile, np.einsum("nd,nd->n", tile, tile, dtype=np.float64))
            with np.errstate(over="ignore"):
                keys = keys.astype(np.float32)
            if not np.isfinite(keys).all():
                row = start + int(np.argmin(np.isfinite(keys)))
                name = self._kept.source.columns[0].name
                raise DataError(f"{name} row {row} is not finite, or too large to be squared")
            self._bounds.learn(part, tile, keys, None if self._limits.cost is None else self._limits.cost[part])
        self._far.forget()

    @property
    def _fresh(self) -> bool:
        """Whether all rows were learnt at this very sum."""
        return bool(self._bounds.certain(np.arange(len(self._may)), self._sum).all())

    def _principal(self, count: int) -> Array:
        """(D, K) float64: principal directions of rows evenly drawn, about 0."""
        total = self._kept.source.rows
        rows = np.unique(np.linspace(0, total - 1, sampled(total, len(self._v))).astype(np.int64))
        features = self._kept.gathered(rows).astype(np.float64)
        if not np.isfinite(features).all():
            return np.zeros((len(self._v), count))  # the pass names the row
        if len(features) >= len(self._v):
            _, vectors = np.linalg.eigh(features.T @ features)
            return np.ascontiguousarray(vectors[:, ::-1][:, :count])
        squares, mixed = np.linalg.eigh(features @ features.T)  # the smaller of the two
        kept = np.argsort(-squares)[:count]
        found, _ = np.linalg.qr(features.T @ mixed[:, kept])
        return np.asarray(found)

    def _exact_key(self, row: int, feature: Array, w: Array) -> float:
        return self._gain(feature, w) / (1.0 if self._limits.cost is None else float(self._limits.cost[row]))

    def _gain(self, feature: Array, w: Array) -> float:
        wide = feature.astype(np.float64)
        return float(wide @ w) - self._c / 2 * float(wide @ wide)

    def _take(self, row: int, feature: Array) -> None:
        """Add a row to the sum, and close whatever it leaves no room for."""
        limits = self._limits
        self._sum = self._sum + feature.astype(np.float64)
        self._may[row] = False
        if limits.cost is not None:
            self._spent += float(limits.cost[row])
            self._may[limits.cost > limits.budget - self._spent] = False
        if limits.group is not None and limits.caps is not None:
            group = int(limits.group[row])
            self._taken[group] += 1
            if self._taken[group] >= limits.caps[group]:
                self._may[limits.group == group] = False
