"""A store of answers as a gateway fills it, with what people then said of them."""

import json
from datetime import datetime, timedelta
from typing import Any

from ml_platform.contracts.provenance import FeaturesRead, Feedback, FeedbackKind, LoggedContract, ProvenanceRecord
from ml_platform.lineage.provenance.frames import Frame
from ml_platform.lineage.provenance.recorder import KINDS
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.writing import Progress
from tests.samples.provenance import make_feedback, make_record

ASKED = datetime.fromisoformat("2013-01-20T12:00:00+00:00")
"""The features' time in which flight_assistant lives; our own clock is years later."""
CLOCK = datetime.fromisoformat("2026-11-21T12:00:00+00:00")
FLIGHT = "2013-01-20_UA_1545_EWR_1515"
FACTS = {
    "flight": "UA1545",
    "from": "EWR",
    "to": "IAH",
    "departs": "15:15",
    "day": "20 Jan",
    "late_chance": 23,
    "airport_late": 25,
    "airport_delay": 11,
    "route_late": 20,
    "route_delay": 9,
    "temperature": 40,
    "wind": 12,
    "rain": 0.0,
    "visibility": 10,
}
RIGHT = {"intent": "delay_risk", "risk": "elevated", "reply": "A delay is possible: 23% of similar flights leave late."}
WRONG = {"intent": "schedule", "risk": "elevated", "reply": "UA1545 leaves EWR for IAH at 15:15 on 20 Jan."}


def answered(number: int, *, published_at: datetime = ASKED, **changes: Any) -> ProvenanceRecord:
    """The record of an answer of flight_assistant that told the schedule, whatever was asked."""
    read = FeaturesRead(
        service="flight_facts",
        definitions_sha256="e" * 64,
        published_at=published_at,
        read_at=published_at,
        keys={},
        values={},
        event_at={},
    )
    plain = {
        "answered_at": CLOCK + timedelta(seconds=number),
        "features": read,
        "entity": {"flight_id": FLIGHT},
        "utterance": "my plane to Houston: any danger that it goes late?",
        "facts": FACTS,
        "answer": json.dumps(WRONG),
    }
    return make_record(number, **{**plain, **changes})


def correction(number: int, text: str | dict[str, Any] = RIGHT, **changes: Any) -> Feedback:
    """What a user says answer `number` should have been, a minute after it came."""
    said = text if isinstance(text, str) else json.dumps(text)
    plain = {"kind": FeedbackKind.CORRECTION, "text": said, "received_at": CLOCK + timedelta(seconds=number + 60)}
    return make_feedback(number, **{**plain, **changes})


def fill(store: ProvenanceStore, *values: LoggedContract, segment: str = "1-a.wal") -> None:
    """Puts values into the store as one turn of the shipper does."""
    payloads = [(KINDS[type(value)], value.log_bytes()) for value in values]
    begun = store.shipped_until(segment)
    frames = tuple(Frame(kind, payload, begun + n, begun + n + 1, 0) for n, (kind, payload) in enumerate(payloads))
    store.write(Progress(segment, frames, (), begun + len(frames)))
