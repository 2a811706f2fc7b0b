"""A stored linear feature: one vector an example, such that a set is the mean of its vectors. Knows no method by name.

Any method's widest stored column can be one: GRASP's sketched gradients, representations, projected gradients, vectors that
were made elsewhere. The surrogate, its calibration and the choice ask for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import scipy.sparse
import torch

from ...store.errors import SettingsError
from ...store.feature_store import FeatureStore, method_group
from ...store.layout import Array
from ..arrays.moments import column_sums, moment_parts, weighted_sums
from ..arrays.precision.precisions import Sign
from ..arrays.scan.scan_loop import shapes
from ..arrays.scan.stored_rows import StoredRows, first_plan_within_budget
from ..attribution.stored_scores import require_whole, stored_method
from ..ingest.examples import Example, Place, batches
from ..ingest.provider import Provider
from ..models.batch_outputs import merged_specs
from ..runtime.memory import plan

_PART = 512  # examples of a target that are read at once
_TOKENS = 4096
OnProgress = Callable[[int], None]


class LinearFeatures:
    """A method's stored vectors."""

    def __init__(self, store: FeatureStore, name: str, memory: int | None = None) -> None:
        """`memory`: the budget in bytes, or none.

        Raises:
            StoreMissing: the store holds no rows of the method, or not all. SettingsError: they are signs, which do not add up.
        """
        self.store, self.name, self.memory = store, name, memory
        self.method = stored_method(store, name)
        require_whole(store, name)
        self.stored = StoredRows(store, method_group(name))
        self.form = self.stored.widest
        if isinstance(self.form, Sign):
            raise SettingsError(f"rows of {name} are signs, which do not add up to a set's: another precision")
        self.column, self.rows, self.depth = self.form.declared.name, self.stored.rows, self.form.depth

    @property
    def state(self) -> Path | None:
        """Where what is known of them is kept; nowhere for a store that is not on this machine."""
        return None if self.store.remote else self.store.path / self.stored.group / "state"

    def mean(self, on_progress: OnProgress) -> Array:
        """(D,) float64: the mean over all examples, in one pass."""
        readers = self.stored.scanned(self.column)
        cuts = ((plan(moment_parts(readers, self.form, 1, shape)), shape) for shape in shapes(readers, 1))
        _, shape = first_plan_within_budget(cuts, (), self.memory)
        found: Array = column_sums(readers, self.form, shape, on_progress) / self.rows
        return found

    def means(self, subsets: scipy.sparse.csr_array, on_progress: OnProgress) -> Array:
        """(S, D) float64: the mean over each subset, in one pass. subsets (S, N): how often each holds each example.

        Raises:
            BudgetError: the sums do not fit the budget.
        """
        readers, columns = self.stored.scanned(self.column), scipy.sparse.csc_array(subsets)
        held = plan([("subsets", 2 * (columns.data.nbytes + columns.indices.nbytes + columns.indptr.nbytes))]).parts
        cuts = (
            (plan(moment_parts(readers, self.form, subsets.shape[0], shape)), shape) for shape in shapes(readers, 1)
        )
        _, shape = first_plan_within_budget(cuts, held, self.memory)
        weights = lambda start, stop: columns[:, start:stop].toarray()  # noqa: E731
        sums = weighted_sums(readers, self.form, weights, shape, on_progress)
        found: Array = sums / np.asarray(subsets.sum(1), np.float64)[:, None]
        return found

    def of(self, provider: Provider, on_progress: OnProgress) -> Iterator[tuple[list[Example], Array]]:
        """Examples of a provider, some at a time, with their vectors (n, D) float64: zeros where nothing counts."""
        model_shape = provider.head.model_shape
        tables, needs = self.method.precompute(provider.head), merged_specs([self.method.needs(model_shape)])
        part: list[Example] = []
        done = 0
        for example in provider.examples(Place()):
            part.append(example)
            if len(part) == _PART:
                yield self._read(provider, part, tables, needs)
                done += len(part)
                on_progress(done)
                part = []
        if part:
            yield self._read(provider, part, tables, needs)
            on_progress(done + len(part))

    def _read(
        self, provider: Provider, part: list[Example], tables: object, needs: object
    ) -> tuple[list[Example], Array]:
        places = [at for at, example in enumerate(part) if example.counted]
        counted, found = [part[at] for at in places], np.zeros((len(part), self.depth))
        for batch in batches(counted, max(_TOKENS, *(example.length for example in counted), 1)) if counted else ():
            with torch.inference_mode():
                outputs = provider.read([counted[at] for at in batch], needs)  # type: ignore[arg-type]
                rows = self.method.rows(outputs, tables)[self.column]
            found[[places[at] for at in batch]] = rows.reshape(len(batch), -1).double().cpu().numpy()
        return part, found
