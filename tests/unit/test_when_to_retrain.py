"""When a run starts by itself: every cause, everything that stands against it, and the bar that failures raise."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.contracts.events import Payload, PolicyRecorded, ReleaseHeld, ReleaseRegistered
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import RetrainPolicy
from ml_platform.contracts.release import Release
from ml_platform.contracts.triggers import Trigger, TriggerKind
from ml_platform.lineage.replay import Replay
from ml_platform.monitoring.causes import Finding, Known, causes_of
from ml_platform.monitoring.standing import standing_of
from ml_platform.monitoring.triggers import (
    Cause,
    Outcome,
    PastStart,
    Standing,
    Start,
    Wait,
    bar_of,
    failures_in_a_row,
    should_retrain,
)
from tests.samples.releases import make_policy, make_release

NOW = datetime(2013, 6, 1, tzinfo=UTC)
POLICY = RetrainPolicy.parse(
    {
        "on_drift": True,
        "on_quality": True,
        "new_labels": 1000,
        "every_days": 30,
        "days_before_deprecation": 30,
        "deprecations": [{"name": "smollm2", "ends_at": "2013-07-16T00:00:00Z", "replacement": "smollm3"}],
        "back_off_hours": 24,
        "max_failed": 3,
    },
    where="a sample",
)
FREE = Standing(frozen=None, blocked=None)
KNOWN = Known(
    day=date(2013, 5, 31),
    newest=date(2013, 5, 20),
    newest_id="b" * 64,
    production="a" * 64,
    models=frozenset({"smollm2"}),
    configured=("smollm2",),
)


def sha(letter: str) -> str:
    return letter * 64


def cause(kind: TriggerKind = TriggerKind.DRIFT, strength: float = 1.5, evidence: str = "e") -> Cause:
    return Cause(kind, strength, sha(evidence), "three columns moved")


def past(
    outcome: Outcome,
    *,
    kind: TriggerKind = TriggerKind.DRIFT,
    strength: float = 1.2,
    evidence: str = "d",
    attempt: int = 1,
    at: datetime = NOW - timedelta(days=30),
) -> PastStart:
    trigger = Trigger(kind=kind, reason="r", evidence_sha256=sha(evidence), strength=strength, attempt=attempt, at=at)
    return PastStart(trigger, outcome, at)


def finding(verdict: Verdict = Verdict.FAIL, kind: TriggerKind = TriggerKind.DRIFT, **changes: object) -> Finding:
    values: dict[str, object] = {
        "day": date(2013, 5, 31),
        "reason": "3 of 9 columns moved",
        "effect": 2.0,
        "release_id": sha("a"),
        "evidence_sha256": sha("e"),
    }
    return Finding(kind=kind, verdict=verdict, **{**values, **changes})  # type: ignore[arg-type]


def waits(decided: Start | Wait) -> str:
    assert isinstance(decided, Wait), decided
    return decided.reason


def starts(decided: Start | Wait) -> Trigger:
    assert isinstance(decided, Start), decided
    return decided.trigger


def kinds(known: Known, policy: RetrainPolicy = POLICY, now: datetime = NOW) -> dict[TriggerKind, float]:
    return {found.kind: found.strength for found in causes_of(known, policy, now).found}


def with_(known: Known, **changes: object) -> Known:
    from dataclasses import replace

    return replace(known, **changes)  # type: ignore[arg-type]


def test_a_drifted_day_starts_a_run_that_says_what_moved() -> None:
    trigger = starts(should_retrain([cause()], FREE, POLICY, NOW))
    assert (trigger.kind, trigger.attempt, trigger.at) == (TriggerKind.DRIFT, 1, NOW)
    assert trigger.reason == "three columns moved"


def test_nothing_starts_without_a_cause() -> None:
    assert "Nothing" in waits(should_retrain([], FREE, POLICY, NOW))


def test_a_freeze_stops_every_cause() -> None:
    frozen = Standing(frozen="the data centre moves", blocked=None)
    assert waits(should_retrain([cause()], frozen, POLICY, NOW)) == "Frozen: the data centre moves"


def test_what_is_under_way_is_named_together_with_what_waits_for_it() -> None:
    busy = Standing(frozen=None, blocked="run 12345678 (queued) is under way: one run of a product at a time.")
    said = waits(should_retrain([cause()], busy, POLICY, NOW))
    assert said.startswith("drift: three columns moved, but run 12345678 (queued)")


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR])
@pytest.mark.parametrize("kind", [TriggerKind.DRIFT, TriggerKind.QUALITY])
def test_only_a_proven_finding_is_a_cause(verdict: Verdict, kind: TriggerKind) -> None:
    found = causes_of(with_(KNOWN, findings=(finding(verdict, kind),)), POLICY, NOW)
    assert found.found == []
    assert any(f"{kind}: {verdict}" in note for note in found.notes)


@pytest.mark.parametrize("kind", [TriggerKind.DRIFT, TriggerKind.QUALITY])
def test_a_report_counts_for_what_serves_and_for_a_day_that_nobody_learned_from(kind: TriggerKind) -> None:
    assert kinds(with_(KNOWN, findings=(finding(kind=kind),))) == {kind: 2.0}
    learned = finding(kind=kind, day=KNOWN.newest)
    another = finding(kind=kind, release_id=sha("c"))
    for one in (learned, another):
        assert kinds(with_(KNOWN, findings=(one,))) == {}


def test_the_newest_report_decides_whatever_an_older_one_says() -> None:
    older, newer = finding(day=date(2013, 5, 25)), finding(Verdict.PASS, day=date(2013, 5, 26))
    assert kinds(with_(KNOWN, findings=(newer, older))) == {}


def test_a_policy_that_does_not_look_at_drift_is_not_started_by_it() -> None:
    off = POLICY.model_copy(update={"on_drift": False, "on_quality": False})
    both = (finding(), finding(kind=TriggerKind.QUALITY))
    assert kinds(with_(KNOWN, findings=both), off) == {}


def test_labels_and_days_count_since_the_newest_candidate() -> None:
    assert kinds(with_(KNOWN, labels=999)) == {}
    assert kinds(with_(KNOWN, labels=1500)) == {TriggerKind.NEW_LABELS: 1.5}
    assert kinds(with_(KNOWN, newest=date(2013, 5, 1))) == {TriggerKind.CALENDAR: 1.0}
    assert kinds(with_(KNOWN, newest=date(2013, 5, 2))) == {}


def test_a_model_that_ends_soon_starts_a_run_and_says_what_to_look_at() -> None:
    found = causes_of(KNOWN, POLICY, datetime(2013, 7, 1, tzinfo=UTC)).found
    assert [one.kind for one in found] == [TriggerKind.DEPRECATION]
    assert found[0].strength == 2.0
    assert "smollm2 ends at 2013-07-16" in found[0].reason
    assert "the product's folder still names" in found[0].reason
    assert "look at smollm3" in found[0].reason


def test_a_model_that_has_ended_or_is_used_by_nobody() -> None:
    late = datetime(2013, 8, 1, tzinfo=UTC)
    assert kinds(KNOWN, now=late) == {TriggerKind.DEPRECATION: 720.0}
    assert kinds(with_(KNOWN, models=frozenset({"other"})), now=late) == {}


def test_the_evidence_of_a_deprecation_changes_when_people_name_another_model() -> None:
    july = datetime(2013, 7, 1, tzinfo=UTC)
    before = causes_of(KNOWN, POLICY, july).found[0]
    after = causes_of(with_(KNOWN, configured=("smollm3",)), POLICY, july).found[0]
    assert before.evidence_sha256 != after.evidence_sha256
    assert "still names" not in after.reason


def test_evidence_of_what_accumulates_stays_the_same_while_it_grows() -> None:
    first = causes_of(with_(KNOWN, labels=1500), POLICY, NOW).found[0]
    later = causes_of(with_(KNOWN, labels=1700), POLICY, NOW + timedelta(days=1)).found[0]
    assert first.evidence_sha256 == later.evidence_sha256
    assert causes_of(with_(KNOWN, labels=1500, newest_id=sha("f")), POLICY, NOW).found[0] != first


def test_a_run_that_crashed_is_tried_again_with_the_next_attempt_after_the_back_off() -> None:
    crashed = past(Outcome.CRASHED, evidence="e", at=NOW)
    standing = Standing(None, None, (crashed,))
    early = NOW + timedelta(hours=23)
    assert "the next is at 2013-06-02 00:00" in waits(should_retrain([cause()], standing, POLICY, early))
    assert starts(should_retrain([cause()], standing, POLICY, NOW + timedelta(hours=24))).attempt == 2


def test_every_failure_in_a_row_doubles_the_wait() -> None:
    ats = [NOW, NOW + timedelta(days=1)]
    row = tuple(past(Outcome.CRASHED, evidence="e", attempt=n, at=at) for n, at in enumerate(ats, 1))
    standing = Standing(None, None, row)
    waits(should_retrain([cause()], standing, POLICY, ats[-1] + timedelta(hours=47)))
    assert starts(should_retrain([cause()], standing, POLICY, ats[-1] + timedelta(hours=48))).attempt == 3


def test_after_very_many_failures_the_wait_still_has_an_end() -> None:
    patient = POLICY.model_copy(update={"max_failed": 2_000})
    row = tuple(past(Outcome.CRASHED, evidence="e", attempt=n, at=NOW) for n in range(1, 1_500))
    assert "the next is at 2113-05-" in waits(should_retrain([cause()], Standing(None, None, row), patient, NOW))


def test_a_model_that_ended_long_ago_has_ended() -> None:
    ended = POLICY.deprecations[0].model_copy(update={"ends_at": datetime(1, 1, 1, tzinfo=UTC)})
    assert TriggerKind.DEPRECATION in kinds(KNOWN, POLICY.model_copy(update={"deprecations": (ended,)}))


def test_after_so_many_failures_a_person_has_to_look_and_a_candidate_of_theirs_opens_the_way() -> None:
    row = tuple(past(Outcome.REFUSED, strength=1.0 + n, at=NOW - timedelta(days=30 - n)) for n in range(3))
    strong = [cause(strength=9.0)]
    assert "3 automatic starts in a row" in waits(should_retrain(strong, Standing(None, None, row), POLICY, NOW))
    trained = Standing(None, None, row, since=NOW - timedelta(days=1))
    assert starts(should_retrain(strong, trained, POLICY, NOW)).strength == 9.0


def test_a_refused_candidates_evidence_never_starts_another_run() -> None:
    standing = Standing(None, None, (past(Outcome.REFUSED, evidence="e", strength=1.0),))
    said = waits(should_retrain([cause(strength=1.5)], standing, POLICY, NOW))
    assert "This evidence has started a run already: refused." in said


def test_accepted_evidence_starts_no_second_run() -> None:
    standing = Standing(None, None, (past(Outcome.ACCEPTED, evidence="e"),))
    assert "started a run already: accepted" in waits(should_retrain([cause()], standing, POLICY, NOW))


def test_drift_that_is_no_stronger_than_what_was_tried_in_vain_starts_nothing() -> None:
    standing = Standing(None, None, (past(Outcome.REFUSED, strength=1.5),))
    said = waits(should_retrain([cause(strength=1.5)], standing, POLICY, NOW))
    assert "more than 1.50 times the threshold, and this is 1.50" in said
    starts(should_retrain([cause(strength=1.51)], standing, POLICY, NOW))


def test_what_grows_by_itself_has_to_double_for_each_refused_candidate() -> None:
    once = (past(Outcome.REFUSED),)
    twice = (*once, past(Outcome.REFUSED, evidence="c"))
    for row, bar in ((once, 2.0), (twice, 4.0)):
        standing, kind = Standing(None, None, row), TriggerKind.CALENDAR
        assert "at least" in waits(should_retrain([cause(kind, bar - 0.01)], standing, POLICY, NOW))
        starts(should_retrain([cause(kind, bar)], standing, POLICY, NOW))


def test_a_crash_raises_no_bar() -> None:
    assert bar_of(TriggerKind.DRIFT, (past(Outcome.CRASHED),)) == 0.0
    assert bar_of(TriggerKind.CALENDAR, (past(Outcome.CRASHED),)) == 0.0


def test_success_lowers_the_bar_again() -> None:
    standing = Standing(None, None, (past(Outcome.REFUSED, strength=5.0), past(Outcome.ACCEPTED, evidence="c")))
    assert failures_in_a_row(standing) == ()
    starts(should_retrain([cause(strength=1.1)], standing, POLICY, NOW))


def test_the_strongest_cause_above_its_bar_is_recorded() -> None:
    standing = Standing(None, None, (past(Outcome.REFUSED, strength=3.0),))
    asked = [cause(strength=2.9), cause(TriggerKind.QUALITY, 1.1, "f"), cause(TriggerKind.CALENDAR, 1.9, "9")]
    assert starts(should_retrain(asked, standing, POLICY, NOW)).kind is TriggerKind.QUALITY


outcomes = st.sampled_from([Outcome.CRASHED, Outcome.REFUSED])
strengths = st.floats(1.0, 50.0)
evidences = st.sampled_from("0123456789abcdef")
histories = st.lists(st.tuples(outcomes, st.sampled_from(TriggerKind), strengths, evidences), max_size=4)


def row_of(history: list[tuple[Outcome, TriggerKind, float, str]]) -> tuple[PastStart, ...]:
    return tuple(
        past(outcome, kind=kind, strength=strength, evidence=evidence, at=NOW - timedelta(days=20 - number))
        for number, (outcome, kind, strength, evidence) in enumerate(history)
    )


@given(histories, st.sampled_from(TriggerKind), strengths, evidences, outcomes)
def test_another_failure_never_starts_a_run_that_would_not_have_started_without_it(
    history: list[tuple[Outcome, TriggerKind, float, str]],
    kind: TriggerKind,
    strength: float,
    evidence: str,
    outcome: Outcome,
) -> None:
    row = row_of(history)
    asked = [cause(kind, strength, evidence)]
    worse = Standing(None, None, (*row, past(outcome, evidence="d", at=NOW - timedelta(days=10))))
    if isinstance(should_retrain(asked, worse, POLICY, NOW), Start):
        starts(should_retrain(asked, Standing(None, None, row), POLICY, NOW))


@given(st.lists(st.tuples(st.sampled_from(TriggerKind), strengths), min_size=1, max_size=40))
def test_there_is_no_retrain_loop_whatever_is_found(found: list[tuple[TriggerKind, float]]) -> None:
    """A world in which something is found every hour and every candidate is refused."""
    history: list[PastStart] = []
    for hour in range(24 * 30):
        now = NOW + timedelta(hours=hour)
        kind, strength = found[hour % len(found)]
        asked = [Cause(kind, strength, f"{hour:064x}", "found")]
        decided = should_retrain(asked, Standing(None, None, tuple(history)), POLICY, now)
        if isinstance(decided, Start):
            history.append(PastStart(decided.trigger, Outcome.REFUSED, now))
    assert len(history) <= POLICY.max_failed
    gaps = [(b.seen_at - a.seen_at) / timedelta(hours=POLICY.back_off_hours) for a, b in pairwise(history)]
    assert all(gap >= 2**number for number, gap in enumerate(gaps))


def test_a_release_of_people_keeps_the_id_that_it_had_before_there_were_triggers() -> None:
    plain = make_release()
    assert b"trigger" not in plain.canonical_bytes()
    started = plain.model_copy(update={"trigger": past(Outcome.ACCEPTED).trigger})
    assert started.release_id != plain.release_id
    for release in (plain, started):
        assert Release.model_validate_json(release.canonical_bytes()).release_id == release.release_id


def test_people_who_train_the_newest_day_open_the_way_and_a_filled_in_day_does_not() -> None:
    automatic = make_release(date(2013, 5, 1)).model_copy(update={"trigger": past(Outcome.REFUSED).trigger})
    replay = registered(make_release(date(2013, 4, 1)), automatic, make_release(date(2013, 4, 15)))
    standing = standing_of(replay, None, (), None, date(2013, 5, 20))
    assert len(failures_in_a_row(standing)) == 1
    replay = registered(make_release(date(2013, 4, 1)), automatic, make_release(date(2013, 5, 2)))
    assert failures_in_a_row(standing_of(replay, None, (), None, date(2013, 5, 20))) == ()


def registered(*releases: Release) -> Replay:
    """Registered one after the other, each a minute after the last; those with a trigger are held."""
    replay, policy = Replay("assistant"), make_policy()
    payloads: list[Payload] = [PolicyRecorded(policy=policy)]
    for release in releases:
        payloads.append(ReleaseRegistered(release=release))
        if release.trigger is not None:
            named = {"release_id": release.release_id, "policy_sha256": policy.sha256}
            payloads.append(ReleaseHeld(**named, gates={"late_recall": "low"}))  # type: ignore[arg-type]
    for minute, payload in enumerate(payloads):
        replay.add(replay.next_event(payload, recorded_at=NOW + timedelta(minutes=minute), actor="tests"))
    return replay
