"""Answers as decisions see them, for tests: of users who are assigned to arms by a hash, as the gateway does."""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import Seen
from ml_platform.contracts.routing import Cohort

BEGIN = datetime(2013, 6, 1, tzinfo=UTC)
PRODUCTION, CANARY = "a" * 64, "b" * 64
EPOCH = 3


def in_canary(user: str, exposure: float) -> bool:
    """Whether a user is in the canary at an exposure; whoever is stays in when it rises."""
    drawn = hashlib.blake2b(user.encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") < exposure * 2**64


def make_seen(
    number: int,
    user: str = "",
    *,
    canary: bool | None = None,
    exposure: float = 0.5,
    signals: Mapping[Signal, float] | None = None,
    **changes: Any,
) -> Seen:
    """The answer with this number, one a second; of a user of its own, where none is named."""
    user = user or f"user {number}"
    chosen = in_canary(user, exposure) if canary is None else canary
    at = BEGIN + timedelta(seconds=number)
    values: dict[str, Any] = {
        "response_id": f"response {number}",
        "release_id": CANARY if chosen else PRODUCTION,
        "cohort": Cohort.CANARY if chosen else Cohort.PRODUCTION,
        "epoch": EPOCH,
        "exposure": exposure,
        "at": at,
        "answered_at": at,
        "user": user,
        "signals": dict(signals or {}),
        "mature": False,
        "labelled": False,
    }
    return Seen(**(values | changes))


def make_rollout(
    n: int, signal: Signal, production: float, canary: float, *, exposure: float = 0.5, first: int = 0
) -> Iterator[Seen]:
    """n users, one answer each, with something bad for these shares of either arm, evenly spread."""
    counts = {True: 0, False: 0}
    for number in range(first, first + n):
        user = f"user {number}"
        chosen = in_canary(user, exposure)
        share = canary if chosen else production
        counts[chosen] += 1
        bad = int(counts[chosen] * share) > int((counts[chosen] - 1) * share)
        mature = {"mature": True, "labelled": True} if signal.labelled else {}
        yield make_seen(number, user, exposure=exposure, signals={signal: float(bad)}, **mature)
