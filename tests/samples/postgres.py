"""A real PostgreSQL of the distribution, in a temporary folder, reached through a Unix socket."""

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = os.geteuid() == 0 if hasattr(os, "geteuid") else False
USER = "postgres" if ROOT else getpass.getuser()


def find_program(name: str) -> str | None:
    """The path of a program of PostgreSQL, which Debian does not put on the path."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or next((str(path) for path in installed), None)


@contextmanager
def running_postgres() -> Iterator[str | None]:
    """The URL of a server without a database name, or None where PostgreSQL is not installed."""
    initdb, pg_ctl = find_program("initdb"), find_program("pg_ctl")
    if initdb is None or pg_ctl is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if ROOT:
            shutil.chown(folder, USER)
        data = str(folder / "data")
        _run(initdb, "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        options = f"-c listen_addresses='' -k {folder} -c max_connections=60"
        _run(pg_ctl, "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            yield f"postgresql://{USER}@/{{database}}?host={folder}"
        finally:
            _run(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: str) -> None:
    # Postgres refuses to run as root.
    subprocess.run(command, check=True, capture_output=True, timeout=120, cwd="/", user=USER if ROOT else None)
