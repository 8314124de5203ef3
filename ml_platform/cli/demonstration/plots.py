"""The page's drawings: what served when, how sure the controller was of what, and how far the days had drifted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from ml_platform.cli.demonstration.board import Board
from ml_platform.contracts.events import EventKind
from ml_platform.contracts.policy import SlotName
from ml_platform.evaluation.drawing import CANDIDATE, INK, LINE, MUTED, REFERENCE, WARNING, Canvas

if TYPE_CHECKING:
    from ml_platform.contracts.drift import DriftReport
    from ml_platform.contracts.monitoring import Look, MetricReading

    Point = tuple[float, MetricReading]

WIDTH = 880.0
LEFT, RIGHT = 150.0, 20.0
COLOURS = {"A": CANDIDATE, "X": WARNING, "B": "#2f8f5b"}
ROW = 46.0
MOST_POINTS = 160


@dataclass(frozen=True)
class Served:
    """A release in a slot for some seconds of ours; `share` of the users."""

    release_id: str
    slot: SlotName
    begin: float
    end: float
    share: float


def served(board: Board) -> list[Served]:
    """What was in the slots when, read off the events in the order of the ledger."""
    found: list[Served] = []
    open_: dict[SlotName, tuple[str, float, float]] = {}

    def close(slot: SlotName, at: float) -> str:
        release_id, begin, share = open_.pop(slot, ("", at, 0.0))
        if release_id and at > begin:
            found.append(Served(release_id, slot, begin, at, share))
        return release_id

    for note in board.notes:
        if note.event is None or not note.event.kind.moves:
            continue
        kind, payload, at = note.event.kind, note.event.payload, note.seconds
        if kind in (EventKind.CANARY_OPENED, EventKind.CANARY_ADVANCED):
            close(SlotName.CANARY, at)
            open_[SlotName.CANARY] = payload["release_id"], at, payload["exposure"]
        elif kind in (EventKind.CANARY_ABORTED, EventKind.CANARY_REPLACED):
            close(SlotName.CANARY, at)
        elif kind is EventKind.RELEASE_PROMOTED:
            close(SlotName.CANARY, at)
            close(SlotName.PRODUCTION, at)
            open_[SlotName.PRODUCTION] = payload["release_id"], at, 1.0
        elif kind is EventKind.RELEASE_ROLLED_BACK:
            close(SlotName.PRODUCTION, at)
            open_[SlotName.PRODUCTION] = payload["to"], at, 1.0
    for slot in tuple(open_):
        close(slot, board.seconds)
    return found


def slots_plot(board: Board) -> Canvas:
    """Bars of what served, over our minutes, with the product's days below."""
    canvas = Canvas(WIDTH, 150, "What served when")
    end = max(board.seconds, 1.0)
    for place, slot in enumerate((SlotName.PRODUCTION, SlotName.CANARY)):
        top = 12 + place * ROW
        canvas.text(LEFT - 12, top + 20, str(slot), MUTED, anchor="end")
        canvas.line(LEFT, top + 30, WIDTH - RIGHT, top + 30, LINE)
        for one in served(board):
            if one.slot is not slot:
                continue
            name = board.names.get(one.release_id, "?")
            x, width = _x(one.begin, end), _x(one.end, end) - _x(one.begin, end)
            tip = f"{name} {one.release_id[:12]}: {one.share:.0%} of the users"
            canvas.box(x, top, max(width, 2.0), 28, COLOURS.get(name, REFERENCE), 0.4 + 0.6 * one.share, tip)
            if width > 26:
                words = name if one.share == 1.0 else f"{name} {one.share:.0%}"
                canvas.text(x + 5, top + 19, words, "#ffffff", size=12, bold=True)
    _axis(canvas, end, 112)
    days = [(note.seconds, note.product_time) for note in board.notes if note.product_time is not None]
    last = -100.0
    for at, day in days:
        if _x(at, end) - last > 60 and day is not None:
            last = _x(at, end)
            canvas.text(last, 144, f"{day:%d %b}", MUTED, size=11)
    canvas.text(LEFT - 12, 144, "day of 2013", MUTED, size=11, anchor="end")
    canvas.text(LEFT - 12, 126, "minutes of ours", MUTED, size=11, anchor="end")
    return canvas


def metrics_of(looks: Sequence["Look"], release_id: str) -> list[str]:
    """The metrics that were read of a canary, in the order of its policy."""
    about = (look.decision for look in looks if look.decision.release_id == release_id)
    names = (one.metric for decision in about for one in decision.readings if one.canary is not None)
    return list(dict.fromkeys(names))


def points_of(board: Board, release_id: str, metric: str) -> "list[Point]":
    """What was read of a metric of a canary at each look, by seconds since the beginning."""
    first = min((note.at for note in board.notes), default=None)
    return [
        ((look.looked_at - first).total_seconds(), one)
        for look in board.looks
        if look.decision.release_id == release_id and first is not None
        for one in look.decision.readings
        if one.metric == metric and one.effect is not None and one.canary is not None
    ]


def thinned(points: "Sequence[Point]") -> "list[Point]":
    """At most MOST_POINTS of them, evenly, the first and the last among them."""
    last, count = len(points) - 1, min(len(points), MOST_POINTS)
    return [points[round(place * last / max(count - 1, 1))] for place in range(count)]


def metric_plot(board: Board, release_id: str, metric: str) -> Canvas | None:
    """A metric's effect with the bounds that hold at every look, against its limit; None without two looks."""
    points = points_of(board, release_id, metric)
    if len(points) < 2:
        return None
    canvas, last, looks = Canvas(430, 170, f"{metric} of release {release_id[:12]}"), points[-1][1], len(points)
    points = thinned(points)
    frame = _Frame.around(points, [last.limit, 0.0])
    canvas.text(4, 14, metric, INK, bold=True)
    for value in (frame.low, frame.high):
        canvas.text(frame.left - 4, frame.y(value) + 4, f"{value:.3g}", MUTED, size=10.5, anchor="end")
    for value, colour, dash in ((last.limit, WARNING, "4 3"), (0.0, LINE, "")):
        canvas.line(frame.left, frame.y(value), frame.right, frame.y(value), colour, 1.4, dash)
    canvas.text(frame.right, frame.y(last.limit) - 4, "limit", WARNING, 10.5, "end", halo=True)
    for bound, colour, width in (
        ("effect_lower", REFERENCE, 1.2),
        ("effect_upper", REFERENCE, 1.2),
        ("effect", COLOURS.get(board.names.get(release_id, "?"), CANDIDATE), 2.2),
    ):
        path = [(frame.x(at), frame.y(value)) for at, one in points if (value := getattr(one, bound)) is not None]
        for (x1, y1), (x2, y2) in pairwise(path):
            canvas.line(x1, y1, x2, y2, colour, width)
    took = (frame.end - frame.begin) / 60
    canvas.text(frame.right, 160, f"{last.verdict} · {looks} looks in {took:.1f} min", MUTED, 11, "end")
    return canvas


@dataclass(frozen=True)
class _Frame:
    """Where values of a small plot lie on its canvas."""

    begin: float
    end: float
    low: float
    high: float
    left: float = 46.0
    right: float = 418.0

    @classmethod
    def around(cls, points: "Sequence[Point]", values: Sequence[float]) -> "_Frame":
        """The frame that holds all points with their bounds, and these values."""
        bounds = [bound for _, one in points for bound in (one.effect, one.effect_lower, one.effect_upper)]
        found = [*values, *(bound for bound in bounds if bound is not None)]
        return cls(points[0][0], points[-1][0], min(found), max(found))

    def x(self, at: float) -> float:
        """Across."""
        return self.left + (at - self.begin) / max(self.end - self.begin, 1e-9) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Down."""
        return 132 - (value - self.low) / ((self.high - self.low) or 1.0) * 104


def drift_plot(reports: Sequence["DriftReport"]) -> Canvas:
    """How far each part had moved at each look, in units of the policy's thresholds; drift begins at 1."""
    rows = [(report, part) for report in reports for part in report.parts]
    canvas = Canvas(WIDTH, 30.0 + 22 * len(rows), "How far the days had moved")
    most = max([1.0, *(part.effect for _, part in rows)])
    for number, (report, part) in enumerate(rows):
        top = 8 + 22.0 * number
        canvas.text(LEFT - 12, top + 13, f"{report.as_of} {part.part}", MUTED, 11.5, "end")
        width = (WIDTH - LEFT - RIGHT - 200) * part.effect / most
        colour = WARNING if part.verdict == "FAIL" else REFERENCE
        canvas.box(LEFT, top, max(width, 1.0), 15, colour, tip=part.reason)
        canvas.text(LEFT + width + 6, top + 12, f"{part.effect:.2g} · {part.verdict}", INK, 11.5)
    edge = LEFT + (WIDTH - LEFT - RIGHT - 200) / most
    canvas.line(edge, 2, edge, canvas.height - 16, WARNING, 1.4, dash="4 3")
    canvas.text(edge, canvas.height - 4, "drift begins at 1", WARNING, 11, "middle")
    return canvas


def _x(at: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * at / end


def _axis(canvas: Canvas, end: float, y: float) -> None:
    step = next(step for step in (1, 2, 5, 10, 20, 60, 120, 600, 6000) if end / 60 / step <= 16)
    for minute in range(0, int(end / 60) + 1, step):
        canvas.line(_x(60.0 * minute, end), y - 6, _x(60.0 * minute, end), y - 2, MUTED)
        canvas.text(_x(60.0 * minute, end), y + 14, str(minute), MUTED, 11, "middle")


def moment(at: datetime | None) -> str:
    """A moment of the product's time, for people."""
    return f"{at:%d %b %H:%M}" if at else ""
