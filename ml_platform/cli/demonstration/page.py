"""The page that is left of a demonstration: one HTML file that needs no server, no script and no network."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.cli.demonstration import plots
from ml_platform.cli.demonstration.board import Board, Note
from ml_platform.cli.demonstration.view import clock
from ml_platform.contracts.events import EventKind
from ml_platform.contracts.home import Home
from ml_platform.errors import MlPlatformError
from ml_platform.evaluation.drawing import printable
from ml_platform.lineage.artifacts import write_atomically

if TYPE_CHECKING:
    from ml_platform.cli.demonstration.plan import Fault, Form
    from ml_platform.cli.demonstration.story import Told

PAGE = "demo.html"
LONGEST_DETAIL = 6_000


def write_page(home: Home, board: Board, told: "Told", form: "Form", fault: "Fault") -> Path:
    """Writes the page below the home, and returns where it is."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = ChoiceLoader([PackageLoader("ml_platform.cli.demonstration"), PackageLoader("ml_platform.evaluation")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["plain"] = lambda text: printable(str(text), keep="\n")

    def drawn(canvas: Any) -> Any:
        return Markup(canvas.svg())  # noqa: S704 - the canvas escapes what it is given

    evidence = evidence_of(home, board)
    page = environment.get_template("demo.html.j2").render(
        board=board,
        told=told,
        form=form,
        fault=fault,
        clock=clock,
        slots=drawn(plots.slots_plot(board)),
        drift=drawn(plots.drift_plot(told.drift)) if told.drift else "",
        rollouts=[
            (release_id, name, [drawn(one) for one in _metric_plots(board, release_id)])
            for release_id, name in board.names.items()
        ],
        notes=[(note, details(note, evidence)) for note in board.notes],
        arms=_arms(board),
        incidents=_incidents(home),
        links=_links(home, board.product),
        moment=plots.moment,
    )
    path = home.root / PAGE
    write_atomically(path, page.encode())
    return path


def evidence_of(home: Home, board: Board) -> dict[str, str]:
    """What each signed verdict says, by the digest of its envelope; {} where the ledger cannot be read."""
    from ml_platform.contracts.canonical import bytes_sha256
    from ml_platform.lineage.keys import trusted_keys
    from ml_platform.lineage.ledger import Ledger
    from ml_platform.lineage.statements import verify_evidence

    found: dict[str, str] = {}
    try:
        trusted, ledger = trusted_keys(home), Ledger(home.ledger_url)
        for release_id in ledger.replay(board.product).releases:
            for envelope in ledger.envelopes(board.product, release_id):
                result = verify_evidence(envelope, trusted).result
                found[bytes_sha256(envelope)] = result.reason
    except MlPlatformError:
        return found
    return found


def details(note: Note, evidence: Mapping[str, str]) -> str:
    """The numbers behind an event: what was measured, or what it holds; empty for a line of the story."""
    if note.event is None:
        return ""
    payload = note.event.payload
    if note.event.kind is EventKind.EVIDENCE_RECORDED:
        return evidence.get(str(payload.get("envelope_sha256")), "")
    if note.event.kind is EventKind.RELEASE_REGISTERED:
        payload = {key: value for key, value in payload["release"].items() if key not in ("environment",)}
    return json.dumps(payload, indent=1, ensure_ascii=False)[:LONGEST_DETAIL]


def _metric_plots(board: Board, release_id: str) -> list[Any]:
    found = (plots.metric_plot(board, release_id, name) for name in plots.metrics_of(board.looks, release_id))
    return [canvas for canvas in found if canvas is not None]


def _arms(board: Board) -> list[tuple[str, str, dict[str, int]]]:
    """Answers by release and cohort."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for (release_id, cohort, status), count in board.answers.items():
        found.setdefault((release_id, cohort), {})[status] = count
    return [(board.title(release_id), cohort, counts) for (release_id, cohort), counts in sorted(found.items())]


def _incidents(home: Home) -> list[tuple[str, str]]:
    """The post-mortems that the controller wrote."""
    return [(path.stem, path.read_text(encoding="utf-8")) for path in sorted(home.root.glob("incidents/**/*.md"))]


def _links(home: Home, product: str) -> list[tuple[str, str]]:
    """The reports of this home's days, by name and path relative to the page."""
    found = []
    for name in ("eval_report", "drift_report"):
        for path in sorted((home.manifests / product / name).glob("*.json")):
            try:
                sha256 = str(json.loads(path.read_bytes())["value"]["value_sha256"])
            except (ValueError, KeyError, TypeError):
                continue
            report = home.artifacts / name / sha256 / "report.html"
            if report.is_file():
                found.append((f"{name.replace('_', ' ')} of {path.stem}", os.path.relpath(report, home.root)))
    return found
