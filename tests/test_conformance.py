"""The conformance suite: our methods pass it, and each check catches the fault it is there for."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from headwater.engine.interface.method import BlockSimilarity, Method, QueryMatrix, Similarity, TextSimilarity
from headwater.engine.interface.model_view import ModelShape, OutputSpec
from headwater.engine.interface.registry import list_methods, load
from headwater.plugins.conformance import MODELS, checks
from headwater.plugins.stride import Stride
from headwater.store.layout import column

OURS = [line.name for line in list_methods() if line.distribution.startswith("headwater ")]


@pytest.mark.parametrize("check", checks(), ids=str)
@pytest.mark.parametrize("name", OURS)
def test_ours_conform(name, check):
    why_not = check(load(name)())
    if why_not:
        pytest.skip(why_not)


@pytest.mark.parametrize("more", [{"states": "model"}, {"space": "activations", "depth": 0.5}], ids=str)
def test_stride_conforms_where_it_reads_the_model(more):
    method = Stride(subsets=12, degree=3, updates=4, checked=4, **more)
    seen = {str(check): check(method) for check in checks(models=MODELS[:1]) if str(check) not in OF_THE_CLASS}
    assert not seen["a_stopped_fitting_goes_on"] and not seen["measurements_are_each_querys_own"]


OF_THE_CLASS = ("same_rows_in_another_process", "is_pickled")  # whatever its settings; the first one costs seconds
VARIANTS = [
    {"normalize": False, "tau": 1.0, "top": 64, "mass": 1.0, "kr": 32, "kh": 16, "kg": 8},
    {"kg": 0, "kr": 16, "kh": 24},
    {"kr": 0, "kh": 16, "kg": 28},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=["linear", "lexical", "semantic"])
def test_rise_conforms_with_other_settings(settings):
    for check in checks(models=MODELS[:1], finds_itself=0.95 if settings.get("normalize", True) else 0.9):
        if str(check) not in OF_THE_CLASS:
            check(load("rise").from_settings(settings))


@dataclass(frozen=True)
class Good(Similarity):
    """Sums of hidden states: what every faulty method below departs from."""

    layer: int = 1
    scale: float = 1.0

    def columns(self, sizes: ModelShape):
        return (column("sum", (sizes.hidden,), "float32"),)

    def needs(self, sizes: ModelShape):
        return OutputSpec(layers=(self.layer,))

    def scratch(self, sizes: ModelShape, positions: int):
        return 4 * sizes.hidden * 4 * positions

    def rows(self, outputs: Any, tables: Any):
        hidden = outputs.hidden(self.layer).float()
        out = torch.zeros(outputs.examples, hidden.shape[1])
        return {"sum": self.scale * torch.nn.functional.normalize(out.index_add_(0, outputs.example_ids, hidden))}

    def prepare(self, rows: Mapping[str, Any], state: Mapping[str, Any]):
        return QueryMatrix("sum", rows["sum"])


def test_a_good_method_passes():
    why_not = {str(check): check(Good()) for check in checks(models=MODELS[:2])}
    assert {name for name, why in why_not.items() if why} <= {
        "same_rows_in_another_process",
        "scratch_covers_what_is_allocated",
        "parts_change_no_score",  # of methods that compare texts
        "a_design_is_the_same_again",  # of methods that are fitted
        "a_stopped_fitting_goes_on",
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
        columns, needs, scratch, rows = Good.columns, Good.needs, Good.scratch, Good.rows
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
    def rows(self, outputs, tables):
        return {"total": super().rows(outputs, tables)["sum"]}


@dataclass(frozen=True)
class OtherShape(Good):
    def rows(self, outputs, tables):
        return {"sum": super().rows(outputs, tables)["sum"][:, 1:]}


@dataclass(frozen=True)
class Overflowing(Good):
    def columns(self, sizes):
        return (column("sum", (sizes.hidden,), "float16"),)

    def rows(self, outputs, tables):
        return {"sum": 1e6 * super().rows(outputs, tables)["sum"]}


@dataclass(frozen=True)
class Truncating(Good):
    def columns(self, sizes):
        return (column("sum", (sizes.hidden,), "int8"),)


@dataclass(frozen=True)
class Greedy(Good):
    def rows(self, outputs, tables):
        outputs.hidden(2)
        return super().rows(outputs, tables)


@dataclass(frozen=True)
class Centred(Good):
    def rows(self, outputs, tables):
        rows = super().rows(outputs, tables)["sum"]
        return {"sum": (rows - rows.mean(0)) * (rows != 0)}


@dataclass(frozen=True)
class Restless(Good):
    def rows(self, outputs, tables):
        return {"sum": super().rows(outputs, tables)["sum"] + 1}


@dataclass(frozen=True)
class InPlace(Good):
    def rows(self, outputs, tables):
        outputs.hidden(self.layer).mul_(2)
        return super().rows(outputs, tables)


@dataclass(frozen=True)
class Strict(Good):
    def rows(self, outputs, tables):
        return {"sum": super().rows(outputs, tables)["sum"].to(outputs.hidden().dtype)}


@dataclass(frozen=True)
class Random(Good):
    def rows(self, outputs, tables):
        return {"sum": super().rows(outputs, tables)["sum"] * torch.rand(())}


@dataclass(frozen=True)
class Forgetful(Good):
    def rows(self, outputs, tables):
        CALLS.append(1)
        return {"sum": super().rows(outputs, tables)["sum"] * len(CALLS)}


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
    def scratch(self, sizes, positions):
        return max(0, 10**6 - positions)


@dataclass(frozen=True)
class Understated(Good):
    def scratch(self, sizes, positions):
        return positions

    def rows(self, outputs, tables):
        hidden = outputs.hidden()
        assert torch.ones(len(hidden), 64, hidden.shape[1]).sum() >= 0  # 128 MiB for 2,048 positions of width 256
        return super().rows(outputs, tables)


@dataclass(frozen=True)
class StoredFit(Stride):
    """Quick to fit; what the faulty ones below depart from."""

    subsets: int = 12
    degree: int = 3
    updates: int = 4
    checked: int = 4


@dataclass(frozen=True)
class OneDesign(StoredFit):
    def design(self, rows, base=0):
        return super().design(rows, 0)


@dataclass(frozen=True)
class Oblivious(StoredFit):
    def start_fit(self, head, states, design, base=0):
        fitting = super().start_fit(head, states, design, base)
        fitting.resume = lambda arrays: None
        return fitting


@dataclass(frozen=True)
class Together(StoredFit):
    def measured(self, outputs, first_plan_within_budget):
        y, agreement = super().measured(outputs, first_plan_within_budget)
        return y - y.mean(0), agreement


FAULTS = [
    (OneDesign, "a_design_is_the_same_again", "base 1 has the design of base 0"),
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
    (Newer, "is_of_this_api", "api is 99; this headwater has 1"),
    (OtherName, "columns_match_rows", "rows has ['total'], columns declares ['sum']"),
    (OtherShape, "columns_match_rows", "columns declares (1, 16)"),
    (Overflowing, "columns_match_rows", "not finite as float16"),
    (Truncating, "columns_match_rows", "does not cast to torch.int8"),
    (Greedy, "asks_what_it_declared", "hidden(2), which needs() does not declare"),
    (Centred, "rows_are_each_examples_own", "depends on its batch"),
    (Restless, "nothing_counted_gives_zeros", "is not zero"),
    (InPlace, "inputs_stay_as_they_were", "hidden(1) changed"),
    (Strict, "half_precision_is_read", "torch.bfloat16 of a bfloat16 model"),
    (Random, "same_rows_every_time", "other rows the second time"),
    (Forgetful, "same_rows_every_time", "other rows the second time"),
    (Whitened, "queries_are_each_their_own", "depends on the other queries"),
    (Doubled, "queries_are_each_their_own", "float64"),
    (Spoiling, "stored_rows_stay_as_they_were", "prepare changed the rows"),
    (SpoilingScore, "stored_rows_stay_as_they_were", "score changed the block"),
    (Ranked, "splits_change_no_score", "depend on the block"),
    (Opposite, "an_example_finds_itself", "only 0% of examples rank first"),
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
        "from headwater.store.layout import column\n\n\n@dataclass(frozen=True)\nclass Hashing(Method):\n"
        "    def columns(self, sizes): return (column('c', (8,), 'float32'),)\n"
        "    def scratch(self, sizes, positions): return positions\n"
        "    def rows(self, readout, tables):\n"
        "        seed = torch.Generator().manual_seed(hash('a name') % 2**32)\n"
        "        return {'c': torch.randn(readout.examples, 8, generator=seed)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import hashing_method

    check = next(check for check in checks() if str(check) == "same_rows_in_another_process")
    with pytest.raises(AssertionError, match="other rows in another process"):
        check(hashing_method.Hashing())


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
