"""The feed gives every answer as often as more is known of it, in the product's time, and loses nothing."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import Seen
from ml_platform.contracts.provenance import FeedbackKind, LoggedContract, RecordedError, Timings
from ml_platform.contracts.routing import Cohort, RouteReason
from ml_platform.errors import StorageError
from ml_platform.lineage.provenance import tailing
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.monitoring import observations
from ml_platform.monitoring.observations import Feed
from ml_platform.monitoring.settling import SETTLES
from tests.samples.observed import AGE, make_answer, put, releases, without_features
from tests.samples.provenance import NOW, PRODUCT, make_feedback, make_outcome, response_id_of

HOUR = timedelta(hours=1)


class Watched:
    """A feed whose clock is turned by hand."""

    def __init__(self, store: ProvenanceStore, time: str = "clock", since: datetime | None = None) -> None:
        self.wall = NOW + 0.1 * HOUR
        self.feed = Feed(store, PRODUCT, releases(time), AGE, since=since, wall=lambda: self.wall)

    def read(self) -> dict[str, Seen]:
        """What is new, by response."""
        found = self.feed.read()
        assert len({seen.response_id for seen in found}) == len(found)
        return {seen.response_id: seen for seen in found}

    def one(self) -> Seen:
        """The only thing that is new."""
        (seen,) = self.read().values()
        return seen


@pytest.fixture
def watched(store: ProvenanceStore) -> Watched:
    return Watched(store)


def outcome(number: int, hours: float, late: bool, key: str = "") -> LoggedContract:
    """What became of the flight of answer `number`, so many hours after it."""
    at = NOW + timedelta(seconds=number) + hours * HOUR
    return make_outcome(
        number, values={"late": late}, occurred_at=at, received_at=at, idempotency_key=key or f"{number}-{hours}"
    )


def test_an_answer_is_seen_once_and_a_read_without_news_is_empty(store: ProvenanceStore, watched: Watched) -> None:
    put(store, make_answer(1), make_answer(10))
    found = watched.read()
    assert found.keys() == {response_id_of(1), response_id_of(10)}
    seen = found[response_id_of(10)]
    assert (seen.cohort, seen.exposure, seen.epoch) == (Cohort.CANARY, 0.1, 7)
    assert (seen.at, seen.answered_at) == (NOW + timedelta(seconds=10),) * 2
    assert (seen.user, seen.mature, seen.labelled) == (f"{10:064x}", False, False)
    assert watched.read() == {}


def test_who_asked_without_a_name_is_a_user_of_one_answer(store: ProvenanceStore, watched: Watched) -> None:
    put(store, make_answer(1, user_sha256=None, user_draw=None))
    assert watched.one().user == response_id_of(1)


def test_answers_of_other_products_are_not_seen(store: ProvenanceStore, watched: Watched) -> None:
    put(store, make_answer(1, product="another"), make_answer(2), make_answer(3, product="another"))
    assert watched.read().keys() == {response_id_of(2)}


def test_feedback_may_come_later_and_is_told_once(store: ProvenanceStore, watched: Watched) -> None:
    put(store, make_answer(1), make_answer(2))
    assert {seen.signals[Signal.DISLIKED] for seen in watched.read().values()} == {0.0}
    put(store, make_feedback(1, kind=FeedbackKind.REPHRASED), make_feedback(2))
    seen = watched.one()
    assert (seen.response_id, seen.signals[Signal.DISLIKED]) == (response_id_of(1), 1.0)
    put(store, make_feedback(1, kind=FeedbackKind.THUMBS_DOWN, idempotency_key="again"))
    assert watched.read() == {}


def test_feedback_that_was_there_first_is_found_with_its_answer(store: ProvenanceStore, watched: Watched) -> None:
    put(store, make_feedback(1, kind=FeedbackKind.THUMBS_DOWN))
    assert watched.read() == {}
    put(store, make_answer(1))
    assert watched.one().signals[Signal.DISLIKED] == 1.0


@pytest.mark.parametrize("first", ["answer", "outcome"])
def test_a_label_counts_once_it_is_mature_whoever_came_first(
    store: ProvenanceStore, watched: Watched, first: str
) -> None:
    both = [make_answer(1, risk="low"), outcome(1, 2, late=True)]
    for value in both if first == "answer" else reversed(both):
        put(store, value)
        watched.read()
    watched.wall = NOW + AGE
    assert watched.read() == {}
    watched.wall += timedelta(seconds=1)
    seen = watched.one()
    assert (seen.mature, seen.labelled) == (True, True)
    assert seen.signals[Signal.MISSED] == 1.0
    assert Signal.FALSE_ALARM not in seen.signals
    assert watched.read() == {}


def test_an_answer_without_an_outcome_matures_without_a_label(store: ProvenanceStore, watched: Watched) -> None:
    put(store, make_answer(1), outcome(1, 7, late=True))
    watched.read()
    watched.wall = NOW + 9 * HOUR
    seen = watched.one()
    assert (seen.mature, seen.labelled) == (True, False)
    assert not {Signal.MISSED, Signal.FALSE_ALARM} & seen.signals.keys()


def test_outcomes_that_contradict_each_other_are_no_label(store: ProvenanceStore, watched: Watched) -> None:
    put(store, make_answer(1), outcome(1, 2, late=True), outcome(1, 3, late=False))
    watched.wall = NOW + 9 * HOUR
    seen = watched.one()
    assert (seen.mature, seen.labelled) == (True, False)


def test_an_outcome_that_was_in_time_and_late_to_the_store_still_counts(
    store: ProvenanceStore, watched: Watched
) -> None:
    put(store, make_answer(1, risk="high"))
    watched.wall = NOW + 7 * HOUR
    assert not watched.one().labelled
    put(store, outcome(1, 2, late=False))
    seen = watched.one()
    assert (seen.mature, seen.labelled, seen.signals[Signal.FALSE_ALARM]) == (True, True, 1.0)


def test_a_label_that_counted_is_never_taken_back(store: ProvenanceStore, watched: Watched) -> None:
    put(store, make_answer(1), outcome(1, 2, late=True))
    watched.wall = NOW + 7 * HOUR
    assert watched.one().labelled
    put(store, outcome(1, 3, late=False))
    assert watched.read() == {}


def test_what_is_long_over_is_let_go(store: ProvenanceStore, watched: Watched) -> None:
    put(store, make_answer(1))
    watched.wall = NOW + 7 * HOUR
    assert not watched.one().labelled
    watched.wall += SETTLES
    assert watched.read() == {}
    put(store, outcome(1, 2, late=True), make_feedback(1, kind=FeedbackKind.THUMBS_DOWN))
    assert watched.read() == {}


def test_an_outcome_may_name_the_response(store: ProvenanceStore, watched: Watched) -> None:
    put(store, make_answer(1, risk="high"), make_answer(501, risk="high"))
    put(store, make_outcome(1, response_id=response_id_of(1), entity={}, values={"late": True}))
    watched.wall = NOW + 24 * HOUR
    found = watched.read()
    assert found[response_id_of(1)].labelled
    assert not found[response_id_of(501)].labelled


def test_all_who_asked_about_the_same_get_its_outcome(store: ProvenanceStore, watched: Watched) -> None:
    put(store, make_answer(1, risk="high"), make_answer(501, risk="low"))
    watched.read()
    put(store, outcome(1, 2, late=True))
    watched.wall = NOW + 7 * HOUR
    assert [seen.signals[Signal.MISSED] for seen in watched.read().values()] == [0.0, 1.0]


def test_where_history_is_replayed_time_is_that_of_the_features(store: ProvenanceStore) -> None:
    watched, spring = Watched(store, "features"), datetime.fromisoformat("2013-04-01T06:00Z")
    put(store, make_answer(1, published_at=spring), without_features(make_answer(2)))
    found = watched.read()
    assert {seen.at for seen in found.values()} == {spring}
    assert watched.feed.now() == spring
    happened = make_outcome(1, values={"late": True}, occurred_at=spring + HOUR, received_at=NOW + HOUR)
    put(store, happened, make_answer(3, published_at=spring + AGE))
    found = watched.read()
    assert watched.feed.now() == spring + AGE
    assert (found[response_id_of(1)].mature, found[response_id_of(1)].labelled) == (True, True)
    assert (found[response_id_of(2)].mature, found[response_id_of(2)].labelled) == (True, False)
    assert found[response_id_of(3)].mature is False


def test_time_never_goes_back(store: ProvenanceStore) -> None:
    watched, spring = Watched(store, "features"), datetime.fromisoformat("2013-04-01T06:00Z")
    put(store, make_answer(1, published_at=spring + AGE))
    watched.read()
    put(store, make_answer(2, published_at=spring))
    assert watched.one().mature
    assert watched.feed.now() == spring + AGE


def test_a_feed_that_begins_without_traffic_knows_the_time_from_before(store: ProvenanceStore) -> None:
    spring = datetime.fromisoformat("2013-04-01T06:00Z")
    put(store, make_answer(1, published_at=spring), without_features(make_answer(2)))
    watched = Watched(store, "features", since=NOW + HOUR)
    assert watched.read() == {}
    assert watched.feed.now() == spring
    put(store, without_features(make_answer(7200)))
    assert watched.one().at == spring


def test_answers_from_before_the_beginning_are_left_out(store: ProvenanceStore) -> None:
    for number in range(0, 600, 100):
        put(store, make_answer(number))
    put(store, make_feedback(300, kind=FeedbackKind.THUMBS_DOWN))
    watched = Watched(store, since=NOW + timedelta(seconds=360))
    found = watched.read()
    # The clocks of gateways may differ by a minute.
    assert found.keys() == {response_id_of(number) for number in (300, 400, 500)}
    assert found[response_id_of(300)].signals[Signal.DISLIKED] == 1.0
    put(store, make_answer(700))
    assert watched.read().keys() == {response_id_of(700)}


def test_a_gateway_whose_clock_is_behind_is_seen_all_the_same(store: ProvenanceStore) -> None:
    put(store, make_answer(1))
    watched = Watched(store, since=NOW + HOUR)
    assert watched.read() == {}
    put(store, make_answer(2, answered_at=NOW - 5 * HOUR))
    assert watched.one().response_id == response_id_of(2)


def test_who_did_not_wait_was_not_missed(store: ProvenanceStore, watched: Watched) -> None:
    late = RecordedError(kind="deadline", message="the deadline passed before a release was asked")
    hasty: dict[str, Any] = {"errors": (late,), "route_reason": RouteReason.FELL_BACK}
    put(store, make_answer(10, timings=Timings(total_ms=1.0), **hasty), outcome(10, 2, late=True))
    put(store, make_answer(20, timings=Timings(total_ms=2000.0), **hasty), outcome(20, 2, late=True))
    watched.wall = NOW + 9 * HOUR
    seen, waited = watched.read().values()
    assert (waited.signals[Signal.ERROR], waited.signals[Signal.MISSED]) == (1.0, 1.0)
    assert seen.labelled
    assert not {Signal.ERROR, Signal.MISSED} & seen.signals.keys()


def test_a_store_that_fails_in_the_middle_of_a_read_costs_nothing(
    store: ProvenanceStore, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make_answer(1), make_answer(2), make_feedback(1, kind=FeedbackKind.THUMBS_DOWN))

    def down(_: object) -> list[object]:
        raise StorageError("down")

    for method in ("join", "rows"):
        with monkeypatch.context() as failing:
            failing.setattr(store, method, down)
            with pytest.raises(StorageError, match="down"):
                watched.read()
    put(store, make_answer(3))
    found = watched.read()
    assert found.keys() == {response_id_of(number) for number in (1, 2, 3)}
    assert found[response_id_of(1)].signals[Signal.DISLIKED] == 1.0


def test_a_backlog_of_many_pages_is_read_at_once(store: ProvenanceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "PAGE", 7)
    monkeypatch.setattr(observations, "AT_ONCE", 5)
    watched = Watched(store)
    put(store, *(make_answer(n) for n in range(50)), *(outcome(n, 2, late=True) for n in range(50)))
    assert len(watched.read()) == 50
    put(store, *(make_feedback(n, kind=FeedbackKind.THUMBS_DOWN) for n in range(20)))
    assert len(watched.read()) == 20
    watched.wall = NOW + 9 * HOUR
    found = watched.read().values()
    assert sum(seen.mature and seen.labelled for seen in found) == 50
    assert sum(seen.signals[Signal.DISLIKED] for seen in found) == 20.0
    assert watched.read() == {}


def test_a_store_that_fails_while_labels_mature_costs_none_of_them(
    store: ProvenanceStore, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, *(make_answer(n) for n in range(4)), *(outcome(n, 2, late=True) for n in range(4)))
    watched.read()
    watched.wall = NOW + 9 * HOUR

    def down(_: object) -> list[object]:
        raise StorageError("down")

    with monkeypatch.context() as failing:
        failing.setattr(store, "join", down)
        with pytest.raises(StorageError, match="down"):
            watched.read()
    assert [seen.labelled for seen in watched.read().values()] == [True] * 4


def test_a_dislike_of_a_mature_answer_keeps_its_label(store: ProvenanceStore, watched: Watched) -> None:
    put(store, make_answer(1), outcome(1, 2, late=True))
    watched.wall = NOW + 7 * HOUR
    watched.read()
    put(store, make_feedback(1, kind=FeedbackKind.CORRECTION, text="It left late."))
    seen = watched.one()
    assert (seen.labelled, seen.signals[Signal.DISLIKED], seen.signals[Signal.MISSED]) == (True, 1.0, 1.0)
    put(store, make_feedback(1, kind=FeedbackKind.THUMBS_DOWN, idempotency_key="again"))
    assert watched.read() == {}


def test_nobody_dislikes_all_answers_about_an_entity_at_once(store: ProvenanceStore, watched: Watched) -> None:
    about = make_answer(1).entity
    put(store, make_answer(1), make_feedback(1, response_id=None, entity=about, kind=FeedbackKind.THUMBS_DOWN))
    before = watched.one()
    put(store, make_answer(501), make_feedback(2, response_id=None, entity=about, kind=FeedbackKind.REPHRASED))
    after = watched.one()
    assert [one.signals[Signal.DISLIKED] for one in (before, after)] == [0.0, 0.0]


def test_a_store_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    gone = ProvenanceStore(f"postgresql://nobody@/nothing?host={tmp_path}")
    with pytest.raises(StorageError, match="provenance store"):
        Feed(gone, PRODUCT, releases(), AGE).read()


def test_who_was_sent_to_another_release_stays_with_the_arm(store: ProvenanceStore, watched: Watched) -> None:
    fell_back = make_answer(10, release_id="a" * 64, route_reason=RouteReason.FELL_BACK)
    put(store, fell_back)
    seen = watched.one()
    assert (seen.cohort, seen.signals[Signal.ERROR]) == (Cohort.CANARY, 1.0)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(24)), cuts=st.lists(st.integers(0, 24), max_size=4))
def test_whatever_comes_in_whatever_order_the_same_is_known_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cuts: list[int]
) -> None:
    values: list[LoggedContract] = [make_answer(n, risk="high" if n % 2 else "low") for n in range(8)]
    values += [outcome(n, 2 + n % 3, late=n % 3 == 0) for n in range(8)]
    values += [outcome(n, 3, late=True, key=f"second {n}") for n in range(4)]
    values += [make_feedback(n, kind=FeedbackKind.THUMBS_DOWN) for n in range(4)]
    stores = [ProvenanceStore(f"sqlite:///{tmp_path_factory.mktemp('feed') / 'p.sqlite'}") for _ in range(2)]
    known: list[dict[str, Seen]] = []
    for store, shuffled, stops in zip(stores, (range(24), order), ([], sorted(cuts)), strict=True):
        watched, found = Watched(store), dict[str, Seen]()
        for first, last in zip([0, *stops], [*stops, 24], strict=True):
            put(store, *(values[place] for place in list(shuffled)[first:last]))
            found |= watched.read()
        watched.wall = NOW + 9 * HOUR
        known.append(found | watched.read())
        store.close()
    assert known[0] == known[1]
    assert {seen.mature for seen in known[0].values()} == {True}
