"""Arrays instead of text and a model: outputs, reading from any example on, and errors of invalid files."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from headwater.engine.data.array_files import is_array_path
from headwater.engine.data.documents import RecordErrors
from headwater.engine.data.sources import Source
from headwater.engine.ingest.array_provider import ArrayProvider
from headwater.engine.ingest.examples import Example, Place
from headwater.engine.interface.model_view import OutputSpec
from headwater.engine.models.batch_outputs import merge_specs
from headwater.engine.sketches.residual import SparseResidual
from headwater.store.errors import CorpusError, DataError

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
ALL = SparseResidual(1.0, 0, 1.0, 1)
KINDS = ["npz", "compressed", "zarr"]


def arrays(rows: int = 7, positions: int = 0, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Hidden states of width 5, labels of 4 classes (some ignored), and a head."""
    rng = np.random.default_rng(seed)
    shape = (rows, positions) if positions else (rows,)
    labels = rng.integers(-1, 4, shape)
    labels[0] = np.abs(labels[0])
    return {
        "hidden": rng.standard_normal((*shape, 5)).astype(np.float32),
        "labels": labels,
        "weight": np.random.default_rng(99).standard_normal((4, 5)).astype(np.float32),
        "bias": np.random.default_rng(98).standard_normal(4).astype(np.float32),
    }


def written(path: Path, kind: str, made: dict[str, Any]) -> str:
    """Write the arrays to a file of this kind."""
    if kind == "zarr":
        import zarr

        group = zarr.open_group(path, mode="w")
        for name, array in made.items():
            if array.dtype.kind == "U":  # fixed widths have no Zarr v3 specification
                array = array.astype(np.dtypes.StringDType())
            group.create_array(name, data=array, chunks=tuple(max(1, n // 2) for n in array.shape))
        return str(path)
    path = path.with_suffix(".npz")
    (np.savez_compressed if kind == "compressed" else np.savez)(path, **made)
    return str(path)


def opened(*paths: str) -> ArrayProvider:
    """Open files as a provider on the CPU."""
    return ArrayProvider(list(paths), CPU, RecordErrors("fail"))


def all_of(provider: ArrayProvider) -> list[Example]:
    """All examples of a provider."""
    return list(provider.examples(Place()))


def same(one: Example, other: Example) -> bool:
    """Whether two examples are equal; their payloads are arrays."""
    return (one.id, one.place, one.target_count) == (other.id, other.place, other.target_count) and np.array_equal(
        one.payload[0], other.payload[0]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions", [0, 1, 6])
@pytest.mark.parametrize("given", ["hidden", "logits", "residual"])
def test_readouts_are_the_arrays(kind, positions, given, tmp_path):
    made = arrays(positions=positions)
    hidden, labels = made["hidden"].astype(np.float64), made["labels"]
    z = hidden @ made["weight"].T.astype(np.float64) + made["bias"]
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    one = np.eye(4)[np.maximum(labels, 0)]
    if given != "hidden":
        made[given] = (z + 3.0 if given == "logits" else p - one).astype(np.float32)
    provider = opened(written(tmp_path / "f", kind, made))
    examples = all_of(provider)
    assert [example.length for example in examples] == [max(1, positions)] * 7
    assert [example.target_count for example in examples] == (labels >= 0).reshape(7, -1).sum(1).tolist()
    read = provider.read(examples[::-1], merge_specs([OutputSpec(reductions=(ALL,))]))
    flat = (labels >= 0).reshape(7, -1)[::-1]
    np.testing.assert_array_equal(read.hidden().numpy(), made["hidden"].reshape(7, -1, 5)[::-1][flat])
    np.testing.assert_array_equal(read.targets.numpy(), labels.reshape(7, -1)[::-1][flat])
    np.testing.assert_array_equal(read.example_ids.numpy(), np.nonzero(flat)[0])
    index, value = read.reduced(ALL)
    dense = torch.zeros(len(index), 4).scatter_add_(1, index, value).numpy()
    np.testing.assert_allclose(dense, (p - one).reshape(7, -1, 4)[::-1][flat], atol=1e-5)
    loss = np.where(flat, -np.log((p * one).sum(-1)).reshape(7, -1)[::-1], 0).sum(1) / np.maximum(flat.sum(1), 1)
    np.testing.assert_allclose(read.losses().numpy(), loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_reading_goes_on_from_every_place_in_several_files(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("headwater.engine.ingest.array_provider._ROWS", 3)
    paths = [written(tmp_path / f"f{n}", kind, arrays(rows, seed=n)) for n, rows in enumerate((7, 1, 6))]
    examples = all_of(opened(*paths))
    assert [example.place for example in examples] == [
        Place(n, r) for n, rows in enumerate((7, 1, 6)) for r in range(rows)
    ]
    for at, example in enumerate(examples):
        rest = list(opened(*paths).examples(example.place))
        assert len(rest) == len(examples) - at - 1
        assert all(map(same, rest, examples[at + 1 :]))


def test_a_store_may_know_files_that_are_not_here(tmp_path):
    """As after appending files: the order of the store is kept, and finished files are not read again."""
    provider = opened(*(written(tmp_path / f"f{n}", "npz", arrays(2, seed=n)) for n in range(2)))
    gone = Source("", "gone.npz", "absent", 0, "0")
    provider.sources[:] = [gone, *provider.sources[::-1]]
    assert [example.place for example in provider.examples(Place(1))] == [Place(n, r) for n in (1, 2) for r in (0, 1)]
    assert next(provider.examples(Place(1))).source == "f1.npz"
    with pytest.raises(CorpusError, match=r"gone\.npz belongs to the store's corpus and must be read again"):
        all_of(provider)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_texts_are_kept_and_made_up_where_there_are_none(kind, tmp_path):
    made = {**arrays(2), "id": np.array(["a", "ü"]), "text": np.array(["one", "two 漢"])}
    assert [(e.id, e.text) for e in all_of(opened(written(tmp_path / "f", kind, made)))] == [
        ("a", "one"),
        ("ü", "two 漢"),
    ]
    plain = written(tmp_path / "g", kind, arrays(2))
    assert [(e.id, e.text) for e in all_of(opened(plain))] == [(f"{Path(plain).name}:{n}", "") for n in (0, 1)]


def test_bytes_are_texts(tmp_path):
    made = {**arrays(2), "id": np.array([b"a", "ü".encode()])}
    assert [example.id for example in all_of(opened(written(tmp_path / "f", "npz", made)))] == ["a", "ü"]


def test_a_weight_may_be_in_fortrans_order(tmp_path):
    """Weights of fitted linear models are in Fortran order."""
    made = arrays()
    turned = {**made, "weight": np.asfortranarray(made["weight"])}
    one, other = (opened(written(tmp_path / name, "npz", m)) for name, m in (("a", made), ("b", turned)))
    assert torch.equal(one.head.weight, other.head.weight)
    assert one.provenance() == other.provenance()


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_other_numbers_become_float32(dtype, tmp_path):
    made = arrays()
    made["hidden"] = (made["hidden"] * 4).astype(dtype)
    made["weight"], made["labels"] = made["weight"].astype(np.float64), made["labels"].astype(np.int8)
    provider = opened(written(tmp_path / "f", "npz", made))
    read = provider.read(all_of(provider), merge_specs([]))
    assert read.hidden().dtype == provider.head.weight.dtype == torch.float32
    assert torch.isfinite(read.losses()).all()


def test_later_files_may_leave_the_head_out_and_may_not_have_another(tmp_path):
    first, second = arrays(3), arrays(4, positions=2, seed=1)
    one = written(tmp_path / "a", "npz", first)
    short = {name: second[name] for name in ("hidden", "labels")}
    provider = opened(one, written(tmp_path / "b", "zarr", short))
    assert len(all_of(provider)) == 7 and provider.longest() == 2
    assert provider.read(all_of(provider), merge_specs([])).losses().shape == (7,)
    for name in ("weight", "bias"):
        other = written(tmp_path / name, "npz", {**second, name: second[name] + 1})
        with pytest.raises(DataError, match=f"its {name} differs from that of"):
            opened(one, other)
    with pytest.raises(DataError, match="either both have logits"):
        opened(one, written(tmp_path / "c", "npz", {**second, "logits": np.zeros((4, 2, 4))}))
    wide = {"hidden": np.zeros((2, 6)), "labels": np.zeros(2, int)}
    with pytest.raises(DataError, match="weight is \\(V, D\\)"):
        opened(one, written(tmp_path / "d", "npz", wide))


def without(name: str) -> Any:
    """A change that removes an array."""
    return lambda made: {key: array for key, array in made.items() if key != name}


def with_(**more: Any) -> Any:
    """A change that replaces arrays."""
    return lambda made: {**made, **more}


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "no hidden": (without("hidden"), DataError, "has no array hidden; it has bias, labels, weight"),
    "no labels": (without("labels"), DataError, "has no array labels; it has bias, hidden, weight"),
    "no weight": (without("weight"), DataError, "has no array weight"),
    "nothing": (lambda made: {}, DataError, "it has none"),
    "no rows": (with_(hidden=np.zeros((0, 5)), labels=np.zeros(0, int)), CorpusError, "is empty"),
    "a hidden number": (with_(hidden=np.float32(1)), DataError, r"hidden \(\) and labels \(7,\) disagree"),
    "one hidden row": (with_(hidden=np.zeros(5)), DataError, r"hidden \(5,\) and labels"),
    "four axes": (with_(hidden=np.zeros((7, 1, 1, 5))), DataError, "disagree"),
    "fewer labels": (with_(labels=np.zeros(6, int)), DataError, r"hidden \(7, 5\) and labels \(6,\) disagree"),
    "labels a position": (with_(labels=np.zeros((7, 3), int)), DataError, "disagree"),
    "a flat weight": (with_(weight=np.zeros(5)), DataError, r"weight \(5,\) and hidden"),
    "a weight turned": (with_(weight=np.zeros((5, 4))), DataError, r"weight \(5, 4\) and hidden \(7, 5\) disagree"),
    "a weight of nothing": (with_(weight=np.zeros((0, 5))), DataError, "disagree"),
    "a wide bias": (with_(bias=np.zeros(5)), DataError, r"bias is \(5,\), the other arrays require \(4,\)"),
    "other logits": (with_(logits=np.zeros((7, 5))), DataError, r"logits is \(7, 5\), .* \(7, 4\)"),
    "fewer residuals": (with_(residual=np.zeros((6, 4))), DataError, r"residual is \(6, 4\)"),
    "fewer ids": (with_(id=np.array(["a"])), DataError, r"id is \(1,\)"),
    "labels with a point": (with_(labels=np.zeros(7)), DataError, "labels holds float64"),
    "complex numbers": (with_(hidden=np.zeros((7, 5), complex)), DataError, "hidden holds complex128"),
    "words": (with_(weight=np.full((4, 5), "x")), DataError, "weight holds <U1"),
    "objects": (with_(hidden=np.full((7, 5), None)), DataError, "holds Python objects"),
    "Fortran's order": (with_(hidden=np.asfortranarray(np.ones((7, 5)))), DataError, "Fortran order"),
}


@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_do_not_fit_are_refused(case, tmp_path):
    change, error, told = WRONG[case]
    path = written(tmp_path / "f", "npz", change(arrays()))
    with pytest.raises(error, match=told) as caught:
        opened(path)
    assert path in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["npz", "zarr"])
def test_a_label_beyond_the_head_is_refused_by_its_row(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("headwater.engine.ingest.array_provider._ROWS", 2)
    made = arrays()
    made["labels"][5] = 4
    with pytest.raises(DataError, match="row 5 has a label that is not below the number of classes, 4"):
        all_of(opened(written(tmp_path / "f", kind, made)))


def test_hidden_layers_are_not_to_be_had(tmp_path):
    provider = opened(written(tmp_path / "f", "npz", arrays()))
    with pytest.raises(DataError, match=r"arrays have no hidden layers \[3\]"):
        provider.read(all_of(provider), OutputSpec(layers=(3,)))


def test_what_is_no_such_file_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="does not exist"):
        opened(str(tmp_path / "x.npz"))
    (tmp_path / "y.npz").write_bytes(b"no archive")
    with pytest.raises(CorpusError, match="cannot be read as arrays"):
        opened(str(tmp_path / "y.npz"))
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as archive:
        archive.writestr("hidden.npy", b"no array")
    with pytest.raises(CorpusError, match="cannot be read as arrays"):
        opened(str(tmp_path / "z.npz"))
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "zarr.json").write_text("{")
    with pytest.raises(CorpusError, match="cannot be read as arrays"):
        opened(str(tmp_path / "w"))


@pytest.mark.parametrize("kind", ["npz", "compressed"])
def test_bytes_that_changed_on_disk_are_noticed(kind, tmp_path):
    made = arrays(400)
    path = Path(written(tmp_path / "f", kind, made))
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("hidden.npy").header_offset + 1000
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=r"array hidden cannot be read|cannot be read as arrays"):
        all_of(opened(str(path)))


def test_the_head_decides_the_provenance_and_the_content_the_digest(tmp_path):
    for kind in ("npz", "zarr"):
        base = opened(written(tmp_path / f"a{kind}", kind, arrays()))
        rows = opened(written(tmp_path / f"b{kind}", kind, arrays(seed=1)))
        assert base.provenance() == rows.provenance()
        assert base.sources[0].digest != rows.sources[0].digest
        for name in ("weight", "bias"):
            other = opened(written(tmp_path / (name + kind), kind, {**arrays(), name: arrays()[name] + 1}))
            assert other.provenance() != base.provenance()
        assert opened(written(tmp_path / f"c{kind}", kind, arrays())).sources[0].digest == base.sources[0].digest
    assert base.origin() == {} and base.memory(100).total > 0


def test_a_residual_of_a_large_vocabulary_takes_no_square_of_it(tmp_path):
    """A matrix of V × V would take 40 GB."""
    made = arrays(2)
    made |= {"weight": np.zeros((100_000, 5), np.float32), "residual": np.zeros((2, 100_000), np.float32)}
    made["labels"][:] = 1
    provider = opened(written(tmp_path / "f", "npz", without("bias")(made)))
    assert all_of(provider)[0].payload[2][0, 1] == 0.0  # log of probability 1


def test_what_counts_as_arrays(tmp_path):
    assert is_array_path(written(tmp_path / "a", "npz", arrays())) and is_array_path(
        written(tmp_path / "b", "zarr", arrays())
    )
    assert (
        is_array_path("absent.npz")
        and not is_array_path(str(tmp_path))
        and not is_array_path(str(tmp_path / "c.jsonl"))
    )
