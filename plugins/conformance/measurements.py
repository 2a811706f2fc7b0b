"""Checks of subset methods: designs, fits, measurements. See `suite.py`."""

from __future__ import annotations

import numpy as np
import torch

from ...engine.fitting.hidden_states import MemoryStates
from ...engine.interface.method import Method
from ...engine.interface.subset_method import FitSession, HiddenStates, SubsetMethod
from ...engine.models.batch_outputs import LinearHead
from .trial import LENGTHS, MODELS, TOLERANCE, Trial, demand
from .trial_layers import TrialStates

_NOT_FITTED = "the method is not fitted"
_STEPS = 4


def a_design_is_the_same_again(method: Method) -> str:
    """Each example is in d different subsets, no subset is empty, every call gives the same design, and each base model has its
    own.
    """
    if not isinstance(method, SubsetMethod):
        return _NOT_FITTED
    rows = 3 * method.design(1 << 20).subsets
    design, repeated, other_base = method.design(rows), method.design(rows), method.design(rows, 1)
    ids = design.of(np.arange(rows)).astype(np.int64)
    demand(np.array_equal(ids, repeated.of(np.arange(rows))), "design gives other subsets the second time")
    demand(not np.array_equal(ids, other_base.of(np.arange(rows))), "base 1 has the design of base 0")
    sorted_ids = np.sort(ids, 1)
    demand((sorted_ids[:, 1:] != sorted_ids[:, :-1]).all(), "an example is in one subset twice")
    sizes = np.bincount(ids.ravel(), minlength=design.subsets)
    demand(
        len(sizes) == design.subsets and sizes.all(), "a subset of the design is empty, or there are more than it says"
    )
    return ""


def a_stopped_fitting_goes_on(method: Method) -> str:
    """A fit that is stopped after a step and resumed from its `state_dict` ends with the same bytes."""
    if not isinstance(method, SubsetMethod):
        return _NOT_FITTED
    uninterrupted, stopped = _new_fit(method), _new_fit(method)
    demand(
        uninterrupted.step == 0 and uninterrupted.steps >= _STEPS,
        f"a fit begins at step 0 and has at least {_STEPS} steps",
    )
    _advance(uninterrupted, _STEPS)
    _advance(stopped, _STEPS // 2)
    demand(stopped.step == _STEPS // 2, f"stopped after {_STEPS // 2} steps, it says that {stopped.step} are done")
    arrays = {name: np.array(value) for name, value in stopped.state_dict().items()}
    continued = _new_fit(method)
    continued.load_state_dict(arrays)
    demand(
        continued.step == _STEPS // 2,
        f"resumed after {_STEPS // 2} steps, it says that {continued.step} are done",
    )
    _advance(continued, _STEPS)
    ends = [session.parameters() for session in (uninterrupted, continued)]
    same = set(ends[0]) == set(ends[1]) and all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])
    demand(same, "a fit that was stopped and resumed ends with other parameters")
    return ""


def measurements_are_each_querys_own(method: Method) -> str:
    """`measure` gives (n, K) float64 and (n,), finite, and a query's measurements do not depend on its batch."""
    if not isinstance(method, SubsetMethod):
        return _NOT_FITTED
    session = _new_fit(method)
    _advance(session, 2)
    parameters, trial = session.parameters(), Trial(method, MODELS[0])
    with torch.inference_mode():
        y, agreement = method.measure(trial.outputs(range(len(LENGTHS))), parameters)
        subsets = method.design(1 << 20).subsets
        demand(y.shape == (len(LENGTHS), subsets) and y.dtype == np.float64, f"measure gives {y.dtype} {y.shape}")
        demand(
            agreement.shape == (len(LENGTHS),) and np.isfinite(y).all(),
            "measurements are finite, and there is one agreement per query",
        )
        for at in range(len(LENGTHS)):
            alone, _ = method.measure(trial.outputs([at]), parameters)
            near = np.allclose(alone[0], y[at], atol=TOLERANCE * float(np.abs(y).max()), rtol=0)
            demand(near, "a query's measurements depend on the other queries of its batch")
    return ""


def _new_fit(method: SubsetMethod) -> FitSession:
    """A fit to random states, of the first model size."""
    model, draw = MODELS[0], torch.Generator().manual_seed(0)
    rows = 3 * method.design(1 << 20).subsets
    hidden = torch.randn(2 * rows, model.hidden, generator=draw)
    targets = torch.randint(model.vocabulary, (2 * rows,), generator=draw)
    inner = hidden.clone() if method.layer(model) >= 0 else None
    weight = torch.randn(model.vocabulary, model.hidden, generator=draw) / model.hidden**0.5
    states: HiddenStates = MemoryStates(hidden, targets, np.arange(0, 2 * rows + 1, 2), inner=inner)
    if method.states_from == "forward":
        states = TrialStates(rows, model.hidden, model.vocabulary)
    head = LinearHead(model, weight)
    return method.start_fit(head, method.example_weights(head, states, lambda rows: None), method.design(rows))


def _advance(session: FitSession, step: int) -> None:
    """Run a fit up to a step."""
    session.run(lambda *progress: None, lambda: session.step >= step)


MEASUREMENT_CHECKS = (a_design_is_the_same_again, a_stopped_fitting_goes_on, measurements_are_each_querys_own)
