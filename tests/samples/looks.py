"""Looks of a controller at a rollout, as they come one after the other."""

import math
from datetime import datetime, timedelta
from typing import Any

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import Action, ArmReading, Decision, Look, MetricReading

METRICS: tuple[tuple[str, Signal, str, float, float, float], ...] = (
    # name, signal, kind, production's value, the canary's effect, limit
    ("error_rate", Signal.ERROR, "rate", 0.021, 0.004, 0.05),
    ("invalid_rate", Signal.INVALID, "rate", 0.012, -0.002, 0.05),
    ("ungrounded_rate", Signal.UNGROUNDED, "rate", 0.03, 0.01, 0.07),
    ("refusal_rate", Signal.REFUSED, "rate", 0.1, 0.0, 0.1),
    ("dislike_rate", Signal.DISLIKED, "rate", 0.2, -0.03, 0.1),
    ("missed_late_rate", Signal.MISSED, "rate", 0.31, 0.02, 0.1),
    ("false_alarm_rate", Signal.FALSE_ALARM, "rate", 0.4, 0.01, 0.15),
    ("latency_p95", Signal.LATENCY_MS, "quantile", 1840.0, 1.08, 1.5),
    ("cost_per_answer", Signal.COST_USD, "mean", 0.000021, 0.0000004, 0.00001),
)


def make_reading(metric: str, users: int, **changes: Any) -> MetricReading:
    """A reading after so many users of the canary: its bounds close in as they come."""
    name, signal, kind, value, effect, limit = next(one for one in METRICS if one[0] == metric)
    neutral = 1.0 if kind == "quantile" else 0.0
    width = (limit - neutral) * 9 / math.sqrt(max(users, 1))
    wobble = width * 0.25 * math.sin(users / 3)
    arm = ArmReading(users=users * 9, answers=users * 12, value=value, lower=value * 0.9, upper=value * 1.1)
    measured = value * effect if kind == "quantile" else value + effect
    passes = effect + width < limit
    plain: dict[str, Any] = {
        "metric": name,
        "signal": signal,
        "kind": kind,
        "verdict": Verdict.PASS if passes else Verdict.INCONCLUSIVE,
        "reason": "the effect is inside the margin" if passes else "too few users to tell",
        "production": arm,
        "canary": arm.model_copy(update={"users": users, "answers": users * 2, "value": measured}),
        "effect": effect + wobble,
        "effect_lower": effect - width,
        "effect_upper": effect + width,
        "limit": limit,
        "e_value": 1.3 if kind == "rate" else None,
        "e_threshold": 180.0 if kind == "rate" else None,
        "smallest_visible": width * 1.2 + neutral,
        "waits_for": None if passes else f"about {max(1, int(81 - users))} more users of the canary",
    }
    return MetricReading.model_validate(plain | changes)


def make_look(
    product: str,
    at: datetime,
    *,
    users: int = 40,
    looked_at: datetime | None = None,
    production: str | None = "a" * 64,
    canary: str | None = "b" * 64,
    action: Action = Action.HOLD,
    metrics: tuple[str, ...] = tuple(one[0] for one in METRICS),
    decision: dict[str, Any] | None = None,
    **changes: Any,
) -> Look:
    """A look at a rollout; `decision` changes the decision in it."""
    readings = tuple(make_reading(metric, users) for metric in metrics) if canary else ()
    decided: dict[str, Any] = {
        "product": product,
        "action": action,
        "release_id": canary or production,
        "reason": "2 of 9 metrics cannot tell yet",
        "epoch": 3,
        "at": at,
        "waits_for": ("missed_late_rate: labels that mature in 11 h", "12 more minutes of this step"),
        "readings": readings,
    }
    plain: dict[str, Any] = {
        "product": product,
        "looked_at": looked_at or at,
        "controller": "controller on host-1",
        "production": production,
        "canary": canary,
        "shadow": None,
        "exposure": 0.1 if canary else 0.0,
        "step": 1 if canary else 0,
        "frozen": None,
        "decision": Decision.model_validate(decided | (decision or {})),
    }
    return Look.model_validate(plain | changes)


def make_rollout(product: str, start: datetime, now: datetime, looks: int = 60, **changes: Any) -> list[Look]:
    """The looks of a rollout that goes on a step in the middle; product's time from `start`, ours until `now`."""
    return [
        make_look(
            product,
            start + timedelta(minutes=10 * number),
            users=2 + 3 * number,
            looked_at=now - timedelta(seconds=5 * (looks - 1 - number)),
            exposure=0.05 if number < looks // 2 else 0.25,
            step=1 if number < looks // 2 else 2,
            **changes,
        )
        for number in range(looks)
    ]
