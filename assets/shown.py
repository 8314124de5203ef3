"""What people see of an artifact on its asset page: Markdown, tables, small pictures."""

import html
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dagster import MetadataValue, TableColumn, TableRecord, TableSchema

from ml_platform.lineage.artifacts import Artifact

ROWS_SHOWN = 50


def artifact_metadata(artifact: Artifact) -> dict[str, Any]:
    """Where an artifact lies, the digest that names it, and whether it was there before."""
    size = sum(stored.size_bytes for stored in artifact.manifest.files.values())
    return {
        "sha256": MetadataValue.text(artifact.sha256),
        "dagster/uri": MetadataValue.path(str(artifact.path)),
        "reused": MetadataValue.bool(artifact.reused),
        "size_mb": MetadataValue.float(round(size / 1e6, 3)),
    }


def table(records: Iterable[Mapping[str, Any]], types: Mapping[str, str] | None = None) -> Any:
    """Rows as a Dagster table of at most ROWS_SHOWN rows; columns in the order of the first row."""
    rows = [dict(record) for record in records][:ROWS_SHOWN]
    names = list(rows[0]) if rows else list(types or {"nothing": "string"})
    schema = TableSchema([TableColumn(name, (types or {}).get(name, _type_of(rows, name))) for name in names])
    return MetadataValue.table([TableRecord({name: _cell(row.get(name)) for name in names}) for row in rows], schema)


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; numbers stand right."""
    rows = [list(row) for row in rows]
    numeric = [all(row[i] == "" or isinstance(row[i], int | float) for row in rows) for i in range(len(headers))]
    lines = ["| " + " | ".join(headers) + " |", "| " + " | ".join("---:" if n else "---" for n in numeric) + " |"]
    lines += ["| " + " | ".join(_text(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def picture(svg: str, alt: str) -> str:
    """An SVG drawing as a Markdown image that needs no server."""
    return f"![{alt}](data:image/svg+xml,{urllib.parse.quote(svg)})"


def line_plot(series: Mapping[str, Sequence[tuple[float, float]]], title: str, x_label: str) -> str:
    """A small line plot as SVG: one line a series of (x, y) points, with a legend and the range of y."""
    width, height, left, top, right, bottom = 640, 260, 52, 34, 16, 34
    points = [point for line in series.values() for point in line]
    if not points:
        return ""
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(0.0, *(y for _, y in points)), max(y for _, y in points)

    def place(x: float, y: float) -> str:
        across = left + (x - x_low) / ((x_high - x_low) or 1) * (width - left - right)
        down = height - bottom - (y - y_low) / ((y_high - y_low) or 1) * (height - top - bottom)
        return f"{across:.1f},{down:.1f}"

    colours = ("#4f43dd", "#e0762b", "#158c5d")
    parts = [f'<text x="{left}" y="18" font-weight="600">{html.escape(title)}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = y_low + share * (y_high - y_low)
        down = place(x_low, y).split(",")[1]
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{down}" y2="{down}" stroke="#d9dce3"/>')
        parts.append(f'<text x="{left - 6}" y="{float(down) + 4:.1f}" text-anchor="end" fill="#667">{y:.2f}</text>')
    for share in (0.0, 0.5, 1.0):
        x = x_low + share * (x_high - x_low)
        across = place(x, y_low).split(",")[0]
        parts.append(f'<text x="{across}" y="{height - 16}" text-anchor="middle" fill="#667">{x:.0f}</text>')
    parts.append(
        f'<text x="{width - right}" y="{height - 2}" text-anchor="end" fill="#667">{html.escape(x_label)}</text>'
    )
    for number, (name, line) in enumerate(series.items()):
        colour = colours[number % len(colours)]
        path = " ".join(place(x, y) for x, y in line)
        dots = "".join(
            f'<circle cx="{place(x, y).split(",")[0]}" cy="{place(x, y).split(",")[1]}" r="3"/>' for x, y in line
        )
        markers = f'<g fill="{colour}">{dots}</g>' if len(line) <= 12 else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{markers}')
        label = f'<text x="{width - right}" y="{18 + 16 * number}" text-anchor="end" fill="{colour}">'
        parts.append(f"{label}{html.escape(name)}</text>")
    body = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>{body}</svg>'
    )


def _type_of(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [row.get(name) for row in rows if row.get(name) is not None]
    if values and all(isinstance(value, bool) for value in values):
        return "bool"
    if values and all(isinstance(value, int) for value in values):
        return "int"
    return "float" if values and all(isinstance(value, int | float) for value in values) else "string"


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
