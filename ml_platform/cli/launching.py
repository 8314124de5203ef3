"""Runs of the chain as a child process: its events come in, and whatever ends us ends it cleanly."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO

from ml_platform.cli.chain_events import ChainEvent, parse_event
from ml_platform.cli.environment import child_environment, find_checkout
from ml_platform.contracts.home import Home

SECONDS_TO_END = 30.0
LINES_OF_LAST_WORDS = 15
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDING = b"\nEnding the run; once more ends it harder.\n"
LADDER = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
"""What the child gets, one after the other, until it ends."""


@dataclass
class Launched:
    """A running child: iterate its events, then ask for `exit_code`."""

    process: subprocess.Popen[str]
    errors: IO[str]
    steps_taken: int = 0

    def events(self) -> Iterator[ChainEvent]:
        """Every event as it comes, until the child ends; KeyboardInterrupt when it ended because we were asked to."""
        if self.process.stdout is not None:
            for line in self.process.stdout:
                event = parse_event(line)
                if event is not None:
                    yield event
        self.process.wait()
        if self.steps_taken:
            raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        """0 when every run succeeded; negative for a signal."""
        return self.process.wait()

    @property
    def last_words(self) -> str:
        """The end of what the child wrote on stderr: Dagster's own log."""
        self.errors.seek(0)
        return "".join(self.errors.readlines()[-LINES_OF_LAST_WORDS:]).strip()

    def end_harder(self) -> None:
        """Sends the next signal of the ladder; does nothing to a child that has ended."""
        self.process.send_signal(LADDER[min(self.steps_taken, len(LADDER) - 1)])
        self.steps_taken += 1


@contextmanager
def launch(home: Home, arguments: Sequence[str]) -> Iterator[Launched]:
    """`launch.py ARGUMENTS` against the Dagster instance below the home; its stderr is kept aside.

    The child has a session of its own, so that Ctrl-C reaches it once, through us. It gets SIGINT and 30 s to end its
    runs, then SIGTERM, then SIGKILL; impatient people press again. Raises InvalidInputError outside a checkout.
    """
    checkout = find_checkout()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, str(checkout / "launch.py"), *arguments],
            cwd=checkout,
            env=child_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        launched = Launched(process, errors)
        with process, _signals_passed_on(launched):
            try:
                yield launched
            finally:
                _end(launched)


@contextmanager
def _signals_passed_on(launched: Launched) -> Iterator[None]:
    """Passes Ctrl-C, SIGTERM and SIGHUP on to the child and goes on reading until it ends.

    Nothing is raised from a handler: Python loses exceptions that strike inside a finalizer.
    """

    def pass_on(_number: int, _frame: FrameType | None) -> None:
        if not launched.steps_taken:
            os.write(2, ENDING)
        launched.end_harder()
        signal.signal(signal.SIGALRM, pass_on)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_TO_END)

    before = {number: signal.signal(number, pass_on) for number in ENDING_SIGNALS}
    alarm = signal.getsignal(signal.SIGALRM)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGALRM) is pass_on:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(launched: Launched) -> None:
    """Ends a child that still runs because an error of ours ended the reading of its events."""
    while launched.process.poll() is None:
        launched.end_harder()
        try:
            launched.process.communicate(timeout=SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            continue
