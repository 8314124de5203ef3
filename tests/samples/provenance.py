"""Records of answers, and what was said of them."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.guardrails import GuardrailVerdict, Stage
from ml_platform.contracts.provenance import (
    FeaturesRead,
    Feedback,
    FeedbackKind,
    Outcome,
    ProvenanceRecord,
    Timings,
)
from ml_platform.contracts.release import VersionedPart
from ml_platform.contracts.routing import Cohort, RouteReason

PRODUCT = "flight_assistant"
NOW = datetime(2013, 4, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
RELEASES = ("a" * 64, "b" * 64)
PROMPT = VersionedPart(version="1.0.0", content_sha256="c" * 64)
GUARDRAILS = VersionedPart(version="1.2.0", content_sha256="d" * 64)
FACTS = (
    "route_delay_mean_30d",
    "route_late_rate_30d",
    "route_departures_30d",
    "origin_delay_mean_3h",
    "origin_late_rate_3h",
    "origin_departures_3h",
    "carrier_delay_mean_7d",
    "carrier_late_rate_7d",
    "temperature_f",
    "wind_mph",
    "precipitation_in",
    "visibility_miles",
)


def response_id_of(number: int) -> str:
    """The id of the response of that number, in no order, as real ones are."""
    return "resp_" + hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()


def make_record(number: int, **changes: Any) -> ProvenanceRecord:
    """The record of answer `number`, a second after the one before: what flight_assistant's are like."""
    at = NOW + timedelta(seconds=number)
    canary = number % 10 == 0
    plain: dict[str, Any] = {
        "response_id": response_id_of(number),
        "answered_at": at,
        "product": PRODUCT,
        "release_id": RELEASES[canary],
        "epoch": 7,
        "cohort": Cohort.CANARY if canary else Cohort.PRODUCTION,
        "route_reason": RouteReason.ASSIGNED,
        "exposure": 0.1,
        "user_draw": number % 1000 / 1000,
        "user_sha256": f"{number % 1000:064x}",
        "entity": {"flight_id": f"2013-04-01-UA-{number % 500}-EWR"},
        "utterance": "Will UA 1545 from Newark to Houston be late this afternoon? My number is [phone].",
        "features": FeaturesRead(
            service="flight_facts",
            definitions_sha256="e" * 64,
            read_at=at,
            keys={"route": "EWR-IAH", "origin": "EWR", "carrier": "UA"},
            values=dict.fromkeys(FACTS, number % 100 / 7),
            event_at=dict.fromkeys(FACTS, NOW),
        ),
        "prompt": PROMPT,
        "guardrails": GUARDRAILS,
        "verdicts": (
            GuardrailVerdict(guardrail="injection", stage=Stage.INPUT, verdict=Verdict.PASS),
            GuardrailVerdict(guardrail="answer_schema", stage=Stage.OUTPUT, verdict=Verdict.PASS),
            GuardrailVerdict(guardrail="groundedness", stage=Stage.OUTPUT, verdict=Verdict.PASS),
        ),
        "adapter": f"{PRODUCT}@{'f' * 12}",
        "answer": '{"risk": "high", "reply": "Flights on this route left 21 minutes late on average; expect a delay."}',
        "input_tokens": 184,
        "output_tokens": 31,
        "cost_usd": 0.000041,
        "timings": Timings(queue_ms=0.4, features_ms=1.9, first_token_ms=61.3, total_ms=403.7),
        "code_commit": "0" * 40,
    }
    return ProvenanceRecord(**{**plain, **changes})


def make_feedback(number: int, **changes: Any) -> Feedback:
    """A thumb up for answer `number`."""
    plain: dict[str, Any] = {
        "idempotency_key": f"feedback-{number}",
        "product": PRODUCT,
        "response_id": response_id_of(number),
        "received_at": NOW + timedelta(minutes=number),
        "kind": FeedbackKind.THUMBS_UP,
    }
    return Feedback(**{**plain, **changes})


def make_outcome(number: int, **changes: Any) -> Outcome:
    """How late the flight that answer `number` was about arrived."""
    plain: dict[str, Any] = {
        "idempotency_key": f"outcome-{number}",
        "product": PRODUCT,
        "entity": {"flight_id": f"2013-04-01-UA-{number % 500}-EWR"},
        "received_at": NOW + timedelta(hours=6),
        "occurred_at": NOW + timedelta(hours=5),
        "values": {"arrival_delay_min": 42},
    }
    return Outcome(**{**plain, **changes})
