"""Runs as child processes: their events come through, and no child survives its command."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.cli import launching
from ml_platform.cli.app import run
from ml_platform.cli.launching import launch
from ml_platform.contracts.home import Home
from ml_platform.errors import InvalidInputError

SAY = "import json, sys\ndef say(event, **more): print(json.dumps({'event': event, **more}), flush=True)\n"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout; its launch.py is written by the test."""
    (tmp_path / "definitions.py").write_text("")
    (tmp_path / "launch.py").write_text("")
    monkeypatch.setenv("ML_PLATFORM_CHECKOUT", str(tmp_path))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    return tmp_path


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_events_come_through_and_everything_else_is_passed_over(checkout: Path) -> None:
    (checkout / "launch.py").write_text(
        f"{SAY}say('run_start')\nprint('noise')\nprint('[1]')\nprint('{{}}')\nsay('run_success')"
    )
    with launch(Home.from_environment(), ["run"]) as launched:
        assert [event.kind for event in launched.events()] == ["run_start", "run_success"]
        assert launched.exit_code == 0


def test_the_child_works_on_the_same_home_with_absolute_paths(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "more").mkdir()
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("ML_PLATFORM_HOME", "relative-home")
    monkeypatch.setenv("ML_PLATFORM_PRODUCTS", "more")
    monkeypatch.setenv("ML_PLATFORM_CHECKOUT", ".")
    (checkout / "launch.py").write_text(
        f"{SAY}import os\nsay('log', metadata={{name: os.environ[name] for name in "
        "('ML_PLATFORM_HOME', 'DAGSTER_HOME', 'ML_PLATFORM_PRODUCTS', 'ML_PLATFORM_CHECKOUT')})"
    )
    with launch(Home.from_environment(), []) as launched:
        (event,) = launched.events()
    assert event.metadata == {
        "ML_PLATFORM_CHECKOUT": str(checkout),
        "ML_PLATFORM_HOME": str(checkout / "relative-home"),
        "DAGSTER_HOME": str(checkout / "relative-home" / "dagster"),
        "ML_PLATFORM_PRODUCTS": str(checkout / "more"),
    }


def test_the_last_words_of_a_child_that_died_are_kept(checkout: Path) -> None:
    (checkout / "launch.py").write_text("raise RuntimeError('the disk caught fire')")
    with launch(Home.from_environment(), []) as launched:
        assert list(launched.events()) == []
        assert launched.exit_code == 1
        assert launched.last_words.endswith("RuntimeError: the disk caught fire")


STUBBORN = "import signal\nfor number in ({ignored}): signal.signal(number, signal.SIG_IGN)\n"
IGNORED = ["", "signal.SIGINT,", "signal.SIGINT, signal.SIGTERM"]


@pytest.mark.parametrize("ignored", IGNORED)
def test_a_child_does_not_outlive_an_error_of_its_command(
    checkout: Path, ignored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "SECONDS_TO_END", 0.3)
    (checkout / "launch.py").write_text(
        f"{STUBBORN.format(ignored=ignored)}{SAY}import time\nsay('run_start')\ntime.sleep(600)"
    )
    with contextlib.suppress(BrokenPipeError), launch(Home.from_environment(), []) as launched:
        next(launched.events())
        raise BrokenPipeError
    assert launched.process.returncode is not None
    assert not is_alive(launched.process.pid)


@pytest.mark.parametrize("ignored", IGNORED)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_signal_ends_the_command_ends_its_child(checkout: Path, number: signal.Signals, ignored: str) -> None:
    """The command as a process of its own: it must not leave a run behind, however stubborn the run is."""
    (checkout / "launch.py").write_text(
        f"{STUBBORN.format(ignored=ignored)}{SAY}import os, time\nsay('run_start', message=str(os.getpid()))\n"
        "time.sleep(600)"
    )
    program = (
        "from ml_platform.cli import launching\nfrom ml_platform.contracts.home import Home\n"
        "launching.SECONDS_TO_END = 0.3\n"
        "with launching.launch(Home.from_environment(), []) as launched:\n"
        "    for event in launched.events(): print(event.message, flush=True)\n"
    )
    arguments = [sys.executable, "-c", program]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        pid = int(command.stdout.readline())
        command.send_signal(number)
        _, errors = command.communicate(timeout=60)
    assert command.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not is_alive(pid)


def test_outside_a_checkout_people_are_told_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["run", "anything", "--as-of", "2013-03-31"]) == 1
    told = capsys.readouterr().err
    assert f"the working directory {tmp_path} has no definitions.py and no launch.py" in told
    assert "name it in ML_PLATFORM_CHECKOUT" in told
    monkeypatch.setenv("ML_PLATFORM_CHECKOUT", "/nowhere")
    with pytest.raises(InvalidInputError, match=r"ML_PLATFORM_CHECKOUT names /nowhere, which has no definitions\.py"):
        launch(Home.from_environment(), []).__enter__()
