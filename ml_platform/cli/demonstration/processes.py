"""The processes of a demonstration: started one by one on free ports, watched, and ended at the end of it."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ml_platform.cli.addresses import LOOPBACK
from ml_platform.errors import OperationError

SECONDS_TO_END = 20.0
LINES_OF_LAST_WORDS = 12


def free_port() -> int:
    """A port of loopback on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@dataclass
class Processes:
    """Named children, each with its log; a context that ends them all, in the reverse order of their start."""

    checkout: Path
    environment: Mapping[str, str]
    logs: Path
    _children: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self._children)):
            self.end(name)

    def start(self, name: str, command: Sequence[str]) -> None:
        """Starts a child; what it says goes to its log. Ctrl-C reaches it through us alone."""
        log = (self.logs / f"{name}.log").open("ab")
        process = subprocess.Popen(
            list(command),
            cwd=self.checkout,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._children[name] = process, log

    def run(self, name: str, command: Sequence[str]) -> None:
        """Runs a child to its end. Raises OperationError with its last words unless it succeeds."""
        self.start(name, command)
        process, _ = self._children[name]
        code = process.wait()
        self.end(name)
        if code:
            raise OperationError(f"{name} ended with {code}:\n{self.last_words(name)}")

    def end(self, name: str) -> None:
        """Asks a child and all that it started to end, and makes them: Dagster's runs would outlive its daemon."""
        process, log = self._children.pop(name)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            if _gone(process, SECONDS_TO_END):
                break
        log.close()

    def states(self) -> dict[str, str]:
        """Each child: `running`, or how it ended."""
        codes = {name: process.poll() for name, (process, _) in self._children.items()}
        return {name: "running" if code is None else f"ended with {code}" for name, code in codes.items()}

    def require_alive(self) -> None:
        """Raises OperationError with the last words of a child that has ended."""
        for name, state in self.states().items():
            if state != "running":
                raise OperationError(f"{name} {state}. {self.logs / f'{name}.log'} ends so:\n{self.last_words(name)}")

    def last_words(self, name: str) -> str:
        """The end of a child's log."""
        path = self.logs / f"{name}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        return "\n".join(lines[-LINES_OF_LAST_WORDS:])

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float, every: float = 0.25) -> None:
        """Returns once it is so. Raises OperationError when it takes too long, or a child ends meanwhile."""
        end = time.monotonic() + seconds
        while not holds():
            self.require_alive()
            if time.monotonic() > end:
                raise OperationError(f"{what}: not within {seconds:g} s. The logs are in {self.logs}.")
            time.sleep(every)


def _gone(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Whether nobody is left, within so many seconds, of the session that a child began."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def answers(url: str) -> bool:
    """Whether a server answers there, with whatever it says to a stranger."""
    try:
        with urllib.request.urlopen(url, timeout=2.0):  # noqa: S310 - an address of ours, on loopback
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
