"""Pages of a drift report: one self-contained HTML file, and a short Markdown summary for Dagster.

Whatever users asked and sources sent is escaped by the template engine; the only markup that passes is drawn by
`figures`. The bytes depend on nothing but the report and what was compared.
"""

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ml_platform.contracts.drift import ColumnDrift, DriftReport, Moved
from ml_platform.contracts.products import Product
from ml_platform.evaluation.drawing import Canvas, printable, shortened
from ml_platform.monitoring.drift.columns import Tables
from ml_platform.monitoring.drift.figures import distances, then_and_now

DRAWN, IN_SUMMARY = 12, 3
ORDER = (Moved.DRIFTED, Moved.UNCLEAR, Moved.STEADY, Moved.NOT_TESTED)
WORDS = {"FAIL": "Drifted", "PASS": "Steady", "INCONCLUSIVE": "Cannot tell", "ERROR": "Could not be measured"}


def render_html(product: Product, report: DriftReport, tables: Tables) -> str:
    """The report as HTML without any link to outside: styles and drawings are inside, and no script."""
    figures = {name: _svg(canvas) for name, canvas in _drawn(report, tables, DRAWN).items()}
    overview = {
        part.part: _svg(distances(_of(report, part.part), f"{part.part}: times the threshold"))
        for part in report.parts
        if any(one.effect is not None for one in _of(report, part.part))
    }
    return (
        _environment()
        .get_template("drift.html.j2")
        .render(
            product=product,
            report=report,
            words=WORDS,
            overview=overview,
            figures=figures,
            columns=in_order(report.columns),
            slices=report.slices,
        )
    )


def render_summary(report: DriftReport, tables: Tables) -> str:
    """The report as Markdown with its plots inside as data URIs."""
    lines = [f"**{WORDS[report.verdict]}.** {plain_markdown(report.reason)}", ""]
    for part in report.parts:
        lines.append(f"- **{part.part}** {WORDS[part.verdict].lower()}: {plain_markdown(part.reason)}")
    tested = [one for one in report.columns if one.effect is not None]
    if tested:
        farthest = sorted(tested, key=lambda one: -one.times_threshold)[:DRAWN]
        lines += ["", f"![how far]({distances(farthest, 'Times the threshold').data_uri()})"]
    for name, canvas in _drawn(report, tables, IN_SUMMARY).items():
        lines += [
            "",
            f"**{plain_markdown(name)}**, then (grey) and now (blue)",
            "",
            f"![{plain_markdown(name)}]({canvas.data_uri()})",
        ]
    warnings = [one.warning for one in report.golden if one.warning]
    return "\n".join([*lines, *(f"\n⚠ {plain_markdown(words)}" for words in warnings)]) + "\n"


def in_order(columns: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """Those that drifted first, then the unclear ones, each by how far."""
    return sorted(columns, key=lambda one: (ORDER.index(one.moved), -one.times_threshold, one.part, one.name))


def _of(report: DriftReport, part: str) -> list[ColumnDrift]:
    return [one for one in report.columns if one.part == part]


def _drawn(report: DriftReport, tables: Tables, most: int) -> dict[str, Canvas]:
    """The farthest columns that moved or look moved, by name."""
    found: dict[str, Canvas] = {}
    for one in in_order(report.columns):
        table = tables.get((one.part, one.table))
        if len(found) == most or one.moved not in (Moved.DRIFTED, Moved.UNCLEAR):
            break
        if table is not None and one.column in table.reference and (canvas := then_and_now(table, one.column)):
            found[one.name] = canvas
    return found


def _svg(canvas: Canvas) -> Markup:
    return Markup(canvas.svg())  # noqa: S704 - the canvas escapes every text


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ml_platform.monitoring"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {"plain": lambda text: shortened(printable(str(text)), 300)}
    environment.filters.update(filters)
    return environment


def plain_markdown(text: str) -> str:
    """The text, at most 600 characters of it, that no Markdown can be made of."""
    return "".join(f"\\{one}" if one in "\\`*_[]<>|#!" else one for one in shortened(printable(text), 600))
