"""Methods are found by entry point, whatever state a plugin is in; fake `dist-info` folders stand for installed packages."""

import sys
from pathlib import Path

import pytest
from headwater.engine.interface.method import API
from headwater.engine.interface.registry import GROUP, list_methods, load
from headwater.store.errors import BrokenMethod, ClashingMethods, OutdatedMethod, PluginError, UnknownMethod

GOOD = '''"""A fine method.

More of it.
"""
from headwater.plugins import QueryMatrix, Similarity, column


class Fine(Similarity):
    api = 2

    def columns(self, model):
        return (column("c", (1,), "float32"),)

    def scratch(self, model, positions):
        return positions

    def sketch(self, outputs, precomputed):
        raise AssertionError("listing and loading run no method")

    def prepare(self, rows, state):
        raise AssertionError("listing and loading run no method")
'''


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path, empty of packages; modules imported from it are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)  # another path: the registry searches anew
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def install(site: Path, distribution: str, methods: dict[str, str], version: str = "1.0", **modules: str) -> Path:
    """What pip leaves behind: metadata with entry points, and modules given as source."""
    folder = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    points = "".join(f"{name} = {target}\n" for name, target in methods.items())
    (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{points}")
    for name, source in modules.items():
        (site / f"{name}.py").write_text(source, "utf-8")
    return folder


def listed(name: str):
    """The line of the list with this name."""
    return {line.name: line for line in list_methods()}[name]


def refused(name: str, kind: type[PluginError]) -> str:
    """The one line that loading a name ends in."""
    with pytest.raises(PluginError) as error:
        load(name)
    assert type(error.value) is kind
    assert "\n" not in str(error.value)
    return "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])


def test_a_method_is_listed_and_loaded(site):
    install(site, "fine-methods", {"fine": "fine_one:Fine"}, fine_one=GOOD)
    line = listed("fine")
    assert (line.distribution, line.target, line.about) == ("fine-methods 1.0", "fine_one:Fine", "A fine method.")
    assert not line.fault
    assert load("fine").__name__ == "Fine"


def test_ours_come_in_by_the_same_door():
    line = listed("rise")
    assert line.distribution.startswith("headwater ") and line.about.startswith("RISE") and not line.fault
    assert load("rise").__module__ == "headwater.plugins.rise"


def test_names_are_listed_in_order(site):
    install(site, "many", {"zeta": "fine_one:Fine", "alpha": "fine_one:Fine"}, fine_one=GOOD)
    names = [line.name for line in list_methods()]
    assert names == sorted(names) and {"alpha", "zeta"} <= set(names)


def test_the_path_is_searched_once_and_nobody_elses_metadata_is_read(site, monkeypatch):
    from importlib.metadata import PathDistribution

    install(site, "fine-methods", {"fine": "fine_one:Fine"}, fine_one=GOOD)
    (install(site, "other", {}) / "entry_points.txt").unlink()
    read, read_text = [], PathDistribution.read_text

    def recorded(self, filename):
        read.append((self._path.name, filename))
        return read_text(self, filename)

    monkeypatch.setattr(PathDistribution, "read_text", recorded)
    assert not listed("fine").fault
    assert ("other-1.0.dist-info", "entry_points.txt") in read  # how a distribution says that it offers nothing
    owners = {folder for folder, file in read if file in ("METADATA", "PKG-INFO")}
    assert "fine_methods-1.0.dist-info" in owners and len(owners) == len({line.distribution for line in list_methods()})
    del read[:]
    assert load("fine").__name__ == "Fine" and not read
    with pytest.raises(UnknownMethod):
        load("finer")
    assert not read


BROKEN = {
    "raises": ('"""About."""\nraise RuntimeError("no luck today\\nsecond line")\n', "RuntimeError: no luck today"),
    "exits": ('"""About."""\nimport sys\nsys.exit(3)\n', "SystemExit: 3"),
    "silent": ('"""About."""\nassert False\n', "AssertionError"),
    "lacking": ('"""About."""\nimport no_such_module_anywhere\n', "No module named 'no_such_module_anywhere'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_failing_import_names_distribution_version_and_cause(site, name):
    source, cause = BROKEN[name]
    install(site, "some-methods", {name: f"broken_{name}:Method"}, "2.3", **{f"broken_{name}": source})
    line = listed(name)
    assert line.about == "About." and line.fault in ("", f"broken_{name} has no Method")  # nothing is run to find out
    message = refused(name, BrokenMethod)
    assert message.startswith(f"method {name} of some-methods 2.3 does not import: ") and message.endswith(cause)


def test_listing_imports_no_plugin(site, capsys):
    source = '"""Loud."""\nprint("imported")\n' + GOOD
    install(site, "loud", {"loud": "loud_pack.inner:Fine"})
    (site / "loud_pack").mkdir()
    (site / "loud_pack/__init__.py").write_text("print('imported')\n")
    (site / "loud_pack/inner.py").write_text(source)
    assert (listed("loud").about, listed("loud").fault) == ("Loud.", "")
    assert capsys.readouterr().out == "" and "loud_pack" not in sys.modules
    load("loud")
    assert "imported" in capsys.readouterr().out


FAULTS = {
    "syntax": ("faulty:Method", '"""About."""\ndef (:\n', "faulty does not parse in line 2: "),
    "absent": ("not_there:Method", "", "there is no module not_there"),
    "inside": ("faulty.inner:Method", "", "there is no module faulty.inner"),
    "coding": ("faulty:Method", b'"""\xff\xfe"""\n', "faulty does not parse in line 1: "),
    "null": ("faulty:Method", '"""About."""\n\0', ""),
    "deep": ("faulty:Method", "x = " + "(" * 5000 + ")" * 5000, "faulty "),
    "no-name": ("faulty:Method", GOOD, "faulty has no Method"),
    "no-class": ("faulty", GOOD, "its entry point 'faulty' is not module:Class"),
    "words": ("not an entry: point!", "", "its entry point 'not an entry: point!' is not module:Class"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_plugin_is_a_line_in_the_list(site, name):
    target, source, fault = FAULTS[name]
    install(site, "faulty-methods", {name: target, "fine": "fine_one:Fine"}, fine_one=GOOD)
    (site / "faulty.py").write_bytes(source if isinstance(source, bytes) else source.encode())
    line = listed(name)
    assert line.fault.startswith(fault) and line.fault and "\n" not in line.fault
    assert line.distribution == "faulty-methods 1.0"
    assert not listed("fine").fault and not listed("rise").fault
    assert "faulty-methods 1.0" in refused(name, BrokenMethod)


def test_a_module_without_source_is_no_fault(site):
    import py_compile

    install(site, "compiled", {"compiled": "compiled_one:Fine"}, compiled_one=GOOD)
    py_compile.compile(str(site / "compiled_one.py"), str(site / "compiled_one.pyc"))
    (site / "compiled_one.py").unlink()
    assert (listed("compiled").about, listed("compiled").fault) == ("A fine method.", "")
    assert load("compiled").__name__ == "Fine"


@pytest.mark.parametrize(
    "source", ["from fine_one import *\n", "import fine_one\ndef __getattr__(name):\n    return fine_one.Fine\n"]
)
def test_a_class_that_a_module_gets_elsewhere_is_no_fault(site, source):
    install(site, "fine-methods", {"fine": "other_one:Fine"}, fine_one=GOOD, other_one='"""Other."""\n' + source)
    assert (listed("fine").about, listed("fine").fault) == ("Other.", "")
    assert load("fine").__name__ == "Fine"


def test_an_unknown_name_lists_what_is_there_and_the_nearest(site):
    install(site, "fine-methods", {"fine": "fine_one:Fine"}, fine_one=GOOD)
    message = refused("rize", UnknownMethod)
    assert message.startswith("no method rize; installed: ") and message.endswith("\nhint: did you mean rise?")
    assert "fine" in message and "rise" in message
    assert "did you mean" not in refused("something else", UnknownMethod)


@pytest.mark.parametrize(
    ("stated", "advice"), [(API + 1, "upgrade headwater"), (API - 1, "upgrade versioned 4.5")], ids=["newer", "older"]
)
def test_another_api_names_both_numbers_and_who_upgrades(site, stated, advice):
    source = GOOD + f"\n    api = {stated}\n"
    install(site, "versioned", {"versioned": "versioned_one:Fine"}, "4.5", versioned_one=source)
    message = refused("versioned", OutdatedMethod)
    assert (
        message
        == f"method versioned of versioned 4.5 is written for plugin API {stated}, this headwater has API {API}\nhint: {advice}"
    )


def test_an_api_that_is_no_number_is_a_fault(site):
    install(site, "versioned", {"versioned": "versioned_one:Fine"}, versioned_one=GOOD + "\n    api = '1'\n")
    assert "'1' as its plugin API" in refused("versioned", BrokenMethod)


def test_a_method_that_names_no_api_was_written_for_the_first(site):
    """Else it would inherit the number of whatever headwater it meets, and never be outdated."""
    install(site, "old", {"old": "old_one:Fine"}, old_one=GOOD.replace("    api = 2\n\n", ""))
    message = refused("old", OutdatedMethod)
    assert message.endswith("is written for plugin API 1, this headwater has API 2\nhint: upgrade old 1.0")


def test_two_distributions_with_one_name_are_both_named(site):
    install(site, "first", {"same": "fine_one:Fine"}, "1.0", fine_one=GOOD)
    install(site, "second", {"same": "other_one:Fine"}, "2.0", other_one=GOOD)
    line = listed("same")
    assert {"first 1.0", "second 2.0"} == set(line.distribution.split(", ")) and "clash" in line.fault
    message = refused("same", ClashingMethods)
    assert "first 1.0" in message and "second 2.0" in message and "uninstall all but one" in message


def test_a_clash_with_ours_is_told_too(site):
    install(site, "rival", {"rise": "fine_one:Fine"}, fine_one=GOOD)
    message = refused("rise", ClashingMethods)
    assert "rival 1.0" in message and "headwater " in message


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_distribution_that_is_twice_on_the_path_is_one(site, monkeypatch, version):
    install(site, "fine-methods", {"fine": "fine_one:Fine"}, fine_one=GOOD)
    install(site / "behind", "Fine_Methods", {"fine": "fine_one:Fine"}, version)
    sys.path.append(str(site / "behind"))
    try:
        assert listed("fine").distribution == "fine-methods 1.0" and not listed("fine").fault
        assert load("fine").__name__ == "Fine"
    finally:
        sys.path.remove(str(site / "behind"))


NOT_METHODS = {
    "function": ("def Fine(): pass\n", "is not a class: it is function"),
    "instance": (GOOD + "\nFine = Fine()\n", "is not a class: it is Fine"),
    "stranger": ("class Fine: pass\n", "does not extend headwater.plugins.Method"),
    "abstract": (GOOD.replace("def sketch", "def skitch").replace("def prepare", "def prep"), "lacks prepare, sketch"),
}


@pytest.mark.parametrize("name", NOT_METHODS)
def test_what_is_no_concrete_method_is_refused(site, name):
    source, output = NOT_METHODS[name]
    install(site, "odd", {name: "odd_one:Fine"}, odd_one=source)
    assert output in refused(name, BrokenMethod)


def test_damaged_metadata_hides_nobody_else(site):
    install(site, "fine-methods", {"fine": "fine_one:Fine"}, fine_one=GOOD)
    bad = install(site, "damaged", {})
    (bad / "entry_points.txt").write_text(f"[{GROUP}]\nthis line is no entry point\n")
    strange = install(site, "strange", {"bytes": "fine_one:Fine"})
    (strange / "entry_points.txt").write_bytes(b"[headwater.methods]\n\xff\xfe = x:Y\n")
    bare = install(site, "bare", {"bare": "fine_one:Fine"})
    (bare / "METADATA").unlink()
    other = install(site, "other", {})
    (other / "entry_points.txt").write_text("[other]\nthis is nobody's business\n")
    names = {line.name: line for line in list_methods()}
    assert not names["fine"].fault and not names["rise"].fault and not names["bare"].fault
    assert names["damaged"].fault == names["strange"].fault == "its entry points cannot be read"
    assert "other" not in names
    assert "cannot be read" in refused("damaged", BrokenMethod)


def test_settings_that_no_method_can_have_are_one_line():
    from dataclasses import dataclass, make_dataclass

    from headwater.engine.interface.method import Similarity
    from headwater.engine.interface.settings import settings_fault

    @dataclass(frozen=True, kw_only=True)
    class WithoutDefault(Similarity):
        depth: float

    @dataclass(frozen=True)
    class Shadowing(Similarity):
        bits: float = 1.0

    assert settings_fault(WithoutDefault) == "setting depth has no default"
    assert settings_fault(Shadowing) == "setting bits has the name of a setting that every method of its kind has"
    assert settings_fault(make_dataclass("Good", [("depth", float, 0.5)], bases=(Similarity,), frozen=True)) == ""
