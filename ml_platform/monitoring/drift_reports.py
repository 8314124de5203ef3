"""Where drift reports are found: in the small manifests of the asset `drift_report`, one a day."""

import json
from datetime import date
from pathlib import Path

from ml_platform.contracts.drift import DriftReport
from ml_platform.contracts.home import Home
from ml_platform.errors import ArtifactCorruptError, ContractError

ASSET = "drift_report"


def latest_drift_report(home: Home, product: str) -> DriftReport | None:
    """The report of the latest day that has one, None where no day has.

    Raises ArtifactCorruptError when the file is no manifest of a report.
    """
    days = drift_report_days(home, product)
    return None if not days else read_drift_report(home, product, days[-1])


def drift_report_days(home: Home, product: str) -> tuple[date, ...]:
    """The days that have a report, in their order; no file is opened."""
    found = []
    for path in (home.manifests / product / ASSET).glob("*.json"):
        try:
            found.append(date.fromisoformat(path.stem))
        except ValueError:
            continue
    return tuple(sorted(found))


def read_drift_report(home: Home, product: str, day: date) -> DriftReport | None:
    """The report of one day, None where it has none. Raises ArtifactCorruptError like `latest_drift_report`."""
    path = home.manifests / product / ASSET / f"{day.isoformat()}.json"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    report = _parsed(path, data)
    if (report.product, report.as_of) != (product, day):
        raise ArtifactCorruptError(
            f"{path}: is the report of {report.product} for {report.as_of}. Somebody moved it; materialize "
            f"{product}/{ASSET} for {day} again."
        )
    return report


def _parsed(path: Path, data: bytes) -> DriftReport:
    try:
        return DriftReport.parse(json.loads(data)["value"]["facts"], where=str(path))
    except (ContractError, ValueError, KeyError, TypeError) as error:
        raise ArtifactCorruptError(
            f"{path}: is no manifest of a drift report ({type(error).__name__}: {error}). Materialize {ASSET} again."
        ) from None
