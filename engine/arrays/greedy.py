"""Greedy choice of rows by marginal gain, out of core and exact: what brute force over all rows would choose, ties to the lower.

The gain of row j beside a chosen sum Φ_S is Δ(j|S) = ⟨v − cΦ_S, φ_j⟩ − (c/2)‖φ_j‖², divided by the row's cost where rows cost
differently. A pool of rows is in memory; of every other row the gain at some earlier sum Φ_e is known, and by Cauchy and Schwarz
it has grown by c‖Φ_S − Φ_e‖‖φ_j‖ since then at most; along a few directions, in which most of a sum lies, it is known instead of
bounded. The pool's best is chosen as long as no other row may reach it; rows that may are fetched, and where too many may, the
pool is filled anew with those that may gain most, or all rows are read again.
Gains that decide are computed in float64, one row at a time, so that equal rows tie. Knows columns and forms; no method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...store.columns import ColumnReader
from ...store.errors import DataError, SettingsError
from ...store.layout import Array
from ..forms.form import Form
from .bounds import bounds
from .choice import SUMS, Choice, Limits, Room
from .moments import decoded
from .pool import Pool
from .scan import Tell

_SAMPLE = 512
_SLACK = 2e-5  # of ‖w‖‖φ‖: far above the rounding of a float32 product of a few thousand numbers
_FEW = 8  # a fetch takes no more than this part of the pool; beyond it the pool is filled anew


def greedy(
    columns: Sequence[ColumnReader], form: Form, v: Array, c: float, limits: Limits, room: Room,
    tell: Tell, batch: int = 1, stopped: Callable[[], bool] = lambda: False,
) -> Choice:  # fmt: skip
    """Choose up to `limits.count` rows for a target v (D,) with penalty c ≥ 0, the sum form's λ/n.

    `batch` rows are chosen at once, as if they did not touch each other (1: exact). `tell` hears how many are chosen. Where a
    cost is set, the choice ends as no affordable row gains anything; else it goes on to the count.

    Raises:
        StoreDamaged: a chunk differs from its checksum. DataError: a row is not finite. SettingsError: a batch beyond the pool.
    """
    if batch > max(1, min(room.pool, columns[0].rows)):
        raise SettingsError(
            f"a batch of {batch} is chosen from a pool of {room.pool} rows: a smaller batch, or more memory"
        )
    return _Greedy(columns, form, np.asarray(v, np.float64), c, limits, room).run(batch, tell, stopped)


class _Greedy:
    def __init__(
        self, columns: Sequence[ColumnReader], form: Form, v: Array, c: float, limits: Limits, room: Room
    ) -> None:
        self._columns, self._form, self._shape, self._limits = columns, form, room.shape, limits
        self._v, self._c, self._sum = v, c, np.zeros_like(v)
        rows = columns[0].rows
        self._key = np.zeros(rows, np.float32)  # over the cost, as all that follows: the gain,
        self._along = np.zeros((rows, min(room.directions, len(v), rows)), np.float32)  # c⟨d, φ⟩ for each direction d,
        self._across = np.zeros(rows, np.float32)  # and c‖φ‖ without these
        self._since = np.zeros(rows, np.uint16)
        self._past, self._past_squares = np.zeros((SUMS, len(v))), np.zeros(SUMS)
        self._past_along, self._remembered = np.zeros((SUMS, self._along.shape[1])), 0
        self._may = limits.open.astype(np.uint8)
        if limits.cost is not None:
            self._may[limits.cost > limits.budget] = 0
        if limits.group is not None and limits.caps is not None:
            self._may[limits.caps[limits.group] <= 0] = 0
        self._spent, self._taken = 0.0, np.zeros(1 if limits.caps is None else len(limits.caps), np.int64)
        self._pool = Pool(max(1, min(room.pool, rows)), len(v), rows)
        self._passes = self._fetched = 0
        self._ceiling, self._checked, self._farthest = np.inf, self._sum, 0.0
        self._longest = 1e-30  # of norms over the cost

    def run(self, batch: int, tell: Tell, stopped: Callable[[], bool]) -> Choice:
        chosen: list[int] = []
        gains: list[float] = []
        self._read_all()
        while len(chosen) < self._limits.count and not stopped():
            best = self._best(min(batch, self._limits.count - len(chosen)))
            if not best or (self._limits.cost is not None and best[0][0] <= 0):
                break
            w = self._v - self._c * self._sum  # of a batch, every gain is beside what was chosen before it
            for key, row, feature in best:
                if self._may[row] and (key > 0 or self._limits.cost is None):
                    gains.append(self._gain(feature, w))
                    chosen.append(row)
                    self._take(row, feature)
            tell(len(chosen))
        return Choice(np.array(chosen, np.int64), np.array(gains), self._sum, self._passes, self._fetched)

    def _best(self, count: int) -> list[tuple[float, int, Array]]:
        """(key, row, feature) of the best rows that may be chosen, none if none may; no row outside the pool is better."""
        count, tries = min(count, self._pool.size, int(self._may.sum())), 0
        while count:
            if self._remembered > SUMS - 4:
                self._read_all()
            w = self._v - self._c * self._sum
            keys = self._pool_keys(w)
            if np.isfinite(keys).sum() < count:
                self._refill()
                continue
            far = max(
                float(np.linalg.norm(self._sum)), float(np.sqrt(self._past_squares[: self._remembered].max(initial=0)))
            )
            size = float(np.linalg.norm(self._v)) + 2 * self._c * far + self._c / 2 * self._longest
            slack = _SLACK * size * self._longest
            least = float(np.partition(keys, len(keys) - count)[len(keys) - count]) - slack
            near = self._pool.rows[keys >= least - slack]
            if self._none_outside(least):
                return self._resolved(near, w, count)
            bound = self._outside()
            reaching = np.flatnonzero(bound >= least)
            if tries < 2 and len(reaching) > (self._pool.size if tries else 0):
                self._admit(bound, len(reaching), tries)
                tries += 1
                continue
            if len(reaching):  # rows that are equal, or nearly so
                return self._resolved(np.concatenate([near, reaching]), w, count)
            self._ceiling, self._checked = float(bound.max(initial=-np.inf)), self._sum
        return []

    def _resolved(self, rows: Array, w: Array, count: int) -> list[tuple[float, int, Array]]:
        """The best of some rows, by their exact keys; ties to the lower row."""
        best: list[tuple[float, int, Array]] = []
        for start in range(0, len(rows), self._pool.size):
            part = rows[start : start + self._pool.size]
            features, absent = self._pool.take(part), self._pool.slot[part] < 0
            if absent.any():
                features[absent] = self._gathered(part[absent])
            exact = [
                (self._exact_key(row, feature, w), row, feature)
                for row, feature in zip(part.tolist(), features, strict=True)
            ]
            best = sorted([*best, *exact], key=lambda one: (-one[0], one[1]))[:count]
        return best

    def _pool_keys(self, w: Array) -> Array:
        """Keys of the pool's rows by a float32 product; -inf where one may not be chosen."""
        rows = self._pool.rows
        keys = self._pool.features @ w.astype(np.float32) - self._c / 2 * self._pool.squares
        if self._limits.cost is not None:
            keys /= self._limits.cost[rows]
        found: Array = np.where(self._may[rows] > 0, keys, -np.inf)
        return found

    def _none_outside(self, least: float) -> bool:
        """Whether surely no row outside the pool reaches a key, by one bound for all of them."""
        return self._ceiling + float(np.linalg.norm(self._sum - self._checked)) * self._farthest < least

    def _outside(self) -> Array:
        """(N,) float32: what rows outside the pool may gain at most; -inf for all others."""
        bound = np.empty(len(self._key), np.float32)
        bounds(self._key, self._along, self._across, self._since, *self._moved(), self._may, bound)
        bound[self._pool.rows] = -np.inf
        return bound

    def _moved(self) -> tuple[Array, Array]:
        """How far the sum has moved since each remembered one: along the directions (sums, K), and across them (sums,)."""
        past = self._past[: self._remembered]
        along = self._sum @ self._directions - self._past_along[: self._remembered]
        squares = self._sum @ self._sum - 2 * (past @ self._sum) + self._past_squares[: self._remembered]
        across = np.sqrt(np.maximum(squares - np.einsum("ek,ek->e", along, along), 0))
        return along.astype(np.float32), across.astype(np.float32)

    def _remember(self) -> None:
        """The present sum, if it is not the last that was remembered."""
        last = self._remembered - 1
        if last >= 0 and np.array_equal(self._past[last], self._sum):
            return
        self._past[last + 1], self._past_along[last + 1] = self._sum, self._sum @ self._directions
        self._past_squares[last + 1] = self._sum @ self._sum
        self._remembered += 1

    def _admit(self, bound: Array, reaching: int, tries: int) -> None:
        """Make room in the pool for rows that may be better than its best: for a few of them, and those that come next by their
        bounds, in place of its worst.
        """
        few = max(1, self._pool.size // _FEW)
        if tries == 0 and reaching <= few:
            few = min(few, int(np.isfinite(bound).sum()))
            rows = np.argpartition(-bound, few - 1)[:few]
            given_up = self._exchange(np.sort(rows))
            bound[rows] = -np.inf
            self._ceiling, self._checked = max(float(bound.max()), given_up), self._sum
        elif tries == 0:
            self._refill()
        else:
            self._read_all()

    def _read_all(self) -> None:
        """Every row's gain beside the present sum; then the pool."""
        w = (self._v - self._c * self._sum).astype(np.float32)
        cost = self._limits.cost
        if not self._passes:
            self._directions = self._principal()
        directions = self._directions.astype(np.float32)
        for start, rows in decoded(self._columns, self._form, self._shape, lambda done: None):
            tile, part = rows.numpy(), slice(start, start + len(rows))
            squares = np.einsum("nd,nd->n", tile, tile)
            self._key[part] = tile @ w - np.float32(self._c / 2) * squares
            if not np.isfinite(self._key[part]).all():
                row = start + int(np.argmin(np.isfinite(self._key[part])))
                raise DataError(f"{self._columns[0].name} row {row} is not finite, or too large to be squared")
            along = tile @ directions
            rest = tile - along @ directions.T  # squares less what lies along would lose what is small beside them
            self._across[part] = np.sqrt(np.einsum("nd,nd->n", rest, rest)) * self._c
            self._along[part] = along * np.float32(self._c)
            norms = np.sqrt(squares)
            if cost is not None:
                for each in (self._key, self._along.T, self._across):
                    each[..., part] /= cost[part]
                norms /= cost[part]
            self._longest = max(self._longest, float(norms.max(initial=0)))
        self._since[:], self._remembered = 0, 0
        self._remember()
        self._passes += 1
        self._ceiling, self._farthest = np.inf, self._c * self._longest
        self._fill()

    def _principal(self) -> Array:
        """(D, K) float64: principal directions of rows evenly drawn, about 0."""
        rows = np.unique(np.linspace(0, len(self._key) - 1, _SAMPLE).astype(np.int64))
        _, _, directions = np.linalg.svd(self._gathered(rows).astype(np.float64), full_matrices=False)
        found: Array = directions[: self._along.shape[1]].T
        return np.pad(found, ((0, 0), (0, self._along.shape[1] - found.shape[1])))

    def _refill(self) -> None:
        """A pool of the rows that may gain most; where that was tried at this very sum already, from all rows anew."""
        if np.array_equal(self._past[self._remembered - 1], self._sum):
            self._read_all()
            return
        self._note(self._pool.rows, self._pool_keys(self._v - self._c * self._sum))
        self._fill()

    def _fill(self) -> None:
        """Hold the rows whose bounds are highest."""
        bound = np.empty(len(self._key), np.float32)
        bounds(self._key, self._along, self._across, self._since, *self._moved(), self._may, bound)
        size = min(self._pool.size, int((self._may > 0).sum()))
        wanted = np.argpartition(-bound, size - 1)[:size] if size else np.zeros(0, np.int64)
        stays = np.zeros(len(self._pool.rows), bool)
        stays[self._pool.slot[wanted][self._pool.slot[wanted] >= 0]] = True
        self._put(np.sort(wanted[self._pool.slot[wanted] < 0]), np.flatnonzero(~stays))

    def _exchange(self, rows: Array) -> float:
        """Put some rows into the pool, in place of its worst; the highest key that is given up."""
        keys = self._pool_keys(self._v - self._c * self._sum)
        worst = max(0, self._pool.count + len(rows) - self._pool.size)
        given_up = np.argpartition(keys, worst - 1)[:worst] if worst else np.zeros(0, np.int64)
        self._note(self._pool.rows[given_up], keys[given_up])
        self._put(rows, given_up)
        return float(keys[given_up].max(initial=-np.inf))

    def _put(self, rows: Array, given_up: Array) -> None:
        """Rows into the pool, in the places that are given up and in new ones."""
        new = self._pool.count + np.arange(max(0, len(rows) - len(given_up)))
        self._pool.put(rows, self._gathered(rows), np.concatenate([given_up[: len(rows)], new]))
        self._ceiling = np.inf

    def _note(self, rows: Array, keys: Array) -> None:
        """Remember the gains that rows have at the present sum."""
        self._remember()
        may = np.isfinite(keys)  # the others are never asked for again
        self._key[rows[may]], self._since[rows[may]] = keys[may], self._remembered - 1

    def _gathered(self, rows: Array) -> Array:
        """(n, D) float32."""
        self._fetched += len(rows)
        parts = {reader.column.name: reader.gather(rows) for reader in self._columns}
        found: Array = np.asarray(self._form.decode(parts), np.float32).reshape(len(rows), len(self._v))
        return found

    def _exact_key(self, row: int, feature: Array, w: Array) -> float:
        return self._gain(feature, w) / (1.0 if self._limits.cost is None else float(self._limits.cost[row]))

    def _gain(self, feature: Array, w: Array) -> float:
        wide = feature.astype(np.float64)
        return float(wide @ w) - self._c / 2 * float(wide @ wide)

    def _take(self, row: int, feature: Array) -> None:
        """Add a row to the sum, and close whatever it leaves no room for."""
        limits = self._limits
        self._sum = self._sum + feature.astype(np.float64)
        self._may[row] = 0
        if limits.cost is not None:
            self._spent += float(limits.cost[row])
            self._may[limits.cost > limits.budget - self._spent] = 0
        if limits.group is not None and limits.caps is not None:
            group = int(limits.group[row])
            self._taken[group] += 1
            if self._taken[group] >= limits.caps[group]:
                self._may[limits.group == group] = 0
