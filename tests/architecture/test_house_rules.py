"""What holds for the whole repository, checked from its files."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LONGEST_FILE = 300
REGISTRIES = ("pypi" + ".org", "pythonhosted" + ".org", "hugging" + "face.co/", "download.py" + "torch.org")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(root|home/\w+|work/(main|shared|bin)|Users/\w+|tmp/w|opt/\w+)/")
HEAVY = (
    "torch",
    "transformers",
    "feast",
    "evidently",
    "great_expectations",
    "mlflow",
    "pandas",
    "dagster",
    "sqlalchemy",
)


@cache
def tracked() -> tuple[Path, ...]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return tuple(ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())


def texts(*suffixes: str) -> list[tuple[str, str]]:
    """The tracked text files with one of the suffixes, or all of them."""
    found = []
    for path in tracked():
        if suffixes and path.suffix not in suffixes:
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            found.append((path.relative_to(ROOT).as_posix(), data.decode("utf-8")))
    return found


def test_no_file_is_longer_than_three_hundred_lines() -> None:
    long = {name: len(text.splitlines()) for name, text in texts(".py") if name.startswith(("ml_platform/", "assets/"))}
    assert {name: lines for name, lines in long.items() if lines > LONGEST_FILE} == {}


def test_no_tracked_file_names_a_registry_or_a_path_of_somebodys_machine() -> None:
    found = []
    for name, text in texts():
        found += [(name, host) for host in REGISTRIES if host in text]
        found += [(name, match.group()) for match in MACHINE_PATHS.finditer(text)]
    assert found == []


def test_nothing_generated_or_private_is_tracked() -> None:
    unwanted = re.compile(r"(^|/)(__pycache__|\.venv|\.ml_platform|mlruns)/|\.(pyc|sqlite|pem|key|safetensors)$")
    names = [path.relative_to(ROOT).as_posix() for path in tracked()]
    assert [name for name in names if unwanted.search(name)] == []


def test_every_constraint_is_one_exact_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)] == []
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0].lower()) for line in lines]
    assert len(names) == len(set(names)) > 100


def test_everything_that_is_asked_for_is_locked_in_a_version_that_fits() -> None:
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    locked = {re.sub(r"[-_.]+", "-", line.partition("==")[0].lower()): line.partition("==")[2] for line in lines}
    for line in requires("ml_platform") or []:
        asked = Requirement(line)
        version = locked.get(re.sub(r"[-_.]+", "-", asked.name.lower()))
        assert version is not None, f"{asked.name} is not in constraints.txt: run `make lock`"
        assert asked.specifier.contains(version), f"{asked} is locked at {version}: run `make lock`"


def test_data_packages_are_exact_versions() -> None:
    lines = [line for line in (ROOT / "data-packages.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w-]+==[\w.]+", line)] == []


def test_ci_runs_make_check_which_calls_make_test() -> None:
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("check </dev/null")
    makefile = (ROOT / "Makefile").read_text()
    check = makefile.partition("\ncheck:")[2].partition("\n\n")[0]
    lint = makefile.partition("\nlint:")[2].partition("\n\n")[0]
    assert check.startswith(" lint")
    assert "$(MAKE) --no-print-directory test" in check
    for tool in ("ruff check", "ruff format --check", "mypy", "lint-imports", "schemas --check"):
        assert tool in lint


def test_pre_commit_needs_no_network() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]


def test_the_wheels_of_the_import_rules_turn() -> None:
    ran = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("module", ["ml_platform.cli.app", "ml_platform.contracts.products", "ml_platform.cli.doctor"])
def test_loading_the_command_line_loads_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert told == "[]\n"


def test_modules_read_no_environment_and_do_no_work_when_they_are_imported() -> None:
    """No print, open, environment read or logging set-up at module level in the library."""
    found = []
    for name, text in texts(".py"):
        if name.startswith(("ml_platform/", "assets/", "resources/", "sensors/")):
            found += [f"{name}:{node.lineno}" for node in ast.parse(text).body if does_work(node)]
    assert found == []


def does_work(node: ast.stmt) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.If):
        return False
    calls = [ast.unparse(inner.func) for inner in ast.walk(node) if isinstance(inner, ast.Call)]
    forbidden = ("print", "open", "os.environ", "os.getenv", "logging.basicConfig", "subprocess", "input")
    return any(call == name or call.startswith(f"{name}.") for call in calls for name in forbidden)
