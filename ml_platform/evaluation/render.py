"""Render: the report as one self-contained HTML file and as a short Markdown summary.

Whatever a model, a user or an attacker wrote is escaped by the template engine; the only markup that
passes is drawn by `figures`. The bytes depend on nothing but the report and the answers.
"""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ml_platform.evaluation import figures, outcomes, view, wording
from ml_platform.evaluation.drawing import Canvas, printable, shortened
from ml_platform.evaluation.metrics import ScoredAnswer
from ml_platform.evaluation.view import Evaluated

MOST_CHARACTERS = 1_200
"""Longer texts are cut in the report; the answers files hold them whole."""


def render_html(evaluated: Evaluated) -> str:
    """The report as HTML without any link to outside: styles and drawings are inside, and no script."""
    environment = _environment(autoescape=True)
    return environment.get_template("report.html.j2").render(
        **_shared(evaluated),
        figures={name: Markup(canvas.svg()) for name, canvas in draw(evaluated).items()},  # noqa: S704 - see module
        example=lambda one: _example(evaluated, one),
        view=view,
    )


def render_summary(evaluated: Evaluated) -> str:
    """The report as Markdown with its plots inside as data URIs, for Dagster's and MLflow's pages."""
    environment = _environment(autoescape=False)
    return environment.get_template("summary.md.j2").render(
        **_shared(evaluated), figures={name: canvas.data_uri() for name, canvas in draw(evaluated).items()}, view=view
    )


def draw(evaluated: Evaluated) -> dict[str, Canvas]:
    """The report's drawings by name; what was not measured has none."""
    found: dict[str, Canvas] = {}
    if rates := view.rates(evaluated):
        found["rates"] = figures.forest(rates, "Every metric with its bounds, and the reference")
    if slices := view.slice_rows(evaluated):
        overall = evaluated.report.measurement(evaluated.judged_by)
        found["slices"] = figures.forest(slices, "Correct answers by slice", overall.value if overall else None)
    for foresight in outcomes.foresights(evaluated):
        words = f"over all: {wording.number(foresight.base_rate, 'share')}"
        name = f"How often it really happened, by the {foresight.field} that was answered"
        found[f"foresight {foresight.name}"] = figures.columns(foresight.levels, name, foresight.base_rate, words)
    for confusion in outcomes.confusions(evaluated):
        name = f"Expected and answered {confusion.field}"
        found[f"confusion {confusion.field}"] = figures.matrix(
            confusion.rows, confusion.columns, confusion.counts, name
        )
    if evaluated.latencies_ms:
        marks = [
            (f"{words} {wording.number(one.value, 'ms')}", one.value)
            for metric, words in (("latency_p50_ms", "median"), ("latency_p95_ms", "95th percentile"))
            if (one := evaluated.report.measurement(metric)) is not None and one.value is not None
        ]
        found["latency"] = figures.distribution(evaluated.latencies_ms, marks, "Latency of single requests", "ms")
    return found


def _shared(evaluated: Evaluated) -> dict[str, Any]:
    return {
        "evaluated": evaluated,
        "report": evaluated.report,
        "spec": evaluated.spec,
        "headline": view.headline(evaluated),
        "overall": [one for one in evaluated.report.measurements if not one.slice],
        "comparisons": view.overall_comparisons(evaluated),
        "foresights": outcomes.foresights(evaluated),
        "confusions": outcomes.confusions(evaluated),
        "units": {one.metric: one.unit for one in evaluated.report.measurements},
        "wording": wording,
    }


def _example(evaluated: Evaluated, one: ScoredAnswer) -> dict[str, Any]:
    """One answer as the report shows it."""
    reference = next((other for other in evaluated.compared if other.item.key == one.item.key), None)
    expected = one.example.answer
    return {
        "source": one.item.items,
        "id": one.example.example_id,
        "question": _cut(one.example.utterance),
        "facts": {name: _cut(str(value)) for name, value in one.example.facts.items()},
        "expected": expected if isinstance(expected, dict) else {"": expected},
        "answer": _cut(one.answer.text) or "(empty)",
        "reference": _cut(reference.answer.text) or "(empty)" if reference else None,
        "failures": [wording.title(metric) for metric in view.failures(one, evaluated.spec)],
        "problem": one.parsed.problem,
        "unsupported": view.unsupported(one, evaluated.spec) if one.parsed.fields is not None else (),
        "cut": not one.answer.finished,
    }


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("ml_platform.evaluation"),
        autoescape=autoescape,  # noqa: S701 - Markdown has an escape of its own, the filter `md`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {"plain": printable, "md": _markdown, "number": wording.number}
    environment.filters.update(filters)
    return environment


def _cut(text: str) -> str:
    return shortened(printable(text, keep="\n\t"), MOST_CHARACTERS)


def _markdown(text: str) -> str:
    """The text as plain words inside a Markdown table: nothing in it can become markup."""
    flat = printable(text.replace("\n", " "))
    return "".join(f"&#{ord(character)};" if character in "<>&|`*_[]()!#\\~$" else character for character in flat)
