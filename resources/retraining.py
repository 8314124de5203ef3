"""All that a sensor asks before it starts a run: the ledger, small reports and Dagster's runs, and nothing heavier."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache

from dagster import DagsterInstance

from ml_platform.contracts.drift import DriftReport
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.products import Product
from ml_platform.contracts.triggers import TriggerKind
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.replay import Replay
from ml_platform.monitoring.causes import Causes, Finding, Known, causes_of
from ml_platform.monitoring.drift_reports import latest_drift_report
from ml_platform.monitoring.product_day import last_complete_day, product_time
from ml_platform.monitoring.standing import newest_release, standing_of
from ml_platform.monitoring.triggers import Standing, Start, Wait, should_retrain
from resources.automatic_runs import ended_runs, run_in_flight


@dataclass(frozen=True)
class Answer:
    """Whether a run starts, and for which day."""

    decided: Start | Wait
    day: date


def ask_whether_to_retrain(
    instance: DagsterInstance,
    home: Home,
    product: Product,
    job: str,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Answer:
    """Reads what stands for and against an automatic run of the product, and lets the policy decide."""
    in_flight, ended = run_in_flight(instance, product.name, job), ended_runs(instance, product.name)
    drift = latest_drift_report(home, product.name) if product.monitor_policy.retrain.on_drift else None
    with _ledger(home.ledger_url).read(product.name) as view:
        now, day = _today(home, product, view.replay, drift, clock())
        causes = _causes(product, view.replay, drift, day, now)
        standing = standing_of(view.replay, view.state.frozen, ended, in_flight, day)
    decided = should_retrain(causes.found, standing, product.monitor_policy.retrain, now)
    return Answer(_explained(decided, causes, standing), day)


def _today(
    home: Home, product: Product, replay: Replay, drift: DriftReport | None, wall: datetime
) -> tuple[datetime, date]:
    newest = newest_release(replay)
    days = (*([newest.data.as_of] if newest else []), *([drift.as_of] if drift else []))
    now = product_time(home, product.name, product.serving.time, days=days, wall=wall)
    return now, last_complete_day(now)


def _causes(product: Product, replay: Replay, drift: DriftReport | None, day: date, now: datetime) -> Causes:
    newest, production = newest_release(replay), replay.slots.get(SlotName.PRODUCTION)
    if newest is None:
        return Causes(notes=["There is no candidate yet that another could follow. Train the first with `mlp run`."])
    in_use = [newest.model.base_model]
    if production:
        in_use.append(replay.releases[production].model.base_model)
    configured = _configured(product)
    known = Known(
        day=day,
        newest=newest.data.as_of,
        newest_id=newest.release_id,
        production=production,
        findings=tuple([_drift_finding(drift)] if drift else []),
        models=frozenset([*in_use, *configured]),
        configured=configured,
    )
    return causes_of(known, product.monitor_policy.retrain, now)


def _configured(product: Product) -> tuple[str, ...]:
    judge = product.guardrails.judge
    return (product.spec.training.base_model, *([judge.model] if judge else []))


def _drift_finding(report: DriftReport) -> Finding:
    return Finding(
        kind=TriggerKind.DRIFT,
        day=report.as_of,
        verdict=report.verdict,
        reason=report.reason,
        effect=report.effect,
        release_id=report.release_id,
        evidence_sha256=report.evidence_sha256,
    )


def _explained(decided: Start | Wait, causes: Causes, standing: Standing) -> Start | Wait:
    """Where nothing speaks for a run, what was looked at and why it is not enough."""
    if isinstance(decided, Wait) and not causes.found and standing.frozen is None:
        return Wait(" ".join([decided.reason, *causes.notes]))
    return decided


@cache
def _ledger(url: str) -> Ledger:
    """Kept for as long as the code location lives, so that a tick reads only what was recorded since the last."""
    return Ledger(url)
