"""What an index and a reader of the citation see: name, licence, classifiers; which extras are pinned and tested."""

import importlib.metadata
import re
import tomllib

import pytest
import yaml
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and line[0] != "#"
)
UNTESTED = {
    "cupy-cuda12x": "needs a GPU",
    "cupy-cuda13x": "needs a GPU",
    "faiss-cpu": "for `make bench` alone",
    "dask": "for `make bench` alone",
    "gcsfs": "no bucket there: only the message about the missing package is tested",
}
"""Package → why the suite does without it."""


def name_of(requirement: str) -> str:
    """The package of a requirement such as "dask[array]>=1"."""
    return re.split(r"[\[<>=! ]", requirement)[0]


def version() -> str:
    """The version in the package's source."""
    (version,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "__init__.py").read_text("utf-8"), re.M)
    return str(version)


def test_the_citation_says_what_the_package_does():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation), "what the format demands"
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert all(set(author) & {"name", "family-names"} for author in citation["authors"])
    assert citation["title"] == PROJECT["name"] and citation["abstract"] == PROJECT["description"]
    assert citation["license"] == PROJECT["license"] and citation["version"] == version()
    assert citation["keywords"] == PROJECT["keywords"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]


def test_an_index_gets_classifiers_that_agree_with_the_rest():
    classifiers = PROJECT["classifiers"]
    assert len(set(classifiers)) == len(classifiers) and "Typing :: Typed" in classifiers
    assert not any(line.startswith("License ::") for line in classifiers), "an SPDX expression takes their place"
    pythons = [line.rsplit(" ", 1)[1] for line in classifiers if re.search(r":: 3\.\d+$", line)]
    assert f">={pythons[0]}" == PROJECT["requires-python"]
    assert (ROOT / PROJECT["readme"]).suffix == ".md"


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_the_packages_of_an_extra_are_pinned_and_installed_or_named_untested(extra):
    for package in map(name_of, EXTRAS[extra]):
        if not UNTESTED.get(package, "").endswith("GPU"):
            assert package in PINNED, f"{package} has no line in constraints.txt"
        if package not in UNTESTED:
            assert importlib.metadata.version(package) == PINNED[package], package


def test_the_suite_installs_what_the_extras_need():
    needed = {name_of(part) for extra, parts in EXTRAS.items() if extra != "dev" for part in parts}
    assert needed - set(UNTESTED) <= set(map(name_of, EXTRAS["dev"]))
    assert set(UNTESTED) <= needed


def test_every_dependency_is_pinned():
    assert {name_of(part) for part in PROJECT["dependencies"]} <= set(PINNED)


def test_what_the_release_promises_is_there():
    import headwater
    import headwater.plugins
    from headwater.engine.interface.method import API
    from headwater.store.layout import FORMAT

    promise = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## What a release promises")[2]
    for name in ("headwater.__all__", "headwater.open", "headwater.plugins", "headwater.plugins.conformance"):
        assert f"`{name}`" in promise
    assert all(hasattr(headwater, name) for name in [*headwater.__all__, "open"])
    assert isinstance(API, int) and isinstance(FORMAT, int) and f"{API}" and f"{FORMAT}"
