"""Figures of a drift report: how far each column moved, and how its values lay then and now."""

from collections.abc import Sequence

import numpy as np

from ml_platform.contracts.drift import ColumnDrift, Moved
from ml_platform.evaluation.drawing import CANDIDATE, INK, LINE, MUTED, REFERENCE, WARNING, Canvas
from ml_platform.monitoring.drift.columns import Table
from ml_platform.monitoring.drift.measuring import is_numeric, numbers_of

WIDTH, LABELS, NUMBERS = 880.0, 300.0, 170.0
FARTHEST = 5.0
"""Times the threshold, at which the scale ends: beyond, it is the same to anybody."""
BINS, BARS = 40, 8
COLOURS = {Moved.DRIFTED: WARNING, Moved.UNCLEAR: REFERENCE, Moved.STEADY: CANDIDATE}


def distances(columns: Sequence[ColumnDrift], title: str) -> Canvas:
    """A bar a column: its effect in units of its threshold, with a line at 1, from which on it may be drift."""
    shown = sorted((one for one in columns if one.effect is not None), key=lambda one: (-one.times_threshold, one.name))
    step, left, right = 24.0, LABELS + 12, WIDTH - NUMBERS
    canvas = Canvas(WIDTH, 40 + step * len(shown), title)

    def x(times: float) -> float:
        return left + min(times, FARTHEST) / FARTHEST * (right - left)

    for times in range(int(FARTHEST) + 1):
        canvas.line(
            x(times), 6, x(times), canvas.height - 24, INK if times == 1 else LINE, 1, "3 4" if times == 1 else ""
        )
        canvas.text(x(times), canvas.height - 8, f"{times}×", MUTED, 11, "middle")
    for number, one in enumerate(shown):
        y = 18 + step * number
        canvas.text(0, y + 4, one.name, characters=44)
        canvas.box(left, y - 6, max(1.0, x(one.times_threshold) - left), 12, COLOURS[one.moved], tip=one.reason)
        words = f"{one.method} {one.effect or 0:.3g} of {one.threshold:g}"
        canvas.text(right + 14, y + 4, words, WARNING if one.moved is Moved.DRIFTED else MUTED, 11.5, characters=30)
    return canvas


def then_and_now(table: Table, column: str) -> Canvas | None:
    """The values of a column on both sides: densities of a number, shares of the commonest categories."""
    reference, current = table.reference[column].dropna(), table.current[column].dropna()
    if reference.empty or current.empty:
        return None
    if is_numeric(reference, current):
        return _densities(column, *(numbers_of(side) for side in (reference, current)))
    left, right = (side.astype("object").astype(str).value_counts(normalize=True) for side in (reference, current))
    names = sorted({*left.index, *right.index}, key=lambda one: (-max(left.get(one, 0), right.get(one, 0)), one))[:BARS]
    return _shares(column, [(name, float(left.get(name, 0)), float(right.get(name, 0))) for name in names])


def _densities(column: str, reference: np.ndarray, current: np.ndarray) -> Canvas | None:
    both = np.concatenate([reference[np.isfinite(reference)], current[np.isfinite(current)]])
    if not len(both):
        return None
    low, high = (float(edge) for edge in np.quantile(both, [0.005, 0.995]))
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    shares = [np.histogram(np.clip(side, low, high), edges)[0] / len(side) for side in (reference, current)]
    height, top, bottom = 150.0, 12.0, 122.0
    canvas = Canvas(WIDTH / 2 - 14, height, f"{column}: then and now")
    width, tallest = canvas.width / BINS, max(float(part.max()) for part in shares) or 1.0
    for part, colour, opacity in ((shares[0], REFERENCE, 0.55), (shares[1], CANDIDATE, 0.55)):
        for place, share in enumerate(part):
            tall = float(share) / tallest * (bottom - top)
            if tall > 0:
                canvas.box(place * width, bottom - tall, width - 0.6, tall, colour, opacity)
    canvas.line(0, bottom, canvas.width, bottom, LINE)
    for share in (0.0, 0.5, 1.0):
        anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
        canvas.text(share * canvas.width, height - 10, f"{low + share * (high - low):.4g}", MUTED, 11, anchor)
    return canvas


def _shares(column: str, rows: Sequence[tuple[str, float, float]]) -> Canvas:
    step, left = 26.0, 120.0
    canvas = Canvas(WIDTH / 2 - 14, 8 + step * len(rows), f"{column}: then and now")
    most, width = max(max(one[1:]) for one in rows) or 1.0, canvas.width - left - 56
    for number, (name, then, now) in enumerate(rows):
        y = 6 + step * number
        canvas.text(0, y + 14, name, characters=17)
        canvas.box(left, y, max(1.0, then / most * width), 9, REFERENCE, 0.8, f"then {then:.1%}")
        canvas.box(left, y + 10, max(1.0, now / most * width), 9, CANDIDATE, 0.9, f"now {now:.1%}")
        canvas.text(canvas.width, y + 14, f"{then:.0%} → {now:.0%}", MUTED, 11, "end")
    return canvas
