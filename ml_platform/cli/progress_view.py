"""Progress for people: bars on a terminal, plain lines elsewhere."""

import math
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from ml_platform.cli.chain_events import ChainEvent
from ml_platform.cli.output import console
from ml_platform.contracts.progress import ROUNDING, Progress

if TYPE_CHECKING:
    from rich.console import Console

WARNING = 30
CONSEQUENCE = "Dependencies for step"
"""So Dagster begins to say that a step cannot run because an earlier one failed, which was told already."""

STEP_OF_SHARE = 0.1
SECONDS_BETWEEN_LINES = 15.0


class View(Protocol):
    """Shows events as they come; a context in which nobody else writes to the terminal."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: ChainEvent) -> None:
        """Shows one event."""
        ...


def view(*, as_json: bool) -> View:
    """Bars where a person sits at a terminal, otherwise lines; on stderr when stdout is for JSON."""
    found = console(stderr=as_json)
    return BarView(found) if found.is_terminal else LineView(found)


class LineView:
    """A line when a step starts and ends, and for each stage every 10 % or 15 s."""

    def __init__(self, target: "Console") -> None:
        self.console = target
        self.told: dict[str, tuple[float, float]] = {}
        self.steps = Steps()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        return None

    def show(self, event: ChainEvent) -> None:
        """See View."""
        progress = event.progress
        if progress is not None:
            if self._worth_telling(progress):
                self._say(f"  {progress.sentence()}")
            return
        sentence = self.steps.sentence(event)
        if sentence:
            self._say(sentence)

    def _worth_telling(self, progress: Progress) -> bool:
        now = time.monotonic()
        told = self.told.get(progress.stage)
        due = (
            told is None
            or progress.share >= 1.0 > told[0]
            or progress.share >= told[0] + STEP_OF_SHARE
            or now >= told[1] + SECONDS_BETWEEN_LINES
        )
        if due:
            self.told[progress.stage] = (progress.share, now)
        return due

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)


class BarView:
    """A line for each step that is done; below, the running step and a bar for each of its stages."""

    def __init__(self, target: "Console") -> None:
        from rich.progress import BarColumn, Progress, TaskID, TextColumn

        self.console = target
        self.steps = Steps()
        self.stages: dict[str, TaskID] = {}
        self.bars = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[percent]:>5}"),
            TextColumn("{task.fields[detail]}", style="dim"),
            TextColumn("{task.fields[left]}", style="cyan"),
            console=target,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._bar("starting Dagster", total=None)
        self.bars.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.bars.stop()

    def show(self, event: ChainEvent) -> None:
        """See View."""
        progress = event.progress
        if progress is not None:
            self._move(progress)
            return
        if event.kind == "step_start":
            self._clear()
            self._bar(f"checks of {event.asset}" if event.asset in self.steps.made else str(event.asset), total=None)
        elif event.kind in ("step_success", "step_failure", "run_success", "run_failure"):
            self._clear()
        sentence = self.steps.sentence(event)
        if sentence and event.kind != "step_start":
            self.console.print(sentence, markup=False)

    def _move(self, progress: Progress) -> None:
        left = ""
        if progress.seconds_left is not None:
            minutes, seconds = divmod(round(progress.seconds_left), 60)
            left = f"{minutes}:{seconds:02d} left"
        if progress.stage not in self.stages:
            self._bar(progress.stage, total=1.0)
        task, percent = self.stages[progress.stage], f"{math.floor(progress.share * 100 + ROUNDING)} %"
        self.bars.update(task, total=1.0, completed=progress.share, detail=progress.detail, left=left, percent=percent)

    def _bar(self, name: str, total: float | None) -> None:
        self.stages[name] = self.bars.add_task(name, total=total, detail="", left="", percent="")

    def _clear(self) -> None:
        for task in self.stages.values():
            self.bars.remove_task(task)
        self.stages.clear()


class Steps:
    """The sentences that tell of steps, checks and days, with how long each step took.

    A check runs as a further step of its asset, after the asset was made: its own sentence tells enough.
    """

    def __init__(self) -> None:
        self.started: dict[str | None, float] = {}
        self.reused: set[str | None] = set()
        self.made: set[str | None] = set()

    def sentence(self, event: ChainEvent) -> str:
        """What to tell of an event, or nothing."""
        tell: Any = getattr(self, f"_{event.kind}", None)
        return str(tell(event)) if tell else ""

    def _step_start(self, event: ChainEvent) -> str:
        self.started[event.asset] = time.monotonic()
        return "" if event.asset in self.made else f"… {event.asset}"

    def _step_success(self, event: ChainEvent) -> str:
        if event.asset in self.made:
            return ""
        self.made.add(event.asset)
        return f"✓ {event.asset} {self._took(event)}"

    def _step_failure(self, event: ChainEvent) -> str:
        return f"✗ {event.asset} {self._took(event)}"

    def _materialization(self, event: ChainEvent) -> str:
        if event.metadata.get("reused") is True:
            self.reused.add(event.asset)
        return ""

    def _check(self, event: ChainEvent) -> str:
        return f"{'✓' if event.passed else '✗'} check {event.check}: {event.message}"

    def _day(self, event: ChainEvent) -> str:
        self.made.clear()
        return f"── {event.message}"

    def _skipped(self, event: ChainEvent) -> str:
        return f"   {event.message}"

    def _log(self, event: ChainEvent) -> str:
        level = event.metadata.get("level", 0)
        if not isinstance(level, int) or level < WARNING or event.message.startswith(CONSEQUENCE):
            return ""
        return f"  {event.message}"

    def _took(self, event: ChainEvent) -> str:
        seconds = time.monotonic() - self.started.pop(event.asset, time.monotonic())
        reused = ", reused" if event.asset in self.reused else ""
        return f"({seconds:.1f} s{reused})"
