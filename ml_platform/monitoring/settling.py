"""Settling: mature answers, as long as an outcome that was there in time may still be on its way to the store."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from ml_platform.contracts.monitoring import Seen
from ml_platform.contracts.provenance import Outcome, ProvenanceRecord

SETTLES = timedelta(minutes=10)
"""By our clock: longer than a shipper takes after a failure."""


class Settling:
    """Mature answers for a while after they matured. What they are about is only known of those without a label."""

    def __init__(self, wall: Callable[[], datetime]) -> None:
        self._wall = wall
        self._seen: dict[str, Seen] = {}
        self._wanting: dict[str, set[str]] = {}
        self._closing: deque[tuple[datetime, str, str]] = deque()

    def __contains__(self, response_id: str) -> bool:
        """Whether the answer settles."""
        return response_id in self._seen

    def __getitem__(self, response_id: str) -> Seen:
        """The answer as it was seen last."""
        return self._seen[response_id]

    def add(self, record: ProvenanceRecord, seen: Seen) -> None:
        """An answer that has just matured."""
        entity = record.entity_key or ""
        self._seen[seen.response_id] = seen
        self._closing.append((self._wall() + SETTLES, seen.response_id, entity))
        if not seen.labelled and entity:
            self._wanting.setdefault(entity, set()).add(seen.response_id)

    def update(self, seen: Seen) -> None:
        """More is known of an answer; what was known of one that settles is added to it."""
        if (known := self._seen.get(seen.response_id)) is not None:
            self._seen[seen.response_id] = replace(seen, signals=known.signals | seen.signals)

    def waiting_for(self, outcomes: Iterable[Outcome]) -> set[str]:
        """The answers without a label that these outcomes are about."""
        found = set()
        for outcome in outcomes:
            if outcome.response_id is not None:
                found.add(outcome.response_id)
            else:
                found |= self._wanting.get(outcome.entity_key or "", set())
        return {name for name in found if name in self._seen and not self._seen[name].labelled}

    def let_go(self) -> None:
        """Forgets what has settled."""
        now = self._wall()
        while self._closing and self._closing[0][0] <= now:
            _, name, entity = self._closing.popleft()
            self._seen.pop(name, None)
            if (others := self._wanting.get(entity)) is not None:
                others.discard(name)
                if not others:
                    del self._wanting[entity]
