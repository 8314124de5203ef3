"""Confidence sequences over time, drawn on the server: the effect, its bounds at every look, and the limit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, pairwise

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitoring import Look, MetricReading
from ml_platform.evaluation.drawing import CANDIDATE, LINE, MUTED, WARNING, Canvas
from ml_platform.serving.gateway.console.words import compares, edge_words, measured_canary, metric_title, shown_numbers

WIDTH, HEIGHT = 344.0, 140.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 338.0, 14.0, 114.0
APART = 12.0
"""How far labels of the left edge must lie apart to be read, in pixels."""
MOST_POINTS = 120
FARTHEST = 1e100
COLOURS = {
    Verdict.FAIL: "#b3261e",
    Verdict.ERROR: "#b3261e",
    Verdict.INCONCLUSIVE: CANDIDATE,
    Verdict.PASS: "#2f7d4f",
}
"""Of curves and chips; the word itself always stands there too."""


@dataclass(frozen=True)
class Point:
    """One look at one metric, None for what could not be said yet: `at` in our time, `told_at` in the product's.

    Curves run over ours: the product's may stand still for hours, or jump by them.
    """

    at: datetime
    told_at: datetime
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Curve:
    """One metric over a rollout; `steps` are the moments at which the canary got another share of users."""

    reading: MetricReading
    limit: float
    points: tuple[Point, ...]
    steps: tuple[tuple[datetime, float], ...]


@dataclass(frozen=True)
class Watch:
    """Looks at one release, oldest first: a canary beside production, or production alone."""

    looks: tuple[Look, ...]

    @property
    def canary(self) -> str | None:
        """The canary that was measured, None for production alone."""
        return _subject(self.looks[-1])[0]

    @property
    def production(self) -> str | None:
        """What was in production when it began."""
        return self.looks[0].production

    def curves(self) -> list[Curve]:
        """How each reading of the last look came about."""
        points: dict[tuple[str, bool], list[Point]] = {}
        for look in _thinned(self.looks):
            for one in look.decision.readings:
                numbers = (_drawable(number) for number in shown_numbers(one))
                points.setdefault((one.metric, compares(one)), []).append(
                    Point(look.looked_at, look.decision.at, *numbers)
                )
        steps = tuple(
            (after.looked_at, after.exposure)
            for before, after in pairwise(self.looks)
            if after.exposure != before.exposure and after.canary is not None
        )
        return [
            Curve(one, _drawable(one.limit) or 0.0, tuple(points[one.metric, compares(one)]), steps)
            for one in self.looks[-1].decision.readings
        ]


def watches(looks: Iterable[Look]) -> list[Watch]:
    """What is watched now; and, where that is production alone, the last rollout before, which is why it is.

    `looks` are a product's, oldest first; those that measured nothing count for nothing.
    """
    measured = [look for look in looks if look.decision.readings]
    found: list[Watch] = []
    while measured and len(found) < 2:
        _, run = next(groupby(reversed(measured), key=_subject))
        same = Watch(tuple(run)[::-1])
        measured = measured[: -len(same.looks)]
        if not found or same.canary is not None:
            found.append(same)
        if found[0].canary is not None:
            break
    return found


def _subject(look: Look) -> tuple[str | None, str | None]:
    """Whom it measured: a canary, or production alone."""
    canary = measured_canary(look)
    return canary, None if canary else look.production


def _drawable(number: float | None) -> float | None:
    """What is beyond all measure, within what can be added and divided."""
    return None if number is None else max(-FARTHEST, min(FARTHEST, number))


def draw(curve: Curve) -> Canvas:
    """The curve as a small plot that says what it is in its title."""
    reading = curve.reading
    canvas = Canvas(WIDTH, HEIGHT, f"{metric_title(reading)} over time, with its bounds and its limit")
    points = [point for point in curve.points if point.value is not None]
    if not points:
        canvas.text(WIDTH / 2, HEIGHT / 2, "nothing to draw yet", MUTED, 12, "middle")
        return canvas
    neutral = None if not compares(reading) else 1.0 if reading.kind == "quantile" else 0.0
    scale = _Scale.over(points, curve.limit, neutral)
    for at, exposure in curve.steps:
        if points[0].at < at <= points[-1].at:
            canvas.line(scale.x(at), TOP, scale.x(at), BOTTOM, LINE, 1.2)
            beside, anchor = (3, "start") if scale.x(at) < (LEFT + RIGHT) / 2 else (-3, "end")
            canvas.text(scale.x(at) + beside, TOP - 3, f"{exposure * 100:.3g} %", MUTED, 10, anchor)
    if neutral is not None:
        canvas.line(LEFT, scale.y(neutral), RIGHT, scale.y(neutral), MUTED, 0.8)
    _band(canvas, points, scale, COLOURS[reading.verdict])
    _trace(canvas, points, scale, COLOURS[reading.verdict])
    canvas.line(LEFT, scale.y(curve.limit), RIGHT, scale.y(curve.limit), WARNING, 1.3, "5 4")
    _edge(canvas, scale, curve, 0.0 if neutral is None else neutral)
    canvas.line(LEFT, BOTTOM + 4, RIGHT, BOTTOM + 4, LINE)
    for at, place, anchor in ((points[0].told_at, LEFT, "start"), (points[-1].told_at, RIGHT, "end")):
        canvas.text(place, HEIGHT - 5, f"{at:%-d %b %H:%M}", MUTED, 10.5, anchor)
    return canvas


def _edge(canvas: Canvas, scale: "_Scale", curve: Curve, neutral: float) -> None:
    """Names the limit, and what would be no effect, at the left edge."""
    reading = curve.reading
    limit, none = scale.y(curve.limit), scale.y(neutral)
    canvas.text(LEFT - 6, limit + 4, edge_words(curve.limit, reading), WARNING, 10.5, "end", bold=True)
    if abs(limit - none) >= APART:
        canvas.text(LEFT - 6, none + 4, edge_words(neutral, reading), MUTED, 10.5, "end")


def _band(canvas: Canvas, points: Sequence[Point], scale: "_Scale", colour: str) -> None:
    """What lies between the bounds; a bound that is not there is the edge."""
    if len(points) < 2:
        return
    upper = [(scale.x(one.at), TOP if one.high is None else scale.y(one.high)) for one in points]
    lower = [(scale.x(one.at), BOTTOM if one.low is None else scale.y(one.low)) for one in points]
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *reversed(lower)])
    canvas.shapes.append(f'<polygon points="{corners}" fill="{colour}" fill-opacity=".13"/>')


def _trace(canvas: Canvas, points: Sequence[Point], scale: "_Scale", colour: str) -> None:
    """The value, and where it stands now, with its bounds."""
    corners = " ".join(f"{scale.x(one.at):.1f},{scale.y(one.value or 0.0):.1f}" for one in points)
    canvas.shapes.append(
        f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"/>'
    )
    now = points[-1]
    x, low, high = (
        scale.x(now.at),
        scale.y(scale.low if now.low is None else now.low),
        scale.y(scale.high if now.high is None else now.high),
    )
    canvas.line(x, low, x, high, colour, 2)
    canvas.dot(x, scale.y(now.value or 0.0), 3.6, colour)


def _thinned(looks: tuple[Look, ...]) -> tuple[Look, ...]:
    """At most MOST_POINTS of them, evenly, the last one always."""
    every = -(-len(looks) // MOST_POINTS) or 1
    return looks[::-1][::every][::-1]


@dataclass(frozen=True)
class _Scale:
    """From times and numbers to pixels. Bounds that are far out are cut at the edge: the newest ones count."""

    start: datetime
    end: datetime
    low: float
    high: float

    @classmethod
    def over(cls, points: Sequence[Point], limit: float, neutral: float | None) -> "_Scale":
        latest = points[-1]
        wanted = [limit, *([neutral] if neutral is not None else [0.0])]
        wanted += [one for one in (latest.value, latest.low, latest.high) if one is not None]
        middle = points[len(points) // 2]
        reach = 3 * max(abs(one - wanted[1]) for one in wanted)
        early = [one for one in (middle.low, middle.high) if one is not None]
        wanted += [max(min(one, wanted[1] + reach), wanted[1] - reach) for one in early]
        low, high = min(wanted), max(wanted)
        room = (high - low or abs(high) or 1.0) * 0.14
        return cls(points[0].at, points[-1].at, low - room, high + room)

    def x(self, at: datetime) -> float:
        span = (self.end - self.start) / timedelta(seconds=1)
        part = 1.0 if span <= 0 else (at - self.start) / timedelta(seconds=1) / span
        return LEFT + part * (RIGHT - LEFT)

    def y(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return BOTTOM - max(0.0, min(1.0, part)) * (BOTTOM - TOP)
