"""The one view of a demonstration in a terminal; elsewhere, each line of the story as it is told."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ml_platform.cli.demonstration.board import DETAIL, Board, Note
from ml_platform.cli.output import console, percent
from ml_platform.evaluation.drawing import shortened

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from ml_platform.contracts.monitoring import ArmReading, MetricReading

LOOKS_A_SECOND = 4
SECONDS_BETWEEN_LINES = 20.0
LONGEST_CAPTION = 300
FEWEST_NOTES = 3
LINES_AROUND = 16
"""Of the view that are neither a release, a metric nor the story."""
VERDICT_COLOURS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow", "ERROR": "red"}


class DemoView:
    """Shows a board as it changes; a context in which nobody else writes to the terminal."""

    def __init__(self, board: Board, *, as_json: bool) -> None:
        self._board = board
        self._console: Console = console(stderr=as_json)
        self._live: Any = None
        self._told = time.monotonic()
        board.told = self.tell

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(self, console=self._console, refresh_per_second=LOOKS_A_SECOND)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __rich__(self) -> "RenderableType":
        return render(self._board, *self._console.size)

    def tell(self, note: Note) -> None:
        """A line of the story, where there is no terminal to redraw."""
        if self._live is None and (note.event is None or note.event.kind not in DETAIL):
            self._console.print(sentence(self._board, note), markup=False, soft_wrap=True)

    def show(self) -> None:
        """Says now and then how far it is, where there is no terminal to redraw."""
        now = time.monotonic()
        if self._live is None and now - self._told > SECONDS_BETWEEN_LINES:
            self._told = now
            self._console.print(
                f"{clock(self._board.seconds)}  … {standing(self._board)}", markup=False, soft_wrap=True
            )


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"


def sentence(board: Board, note: Note) -> str:
    """One line of the story: our time, the product's, and what happened."""
    day = f"{note.product_time:%d %b}" if note.product_time else "      "
    return f"{clock(note.seconds)}  {day}  {'' if note.event else '▸ '}{board.named(note.text)}"


def standing(board: Board) -> str:
    """How far it is, in a line."""
    day = f"{board.product_time:%a %d %b %Y %H:%M}" if board.product_time else "before the first day"
    waits = ", ".join(board.look.decision.waits_for[:2]) if board.look else ""
    return " · ".join(part for part in (day, f"{board.answered:,} answered", board.doing, waits) if part)


def render(board: Board, width: int = 160, height: int = 50) -> "RenderableType":
    """The whole view; of the story as many lines as there is room for, the newest at the end."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    day = f"{board.product_time:%A %d %B %Y, %H:%M} UTC" if board.product_time else "before the first day"
    head = Text.assemble((day, "bold"), f"   {board.act}   ", (board.doing, "dim"))
    running = ", ".join(name if state == "running" else f"{name} {state}" for name, state in board.processes.items())
    parts: list[RenderableType] = [head, slots(board)]
    if (found := readings(board)) is not None:
        parts.append(found)
    rows = len(board.names) + (len(board.look.decision.readings) if board.look else 0)
    parts.append(notes(board, max(FEWEST_NOTES, height - rows - LINES_AROUND), width - 4))
    title = f"{board.product} · planted: {board.fault} · {clock(board.seconds)}"
    return Panel(Group(*parts), title=title, title_align="left", subtitle=running, subtitle_align="left")


def slots(board: Board) -> "Table":
    """What serves, to how many users, and how many answers each release gave."""
    table = _table("release", "slot", "users", "answered", "blocked", "fallback")
    state = board.state
    held = {release_id: str(slot) for slot, release_id in state.slots.items()} if state else {}
    for release_id, name in board.names.items():
        slot = held.get(release_id, str(state.releases.get(release_id, "–")) if state else "–")
        share = {"production": 1.0 - (state.exposure if state else 0.0), "canary": state.exposure if state else 0.0}
        users = percent(round(share[slot], 3)) if slot in share else "–"
        given = [_count(board, release_id, status) for status in ("answered", "blocked", "fallback")]
        table.add_row(f"{name}  {release_id[:12]}", slot, users, *given)
    lost = f", {sum(board.failed.values())} without an answer" if board.failed else ""
    table.caption = f"asked {board.asked:,}{lost} · outcomes told {board.outcomes:,}"
    if state and state.frozen:
        table.caption += f" · FROZEN: {state.frozen}"
    return table


def readings(board: Board) -> "Table | None":
    """Each metric of the newest look with its bounds, and what the controller waits for."""
    look = board.look
    if look is None or not look.decision.readings:
        return None
    table = _table("metric", "production", "canary", "effect, bounds at every look", "limit", "harm", "verdict")
    for one in look.decision.readings:
        verdict = str(one.verdict)
        harm = "" if one.e_value is None else f"{one.e_value:.3g} of {one.e_threshold:.3g}"
        table.add_row(
            one.metric,
            arm(one.production),
            arm(one.canary),
            effect(one),
            f"{one.limit:.3g}",
            harm,
            f"[{VERDICT_COLOURS.get(verdict, '')}]{verdict}[/]" if verdict in VERDICT_COLOURS else verdict,
        )
    waits = "; ".join(look.decision.waits_for)
    said = f"{look.decision.action}: {look.decision.reason}" + (f" · waits for {waits}" if waits else "")
    table.caption = shortened(board.named(said), LONGEST_CAPTION)
    return table


def arm(reading: "ArmReading | None") -> str:
    """An arm's estimate and its users."""
    if reading is None or reading.value is None:
        return "–"
    return f"{reading.value:.3g} (n {reading.users})"


def effect(one: "MetricReading") -> str:
    """The effect with its bounds: a difference, or for a quantile a ratio."""
    if one.effect is None:
        return "–"
    ratio = one.kind == "quantile"

    def told(value: float | None) -> str:
        return "–" if value is None else f"{value:.3g}" if ratio else f"{value:+.3g}"

    return f"{'×' if ratio else ''}{told(one.effect)}  [{told(one.effect_lower)}, {told(one.effect_upper)}]"


def notes(board: Board, lines: int, width: int) -> "RenderableType":
    """The newest lines of the story, each in one line."""
    from rich.text import Text

    told = [note for note in board.notes if note.event is None or note.event.kind not in DETAIL]
    said = (shortened(" ".join(sentence(board, note).split("\n")), width) for note in told[-lines:])
    return Text("\n".join(said), no_wrap=True)


def _count(board: Board, release_id: str, status: str) -> str:
    found = sum(n for (release, _, what), n in board.answers.items() if release == release_id and what == status)
    return f"{found:,}" if found else "–"


def _table(*headers: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption_justify="left", caption_style="italic", expand=True)
    for place, header in enumerate(headers):
        table.add_column(header, justify="left" if place < 2 else "right", overflow="fold")
    return table
