"""A real PostgreSQL of the distribution, in a temporary folder, reached through a Unix socket."""

import getpass
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

ROOT = os.geteuid() == 0 if hasattr(os, "geteuid") else False
USER = "postgres" if ROOT else getpass.getuser()


def find_program(name: str) -> str | None:
    """The path of a program of PostgreSQL, which Debian does not put on the path."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or next((str(path) for path in installed), None)


@contextmanager
def running_postgres(*, fsync: bool = False) -> Iterator[str | None]:
    """The URL of a server, `{database}` where a name belongs, or None where PostgreSQL is not installed.

    What is tested is what clients do to it; that the server itself survives a power cut is not ours to test.
    """
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
        safe = "on" if fsync else "off"
        options = f"-c listen_addresses='' -k {folder} -c max_connections=60 -c fsync={safe}"
        _run(pg_ctl, "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            yield f"postgresql://{USER}@/{{database}}?host={folder}"
        finally:
            _run(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_database(server: str | None) -> str:
    """The URL of a new and empty database; skips the test where PostgreSQL is not installed."""
    if server is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    name = f"ledger_{uuid.uuid4().hex}"
    engine = create_engine(server.format(database="postgres").replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.format(database=name)


def _run(*command: str) -> None:
    # Postgres refuses to run as root.
    subprocess.run(command, check=True, capture_output=True, timeout=120, cwd="/", user=USER if ROOT else None)
