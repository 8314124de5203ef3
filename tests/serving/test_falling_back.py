"""Routing and breakers together, over ten simulated minutes in which releases break and recover."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.contracts.routing import Cohort, Route, RouteReason
from ml_platform.serving.breaker import Breaker, BreakerPhase, BreakerRule, admit, admits, record_outcome
from ml_platform.serving.routing import RoutingTable, route

PRODUCTION, CANARY, OLD = ("a" * 64, "b" * 64, "c" * 64)
TABLE = RoutingTable("flights", 7, PRODUCTION, CANARY, last_good=OLD, exposure=0.5)
Broken = dict[str, tuple[float, float]]
"""From when to when each release fails."""


@dataclass
class Gateway:
    """One worker: each request is routed, admitted, answered or failed, and its outcome recorded."""

    broken: Broken
    breakers: dict[str, Breaker] = field(default_factory=lambda: {one: Breaker() for one in (PRODUCTION, CANARY, OLD)})
    answers: list[tuple[float, Route, bool]] = field(default_factory=list)

    def ask(self, number: int, now: float) -> None:
        unavailable = {one for one, breaker in self.breakers.items() if not admits(breaker, now)}
        found = route(TABLE, user_id=f"u{number % 60}", response_id=f"r{number}", unavailable=unavailable)
        failed = False
        if found.release_id is not None:
            admission = admit(self.breakers[found.release_id], now)
            assert admission.admitted
            start, end = self.broken.get(found.release_id, (0.0, 0.0))
            failed = start <= now < end
            after = record_outcome(admission.breaker, failed=failed, now=now, probe=admission.probe)
            self.breakers[found.release_id] = after
        self.answers.append((now, found, failed))


def played(broken: Broken, seconds: int = 600, a_second: int = 10) -> Gateway:
    gateway = Gateway(broken)
    for number in range(seconds * a_second):
        gateway.ask(number, number / a_second)
    return gateway


def test_a_canary_that_breaks_costs_its_users_seconds_and_comes_back_by_itself() -> None:
    gateway = played({CANARY: (100.0, 300.0)})
    failures = [now for now, _, failed in gateway.answers if failed]
    # 5 requests a second of 5 % errors at most: the breaker opens after 5 % of a minute's 300, then probes each 15 s.
    assert failures[0] >= 100.0
    assert sum(now > 110.0 for now in failures) <= 200 // 15 + 1
    assert len(failures) < 40
    recovered = [found for now, found, _ in gateway.answers if now > 300.0 + BreakerRule().open_seconds + 2.0]
    assert {found.reason for found in recovered} == {RouteReason.ASSIGNED}
    assert Counter(found.cohort for found in recovered)[Cohort.CANARY] > 0


def test_users_of_production_notice_nothing_of_a_broken_canary() -> None:
    gateway = played({CANARY: (100.0, 300.0)})
    theirs = [(found.release_id, failed) for _, found, failed in gateway.answers if found.cohort is Cohort.PRODUCTION]
    assert set(theirs) == {(PRODUCTION, False)}


def test_when_production_breaks_its_users_get_the_last_good_release_and_never_the_canary() -> None:
    gateway = played({PRODUCTION: (100.0, 500.0)})
    theirs = [found for now, found, _ in gateway.answers if found.cohort is Cohort.PRODUCTION and 120.0 < now < 500.0]
    served = Counter(found.release_id for found in theirs)
    assert set(served) == {OLD, PRODUCTION}
    assert served[PRODUCTION] < 40  # probes


def test_when_everything_is_broken_the_fallback_reply_takes_over() -> None:
    gateway = played(dict.fromkeys((PRODUCTION, CANARY, OLD), (100.0, 400.0)))
    late = Counter(found.reason for now, found, _ in gateway.answers if 200.0 < now < 400.0)
    assert late[RouteReason.NOTHING_SERVES] > 0.9 * sum(late.values())
    assert {gateway.breakers[one].phase for one in (PRODUCTION, CANARY)} == {BreakerPhase.CLOSED}
    assert admits(gateway.breakers[OLD], 600.0)  # nobody needed it since: it would be probed when somebody does


spans = st.tuples(st.floats(0.0, 120.0), st.floats(0.0, 120.0)).map(sorted).map(tuple)


@given(st.dictionaries(st.sampled_from([PRODUCTION, CANARY, OLD]), spans))
@settings(max_examples=25)
def test_nobody_changes_arms_whatever_breaks(broken: Broken) -> None:
    gateway = played(broken, seconds=120, a_second=5)
    arms: dict[int, set[Cohort]] = {}
    for number, (_, found, _) in enumerate(gateway.answers):
        arms.setdefault(number % 60, set()).add(found.cohort)
    assert all(len(cohorts) == 1 for cohorts in arms.values())
