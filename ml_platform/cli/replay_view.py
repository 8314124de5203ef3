"""How a replay is shown: a table that changes on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ml_platform.cli.output import console, short

if TYPE_CHECKING:
    from rich.table import Table

    from ml_platform.serving.replay.tally import Arm, Tally

SECONDS_BETWEEN_LINES = 10.0
LOOKS_A_SECOND = 4
HEADERS = ("release", "cohort", "answered", "blocked", "fallback", "p50 s", "p95 s", "tokens in/out", "USD")


class ReplayView:
    """Shows a tally as it grows; a context in which nobody else writes to the terminal."""

    def __init__(self, *, as_json: bool) -> None:
        self._console = console(stderr=as_json)
        self._live: Any = None
        self._told = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(console=self._console, refresh_per_second=LOOKS_A_SECOND, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    def show(self, tally: "Tally") -> None:
        """The tally, as often as somebody can read it."""
        now = time.monotonic()
        if now - self._told < (1 / LOOKS_A_SECOND if self._live is not None else SECONDS_BETWEEN_LINES):
            return
        self._told = now
        if self._live is not None:
            self._live.update(tally_table(tally))
        else:
            self.say(sentence(tally))


def sentence(tally: "Tally") -> str:
    """How far a replay is, in a line."""
    p95 = tally.latency_ms(0.95)
    took = "" if p95 is None else f", p95 {p95 / 1000:.2f} s"
    lost = tally.refused.total() + tally.failed.total()
    return (
        f"{tally.event_time:%Y-%m-%d %H:%M}  asked {tally.asked:,} of {tally.questions:,}: "
        f"answered {tally.count('answered'):,}, blocked {tally.count('blocked'):,}, "
        f"fallback {tally.count('fallback'):,}"
        f"{f', without an answer {lost:,}' if lost else ''}{took}; outcomes {tally.outcomes_sent:,}"
    )


def tally_table(tally: "Tally") -> "Table":
    """A row for each release and cohort, and the whole."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"{tally.product} · {tally.event_time:%a %Y-%m-%d %H:%M} UTC · asked {tally.asked:,} of "
        f"{tally.questions:,} · outcomes {tally.outcomes_sent:,} of {tally.outcomes:,}",
        title_justify="left",
        title_style="bold",
        caption=_lost(tally),
        caption_justify="left",
        caption_style="red",
        box=box.SIMPLE_HEAD,
    )
    for header in HEADERS:
        table.add_column(header, justify="left" if header in ("release", "cohort") else "right")
    for (release, cohort), arm in sorted(tally.arms.items()):
        table.add_row(short(release), cohort, *_cells(arm, tally))
    if len(tally.arms) > 1:
        table.add_section()
        table.add_row("all", "", *_cells(_together(tally), tally))
    return table


def _cells(arm: "Arm", tally: "Tally") -> tuple[str, ...]:
    from ml_platform.serving.replay.tally import STATUSES, quantile

    took = (quantile(arm.latencies_ms, share) for share in (0.5, 0.95))
    return (
        *(f"{arm.statuses[status]:,}" for status in STATUSES),
        *("–" if ms is None else f"{ms / 1000:.2f}" for ms in took),
        f"{arm.input_tokens:,}/{arm.output_tokens:,}",
        f"{arm.cost_usd(tally.cost):.4f}",
    )


def _together(tally: "Tally") -> "Arm":
    from ml_platform.serving.replay.tally import Arm

    found = Arm()
    for arm in tally.arms.values():
        found.statuses.update(arm.statuses)
        found.latencies_ms.extend(arm.latencies_ms)
        found.input_tokens += arm.input_tokens
        found.output_tokens += arm.output_tokens
    return found


def _lost(tally: "Tally") -> str | None:
    told = [f"{count:,} {what}" for what, count in (tally.refused + tally.failed).most_common(4)]
    return f"without an answer: {', '.join(told)}" if told else None
