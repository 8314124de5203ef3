"""Drawings of monitoring: what changed against the margin that it may change by; bytes depend on the report alone."""

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.windows import QualityChange, QualityReport
from ml_platform.evaluation.drawing import CANDIDATE, INK, LINE, MUTED, REFERENCE, WARNING, Canvas

WIDTH, ROW, TOP, LEFT, RIGHT = 720.0, 34.0, 58.0, 190.0, 24.0
COLOURS = {Verdict.FAIL: WARNING, Verdict.PASS: CANDIDATE}


def draw_changes(report: QualityReport) -> str:
    """Each metric's change with its bounds, counted in its margins; SVG, empty where nothing could be compared."""
    known = [one for one in report.metrics if one.change is not None]
    if not known:
        return ""
    canvas = Canvas(WIDTH, TOP + ROW * len(known) + 26, f"Quality on {report.as_of} against the first days")
    reach = max(1.5, *(abs(value) / one.margin for one in known for value in _values(one)))
    scale = (WIDTH - LEFT - RIGHT) / 2 / reach
    middle = (LEFT + WIDTH - RIGHT) / 2
    bottom = TOP + ROW * len(known)
    canvas.text(16, 24, canvas.title, INK, 14, bold=True)
    canvas.line(middle, TOP - 12, middle, bottom, LINE)
    canvas.line(middle + scale, TOP - 12, middle + scale, bottom, WARNING, dash="4 4")
    canvas.text(middle, TOP - 18, "as in the first days", MUTED, 11, "middle")
    canvas.text(middle + scale, bottom + 16, "worse by the margin", WARNING, 11, "middle")
    for place, one in enumerate(known):
        _draw(canvas, one, TOP + ROW * place + ROW / 2, middle, scale)
    return canvas.svg()


def _draw(canvas: Canvas, one: QualityChange, y: float, middle: float, scale: float) -> None:
    colour = COLOURS.get(one.verdict, REFERENCE)
    canvas.text(LEFT - 14, y + 4, one.metric, INK, 12.5, "end", characters=24)
    if one.change_low is not None and one.change_high is not None:
        low, high = (middle + scale * value / one.margin for value in (one.change_low, one.change_high))
        canvas.line(low, y, high, y, colour, 3)
    tip = f"{one.metric}: {one.verdict}: {one.reason}"
    canvas.dot(middle + scale * (one.change or 0.0) / one.margin, y, 5.5, colour, tip)


def _values(one: QualityChange) -> list[float]:
    return [value for value in (one.change, one.change_low, one.change_high) if value is not None]
