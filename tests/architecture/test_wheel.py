"""The wheel holds the library with all that it needs, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = {".json", ".j2", ".jinja", ".css", ".html", ".svg", ".js", ".yaml"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built with what is installed: no network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_only_the_library(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ml_platform"}


def test_the_wheel_holds_every_module_schema_and_template(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "ml_platform"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    expected = {name for name in listed if (ROOT / name).is_file()}
    assert expected - held == set()
    assert any(name.endswith("schemas/product.schema.json") for name in held)
    assert {Path(name).suffix for name in held if Path(name).suffix in DATA} >= {".json", ".j2", ".css"}


def test_the_library_works_from_the_wheel_with_the_source_tree_gone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = (
        "import ml_platform, sys; from ml_platform.cli.app import run; "
        "assert ml_platform.__file__.startswith(sys.argv[1]); sys.exit(run(['schemas', '--check']))"
    )
    site = str(tmp_path / "site")
    command = [sys.executable, "-c", program, site]
    environment = {"PYTHONPATH": site, "PATH": ""}
    told = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "The schemas are current.\n"), told.stderr


def test_the_command_is_installed_with_the_library(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "mlp = ml_platform.cli:main" in archive.read(points).decode()
        metadata = next(name for name in archive.namelist() if name.endswith("METADATA"))
        assert "License-Expression: Apache-2.0" in archive.read(metadata).decode()
