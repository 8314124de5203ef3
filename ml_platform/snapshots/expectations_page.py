"""The expectations of a snapshot as one self-contained HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_platform.contracts.evidence import CheckResult
from ml_platform.contracts.snapshot import SnapshotManifest
from ml_platform.snapshots.findings import Finding

SHOWN_ROWS = 5


def render_page(
    title: str,
    manifest: SnapshotManifest,
    check: CheckResult,
    suite_version: str,
    findings: Sequence[Finding],
    snapshot_sha256: str,
) -> str:
    """HTML without scripts, fonts or pictures from anywhere else; the same bytes for the same findings."""
    import jinja2

    template = Path(__file__).with_name("expectations.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        title=title,
        manifest=manifest,
        check=check,
        suite_version=suite_version,
        snapshot_sha256=snapshot_sha256,
        tables=[_table(name, manifest, findings) for name in manifest.tables],
        held=sum(finding.passed for finding in findings),
        total=len(findings),
        exceptions=sum(finding.failing for finding in findings if finding.passed),
    )


def _table(name: str, manifest: SnapshotManifest, findings: Sequence[Finding]) -> dict[str, Any]:
    mine = [finding for finding in findings if finding.table == name]
    return {
        "name": name,
        "facts": manifest.tables[name],
        "passed": all(finding.passed for finding in mine),
        "findings": [
            {"is": finding, "shown": finding.failing_rows[:SHOWN_ROWS], "columns": _columns(finding)}
            for finding in sorted(mine, key=lambda finding: (finding.passed, not finding.failing))
        ],
    }


def _columns(finding: Finding) -> list[str]:
    return list(finding.failing_rows[0]) if finding.failing_rows else []
