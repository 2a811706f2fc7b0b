"""The greedy loop: what brute force over all rows would choose, ties to the lower row number.

The gain of row j beside a chosen sum Φ_S is Δ(j|S) = ⟨v − cΦ_S, φ_j⟩ − (c/2)‖φ_j‖², divided by the row's cost where rows cost
differently. A pool of rows is in memory, and their gains are computed at every step. What every other row may gain is bounded
(bounds.py); those that may reach the pool's best are fetched, and known from then on. As the sum moves, bounds loosen; once
bounds and fetched rows have taken as long as reading all rows would have, all are read again: another pass.
Gains that decide are computed in float64, one row at a time, so that equal rows tie. Knows columns and forms; no method.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ....store.errors import DataError, SettingsError
from ....store.layout import Array
from ..scan.scan_loop import OnProgress
from .bounds import BoundRequest, Bounds, principal
from .pool import Pool
from .problem import Choice, Limits, Objective, Room, sampled
from .row_cache import RowCache, RowSource

_SLACK = 2e-5  # of ‖w‖‖φ‖: far above the rounding of float32 products of a few thousand numbers
_FEW, _SMALL = 64, 1 << 17  # rows are fetched so many at a time at least, or as many as have so many numbers
_BOUND = 0.2  # what a bound beyond the first directions takes of what a row takes in a pass
_FETCH, _START = 50.0, 1 << 16  # what a fetched row, and the beginning of a pass, take of it


def greedy(
    source: RowSource,
    objective: Objective,
    limits: Limits,
    room: Room,
    on_progress: OnProgress,
    should_stop: Callable[[], bool] = lambda: False,
) -> Choice:
    """Choose up to `limits.count` rows.

    `on_progress` hears how many are chosen. Where a cost is set, the choice ends when no affordable row gains anything; else at
    the count.

    Raises:
        StoreDamaged: a chunk differs from its checksum. DataError: a row is not finite. SettingsError: a batch beyond the pool.
    """
    if limits.batch > max(1, min(room.pool, source.rows)):
        raise SettingsError(
            f"a batch of {limits.batch} is chosen from a pool of {room.pool} rows: a smaller batch, or more memory"
        )
    return _Greedy(source, objective, limits, room).run(on_progress, should_stop)


def _floor(keys: Array, count: int) -> np.float32:
    """The count-th largest, or a little below."""
    found = np.float32(np.partition(keys, len(keys) - count)[len(keys) - count])
    return np.float32(np.nextafter(found, np.float32(-np.inf)))


class _Greedy:
    def __init__(self, source: RowSource, objective: Objective, limits: Limits, room: Room) -> None:
        self._v, self._c, self._limits, self._shape = objective.vector, objective.penalty, limits, room.shape
        self._sum, self._kept = np.zeros_like(self._v), RowCache(source, room.kept)
        self._pool = Pool(max(1, min(room.pool, source.rows)), len(self._v), source.rows)
        drawn = np.linspace(0, source.rows - 1, sampled(source.rows, len(self._v))).astype(np.int64)
        sample = self._kept.gathered(np.unique(drawn)).astype(np.float64)
        directions = principal(sample, min(room.directions, len(self._v), source.rows))
        self._bounds, self._work = Bounds(source.rows, directions, room.shape.workers), 0.0
        self._may = limits.open.copy()
        if limits.cost is not None:
            self._may[limits.cost > limits.budget] = False
        if limits.group is not None and limits.caps is not None:
            self._may[limits.caps[limits.group] <= 0] = False
        self._spent, self._taken = 0.0, np.zeros(1 if limits.caps is None else len(limits.caps), np.int64)

    def run(self, on_progress: OnProgress, should_stop: Callable[[], bool]) -> Choice:
        chosen: list[int] = []
        gains: list[float] = []
        self._learn()
        while len(chosen) < self._limits.count and not should_stop():
            best = self._best(min(self._limits.batch, self._limits.count - len(chosen)))
            if not best or (self._limits.cost is not None and best[0][0] <= 0):
                break
            w = self._w  # of a batch, every gain is beside what was chosen before it
            for key, row, feature in best:
                if self._may[row] and (key > 0 or self._limits.cost is None):
                    gains.append(self._gain(feature, w))
                    chosen.append(row)
                    self._take(row, feature)
            on_progress(len(chosen))
        return Choice(np.array(chosen, np.int64), np.array(gains), self._sum, self._kept.passes, self._kept.fetched)

    def _best(self, count: int) -> list[tuple[float, int, Array]]:
        """(key, row, feature) of the best rows that may be chosen, none if none may; no other row is better."""
        count, among = min(count, self._pool.size, int(self._may.sum())), None
        while count:
            if self._work > _START + len(self._may):
                self._look_again()
                among = None
            w = self._w
            keys = self._pool_keys(w)
            if np.isfinite(keys).sum() < count:
                self._fill()
                among = None
                continue
            rounding = self._slack(float(np.linalg.norm(w))) * self._bounds.length[self._pool.rows]
            reaching, upper, lower = self._reaching(w, _floor(keys - rounding, count), among)
            least = _floor(np.concatenate([keys - rounding, lower]), count)
            near, reaching = self._pool.rows[keys + rounding >= least], reaching[upper >= least]
            unsure = reaching[~self._bounds.certain(reaching, w)]
            if not len(unsure):  # what reaches all the same is equal, or nearly so
                return self._resolved(np.sort(np.concatenate([near, reaching])), w, count)
            among = reaching
            self._work += _FETCH * len(unsure)
            if self._work <= _START + len(self._may):
                among = np.concatenate([reaching, self._bring(unsure)])
        return []

    @property
    def _w(self) -> Array:
        """v − cΦ: (D,) float64."""
        found: Array = self._v - self._c * self._sum
        return found

    def _slack(self, norm: float) -> float:
        """By how much a float32 gain beside a vector of this norm may be wrong, for a row of length 1."""
        return _SLACK * (norm + self._c / 2 * self._largest)

    def _reaching(self, w: Array, least: np.float32, among: Array | None) -> tuple[Array, Array, Array]:
        """Rows (n,) outside the pool that may have a key of `least`, none but some where those are given; (n,) what their keys
        are at most, and at least.
        """
        slack = self._slack(2 * max(float(np.linalg.norm(w)), self._bounds.farthest))
        if among is None:
            wanted = BoundRequest(least, np.float32(slack), self._may, self._pool.slot, self._bounds.length)
            rows, beyond = self._bounds.reaching(wanted, w)
            self._work += _BOUND * beyond
        else:
            rows = self._outside(np.unique(among))
        most, rounding = self._bounds.highest(rows, w), np.float32(slack) * self._bounds.length[rows]
        return rows, most + rounding, np.where(self._bounds.certain(rows, w), most - rounding, -np.inf)

    def _outside(self, rows: Array) -> Array:
        """Those of some rows that may be chosen and are not in the pool."""
        found: Array = rows[self._may[rows] & (self._pool.slot[rows] < 0)]
        return found

    def _bring(self, rows: Array) -> Array:
        """Know the gains of some rows beside the present sum, and hold the best in place of the pool's worst, which it tells."""
        left = [rows[:0]]
        part = max(_FEW, self._pool.size // 2, _SMALL // len(self._v))
        for start in range(0, len(rows), part):
            features, few = self._kept.gathered(rows[start : start + part]), rows[start : start + part]
            keys = self._keys(few, features, np.einsum("nd,nd->n", features, features, dtype=np.float64))
            self._bounds.note(few, keys, self._w)
            best = np.argsort(-keys, kind="stable")[: max(1, self._pool.size // 2)]
            left.append(self._hold(few[best], features[best]))
        return np.concatenate(left)

    def _hold(self, rows: Array, features: Array) -> Array:
        """Rows into the pool, in place of its worst, which it tells and whose gains are noted."""
        held = self._pool_keys(self._w)
        over = max(0, self._pool.count + len(rows) - self._pool.size)
        given_up = np.argpartition(held, over - 1)[:over] if over else np.zeros(0, np.int64)
        known = given_up[np.isfinite(held[given_up])]  # the others are never asked for again
        left = self._pool.rows[known].copy()
        if len(known):
            self._bounds.note(left, held[known], self._w)
        new = self._pool.count + np.arange(len(rows) - over)
        self._pool.put(rows, features, np.concatenate([given_up, new]))
        return left

    def _fill(self) -> None:
        """Hold half a pool of the rows that may gain most."""
        rows = np.flatnonzero(self._may)
        count = min(len(rows), max(self._limits.batch, self._pool.size // 2, 1))
        order = np.argpartition(-self._bounds.highest(rows, self._w), count - 1)[:count]
        self._bring(self._outside(np.sort(rows[order])))

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
        w = self._w.astype(np.float32)
        keys: Array = features @ w - self._c / 2 * squares
        if self._limits.cost is not None:
            keys /= self._limits.cost[rows]
        return keys

    def _learn(self) -> None:
        """Learn every row: a pass."""
        self._bounds.restart(self._w)
        name, cost = self._kept.source.columns[0].name, self._limits.cost

        def learn(start: int, tile: Array) -> None:
            part = slice(start, start + len(tile))
            squares = np.einsum("nd,nd->n", tile, tile, dtype=np.float64)
            with np.errstate(over="ignore"):
                keys = self._keys(np.arange(start, part.stop), tile, squares).astype(np.float32)
                finite = np.isfinite(keys) & np.isfinite(squares.astype(np.float32))
            if not finite.all():
                row = start + int(np.argmin(finite))
                raise DataError(f"{name} row {row} is not finite, or too large to be squared")
            self._bounds.learn(part, tile, keys, None if cost is None else cost[part])

        self._kept.show(self._shape, learn)
        self._norms = self._bounds.length if cost is None else self._bounds.length * cost
        self._largest = float(self._norms.max(initial=0))

    def _look_again(self) -> None:
        """Know every row's gain beside the present sum: a pass of one product."""
        w = self._w.astype(np.float32)
        keys = self._kept.products(w, self._shape)
        for start in range(0, len(keys), _SMALL):
            part = slice(start, start + _SMALL)
            keys[part] -= np.float32(self._c / 2) * self._norms[part] ** 2
            if self._limits.cost is not None:
                keys[part] /= self._limits.cost[part]
        self._bounds.restart(self._w, keys)
        self._fill()
        self._work = 0.0

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
