"""The greedy loop: what brute force over all rows would choose, ties to the lower row number.

The gain of row j given the chosen sum Φ_S is Δ(j|S) = ⟨v − cΦ_S, φ_j⟩ − (c/2)‖φ_j‖², divided by the row's cost if costs are
given. A pool of rows is in memory, and their gains are computed at every step. Gains of all other rows have upper bounds
(bounds.py); rows whose bound reaches the pool's best are fetched. As the sum changes, bounds loosen; once bounds and fetches
have cost as much as reading all rows, all rows are read again in a new pass.
Deciding gains are computed in float64, one row at a time, so that equal rows tie. Knows columns and precisions; no method.
"""

from __future__ import annotations

import numpy as np

from ....store.errors import DataError, SettingsError
from ....store.layout import Array
from ...runtime.run import Stage
from .bounds import BoundRequest, Bounds, principal
from .eligibility import Eligibility
from .pool import Pool
from .problem import Choice, Limits, Objective, Room, sampled
from .row_cache import RowCache, RowSource

_SLACK = 2e-5  # of ‖w‖‖φ‖: far above the rounding of float32 products of a few thousand numbers
_FEW, _SMALL = 64, 1 << 17  # at least so many rows are fetched at a time, or rows of so many numbers in all
_BOUND = 0.2  # cost of a bound that needs more than the first directions, in units of the cost of a row in a pass
_FETCH, _START = 50.0, 1 << 16  # cost of a fetched row, and of the beginning of a pass, in the same unit


def greedy(source: RowSource, objective: Objective, limits: Limits, room: Room, stage: Stage) -> Choice:
    """Choose up to `limits.count` rows, or until the stage asks for a stop.

    `stage` gets the number of chosen rows. With costs, selection stops when no affordable row has a positive gain;
    otherwise at `limits.count`.

    Raises:
        StoreDamaged: a chunk differs from its checksum. DataError: a row is not finite.
        SettingsError: the batch exceeds the pool.
    """
    if limits.batch > max(1, min(room.pool, source.rows)):
        raise SettingsError(
            f"batch {limits.batch} exceeds the pool of {room.pool} rows", hint="use a smaller batch or more memory"
        )
    return _Greedy(source, objective, limits, room).run(stage)


def _floor(keys: Array, count: int) -> np.float32:
    """The count-th largest key, rounded down by one float32 step."""
    result = np.float32(np.partition(keys, len(keys) - count)[len(keys) - count])
    return np.float32(np.nextafter(result, np.float32(-np.inf)))


class _Greedy:
    def __init__(self, source: RowSource, objective: Objective, limits: Limits, room: Room) -> None:
        self._v, self._c, self._limits, self._shape = objective.vector, objective.penalty, limits, room.shape
        self._sum, self._cache = np.zeros_like(self._v), RowCache(source, room.cached_rows)
        self._pool = Pool(max(1, min(room.pool, source.rows)), len(self._v), source.rows)
        drawn = np.linspace(0, source.rows - 1, sampled(source.rows, len(self._v))).astype(np.int64)
        sample = self._cache.gathered(np.unique(drawn)).astype(np.float64)
        directions = principal(sample, min(room.directions, len(self._v), source.rows))
        self._bounds, self._work = Bounds(source.rows, directions, room.shape.workers), 0.0
        self._may_choose = Eligibility(limits, room, self._cache, len(self._v))
        self._eligible = self._may_choose.rows

    def run(self, stage: Stage) -> Choice:
        chosen: list[int] = []
        gains: list[float] = []
        self._read_all()
        while len(chosen) < self._limits.count and not stage.should_stop():
            best = self._best(min(self._limits.batch, self._limits.count - len(chosen)))
            if not best or (self._limits.cost is not None and best[0][0] <= 0):
                break
            if not all(self._may_choose.admits(row, feature) for _, row, feature in best):
                continue  # near copies of chosen rows, excluded now: others take their places
            w = self._w  # all gains of a batch are computed with the sum before the batch
            for key, row, feature in best:
                copies_batch = len(best) > 1 and not self._may_choose.admits(row, feature)
                if (key > 0 or self._limits.cost is None) and not copies_batch:
                    gains.append(self._gain(feature, w))
                    chosen.append(row)
                    self._sum = self._sum + feature.astype(np.float64)
                    self._may_choose.take(row, feature, self._pool)
            stage.report(len(chosen))
        return Choice(np.array(chosen, np.int64), np.array(gains), self._sum, self._cache.passes, self._cache.fetched)

    def _best(self, count: int) -> list[tuple[float, int, Array]]:
        """(key, row, feature) of the best rows that may be chosen; empty if there are none."""
        count, among = min(count, self._pool.size, int(self._eligible.sum())), None
        while count:
            if self._work > _START + len(self._eligible):
                self._rescan()
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
            if self._work <= _START + len(self._eligible):
                among = np.concatenate([reaching, self._fetch(unsure)])
        return []

    @property
    def _w(self) -> Array:
        """v − cΦ: (D,) float64."""
        result: Array = self._v - self._c * self._sum
        return result

    def _slack(self, norm: float) -> float:
        """Error bound of a float32 gain for a vector of this norm and a row of norm 1."""
        return _SLACK * (norm + self._c / 2 * self._largest)

    def _reaching(self, w: Array, least: np.float32, among: Array | None) -> tuple[Array, Array, Array]:
        """Rows (n,) outside the pool whose key may reach `least` (only rows of `among`, if given); (n,) upper and lower
        bounds of their keys.
        """
        slack = self._slack(2 * max(float(np.linalg.norm(w)), self._bounds.farthest))
        if among is None:
            request = BoundRequest(least, np.float32(slack), self._eligible, self._pool.slot, self._bounds.length)
            rows, beyond = self._bounds.reaching(request, w)
            self._work += _BOUND * beyond
        else:
            rows = self._outside(np.unique(among))
        most, rounding = self._bounds.highest(rows, w), np.float32(slack) * self._bounds.length[rows]
        return rows, most + rounding, np.where(self._bounds.certain(rows, w), most - rounding, -np.inf)

    def _outside(self, rows: Array) -> Array:
        """The rows among `rows` that may be chosen and are outside the pool."""
        result: Array = rows[self._eligible[rows] & (self._pool.slot[rows] < 0)]
        return result

    def _fetch(self, rows: Array) -> Array:
        """Read rows, compute their gains for the present sum, and insert the best into the pool; returns the evicted rows."""
        evicted = [rows[:0]]
        part = max(_FEW, self._pool.size // 2, _SMALL // len(self._v))
        for start in range(0, len(rows), part):
            features, few = self._cache.gathered(rows[start : start + part]), rows[start : start + part]
            keys = self._keys(few, features, np.einsum("nd,nd->n", features, features, dtype=np.float64))
            self._bounds.note(few, keys, self._w)
            best = np.argsort(-keys, kind="stable")[: max(1, self._pool.size // 2)]
            evicted.append(self._insert(few[best], features[best]))
        return np.concatenate(evicted)

    def _insert(self, rows: Array, features: Array) -> Array:
        """Insert rows into the pool, evict the lowest-gain ones, store their gains in the bounds, and return them."""
        keys = self._pool_keys(self._w)
        over = max(0, self._pool.count + len(rows) - self._pool.size)
        slots = np.argpartition(keys, over - 1)[:over] if over else np.zeros(0, np.int64)
        eligible = slots[np.isfinite(keys[slots])]  # the others are never needed again
        evicted = self._pool.rows[eligible].copy()
        if len(eligible):
            self._bounds.note(evicted, keys[eligible], self._w)
        new = self._pool.count + np.arange(len(rows) - over)
        self._pool.put(rows, features, np.concatenate([slots, new]))
        return evicted

    def _fill(self) -> None:
        """Fill half the pool with the rows of the largest bounds."""
        rows = np.flatnonzero(self._eligible)
        count = min(len(rows), max(self._limits.batch, self._pool.size // 2, 1))
        order = np.argpartition(-self._bounds.highest(rows, self._w), count - 1)[:count]
        self._fetch(self._outside(np.sort(rows[order])))

    def _resolved(self, rows: Array, w: Array, count: int) -> list[tuple[float, int, Array]]:
        """The best of `rows` by exact keys; ties to the lower row."""
        best: list[tuple[float, int, Array]] = []
        for start in range(0, len(rows), self._pool.size):
            part = rows[start : start + self._pool.size]
            features, absent = self._pool.take(part), self._pool.slot[part] < 0
            if absent.any():
                features[absent] = self._cache.gathered(part[absent])
            if len(best) == count:
                other = self._unlike(part, features, best[-1])
                part, features = part[other], features[other]
            exact = [
                (self._exact_key(row, feature, w), row, feature)
                for row, feature in zip(part.tolist(), features, strict=True)
            ]
            best = sorted([*best, *exact], key=lambda entry: (-entry[0], entry[1]))[:count]
        return best

    def _unlike(self, rows: Array, features: Array, last: tuple[float, int, Array]) -> Array:
        """(n,) bool: False for duplicates of a lower row, which rank below it."""
        _, row, feature = last
        same = (features == feature).all(1) & (rows > row)
        if self._limits.cost is not None:
            same &= self._limits.cost[rows] == self._limits.cost[row]
        result: Array = ~same
        return result

    def _pool_keys(self, w: Array) -> Array:
        """Keys of the pool's rows; -inf for rows that may not be chosen."""
        keys = self._keys(self._pool.rows, self._pool.features, self._pool.squares)
        result: Array = np.where(self._eligible[self._pool.rows], keys, -np.inf)
        return result

    def _keys(self, rows: Array, features: Array, squares: Array) -> Array:
        """(n,) gains over the cost, by a float32 product."""
        w = self._w.astype(np.float32)
        with np.errstate(
            invalid="ignore"
        ):  # a library's product may raise the flag for lanes that it loads beyond the last row
            keys: Array = features @ w - self._c / 2 * squares
        if self._limits.cost is not None:
            keys /= self._limits.cost[rows]
        return keys

    def _read_all(self) -> None:
        """Read every row and store its state in the bounds: one pass."""
        self._bounds.restart(self._w)
        name, cost = self._cache.source.columns[0].name, self._limits.cost

        def add(start: int, tile: Array) -> None:
            part = slice(start, start + len(tile))
            squares = np.einsum("nd,nd->n", tile, tile, dtype=np.float64)
            with np.errstate(over="ignore"):
                keys = self._keys(np.arange(start, part.stop), tile, squares).astype(np.float32)
                finite = np.isfinite(keys) & np.isfinite(squares.astype(np.float32))
            if not finite.all():
                row = start + int(np.argmin(finite))
                raise DataError(f"{name} row {row} is not finite, or too large to be squared")
            self._bounds.add(part, tile, keys, None if cost is None else cost[part])

        self._cache.for_each_tile(self._shape, add)
        self._norms = self._bounds.length if cost is None else self._bounds.length * cost
        self._largest = float(self._norms.max(initial=0))

    def _rescan(self) -> None:
        """Recompute every row's gain for the present sum: one pass with one product."""
        w = self._w.astype(np.float32)
        keys = self._cache.products(w, self._shape)
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
