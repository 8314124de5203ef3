"""What may serve, worked out a second time from what a life did, without a line of the library's verification."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.policy import PromotionPolicy, SlotName
from ml_platform.contracts.release import Release
from ml_platform.lineage.keys import SigningKey
from tests.samples.releases import make_policy, make_release

SEVERITY = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.ERROR]
PAIRED = "not_worse_than_production"
GATES = ("schema_valid", "no_leakage", PAIRED, "cost_within_budget", "latency_within_budget")


def key(number: int) -> SigningKey:
    """The same key in every process, so that what Hypothesis finds is found again."""
    return SigningKey.of(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def small_policy(version: str, valid_days: int) -> PromotionPolicy:
    """A policy of the gates that every policy has, for lives that are judged thousands of times."""
    gates = [gate.model_dump(mode="json") for gate in make_policy().gates if gate.gate in GATES]
    steps = {"steps": [0.05, 0.2, 0.5], "min_minutes_per_step": 30}
    return make_policy(version=version, gates=gates, evidence_valid_days=valid_days, canary=steps)


def from_another_commit(release: Release) -> Release:
    """The same bytes under another id."""
    return release.model_copy(update={"code": release.code.model_copy(update={"git_commit": "7" * 40})})


POLICIES = (small_policy("1.0.0", 30), small_policy("0.9.0", 90))
RELEASES = (
    *(make_release(date(2013, 3, day), day, POLICIES[0]) for day in (1, 2)),
    *(make_release(date(2013, 3, 2), seed, POLICIES[0]) for seed in (3, 4)),
    from_another_commit(make_release(date(2013, 3, 2), 2, POLICIES[0])),
    make_release(date(2013, 3, 2), 5, POLICIES[1]),
)
BY_ID = {release.release_id: release for release in RELEASES}
POLICY_OF = {policy.sha256: policy for policy in POLICIES}
STEP = timedelta(minutes=30)
JUDGED = (
    ReleaseState.REGISTERED,
    ReleaseState.HELD,
    ReleaseState.ELIGIBLE,
    ReleaseState.ABORTED,
    ReleaseState.ROLLED_BACK,
)


@dataclass(frozen=True)
class Fact:
    """One verdict that a trusted key signed."""

    gate: str
    verdict: Verdict
    reference: str
    key_id: str
    at: datetime
    until: datetime


@dataclass
class Oracle:
    """What is known of every release: verdicts, pins, falls, and which keys were taken back."""

    facts: dict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    pins: list[tuple[str, str]] = field(default_factory=list)
    falls: list[tuple[str, datetime]] = field(default_factory=list)
    """The candidates that fell, under whatever id of a release, and when."""
    served: tuple[str | None, int] = (None, 0)
    """What is in production, and how many falls there had been before it came there."""
    revoked: set[str] = field(default_factory=set)
    spoilt: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    promoted: dict[str, tuple[datetime, int]] = field(default_factory=dict)
    """When each release was last promoted, and how many pins there were."""
    shadow: str | None = None
    frozen: bool = False
    stepped: datetime | None = None
    """When the canary's present step began, by the clock."""
    stepped_at: datetime | None = None
    """When a decision last took this canary up a step, in the product's time."""

    def newest(self, release_id: str, gate: str) -> Fact | None:
        """The verdict that counts: the newest, of equally new ones the worst, of keys that still count."""
        counting = [one for one in self.facts[release_id] if one.gate == gate and one.key_id not in self.revoked]
        return max(counting, key=lambda one: (one.at, SEVERITY.index(one.verdict)), default=None)

    def judged(self, release: Release, verdicts: dict[str, Verdict], reference: str, by: str, now: datetime) -> None:
        """A verdict of every gate was recorded, unless the same was known and still counts."""
        days = POLICY_OF[release.promotion_policy.content_sha256].evidence_valid_days
        for gate in GATES:
            verdict, known = verdicts.get(gate, Verdict.PASS), self.newest(release.release_id, gate)
            if known and (known.verdict, known.reference) == (verdict, reference) and known.at <= now < known.until:
                continue
            fact = Fact(gate, verdict, reference, by, now, now + timedelta(days=days))
            self.facts[release.release_id].append(fact)
        if self.shadow == release.release_id and list(self.unproven(release, now)):
            self.shadow = None  # what is held answers no copies either

    def pinned(self) -> str | None:
        """The digest of the policy that counts."""
        return next((policy for policy, by in reversed(self.pins) if by not in self.revoked), None)

    def quarantined(self, release: Release, now: datetime) -> bool:
        """24 hours after the first fall, 48 after the second, for ever after the third."""
        production, before = self.served
        counting = self.falls[:before] if release.release_id == production else self.falls
        falls = [at for candidate, at in counting if candidate == release.model.candidate_sha256]
        return len(falls) > 2 or bool(falls and now < falls[-1] + timedelta(hours=24 * 2 ** (len(falls) - 1)))

    def unproven(self, release: Release, now: datetime) -> Iterator[str]:
        """The gates whose evidence says no PASS of this release."""
        if release.release_id in self.spoilt:
            yield "forged evidence"
        for gate in GATES:
            fact = self.newest(release.release_id, gate)
            if fact is None or fact.verdict is not Verdict.PASS or not fact.at <= now < fact.until:
                yield gate

    def was_proven(self, release_id: str) -> bool:
        """Whether it was rightly promoted, by the keys that count now or by all that ever did."""
        (at, pins), policy = self.promoted[release_id], BY_ID[release_id].promotion_policy.content_sha256

        def passed(gate: str, revoked: set[str]) -> bool:
            known = [one for one in self.facts[release_id] if (one.gate, one.at <= at) == (gate, True)]
            counting = [one for one in known if one.key_id not in revoked]
            newest = max(counting, key=lambda one: (one.at, SEVERITY.index(one.verdict)), default=None)
            return newest is not None and newest.verdict is Verdict.PASS and at < newest.until

        pinned = [
            next((one for one, by in reversed(self.pins[:pins]) if by not in revoked), None)
            for revoked in (self.revoked, set())
        ]
        proven = any(all(passed(gate, revoked) for gate in GATES) for revoked in (self.revoked, set()))
        return proven and policy in pinned

    def doubts_unseen(self, release: Release, now: datetime) -> Iterator[str]:
        """Everything that speaks against this release answering questions, even where nobody sees the answers."""
        if self.pinned() != release.promotion_policy.content_sha256:
            yield "policy"
        if self.quarantined(release, now):
            yield "quarantine"
        yield from self.unproven(release, now)

    def doubts(self, release: Release, state: DeploymentState, now: datetime) -> Iterator[str]:
        """Everything that speaks against this release serving more users."""
        yield from self.doubts_unseen(release, now)
        production, canary = state.slots.get(SlotName.PRODUCTION), state.slots.get(SlotName.CANARY)
        paired = self.newest(release.release_id, PAIRED)
        if production and not self.was_proven(production) and list(self.doubts_unseen(BY_ID[production], now)):
            yield "nobody proved what is in production"
        if paired is not None and paired.reference != (production or "base"):
            yield f"{PAIRED} compares with {paired.reference[:12]}"
        if any(BY_ID[serving].data.as_of > release.data.as_of for serving in (production, canary) if serving):
            yield "older than what serves"

    def expects(self, move: str, release: Release, state: DeploymentState, now: datetime) -> bool:
        """Whether the slots move when this is asked for; a rollback is looked at afterwards."""
        where = state.releases.get(release.release_id)
        proven = not self.frozen and not list(self.doubts(release, state, now))
        unserved = where in (ReleaseState.REGISTERED, ReleaseState.HELD, ReleaseState.ELIGIBLE)
        other, questions = self.shadow != release.release_id, SlotName.PRODUCTION in state.slots
        unseen = not self.frozen and not list(self.doubts_unseen(release, now))
        lasted = self.stepped is None or now - self.stepped >= STEP
        return {
            "open_shadow": unserved and other and questions and unseen,
            "close_shadow": not other,
            "open": where in JUDGED and proven,
            "advance": where is ReleaseState.CANARY and proven and state.canary_step < 3 and lasted,
            "promote": where is ReleaseState.CANARY and proven,
            "resume": where is ReleaseState.PAUSED and proven,
            "pause": where is ReleaseState.CANARY,
            "abort": where in (ReleaseState.CANARY, ReleaseState.PAUSED),
        }[move]

    def moved(self, before: DeploymentState, after: DeploymentState, now: datetime) -> None:
        """Takes in what a move did; what came into a slot must have come in through the gates."""
        places = [(one.slots.get(SlotName.CANARY), one.rollout, one.canary_step) for one in (before, after)]
        if places[0] != places[1]:
            self.stepped = now
        if places[0][1] != places[1][1]:
            self.stepped_at = None
        if self.shadow and after.releases.get(self.shadow) is ReleaseState.CANARY:
            self.shadow = None
        if (production := after.slots.get(SlotName.PRODUCTION)) != self.served[0]:
            self.served = production, len(self.falls)
        for release_id, where in after.releases.items():
            if before.releases.get(release_id) is where:
                continue
            if where in (ReleaseState.ABORTED, ReleaseState.ROLLED_BACK):
                self.falls.append((BY_ID[release_id].model.candidate_sha256, now))
            if where is ReleaseState.CANARY:
                self.opened.add(release_id)
            if where is ReleaseState.PRODUCTION and before.slots.get(SlotName.CANARY) == release_id:
                self.promoted[release_id] = now, len(self.pins)

    def may_serve_again(self, release: Release, now: datetime) -> bool:
        """Whether production may be taken back to it: it was there, and no fall or verdict speaks against it."""
        verdicts = [self.newest(release.release_id, gate) for gate in GATES]
        sound = all(fact is not None and fact.verdict is Verdict.PASS for fact in verdicts)
        return release.release_id in self.promoted and sound and not self.quarantined(release, now)
