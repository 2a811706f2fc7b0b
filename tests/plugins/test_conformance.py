"""The conformance suite: our methods pass it, and each check catches the fault it is there for."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from headwater.engine.interface.method import BlockSimilarity, Method, QueryMatrix, Similarity, TextSimilarity
from headwater.engine.interface.model_view import ModelShape, OutputSpec
from headwater.engine.interface.registry import list_methods, load
from headwater.plugins.conformance import MODELS, checks, fresh_process
from headwater.plugins.stride import Stride
from headwater.store.errors import DataError
from headwater.store.layout import column

OURS = [line.name for line in list_methods() if line.distribution.startswith("headwater ")]


@pytest.mark.parametrize("check", checks(), ids=str)
@pytest.mark.parametrize("name", OURS)
def test_ours_conform(name, check):
    why_not = check(load(name)())
    if why_not:
        pytest.skip(why_not)


@pytest.mark.parametrize("more", [{"states_from": "forward"}, {"space": "activations", "depth": 0.5}], ids=str)
def test_stride_conforms_where_it_reads_the_model(more):
    method = Stride(subsets=12, degree=3, updates=4, checked=4, **more)
    seen = {str(check): check(method) for check in checks(models=MODELS[:1]) if str(check) not in OF_THE_CLASS}
    assert not seen["a_stopped_fitting_goes_on"] and not seen["measurements_are_each_querys_own"]


OF_THE_CLASS = ("same_rows_in_another_process", "is_pickled")  # whatever its settings; the first one costs seconds
VARIANTS = [
    {"unit_norms": False, "tau": 1.0, "top": 64, "mass": 1.0, "kr": 32, "kh": 16, "kg": 8},
    {"kg": 0, "kr": 16, "kh": 24},
    {"kr": 0, "kh": 16, "kg": 28},
    {"kr": 16, "kh": 16, "kg": 8, "whiten": 0.1},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=["linear", "lexical", "semantic", "whitened"])
def test_rise_conforms_with_other_settings(settings):
    for check in checks(models=MODELS[:1], finds_itself=0.95 if settings.get("unit_norms", True) else 0.9):
        if str(check) not in OF_THE_CLASS:
            check(load("rise").from_settings(settings))


SMALL_HEADS = (ModelShape(40, 2, 0, 1), ModelShape(30, 7, 0, 20), ModelShape(200, 3, 0, 9), ModelShape(4, 300, 0, 40))
"""Stored exactly by all methods; by some; with one side exact and the other sketched."""


@pytest.mark.parametrize("name", ["rise", "headcos", "headgn", "grasp"])
@pytest.mark.parametrize("exact", [True, False])
def test_head_methods_conform_with_small_heads(name, exact):
    method = load(name)(exact=exact)
    if name == "rise":  # so that sides are on either side of the buckets
        method = replace(method, kr=16, kh=16, kg=8)
    else:
        method = replace(method, **({"m": 128} if name == "grasp" else {"k": 12}))
    for check in checks(models=SMALL_HEADS, finds_itself=0.5 if name == "headgn" else 0.8):
        if str(check) not in OF_THE_CLASS:
            check(method)


@dataclass(frozen=True)
class Good(Similarity):
    """Sums of hidden states: what every faulty method below departs from."""

    api: ClassVar[int] = 2

    layer: int = 1
    scale: float = 1.0

    def columns(self, model: ModelShape):
        return (column("sum", (model.hidden,), "float32"),)

    def needs(self, model: ModelShape):
        return OutputSpec(layers=(self.layer,))

    def scratch(self, model: ModelShape, positions: int):
        return 4 * model.hidden * 4 * positions

    def sketch(self, outputs: Any, precomputed: Any):
        hidden = outputs.hidden(self.layer).float()
        out = torch.zeros(outputs.examples, hidden.shape[1])
        return {"sum": out.index_add_(0, outputs.example_ids, hidden)}

    def normalize(self, sums: Any, windows: Any, parts: Any = None):
        norms = sums["sum"].norm(dim=1, keepdim=True).clamp(min=1e-12)
        return {"sum": self.scale * (parts or sums)["sum"] / norms}

    def prepare(self, rows: Mapping[str, Any], state: Mapping[str, Any]):
        return QueryMatrix("sum", rows["sum"])


def test_a_good_method_passes():
    why_not = {str(check): check(Good()) for check in checks(models=MODELS[:2])}
    assert {name for name, why in why_not.items() if why} <= {
        "same_rows_in_another_process",
        "scratch_covers_what_is_allocated",
        "parts_change_no_score",  # of methods that compare texts
        "statistics_merge_in_any_order",  # of methods with statistics of the corpus
        "statistics_do_not_depend_on_batches",
        "a_stopped_accumulator_continues",
        "statistics_leave_outputs_as_they_were",
        "statistics_survive_storing",
        "a_design_is_the_same_again",  # of methods that are fitted
        "a_stopped_fitting_goes_on",
        "a_design_says_the_same_by_example_and_by_subset",
        "memory_is_promised_for_both",
        "measurements_are_each_querys_own",
    }


@dataclass(frozen=True)
class Scored(BlockSimilarity, Good):
    """The same with a score of its own."""

    def score(self, queries: QueryMatrix, block: Any):
        return np.abs(block.columns["sum"] @ queries.matrix.T)


def test_a_method_with_its_own_score_passes():
    for check in checks(models=MODELS[:1]):
        if str(check) not in OF_THE_CLASS:
            check(Scored())


def test_a_method_without_scores_is_not_asked_for_any():
    @dataclass(frozen=True)
    class RowsOnly(Method):
        api: ClassVar[int] = 2
        columns, needs, scratch, sketch, normalize = Good.columns, Good.needs, Good.scratch, Good.sketch, Good.normalize
        layer: int = 1
        scale: float = 1.0

    told = {
        str(check): check(RowsOnly()) for check in checks() if str(check) not in OF_THE_CLASS
    }  # defined in a function
    assert (
        told["an_example_finds_itself"] == told["splits_change_no_score"] == "the method does not score by similarity"
    )
    assert not told["columns_match_rows"]


def test_a_method_that_is_fitted_passes_and_is_asked_for_no_rows():
    told = {str(check): check(StoredFit()) for check in checks(models=MODELS[:1]) if str(check) not in OF_THE_CLASS}
    assert told["columns_match_rows"] == told["an_example_finds_itself"] == "the method stores no rows"
    assert not told["a_design_is_the_same_again"] and not told["measurements_are_each_querys_own"]


class Moments:
    """Sums of hidden states' squares."""

    def __init__(self):
        self.total, self.count = 0.0, 0

    def accumulate(self, outputs):
        self.total = self.total + outputs.hidden(1).double().square().sum(0).numpy()
        self.count += len(outputs.targets)

    def merge(self, other):
        self.total, self.count = self.total + other.total, self.count + other.count

    def finish(self):
        return {"scale": 1 / np.sqrt(self.total / max(self.count, 1) + 1e-6)}


@dataclass(frozen=True)
class Scaled(Good):
    """Hidden states over their spread in the corpus: a method with statistics of the corpus."""

    kind: ClassVar[Any] = Moments

    def fit(self, model):
        return self.kind()

    def precompute(self, head, state):
        return torch.from_numpy(state["scale"]).float()

    def sketch(self, outputs, precomputed):
        hidden = outputs.hidden(self.layer).float() * precomputed
        return {"sum": torch.zeros(outputs.examples, hidden.shape[1]).index_add_(0, outputs.example_ids, hidden)}


def test_a_method_with_statistics_of_the_corpus_passes():
    told = {str(check): check(Scaled()) for check in checks(models=MODELS[:1]) if str(check) not in OF_THE_CLASS}
    assert not told["statistics_merge_in_any_order"] and not told["statistics_survive_storing"]


class Last(Moments):
    def merge(self, other):
        self.total, self.count = other.total, other.count


class Lists(Moments):
    def finish(self):
        return {name: list(values) for name, values in super().finish().items()}


@dataclass(frozen=True)
class Unmerged(Scaled):
    kind: ClassVar[Any] = Last


@dataclass(frozen=True)
class Unstorable(Scaled):
    kind: ClassVar[Any] = Lists

    def precompute(self, head, state):
        return torch.tensor(state["scale"]).float()


class MeanOfBatches(Moments):
    """Counts every batch alike, whatever its size."""

    def accumulate(self, outputs):
        if len(outputs.targets):
            self.total = self.total + outputs.hidden(1).double().square().mean(0).numpy()
            self.count += 1

    def merge(self, other):
        self.total, self.count = self.total + other.total, self.count + other.count


class WithoutItsCount(Moments):
    """Continues with the sums alone."""

    def state_dict(self):
        return {"total": np.asarray(self.total)}

    def load_state_dict(self, arrays):
        if set(arrays) != {"total"}:
            raise DataError("no total")
        self.total = arrays["total"]


class Doubling(Moments):
    def accumulate(self, outputs):
        outputs.hidden(1).mul_(2)
        super().accumulate(outputs)


@dataclass(frozen=True)
class ByBatches(Scaled):
    kind: ClassVar[Any] = MeanOfBatches


@dataclass(frozen=True)
class Uncounted(Scaled):
    kind: ClassVar[Any] = WithoutItsCount


@dataclass(frozen=True)
class ChangingOutputs(Scaled):
    kind: ClassVar[Any] = Doubling


@dataclass(frozen=True)
class NormInSketch(Good):
    """Norms where sums belong."""

    def sketch(self, outputs, precomputed):
        return self.normalize(super().sketch(outputs, precomputed), self.windows(outputs))


@dataclass(frozen=True)
class NormOfParts(Good):
    """Parts over their own norms, not the row's."""

    def normalize(self, sums, windows, parts=None):
        return {"sum": torch.nn.functional.normalize((parts or sums)["sum"])}


@dataclass(frozen=True)
class OneQueryState(Good):
    def prepare(self, rows, state):
        return QueryMatrix("sum", rows["sum"], per_query={"first": rows["sum"][:1]})


CALLS: list[int] = []


class Undecorated(Good):
    depth: int = 1


@dataclass
class Thawed:
    """Not frozen; dataclass forbids such a child of a frozen one, so it stands alone."""

    layer: int = 1


@dataclass(frozen=True)
class NoDefault(Good):
    choices: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Lossy(Good):
    def settings(self):
        return {"layer": self.layer}


@dataclass(frozen=True)
class Tolerant(Good):
    @classmethod
    def from_settings(cls, settings):
        return cls(**{key: value for key, value in settings.items() if key in ("layer", "scale") and value != {}})


@dataclass(frozen=True)
class Newer(Good):
    api: ClassVar[int] = 99


@dataclass(frozen=True)
class OtherName(Good):
    def normalize(self, sums, windows, parts=None):
        return {"total": super().normalize(sums, windows, parts)["sum"]}


@dataclass(frozen=True)
class OtherShape(Good):
    def normalize(self, sums, windows, parts=None):
        return {"sum": super().normalize(sums, windows, parts)["sum"][:, 1:]}


@dataclass(frozen=True)
class Overflowing(Good):
    def columns(self, model):
        return (column("sum", (model.hidden,), "float16"),)

    def normalize(self, sums, windows, parts=None):
        return {"sum": 1e6 * super().normalize(sums, windows, parts)["sum"]}


@dataclass(frozen=True)
class Truncating(Good):
    def columns(self, model):
        return (column("sum", (model.hidden,), "int8"),)


@dataclass(frozen=True)
class Greedy(Good):
    def sketch(self, outputs, precomputed):
        outputs.hidden(2)
        return super().sketch(outputs, precomputed)


@dataclass(frozen=True)
class Centred(Good):
    def normalize(self, sums, windows, parts=None):
        rows = super().normalize(sums, windows, parts)["sum"]
        return {"sum": (rows - rows.mean(0)) * (rows != 0)}


@dataclass(frozen=True)
class Restless(Good):
    def normalize(self, sums, windows, parts=None):
        return {"sum": super().normalize(sums, windows, parts)["sum"] + 1}


@dataclass(frozen=True)
class InPlace(Good):
    def sketch(self, outputs, precomputed):
        outputs.hidden(self.layer).mul_(2)
        return super().sketch(outputs, precomputed)


@dataclass(frozen=True)
class Strict(Good):
    def sketch(self, outputs, precomputed):
        return {"sum": super().sketch(outputs, precomputed)["sum"].to(outputs.hidden().dtype)}

    def normalize(self, sums, windows, parts=None):
        return dict(parts or sums)


@dataclass(frozen=True)
class Random(Good):
    def sketch(self, outputs, precomputed):
        return {"sum": super().sketch(outputs, precomputed)["sum"] * torch.rand(())}

    def normalize(self, sums, windows, parts=None):
        return dict(parts or sums)


@dataclass(frozen=True)
class Forgetful(Good):
    def sketch(self, outputs, precomputed):
        CALLS.append(1)
        return {"sum": super().sketch(outputs, precomputed)["sum"] * len(CALLS)}

    def normalize(self, sums, windows, parts=None):
        return dict(parts or sums)


@dataclass(frozen=True)
class Whitened(Good):
    def prepare(self, rows, state):
        return QueryMatrix("sum", rows["sum"] - rows["sum"].mean(0))


@dataclass(frozen=True)
class Doubled(Good):
    def prepare(self, rows, state):
        return QueryMatrix("sum", rows["sum"].astype(np.float64))


@dataclass(frozen=True)
class Spoiling(Good):
    def prepare(self, rows, state):
        rows["sum"][:] *= 2
        return QueryMatrix("sum", rows["sum"])


@dataclass(frozen=True)
class Ranked(Scored):
    def score(self, queries, block):
        return super().score(queries, block).argsort(0).astype(np.float32)


@dataclass(frozen=True)
class MeanOfTile(Scored):
    """Scores over the mean query of the tile."""

    def score(self, queries, block):
        return super().score(queries, block) - np.abs(block.columns["sum"] @ queries.matrix.mean(0))[:, None]


@dataclass(frozen=True)
class SpoilingScore(Scored):
    def score(self, queries, block):
        block.columns["sum"] *= 2
        return super().score(queries, block)


@dataclass(frozen=True)
class Opposite(Good):
    def prepare(self, rows, state):
        return QueryMatrix("sum", -rows["sum"])


@dataclass(frozen=True)
class Shrinking(Good):
    def scratch(self, model, positions):
        return max(0, 10**6 - positions)


@dataclass(frozen=True)
class Talkative(Good):
    def remarks(self, model):
        return "one line"


@dataclass(frozen=True)
class Understated(Good):
    def scratch(self, model, positions):
        return positions

    def sketch(self, outputs, precomputed):
        hidden = outputs.hidden()
        assert torch.ones(len(hidden), 64, hidden.shape[1]).sum() >= 0  # 128 MiB for 2,048 positions of width 256
        return super().sketch(outputs, precomputed)


@dataclass(frozen=True)
class StoredFit(Stride):
    """Quick to fit; what the faulty ones below depart from."""

    subsets: int = 12
    degree: int = 3
    updates: int = 4
    checked: int = 4


@dataclass(frozen=True)
class OneDesign(StoredFit):
    def design(self, rows, draw=0):
        return super().design(rows, 0)


@dataclass(frozen=True)
class Oblivious(StoredFit):
    def start_fit(self, head, states, design, draw=0):
        fitting = super().start_fit(head, states, design, draw)
        fitting.load_state_dict = lambda arrays: None
        return fitting


@dataclass(frozen=True)
class Together(StoredFit):
    def measure(self, outputs, parameters):
        y, agreement = super().measure(outputs, parameters)
        return y - y.mean(0), agreement


@dataclass(frozen=True)
class Descending(StoredFit):
    """Gives an example's subsets in falling order."""

    def design(self, rows, draw=0):
        return Falling(super().design(rows, draw))


class Falling:
    """A design read from its end."""

    def __init__(self, design):
        self._design = design

    def __getattr__(self, name):
        return getattr(self._design, name)

    def of(self, rows):
        return self._design.of(rows)[:, ::-1]


class Empty(Falling):
    """Says that its subsets are empty."""

    def sizes(self):
        return np.zeros(self.subsets, np.int64)

    def of(self, rows):
        return self._design.of(rows)


class Whole(Empty):
    """Gives all members of a subset whatever range is asked for."""

    def sizes(self):
        return self._design.sizes()

    def members(self, subset, start=0, stop=None):
        return self._design.members(subset)


@dataclass(frozen=True)
class EmptySubsets(StoredFit):
    """Says that its subsets are empty."""

    def design(self, rows, draw=0):
        return Empty(super().design(rows, draw))


@dataclass(frozen=True)
class WholeSubsets(StoredFit):
    """Ignores the range of members."""

    def design(self, rows, draw=0):
        return Whole(super().design(rows, draw))


@dataclass(frozen=True)
class BareMemory(StoredFit):
    """Gives a number of bytes."""

    def memory(self, model, rows):
        return 1


@dataclass(frozen=True)
class Silent(StoredFit):
    """Its fit does not say whether it is finished."""

    def start_fit(self, head, states, design, draw=0):
        session = super().start_fit(head, states, design, draw)
        run = session.run
        session.run = lambda *asked: (run(*asked), None)[1]
        return session


FAULTS = [
    (Descending, "a_design_says_the_same_by_example_and_by_subset", "in ascending order"),
    (EmptySubsets, "a_design_says_the_same_by_example_and_by_subset", "sizes differs"),
    (WholeSubsets, "a_design_says_the_same_by_example_and_by_subset", "is not members(subset)[1:3]"),
    (BareMemory, "memory_is_promised_for_both", "gives int, not a FitMemory"),
    (Silent, "a_stopped_fitting_goes_on", "run gives"),
    (OneDesign, "a_design_is_the_same_again", "draw 1 has the design of draw 0"),
    (Oblivious, "a_stopped_fitting_goes_on", "it says that 0 are done"),
    (Together, "measurements_are_each_querys_own", "depend on the other queries"),
    (Undecorated, "is_a_frozen_dataclass", "not decorated with @dataclass(frozen=True)"),
    (Thawed, "is_a_frozen_dataclass", "not frozen"),
    (NoDefault, "is_a_frozen_dataclass", "setting choices needs a default"),
    (
        Lossy,
        "settings_survive_json",
        "settings() has ['layer'], the fields are ['bits', 'layer', 'precision', 'scale']",
    ),
    (Tolerant, "wrong_settings_are_refused", "must raise SettingsError"),
    (Newer, "is_of_this_api", "api is 99; this headwater has 2"),
    (OtherName, "columns_match_rows", "rows has ['total'], columns declares ['sum']"),
    (OtherShape, "columns_match_rows", "columns declares (1, 16)"),
    (Overflowing, "columns_match_rows", "not finite as float16"),
    (Truncating, "columns_match_rows", "does not cast to torch.int8"),
    (NormInSketch, "sums_add_up_over_positions", "halves do not add up"),
    (NormOfParts, "contributions_add_up_to_rows", "contributions of parts to sum do not add up"),
    (Unmerged, "statistics_merge_in_any_order", "scale of merged halves"),
    (ByBatches, "statistics_do_not_depend_on_batches", "scale of batches of one example"),
    (Uncounted, "a_stopped_accumulator_continues", "finishes with other arrays"),
    (ChangingOutputs, "statistics_leave_outputs_as_they_were", "accumulate changed hidden(1)"),
    (Unstorable, "statistics_survive_storing", "finish gives scale that are not arrays"),
    (OneQueryState, "queries_are_each_their_own", "per_query has arrays of another length"),
    (Greedy, "asks_what_it_declared", "hidden(2), which needs() does not declare"),
    (Centred, "rows_are_each_examples_own", "depends on its batch"),
    (Restless, "no_target_positions_give_zeros", "is not zero"),
    (InPlace, "inputs_stay_as_they_were", "hidden(1) changed"),
    (Strict, "half_precision_is_read", "torch.bfloat16 of a bfloat16 model"),
    (Random, "same_rows_every_time", "other rows the second time"),
    (Forgetful, "same_rows_every_time", "other rows the second time"),
    (Whitened, "queries_are_each_their_own", "depends on the other queries"),
    (Doubled, "queries_are_each_their_own", "float64"),
    (Spoiling, "stored_rows_stay_as_they_were", "prepare changed the rows"),
    (SpoilingScore, "stored_rows_stay_as_they_were", "score changed the block"),
    (MeanOfTile, "splits_change_no_score", "depend on the queries beside it"),
    (Ranked, "splits_change_no_score", "depend on the block"),
    (Opposite, "an_example_finds_itself", "only 0% of examples rank first"),
    (Talkative, "remarks_are_lines", "remarks gives 'one line'"),
    (Shrinking, "scratch_grows_with_positions", "scratch falls as positions grow"),
    (Understated, "scratch_covers_what_is_allocated", "scratch says 2,048"),
]


@pytest.mark.parametrize(("kind", "name", "told"), FAULTS, ids=lambda part: getattr(part, "__name__", None))
def test_a_fault_is_caught_by_its_check(kind, name, told):
    check = next(check for check in checks() if str(check) == name)
    with pytest.raises(AssertionError) as error:
        if why_not := check(kind()):
            pytest.skip(why_not)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_every_check_has_a_fault_that_it_catches():
    elsewhere = {"is_pickled", "same_rows_in_another_process", "parts_change_no_score"}
    assert {name for _, name, _ in FAULTS} | elsewhere == {str(check) for check in checks()}


@dataclass(frozen=True)
class Lengths(TextSimilarity):
    """Scores texts by how many words they share with a query, each once, over the part's longest text: a fault."""

    api: ClassVar[int] = 2

    def memory(self, rows: int, tokens: int, queries: int):
        return 8 * rows

    def score_texts(self, queries: Sequence[str], texts: Callable[[], Iterator[Sequence[str]]]):
        for part in texts():
            longest = max(len(text) for text in part)
            rows = [[len({*text.split()} & {*query.split()}) / longest for query in queries] for text in part]
            yield np.array(rows, np.float32)


def test_scores_of_texts_that_depend_on_the_parts_are_caught():
    with pytest.raises(AssertionError, match="how the corpus is cut"):
        next(check for check in checks() if str(check) == "parts_change_no_score")(Lengths())


def test_a_class_that_other_processes_cannot_find_does_not_pickle():
    @dataclass(frozen=True)
    class Local(Good):
        pass

    with pytest.raises(AssertionError, match="does not pickle"):
        next(check for check in checks() if str(check) == "is_pickled")(Local())


def test_rows_that_depend_on_the_process_are_caught(tmp_path, monkeypatch):
    (tmp_path / "hashing_method.py").write_text(
        "from dataclasses import dataclass\nimport torch\nfrom headwater.engine.interface.method import Method\n"
        "from headwater.store.layout import column\n\n\n@dataclass(frozen=True)\nclass Hashing(Method):\n    api = 2\n"
        "    def columns(self, model): return (column('c', (8,), 'float32'),)\n"
        "    def scratch(self, model, positions): return positions\n"
        "    def sketch(self, readout, precomputed):\n"
        "        seed = torch.Generator().manual_seed(hash('a name') % 2**32)\n"
        "        return {'c': torch.randn(readout.examples, 8, generator=seed)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import hashing_method

    check = next(check for check in checks() if str(check) == "same_rows_in_another_process")
    with pytest.raises(AssertionError, match="other rows in another process"):
        check(hashing_method.Hashing())


def test_one_process_computes_the_rows_of_all_methods():
    fresh_process._row_process.cache_clear()
    check = next(check for check in checks() if str(check) == "same_rows_in_another_process")
    for name in ("rise", "repsim", "vectors"):
        assert not check(load(name)())
    assert fresh_process._row_process.cache_info().misses == 1


def test_a_method_that_ends_the_other_process_is_named(tmp_path, monkeypatch):
    (tmp_path / "exiting_method.py").write_text(
        "from dataclasses import dataclass\nimport os\nfrom headwater.engine.interface.method import Method\n"
        "from headwater.store.layout import column\n\n\n@dataclass(frozen=True)\nclass Exiting(Method):\n    api = 2\n"
        "    def columns(self, model): return (column('c', (8,), 'float32'),)\n"
        "    def scratch(self, model, positions): return positions\n"
        "    def sketch(self, outputs, precomputed): os._exit(3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import exiting_method

    with pytest.raises(AssertionError, match="fail in another process: it exits with status 3"):
        fresh_process.rows_in_fresh_process(exiting_method.Exiting(), MODELS[0])


def test_a_model_that_cannot_serve_the_method_is_left_out_but_not_every_one():
    few = checks(models=(ModelShape(8, 20, 0, 16), ModelShape(8, 20, 2, 16)))
    next(check for check in few if str(check) == "columns_match_rows")(Good())
    none = checks(models=(ModelShape(8, 20, 0, 16),))
    with pytest.raises(AssertionError, match="pass checks"):
        next(check for check in none if str(check) == "columns_match_rows")(Good())


def test_an_author_states_how_often_an_example_finds_itself():
    asked = {share: checks(finds_itself=share)[-1] for share in (0.0, 0.5)}
    assert asked[0.0](Opposite()) == "its author opted out"
    with pytest.raises(AssertionError, match="50% should"):
        asked[0.5](Opposite())


def test_the_suite_needs_neither_pytest_nor_transformers():
    code = (
        "import sys\nsys.modules['pytest'] = sys.modules['transformers'] = None\n"
        "from headwater.plugins.conformance import checks\nprint(len(checks()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(len(checks())), done.stderr
