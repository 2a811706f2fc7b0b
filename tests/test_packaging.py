"""What is published: a wheel and an sdist that hold the package and nothing else, and a command that starts light."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import time
import tomllib
import zipfile
from pathlib import Path, PurePath

import pytest
from places import ROOT

VERSION = "0.1.0"
MODULES = {
    "headwater/" + path.relative_to(ROOT).as_posix()
    for path in [
        *ROOT.glob("*.py"),
        *(file for layer in ("engine", "plugins", "store") for file in (ROOT / layer).rglob("*.py")),
    ]
}
TYPES = {"headwater/py.typed", "headwater/__init__.pyi"}
PAPERS = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "licenses/LICENSE")
HEAVY = ("torch", "zarr", "numba", "numpy", "transformers", "pyarrow", "rich")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the sdist, built without network from a copy of what there is."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    copy_tree(source)
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", out, source, cwd=source)
    return out


def copy_tree(source: Path) -> None:
    """The checkout without what git ignores, so that nothing is built into it (nor out of what lies in it)."""
    for name in subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())


def run(*command: object, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_the_wheel_holds_the_package_and_its_licence(built):
    info = f"headwater-{VERSION}.dist-info"
    names = set(zipfile.ZipFile(built / f"headwater-{VERSION}-py3-none-any.whl").namelist())
    papers = {f"{info}/{name}" for name in PAPERS}
    assert names == MODULES | TYPES | papers


def test_the_sdist_holds_the_same_and_how_to_build_it(built):
    """Setuptools adds `tests/test*.py` by itself, which only a MANIFEST.in could prevent; no data, model or demo goes along."""
    with tarfile.open(built / f"headwater-{VERSION}.tar.gz") as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    added = {name for name in names if name.startswith("headwater.egg-info/") or PurePath(name).match("tests/test*.py")}
    papers = {"LICENSE", "README.md", "pyproject.toml", "setup.cfg", "PKG-INFO"}
    assert names - added == {name.removeprefix("headwater/") for name in MODULES | TYPES} | papers


@pytest.fixture(scope="module")
def unpacked(built, tmp_path_factory):
    """The wheel, unpacked into a folder of its own."""
    folder = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(built / f"headwater-{VERSION}-py3-none-any.whl").extractall(folder)
    return folder


def elsewhere(unpacked: Path, code: str) -> str:
    """Run code where the unpacked wheel comes first, the dependencies last, and the checkout is nowhere."""
    standard = [path for path in sys.path if Path(path).is_relative_to(sys.base_prefix) and "site-packages" not in path]
    paths = [str(unpacked), *standard, sysconfig.get_path("purelib")]
    return run(sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:] = {paths!r}\n{code}", cwd=unpacked)


def test_every_module_imports_from_the_wheel_alone(built, unpacked):
    names = sorted(name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in MODULES)
    names.remove("headwater.__main__")
    code = f"""
import importlib
for name in {names!r}:
    module = importlib.import_module(name)
    assert module.__file__.startswith({str(unpacked)!r}), module.__file__
print(len({names!r}))
"""
    assert elsewhere(unpacked, code).strip() == str(len(MODULES) - 1)


def test_the_wheel_registers_command_and_methods(unpacked):
    told = (unpacked / f"headwater-{VERSION}.dist-info/entry_points.txt").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    methods = project["entry-points"]["headwater.methods"]
    assert "headwater = headwater.cli:main" in told
    assert methods and all(f"{name} = {target}" in told for name, target in methods.items())
    code = "from headwater.engine.interface.registry import list_methods\n"
    code += "for m in list_methods(): print(m.name, m.distribution, m.fault)"
    assert elsewhere(unpacked, code).splitlines() == [f"{name} headwater {VERSION} " for name in sorted(methods)]


def test_every_method_in_the_tree_has_an_entry_point():
    methods = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["headwater.methods"]
    files = {path.stem for path in (ROOT / "plugins").glob("*.py") if not path.stem.startswith("_")}
    assert {target.partition(":")[0] for target in methods.values()} == {f"headwater.plugins.{name}" for name in files}


@pytest.mark.parametrize("command", [["--help"], ["methods"], ["--version"], ["ingest", "--help"]], ids=" ".join)
def test_the_command_starts_light(command, tmp_path):
    code = (
        "import sys\nfrom headwater.cli import main\n"
        f"try: main({command!r}, standalone_mode=False)\nexcept SystemExit: pass\n"
        f"print('loaded:', *(name for name in {HEAVY!r} if name in sys.modules))"
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path).splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("command", ["--help", "methods"])
def test_the_command_answers_at_once(command, tmp_path):
    """Within half a second of a processor's time: what it does, whatever else the machine does."""
    script = Path(sysconfig.get_path("scripts")) / "headwater"
    spent, env = [], {**os.environ, "COLUMNS": "100"}
    for _ in range(5):
        before, begun = os.times(), time.perf_counter()
        run(sys.executable, script, command, cwd=tmp_path, env=env)
        after, wall = os.times(), time.perf_counter() - begun
        used = after.children_user + after.children_system - before.children_user - before.children_system
        spent.append(min(used, wall))
    assert min(spent) < 0.5
