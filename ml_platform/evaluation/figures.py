"""Figures of the report: each takes values and returns a drawing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ml_platform.evaluation.drawing import CANDIDATE, INK, LINE, MUTED, REFERENCE, WARNING, Canvas
from ml_platform.evaluation.wording import number

WIDTH = 880.0
LABELS = 236.0
NUMBERS = 168.0


@dataclass(frozen=True)
class Row:
    """A share with its bounds, and perhaps the reference's share beside it; `heading` starts a group."""

    label: str
    value: float
    low: float | None
    high: float | None
    n: int
    reference: float | None = None
    heading: str = ""


def forest(rows: Sequence[Row], title: str, baseline: float | None = None) -> Canvas:
    """Shares as dots on a line from 0 to 100 %, bounds as bars, the reference as rings.

    `baseline` draws a dashed line. The scale starts at a round number below the smallest value.
    """
    shown = [value for row in rows for value in (row.value, row.low, row.reference) if value is not None]
    least = min([*shown, 0.8])
    tick = 0.05 if least >= 0.75 else 0.1 if least >= 0.5 else 0.2
    start = tick * math.floor(least / tick + 1e-9)
    left, right, step = LABELS + 16, WIDTH - NUMBERS, 27.0
    groups = sum(bool(row.heading) for row in rows)
    canvas = Canvas(WIDTH, 34 + step * (len(rows) + groups), title)

    def x(share: float) -> float:
        return left + (share - start) / (1 - start) * (right - left)

    for share in (start + tick * part for part in range(round((1 - start) / tick) + 1)):
        canvas.line(x(share), 8, x(share), canvas.height - 24, LINE)
        canvas.text(x(share), canvas.height - 6, f"{share * 100:.0f} %", MUTED, 11, "middle")
    if baseline is not None:
        canvas.line(x(baseline), 8, x(baseline), canvas.height - 24, CANDIDATE, 1, "3 4")
    y = 20.0
    for row in rows:
        if row.heading:
            canvas.text(0, y + 6, row.heading, MUTED, 11, bold=True, characters=34)
            y += step
        _interval(canvas, row, y, x, left)
        y += step
    return canvas


def _interval(canvas: Canvas, row: Row, y: float, place: Callable[[float], float], left: float) -> None:
    canvas.text(0, y + 4, row.label, characters=34)
    low = row.value if row.low is None else row.low
    high = row.value if row.high is None else row.high
    tip = f"{row.label}: {number(row.value, 'share')} ({number(row.low, 'share')} to {number(row.high, 'share')})"
    canvas.line(max(left, place(low)), y, place(high), y, CANDIDATE, 3.2)
    if row.reference is not None:
        canvas.dot(place(row.reference), y, 5.4, REFERENCE, f"reference: {number(row.reference, 'share')}", hollow=True)
    canvas.dot(place(row.value), y, 5.2, CANDIDATE, tip)
    canvas.text(WIDTH - NUMBERS + 22, y + 4, number(row.value, "share"), INK, 12.5, bold=True)
    canvas.text(WIDTH, y + 4, f"n = {row.n:,}", MUTED, 11.5, "end")


def columns(rows: Sequence[Row], title: str, baseline: float | None, baseline_words: str) -> Canvas:
    """Shares as columns with bounds, side by side; a dashed line marks the share over all."""
    left, right, top, floor = 52.0, WIDTH * 0.62, 16.0, 226.0
    canvas = Canvas(right + 120, floor + 44, title)
    highest = max([row.high or row.value for row in rows] + [baseline or 0.0, 0.1])
    scale = min(1.0, math.ceil(highest * 10) / 10)

    def y(share: float) -> float:
        return floor - share / scale * (floor - top)

    for part in range(5):
        share = scale * part / 4
        canvas.line(left, y(share), right, y(share), LINE)
        canvas.text(left - 8, y(share) + 4, f"{share * 100:.0f} %", MUTED, 11, "end")
    if baseline is not None:
        canvas.line(left, y(baseline), right, y(baseline), WARNING, 1.2, "4 4")
        canvas.text(right + 6, y(baseline) + 4, baseline_words, WARNING, 11)
    slot = (right - left) / max(1, len(rows))
    for index, row in enumerate(rows):
        middle, width = left + slot * (index + 0.5), min(86.0, slot * 0.56)
        canvas.box(middle - width / 2, y(row.value), width, floor - y(row.value), CANDIDATE, 0.82, row.label)
        if row.low is not None and row.high is not None:
            canvas.line(middle, y(row.low), middle, y(row.high), INK, 1.6)
        canvas.text(middle + 8, y(row.value) - 7, number(row.value, "share"), INK, 12, bold=True, halo=True)
        canvas.text(middle, floor + 18, row.label, INK, 12.5, "middle", characters=int(slot / 8) + 2)
        canvas.text(middle, floor + 35, f"n = {row.n:,}", MUTED, 11, "middle")
    return canvas


def matrix(rows: Sequence[str], found: Sequence[str], counts: Sequence[Sequence[int]], title: str) -> Canvas:
    """Expected labels down, answered labels across; the diagonal is right, the rest is tinted as wrong."""
    left, top = 190.0, 74.0
    cell = max(44.0, min(84.0, (WIDTH - left) / max(1, len(found))))
    canvas = Canvas(left + cell * len(found) + 60, top + 34 * len(rows) + 8, title)
    canvas.text(left, 14, "answered", MUTED, 11, bold=True)
    canvas.text(0, top - 8, "expected", MUTED, 11, bold=True)
    for column, label in enumerate(found):
        x, y = left + cell * (column + 0.5), 36.0 + 17 * (column % 2)
        canvas.text(x, y, label, INK, 11.5, "middle", characters=max(6, int(cell * 2 / 7.5)))
        canvas.line(x, y + 4, x, top - 4, LINE)
    for line, label in enumerate(rows):
        y, total = top + 34 * line, sum(counts[line])
        canvas.text(0, y + 21, label, characters=26)
        for column, other in enumerate(found):
            count = counts[line][column]
            share = count / total if total else 0.0
            color = CANDIDATE if label == other else WARNING
            opacity = 0.12 + 0.75 * share if count else 0.03
            tip = f"expected {label}, answered {other}: {count}"
            canvas.box(left + cell * column + 1.5, y + 1.5, cell - 3, 31, color if count else MUTED, opacity, tip)
            if count:
                ink = "#ffffff" if opacity > 0.5 else INK
                canvas.text(left + cell * (column + 0.5), y + 21, f"{count}", ink, 12, "middle")
        canvas.text(left + cell * len(found) + 12, y + 21, f"n = {total}", MUTED, 11)
    return canvas


def distribution(values: Sequence[float], marks: Sequence[tuple[str, float]], title: str, unit: str) -> Canvas:
    """Values as dots stacked in 40 bins from 0 to the largest; `marks` are labelled vertical lines."""
    bins, floor, left = 40, 118.0, 8.0
    canvas = Canvas(WIDTH, floor + 34, title)
    largest = max(values) * 1.04 or 1.0
    stacks = [0] * bins
    for value in values:
        stacks[min(bins - 1, int(value / largest * bins))] += 1
    step = (WIDTH - 2 * left) / bins
    rise = min(11.0, (floor - 44) / max(stacks))
    for index, height in enumerate(stacks):
        for level in range(height):
            canvas.dot(left + step * (index + 0.5), floor - 6 - rise * level, min(5.0, rise / 2 + 0.8), CANDIDATE)
    canvas.line(left, floor, WIDTH - left, floor, MUTED)
    for part in range(5):
        x = left + (WIDTH - 2 * left) * part / 4
        anchor = "start" if part == 0 else "end" if part == 4 else "middle"
        canvas.text(x, floor + 18, number(largest * part / 4, unit), MUTED, 11, anchor)
    for index, (words, value) in enumerate(marks):
        x = left + value / largest * (WIDTH - 2 * left)
        canvas.line(x, 8 + 15 * index, x, floor, WARNING, 1.2, "4 4")
        end = x > WIDTH * 0.7
        canvas.text(x + (-6 if end else 6), 16 + 15 * index, words, WARNING, 11.5, "end" if end else "start", halo=True)
    return canvas
