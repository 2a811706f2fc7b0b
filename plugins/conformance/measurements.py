"""Checks of subset methods: designs, fits, measurements. See `suite.py`."""

from __future__ import annotations

import numpy as np
import torch

from ...engine.fitting.hidden_states import MappedStates
from ...engine.interface.method import Method
from ...engine.interface.subset_method import Design, FitMemory, FitSession, HiddenStates, SubsetMethod
from ...engine.models.batch_outputs import LinearHead
from .trial import LENGTHS, MODELS, TOLERANCE, Trial, demand
from .trial_layers import TrialStates

_NOT_FITTED = "the method is not fitted"
_STEPS = 4


def a_design_is_the_same_again(method: Method) -> str:
    """Each example is in d different subsets, no subset is empty, every call gives the same design, and another draw gives
    another one.
    """
    if not isinstance(method, SubsetMethod):
        return _NOT_FITTED
    rows = 3 * method.design(1 << 20).subsets
    design, repeated, other_draw = method.design(rows), method.design(rows), method.design(rows, 1)
    ids = design.of(np.arange(rows)).astype(np.int64)
    demand(np.array_equal(ids, repeated.of(np.arange(rows))), "design gives other subsets the second time")
    demand(not np.array_equal(ids, other_draw.of(np.arange(rows))), "draw 1 has the design of draw 0")
    sorted_ids = np.sort(ids, 1)
    demand((sorted_ids[:, 1:] != sorted_ids[:, :-1]).all(), "an example is in one subset twice")
    sizes = np.bincount(ids.ravel(), minlength=design.subsets)
    demand(
        len(sizes) == design.subsets and sizes.all(), "a subset of the design is empty, or there are more than it says"
    )
    return ""


def a_design_says_the_same_by_example_and_by_subset(method: Method) -> str:
    """`of` gives each example's subsets in ascending order; `sizes` and `members` say the same, `members` for any range."""
    if not isinstance(method, SubsetMethod):
        return _NOT_FITTED
    rows = 3 * method.design(1 << 20).subsets
    design = method.design(rows)
    ids = design.of(np.arange(rows)).astype(np.int64)
    demand((ids[:, 1:] > ids[:, :-1]).all(), "of does not give an example's subsets in ascending order")
    counts = np.bincount(ids.ravel(), minlength=design.subsets)
    demand(
        np.array_equal(design.sizes(), counts),
        "sizes differs from the number of examples that of puts into each subset",
    )
    _demand_members(design, ids)
    return ""


def _demand_members(design: Design, ids: np.ndarray) -> None:
    """Compare `members` with `ids`, whole and in parts, for a few subsets."""
    for subset in range(0, design.subsets, max(1, design.subsets // 5)):
        expected = np.flatnonzero((ids == subset).any(1))
        members = np.asarray(design.members(subset))
        demand(
            np.array_equal(np.sort(members), expected), "members differs from the examples that of puts into the subset"
        )
        part = np.asarray(design.members(subset, 1, 3))
        demand(np.array_equal(part, members[1:3]), "members(subset, 1, 3) is not members(subset)[1:3]")


def memory_is_promised_for_both(method: Method) -> str:
    """`memory` gives a FitMemory: bytes for the fit and for measuring, both positive."""
    if not isinstance(method, SubsetMethod):
        return _NOT_FITTED
    memory = method.memory(MODELS[0], 3 * method.design(1 << 20).subsets)
    demand(isinstance(memory, FitMemory), f"memory gives {type(memory).__name__}, not a FitMemory")
    demand(memory.fitting > 0 and memory.measuring > 0, f"memory promises {memory}: bytes of both must be positive")
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
    states: HiddenStates = MappedStates(hidden, targets, np.arange(0, 2 * rows + 1, 2), inner=inner)
    if method.states_from == "forward":
        states = TrialStates(rows, model.hidden, model.vocabulary)
    head = LinearHead(model, weight)
    return method.start_fit(head, method.example_weights(head, states, lambda rows: None), method.design(rows))


def _advance(session: FitSession, step: int) -> None:
    """Run a fit up to a step, which it must say is not its end."""
    finished = session.run(lambda *progress: None, lambda: session.step >= step)
    expected = session.step >= session.steps
    demand(
        finished is expected, f"run gives {finished!r} after {session.step} of {session.steps} steps, not {expected}"
    )


MEASUREMENT_CHECKS = (
    a_design_is_the_same_again,
    a_design_says_the_same_by_example_and_by_subset,
    memory_is_promised_for_both,
    a_stopped_fitting_goes_on,
    measurements_are_each_querys_own,
)
