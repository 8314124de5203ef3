"""The story of a ledger: each event as one sentence for people."""

from collections.abc import Callable
from typing import Any

from ml_platform.contracts.events import Event, EventKind
from ml_platform.contracts.release import Release


def tell(event: Event) -> str:
    """What happened, in one sentence; pure."""
    payload = event.payload
    release = str(payload.get("release_id", ""))[:12]
    return _SENTENCES[event.kind](payload, release)


def _registered(payload: dict[str, Any], _: str) -> str:
    release = Release.model_validate(payload["release"])
    return f"release {release.release_id[:12]} of {release.data.as_of} was registered"


def _held(payload: dict[str, Any], release: str) -> str:
    return f"release {release} is held: {', '.join(payload['gates'])}"


def _promoted(payload: dict[str, Any], release: str) -> str:
    reason = f": {payload['reason']}" if payload.get("reason") else ""
    return f"release {release} went into production{reason}"


def _restored(payload: dict[str, Any], _: str) -> str:
    found = f"moved to version {payload['found']}" if payload["found"] else "removed"
    return f"ALERT: the alias {payload['alias']} was {found} in MLflow by hand ({payload['edited_by']}) and is put back"


def _refused(payload: dict[str, Any], release: str) -> str:
    place = f"in {payload['slot']}" if payload["slot"] else "as the one to fall back to"
    return f"gateway {payload['gateway']} refused release {release} {place}: {payload['reason']}"


def _decided(payload: dict[str, Any], _: str) -> str:
    decision = payload["decision"]
    release = f" of release {decision['release_id'][:12]}" if decision["release_id"] else ""
    raised = f" INCIDENT: {decision['incident']}" if decision["incident"] else ""
    return f"decided: {decision['action'].replace('_', ' ')}{release}: {decision['reason']}{raised}"


_SENTENCES: dict[EventKind, Callable[[dict[str, Any], str], str]] = {
    EventKind.POLICY_RECORDED: lambda p, _: f"promotion policy {p['policy']['version']} was recorded",
    EventKind.POLICY_PINNED: lambda p, _: f"promotion policy {p['policy_sha256'][:12]} was pinned by an operator",
    EventKind.RELEASE_REGISTERED: _registered,
    EventKind.EVIDENCE_RECORDED: lambda p, r: f"gate {p['gate']} says {p['verdict']} of release {r}",
    EventKind.RELEASE_HELD: _held,
    EventKind.RELEASE_ELIGIBLE: lambda p, r: f"release {r} is eligible until {p['expires_at'][:10]}",
    EventKind.CANARY_OPENED: lambda p, r: f"release {r} became the canary at {p['exposure']:.0%}",
    EventKind.CANARY_REPLACED: lambda p, r: f"canary {r} made room for release {p['by'][:12]}",
    EventKind.CANARY_ADVANCED: lambda p, r: f"canary {r} went on to step {p['step']}, {p['exposure']:.0%}",
    EventKind.CANARY_PAUSED: lambda p, r: f"canary {r} was paused: {p['reason']}",
    EventKind.CANARY_RESUMED: lambda p, r: f"canary {r} was resumed: {p['reason']}",
    EventKind.CANARY_ABORTED: lambda p, r: f"canary {r} was aborted: {p['reason']}",
    EventKind.RELEASE_PROMOTED: _promoted,
    EventKind.RELEASE_ROLLED_BACK: lambda p, r: f"release {r} was rolled back to {p['to'][:12]}: {p['reason']}",
    EventKind.SHADOW_OPENED: lambda p, r: f"release {r} became the shadow: {p['reason']}",
    EventKind.SHADOW_CLOSED: lambda p, r: f"shadow {r} left its slot: {p['reason']}",
    EventKind.ALIAS_RESTORED: _restored,
    EventKind.ADMISSION_REFUSED: _refused,
    EventKind.PRODUCT_FROZEN: lambda p, _: f"the product was frozen: {p['reason']}",
    EventKind.PRODUCT_UNFROZEN: lambda p, _: f"the product goes on: {p['reason']}",
    EventKind.DECISION_RECORDED: _decided,
    EventKind.PROMOTION_SIGNED: lambda _, r: f"an operator signed the promotion of release {r}",
}
