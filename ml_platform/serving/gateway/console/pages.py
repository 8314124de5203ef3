"""Pages as HTML: everything that people, models and attackers wrote is escaped, and nothing comes from elsewhere.

The style and the script that refreshes stand in the page; the policy that is sent with it names them by their digest,
so that nothing else that got into a page could run, load or send anything.
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ml_platform.contracts.monitoring import Look
from ml_platform.evaluation.drawing import CANDIDATE, LINE, MUTED, Canvas, printable, shortened
from ml_platform.lineage.provenance.store import Answered
from ml_platform.serving.gateway.console import curves, words
from ml_platform.serving.gateway.console.board import Board, OverviewRow, Problem, slot_rows
from ml_platform.serving.gateway.console.incidents import Block
from ml_platform.serving.gateway.exchange import Header

FOLDER = Path(__file__).parent / "templates"


class Pages:
    """Renders; blocks for some milliseconds, so in a thread."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("ml_platform.serving.gateway.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_disarmed,
        )

    @cached_property
    def _inside(self) -> dict[str, Markup]:
        """The style and the script of every page: files of ours."""
        files = {"style": FOLDER / "style.css", "script": FOLDER / "refresh.js"}
        return {name: Markup(path.read_text(encoding="utf-8")) for name, path in files.items()}  # noqa: S704 - ours

    @cached_property
    def headers(self) -> list[Header]:
        """What is sent with every page."""
        hashes = {name: base64.b64encode(hashlib.sha256(text.encode()).digest()) for name, text in self._inside.items()}
        policy = (
            b"default-src 'none'; style-src 'sha256-%s'; script-src 'sha256-%s'; img-src data:; connect-src 'self'; "
            b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ) % (hashes["style"], hashes["script"])
        return [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", policy),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"same-origin"),
            (b"cross-origin-opener-policy", b"same-origin"),
        ]

    def shell(
        self,
        heading: str,
        content: Markup,
        *,
        signed_in: str = "",
        products: Sequence[str] = (),
        product: str = "",
        live: bool = False,
    ) -> bytes:
        """A whole page around its content. `live` ones refresh themselves."""
        return self._render(
            "shell",
            heading=heading,
            content=content,
            signed_in=signed_in,
            products=products,
            product=product,
            live=live,
            **self._inside,
        ).encode("utf-8", "replace")

    def product(self, board: Board, now: datetime) -> Markup:
        """One product: slots, decision, curves and events."""
        return self._render(
            "product",
            product=board.product,
            ledger=board.ledger,
            stance=board.stance,
            look=board.look,
            no_look=board.no_look,
            problems=board.problems(now),
            slots=slot_rows(board, _steps),
            incidents=board.incidents,
            watches=[_watch(one, board.look) for one in curves.watches(board.looks)],
            **_telling(now),
        )

    def overview(self, rows: Sequence[OverviewRow], problems: Sequence[Problem], now: datetime) -> Markup:
        """All products, one a line."""
        return self._render("overview", rows=rows, problems=problems, **_telling(now))

    def incident(self, product: str, name: str, blocks: Sequence[Block]) -> Markup:
        """A post-mortem."""
        return self._render("incident", product=product, name=name, blocks=blocks)

    def login(self, *, said: str, next_path: str, insecure: bool) -> Markup:
        """The form that takes a key."""
        return self._render("login", said=said, next=next_path, insecure=insecure)

    def problem(self, heading: str, message: str, status: int, response_id: str) -> Markup:
        """What went wrong, for people."""
        return self._render("problem", heading=heading, message=message, status=status, response_id=response_id)

    def response(self, found: Answered, now: datetime) -> Markup:
        """What produced an answer, and what was said of it since."""
        from ml_platform.serving.gateway.console.answer import cost_rows, produced_rows

        record = found.record
        return self._render(
            "response",
            record=record,
            feedback=found.feedback,
            outcomes=found.outcomes,
            produced=produced_rows(record),
            costs=cost_rows(record),
            **_telling(now),
        )

    def _render(self, template: str, /, **values: Any) -> Markup:
        return Markup(self._environment.get_template(f"{template}.html.j2").render(**values))  # noqa: S704 - see module


def _telling(now: datetime) -> dict[str, Any]:
    return {
        "now": now,
        "words": words,
        "percent": lambda share: f"{share * 100:.3g} %",
        "moment": lambda at: f"{at:%Y-%m-%d %H:%M:%S} UTC",
        "day": lambda at: f"{at:%-d %b %H:%M}",
        "ago": lambda at: words.ago(at, now),
        "cut": lambda value, most: shortened(str(value), most),
    }


def _watch(watch: curves.Watch, look: Look | None) -> dict[str, Any]:
    """What was measured of one release, with its drawings."""
    if watch.canary is None:
        title = "Production, watched"
        whom = f"Release {(watch.production or '')[:12]} alone, against what no release may exceed."
    else:
        runs = look is not None and look.canary == watch.canary
        title = "Canary against production" if runs else "The last rollout, as it was measured"
        whom = f"Release {watch.canary[:12]} against production {(watch.production or 'nothing')[:12]}."
    drawn = [
        {"reading": one.reading, "value": words.shown_numbers(one.reading)[0], "svg": _svg(curves.draw(one))}
        for one in watch.curves()
    ]
    return {"title": title, "whom": whom, "curves": drawn}


def _steps(steps: Sequence[float], step: int) -> Markup:
    """The steps of a canary's plan as a stair, those it has reached filled."""
    width, height = 300.0, 46.0
    canvas = Canvas(width, height, f"step {step} of {len(steps)}")
    each = width / max(len(steps), 1)
    for number, share in enumerate(steps, start=1):
        tall = 6 + 22 * number / len(steps)
        colour = CANDIDATE if number <= step else LINE
        canvas.box((number - 1) * each, 30 - tall, each - 4, tall, colour)
        if len(steps) <= 10:
            place = (number - 1) * each + (each - 4) / 2
            canvas.text(place, 43, f"{share * 100:.3g} %", CANDIDATE if number == step else MUTED, 10.5, "middle")
    return _svg(canvas)


def _svg(canvas: Canvas) -> Markup:
    return Markup(canvas.svg())  # noqa: S704 - a canvas escapes its texts


def _disarmed(value: Any) -> Any:
    """Text with control and direction-changing characters spelled out, so that none disguises what it says."""
    return printable(value, keep="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value
