"""Expectations: whether a snapshot looks as its product says it must, with every row that does not."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ml_platform.contracts.canonical import canonical_bytes, sources_sha256
from ml_platform.contracts.evidence import CheckResult
from ml_platform.contracts.products import Product
from ml_platform.contracts.progress import Progress, Reporter, silent
from ml_platform.contracts.snapshot import SnapshotManifest
from ml_platform.lineage.artifacts import Artifact, ArtifactStore
from ml_platform.snapshots.expectations_page import render_page
from ml_platform.snapshots.extract import manifest_of
from ml_platform.snapshots.findings import Finding, examine_table
from ml_platform.snapshots.suite import SuiteSpec, read_suite

_CODE = ("expectations.py", "expectations_page.py", "expectations.html.jinja", "findings.py", "suite.py")


def check_expectations(
    product: Product, snapshot: Artifact, store: ArtifactStore, report: Reporter = silent
) -> Artifact:
    """The result of the product's expectations on a snapshot: `result.json`, `index.html`, `failing_rows.jsonl`.

    Declared schema, missing values and keys are always checked, whether the product has expectations of its
    own or not. `facts["check"]` is the CheckResult of `schema_valid`.
    Raises ContractError for expectations that name what does not exist.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    report(Progress("expectations", 0.0, "loading Great Expectations"))
    suite = read_suite(product)
    import great_expectations

    recipe = {
        "snapshot_sha256": snapshot.sha256,
        "suite": suite.model_dump(mode="json"),
        "sources": {name: spec.model_dump(mode="json") for name, spec in product.spec.sources.items()},
        "great_expectations": great_expectations.__version__,
        "code_sha256": sources_sha256([Path(__file__).with_name(name) for name in _CODE], Path(__file__).parent),
    }
    artifact = store.make("expectations", recipe, lambda folder: _examine(product, snapshot, suite, folder, report))
    check = CheckResult.model_validate(artifact.facts["check"])
    verdict = "all hold" if check.passed else f"{len(check.problems)} fail"
    reused = ", reused" if artifact.reused else ""
    report(Progress("expectations", 1.0, f"{verdict}, {check.examined:,} rows examined{reused}"))
    return artifact


def _examine(product: Product, snapshot: Artifact, suite: SuiteSpec, folder: Path, report: Reporter) -> dict[str, Any]:
    manifest = manifest_of(snapshot)
    findings: list[Finding] = []
    for number, name in enumerate(product.spec.sources):
        report(Progress("expectations", 0.1 + 0.9 * number / len(product.spec.sources), f"examining {name}"))
        findings += examine_table(product, snapshot, suite, name)
    check = CheckResult(
        check="schema_valid",
        passed=bool(findings) and all(finding.passed for finding in findings),
        examined=sum(table.rows for table in manifest.tables.values()),
        problems=tuple(_problem(finding) for finding in findings if not finding.passed),
    )
    _write(folder, product, manifest, check, suite, findings, snapshot.sha256)
    return {
        "check": check.model_dump(mode="json"),
        "expectations": len(findings),
        "failing_rows": sum(finding.failing for finding in findings),
        "suite_version": suite.version,
    }


def _problem(finding: Finding) -> str:
    found = finding.problem or finding.observed
    first = f"; first: {json.dumps(finding.failing_rows[0], ensure_ascii=False)}" if finding.failing_rows else ""
    why = f" ({finding.why})" if finding.why else ""
    return f"{finding.table}: {finding.sentence}{why} Found: {found}{first}."


def _write(
    folder: Path,
    product: Product,
    manifest: SnapshotManifest,
    check: CheckResult,
    suite: SuiteSpec,
    findings: list[Finding],
    snapshot_sha256: str,
) -> None:
    result = {
        "product": product.name,
        "as_of": manifest.as_of.isoformat(),
        "snapshot_sha256": snapshot_sha256,
        "suite_version": suite.version,
        "passed": check.passed,
        "findings": [{**asdict(finding), "failing_rows": len(finding.failing_rows)} for finding in findings],
    }
    (folder / "result.json").write_bytes(canonical_bytes(result) + b"\n")
    with (folder / "failing_rows.jsonl").open("wb") as file:
        for finding in findings:
            for row in finding.failing_rows:
                line = {"table": finding.table, "expectation": finding.sentence, "row": row}
                file.write(canonical_bytes(line) + b"\n")
    page = render_page(product.spec.title, manifest, check, suite.version, findings, snapshot_sha256)
    (folder / "index.html").write_text(page, encoding="utf-8")
