"""All that a sensor asks before it starts a run: the ledger, small reports and Dagster's runs, and nothing heavier."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache

from dagster import DagsterInstance

from ml_platform.contracts.drift import DriftReport
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.product import GuardrailSpec
from ml_platform.contracts.products import Product
from ml_platform.contracts.release import Release
from ml_platform.contracts.triggers import TriggerKind
from ml_platform.contracts.windows import QualityReport
from ml_platform.lineage.contents import find_content
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.object_store import artifact_store
from ml_platform.lineage.replay import Replay
from ml_platform.monitoring.causes import Causes, Finding, Known, causes_of
from ml_platform.monitoring.drift_reports import latest_drift_report
from ml_platform.monitoring.product_day import last_complete_day, product_time
from ml_platform.monitoring.quality_reports import labels_since, latest_quality_report
from ml_platform.monitoring.standing import newest_release, standing_of
from ml_platform.monitoring.triggers import Start, Wait, should_retrain
from resources.automatic_runs import ended_runs, run_in_flight

FIRST_BY_HAND = "There is no candidate yet that another could follow. Train the first with `mlp run`."
Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Answer:
    """Whether a run starts, and for which day."""

    decided: Start | Wait
    day: date


def wall() -> datetime:
    """Our own time."""
    return datetime.now(UTC)


def ask_whether_to_retrain(
    instance: DagsterInstance, home: Home, product: Product, job: str, clock: Clock = wall
) -> Answer:
    """Reads what stands for and against an automatic run of the product, and lets its policy decide.

    Raises ArtifactCorruptError for a damaged report, and what the ledger raises: a tick that fails starts nothing.
    """
    reports = _reports(home, product)
    in_flight, ended = run_in_flight(instance, product.name, job), ended_runs(instance, product.name)
    with kept_ledger(home.ledger_url).read(product.name) as view:
        now = time_of(home, product, view.replay, clock, *(report.as_of for report in reports))
        day = last_complete_day(now)
        causes = _causes(home, product, view.replay, reports, now)
        standing = standing_of(view.replay, view.state.frozen, ended, in_flight, day)
    decided = should_retrain(causes.found, standing, product.monitor_policy.retrain, now)
    if isinstance(decided, Wait) and not causes.found and standing.frozen is None:
        decided = Wait(" ".join([decided.reason, *causes.notes]))
    return Answer(decided, day)


def time_of(home: Home, product: Product, replay: Replay, clock: Clock, *days: date) -> datetime:
    """The product's time; `days` are those of reports, which it cannot be before the end of."""
    newest = newest_release(replay)
    known = (*([newest.data.as_of] if newest else []), *days)
    return product_time(home, product.name, product.serving.time, days=known, wall=clock())


def _reports(home: Home, product: Product) -> list[DriftReport | QualityReport]:
    policy = product.monitor_policy.retrain
    found = [
        latest_drift_report(home, product.name) if policy.on_drift else None,
        latest_quality_report(home, product.name) if policy.on_quality or policy.new_labels else None,
    ]
    return [report for report in found if report is not None]


def _causes(
    home: Home, product: Product, replay: Replay, reports: list[DriftReport | QualityReport], now: datetime
) -> Causes:
    newest, production = newest_release(replay), replay.slots.get(SlotName.PRODUCTION)
    if newest is None:
        return Causes(notes=[FIRST_BY_HAND])
    policy, configured = product.monitor_policy.retrain, _configured(product)
    in_use = [newest, *([replay.releases[production]] if production else [])]
    known = Known(
        day=last_complete_day(now),
        newest=newest.data.as_of,
        newest_id=newest.release_id,
        production=production,
        findings=tuple(_finding(report) for report in reports),
        labels=labels_since(home, product.name, newest.data.as_of) if policy.new_labels else None,
        models=_models_of(home, in_use, with_judges=bool(policy.deprecations)) | {*configured},
        configured=configured,
    )
    return causes_of(known, policy, now)


def _finding(report: DriftReport | QualityReport) -> Finding:
    return Finding(
        kind=TriggerKind.DRIFT if isinstance(report, DriftReport) else TriggerKind.QUALITY,
        day=report.as_of,
        verdict=report.verdict,
        reason=report.reason,
        effect=report.effect,
        release_id=report.release_id,
        evidence_sha256=report.evidence_sha256,
    )


def _configured(product: Product) -> tuple[str, ...]:
    """The base model and the judge that the product's folder names."""
    judge = product.guardrails.judge
    return (product.spec.training.base_model, *([judge.model] if judge else []))


def _models_of(home: Home, releases: list[Release], *, with_judges: bool) -> frozenset[str]:
    """The base models of releases, and the judges of their guardrails, which are kept beside them."""
    store, found = artifact_store(home), {release.model.base_model for release in releases}
    for release in releases if with_judges else ():
        guardrails = find_content(store, GuardrailSpec, release.guardrails.content_sha256)
        if guardrails is not None and guardrails.judge is not None:
            found.add(guardrails.judge.model)
    return frozenset(found)


@cache
def kept_ledger(url: str) -> Ledger:
    """One for as long as the code location lives, so that a tick reads only what was recorded since the last."""
    return Ledger(url)
