"""Where quality reports are found, and how many labels matured: small manifests of the asset `quality_report`."""

import json
from datetime import date
from functools import lru_cache
from pathlib import Path

from ml_platform.contracts.home import Home
from ml_platform.contracts.windows import QualityReport
from ml_platform.errors import ArtifactCorruptError, ContractError

ASSET = "quality_report"


def latest_quality_report(home: Home, product: str) -> QualityReport | None:
    """The report of the latest day that has one, None where no day has.

    Raises ArtifactCorruptError when its file is no manifest of a report, or that of another day.
    """
    days = _days(home, product)
    if not days:
        return None
    day, path = days[-1]
    report = _read(path)
    if (report.product, report.as_of) != (product, day):
        raise ArtifactCorruptError(
            f"{path}: is the report of {report.product} for {report.as_of}. Somebody moved it; materialize "
            f"{product}/{ASSET} for {day} again."
        )
    return report


def labels_since(home: Home, product: str, after: date) -> int | None:
    """How many labels matured on the days after `after` that have a report; None where none has.

    Days without a report count for nothing. Raises ArtifactCorruptError like `latest_quality_report`.
    """
    found = [_labelled(path, path.stat().st_mtime_ns) for day, path in _days(home, product) if day > after]
    return sum(found) if found else None


def _days(home: Home, product: str) -> list[tuple[date, Path]]:
    found = []
    for path in (home.manifests / product / ASSET).glob("*.json"):
        try:
            found.append((date.fromisoformat(path.stem), path))
        except ValueError:
            continue
    return sorted(found)


@lru_cache(maxsize=65_536)
def _labelled(path: Path, changed_ns: int) -> int:  # noqa: ARG001 - part of the cache's key
    """The labels in a report, read again once its file is another: a sensor asks for the same days at every tick."""
    return _read(path).labelled


def _read(path: Path) -> QualityReport:
    try:
        return QualityReport.parse(json.loads(path.read_bytes())["value"]["facts"], where=str(path))
    except (ContractError, ValueError, KeyError, TypeError, OSError) as error:
        raise ArtifactCorruptError(
            f"{path}: is no manifest of a quality report ({type(error).__name__}: {error}). Materialize {ASSET} again."
        ) from None
