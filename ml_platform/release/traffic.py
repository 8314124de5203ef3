"""Traffic: what was seen of one rollout, or of production since the last move, folded as it comes; pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.monitoring import Breach, Seen
from ml_platform.contracts.routing import Cohort
from ml_platform.release.assess import Recent
from ml_platform.release.situation import Findings
from ml_platform.release.stretches import Stretches
from ml_platform.release.tallies import Tally

MOST_SEEN = 50_000
"""So many answers are held, the newest; what goes forward on more is kept with all, read from the store again."""


class Traffic:
    """The answers since an epoch. `canary` judges the canary against production, `production` the latter alone.

    Either policy may be None, where there is no such release or its policy cannot be read. `alone_since` is the epoch
    at which production began to serve. `stretches` holds production's answers where no canary is open: a rollout ends,
    and is held whole; production is watched for ever.
    """

    def __init__(
        self,
        since_epoch: int,
        canary: MonitorPolicy | None,
        production: MonitorPolicy | None,
        alone_since: int = 0,
        stretches: Stretches | None = None,
    ) -> None:
        self.since_epoch = since_epoch
        self._policies = {Cohort.CANARY: canary, Cohort.PRODUCTION: production}
        self._recent = {arm: Recent(policy) for arm, policy in self._policies.items() if policy is not None}
        self._tally, self._stretches = Tally(since_epoch, alone_since), stretches
        self._seen: dict[str, Seen] = {}
        self._firsts: dict[int, datetime] = {}
        self._users: dict[int, dict[Cohort, set[str]]] = {}
        self._lasts: dict[str, Seen] = {}
        self._known: Findings | None = None
        self._judged_since: datetime | None = None
        self.forgotten = 0
        self._forgotten_until: datetime | None = None

    @property
    def seen(self) -> Sequence[Seen]:
        """The answers that are held, in the order in which they came."""
        return tuple(self._seen.values())

    def add(self, seen: Iterable[Seen]) -> None:
        """Folds answers in, in any order; the same one may come again with more known of it."""
        for one in seen:
            known = self._lasts.get(one.release_id or "")
            if one.release_id and (known is None or known.answered_at < one.answered_at):
                self._lasts[one.release_id] = one
            if one.epoch >= self.since_epoch and one.cohort in (Cohort.PRODUCTION, Cohort.CANARY):
                self._fold(one)

    def holds_since(self, since: datetime) -> bool:
        """Whether no answer that was given since a time of ours has been forgotten."""
        return self._forgotten_until is None or self._forgotten_until < since

    def take_over(self, before: "Traffic", since: datetime) -> None:
        """What another one holds of this one's epochs or since a time of ours, and when each release answered last."""
        self._lasts = dict(before._lasts)
        self.add(one for one in before.seen if one.epoch >= self.since_epoch or one.answered_at >= since)

    def _fold(self, one: Seen) -> None:
        self._known = None
        self._seen[one.response_id] = one
        self._firsts[one.epoch] = min(self._firsts.get(one.epoch, one.at), one.at)
        if self._stretches is None:
            self._users.setdefault(one.epoch, {}).setdefault(one.cohort, set()).add(one.user)
        (self._stretches or self._tally).add((one,))
        for recent in self._recent.values():
            recent.add((one,))
        while len(self._seen) > MOST_SEEN:
            oldest = self._seen.pop(next(iter(self._seen)))
            self.forgotten += 1
            until = self._forgotten_until
            self._forgotten_until = oldest.answered_at if until is None else max(until, oldest.answered_at)

    def turn(self, wall: datetime) -> None:
        """Forgets of production what no longer counts at a time of ours; to be called before what is new is added."""
        if self._stretches is not None and self._stretches.turn(wall):
            self._known = None

    def judge_anew(self, since: datetime | None) -> None:
        """What was answered before a moment of ours, of the last minutes, counts no more against production alone."""
        if since is None or since == self._judged_since:
            return
        self._judged_since, self._known = since, None
        (self._stretches or self._tally).judge_anew(since, [one for one in self.seen if one.answered_at >= since])

    def findings(self, canary: str | None, production: str | None, wall: datetime) -> Findings:
        """What all of it shows at a time of ours; metrics are worked out again only when something came."""
        self.turn(wall)
        if self._known is None:
            against, alone = self._policies[Cohort.CANARY], self._policies[Cohort.PRODUCTION]
            self._known = Findings(
                readings=self._tally.readings(against) if canary and production and against else (),
                alone=(self._stretches or self._tally).alone(alone) if production and alone else (),
            )
        recent = self._recent.get(Cohort.CANARY) if canary else None
        shared = recent.common_causes(wall) if recent and production else {}
        breaches = (*self._broken(Cohort.CANARY, canary, wall), *self._broken(Cohort.PRODUCTION, production, wall))
        return Findings(self._known.readings, self._known.alone, breaches, shared)

    def _broken(self, arm: Cohort, release_id: str | None, wall: datetime) -> tuple[Breach, ...]:
        recent = self._recent.get(arm)
        return recent.breaches(release_id, wall) if recent and release_id else ()

    def first_at(self, epoch: int) -> datetime | None:
        """When the first answer from this epoch on was given, in the product's time; None before any."""
        return min((at for known, at in self._firsts.items() if known >= epoch), default=None)

    def users(self, epoch: int) -> dict[Cohort, int]:
        """How many users each arm of a rollout answered from this epoch on."""
        arms = [arms for known, arms in self._users.items() if known >= epoch]
        return {arm: len(set().union(*(one.get(arm, ()) for one in arms))) for arm in self._policies}

    def last_of(self, release_id: str) -> Seen | None:
        """The newest answer of a release."""
        return self._lasts.get(release_id)
