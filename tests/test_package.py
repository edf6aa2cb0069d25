"""The package as installed: light import, public names, wheel, sdist, manifest."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import import_module, metadata
from pathlib import Path

import pytest

import napari_sam

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTION = "napari-sam-microscopy"


def python(*code: str, **environment: str) -> str:
    """Output of a fresh Python that runs the lines of ``code``."""
    return subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        check=True,
        capture_output=True,
        text=True,
        env=environment or None,
    ).stdout


def test_import_loads_nothing_heavy_and_leaves_the_process_alone() -> None:
    output = python(
        "import json, logging, os, sys, warnings",
        "def state():",
        "    return (dict(os.environ), len(warnings.filters),",
        "            logging.root.handlers[:], logging.root.level)",
        "before = state()",
        "import napari_sam",
        "assert state() == before",
        "print(json.dumps(sorted(sys.modules)))",
    )
    heavy = {"torch", "zarr", "numpy", "skimage", "scipy", "dask", "napari", "pydantic"}
    assert not heavy & set(json.loads(output))


def test_public_names_are_those_of_their_modules() -> None:
    assert sorted(napari_sam._MODULES) == napari_sam.__all__
    for name, module in napari_sam._MODULES.items():
        assert getattr(napari_sam, name) is getattr(import_module(module), name)
        assert name in dir(napari_sam)


def test_the_reference_describes_each_public_name() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    described = [line.split()[1] for line in page.splitlines() if line[:3] == ":::"]
    assert {f"napari_sam.{name}" for name in napari_sam.__all__} <= set(described)
    for name in described:
        module, _, own = name.rpartition(".")
        assert getattr(import_module(module), own).__doc__


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(napari_sam.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == napari_sam._MODULES


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'segmnet'"):
        napari_sam.segmnet  # noqa: B018  the access is the test


@pytest.mark.skipif(
    "EXPECT_HEADLESS" not in os.environ, reason="the headless leg of ./check only"
)
@pytest.mark.parametrize("name", ["napari", "qtpy", "PyQt6", "PySide6", "magicgui"])
def test_the_headless_leg_has_no_gui(name: str) -> None:
    assert importlib.util.find_spec(name) is None


def test_installed_version_is_the_one_in_the_source() -> None:
    assert metadata.version(DISTRIBUTION) == napari_sam.__version__


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel, built from the sdist, and the sdist."""
    folder = tmp_path_factory.mktemp("dist")

    def build(kind: str, source: Path) -> None:
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder]
        subprocess.run(command, cwd=source, check=True, capture_output=True)

    build("sdist", ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        # the argument `filter` is younger than Debian 12's Python 3.11.2
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    build("wheel", folder / sdist.name.removesuffix(".tar.gz"))
    (wheel,) = folder.glob("*.whl")
    return wheel, sdist


def test_wheel_holds_what_it_needs_at_run_time(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        names = set(wheel.namelist())
        manifest = wheel.read("napari_sam/napari.yaml")
    assert manifest == (ROOT / "napari.yaml").read_bytes()
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "napari_sam").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert sources <= names
    assert {name.split("/")[0] for name in names - sources} == {
        f"napari_sam_microscopy-{napari_sam.__version__}.dist-info"
    }
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_sdist_holds_what_the_tests_need(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[1]) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames()}
    kept: list[str] = []
    if shutil.which("git"):
        list_files = ["git", "ls-files"]
        kept = subprocess.run(
            list_files, cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.splitlines()
    # hidden files are for those who work in a clone
    needed = {name for name in kept if not name.startswith(".")}
    assert needed | {"pyproject.toml", "tests/test_package.py", ".ci/run"} <= names
    assert not any(name.startswith((".venv", "demo_out", "runs")) for name in names)


def found_by_npe2(*path: str) -> list[str]:
    """Name, display name, version that npe2 finds in a fresh Python, ``path`` first."""
    return python(
        "import sys",
        f"sys.path[:0] = {path!r}",
        "from npe2 import PluginManager",
        "manager = PluginManager()",
        "manager.discover(include_npe1=False)",
        f"found = manager.get_manifest({DISTRIBUTION!r})",
        "print(found.name, found.display_name, found.package_version, sep='\\n')",
    ).splitlines()


def test_napari_finds_the_editable_install() -> None:
    expected = [DISTRIBUTION, "napari-sam", napari_sam.__version__]
    assert found_by_npe2() == expected


def test_napari_finds_the_wheel(archives: tuple[Path, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        wheel.extractall(tmp_path)
    expected = [DISTRIBUTION, "napari-sam", napari_sam.__version__]
    assert found_by_npe2(str(tmp_path)) == expected
