"""Incidents: each in the ledger gets its post-mortem in a folder, completed once it is over; written again it is the
same, so that whoever is killed on the way leaves nothing undone."""

import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from ml_platform.contracts.decided import DecisionRecorded
from ml_platform.contracts.events import Event
from ml_platform.contracts.monitoring import Decision, Seen
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import MlPlatformError, StorageError
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.replay import Replay
from ml_platform.monitoring.keeping import load_kept
from ml_platform.release.post_mortem import OPEN, Incident, tell_incident
from ml_platform.release.traffic import Traffic

SETTLES = timedelta(seconds=5)
"""So long after a move answers of the old release may still come to the store."""

NEWEST = 50
"""So many of the newest decisions are looked at; older ones were tended long ago."""


@dataclass
class Incidents:
    """The post-mortems of one product, Markdown files below a folder."""

    folder: Path
    store: ArtifactStore
    _closed: set[int] = field(default_factory=set)

    def tend(self, replay: Replay, now: Decision, traffic: Traffic | None, wall: datetime) -> None:
        """Writes what is missing and completes what is over; `now` is what was decided last. Raises StorageError."""
        for event in replay.decisions[-NEWEST:]:
            if event.sequence in self._closed:
                continue
            decision = DecisionRecorded.model_validate(event.payload).decision
            if decision.incident is None:
                self._closed.add(event.sequence)
                continue
            path = self.folder / f"{event.sequence:06d}-{decision.action}.md"
            known = path.read_text("utf-8") if path.is_file() else None
            if known is not None and OPEN not in known:
                self._closed.add(event.sequence)
                continue
            over = self._over(event, decision, now, traffic, wall)
            if known is None or over is not None:
                _write(path, tell_incident(self._incident(replay, event, decision, over)))

    def _over(
        self, event: Event, decision: Decision, now: Decision, traffic: Traffic | None, wall: datetime
    ) -> datetime | None:
        """When the last answer of a release came that was taken away; or when nobody speaks of it any more."""
        if not decision.action.stops:
            return wall if (now.incident, now.epoch) != (decision.incident, decision.epoch) else None
        if traffic is None or wall - event.recorded_at < SETTLES:
            return None
        last = traffic.last_of(decision.release_id or "")
        return max(event.recorded_at, last.answered_at) if last else event.recorded_at

    def _incident(self, replay: Replay, event: Event, decision: Decision, over: datetime | None) -> Incident:
        stays = replay.slots.get(SlotName.PRODUCTION)
        release = replay.releases.get(decision.release_id or "")
        promoted, seen = replay.promoted.get(decision.release_id or ""), self._seen(event.payload["kept_sha256"])
        first = min((one.answered_at for one in seen if one.release_id == decision.release_id), default=None)
        return Incident(
            event=event,
            release=release,
            stays=replay.releases.get(stays or ""),
            began=promoted.recorded_at if promoted else first,
            seen=seen,
            over=over,
        )

    def _seen(self, kept_sha256: str | None) -> tuple[Seen, ...]:
        if kept_sha256 is None:
            return ()
        try:
            return load_kept(self.store, kept_sha256)[1]
        except MlPlatformError:
            return ()  # the post-mortem then says that it does not know


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise StorageError(f"post-mortem {path}: {error}. The decision and its numbers are in the ledger.") from error
