"""Curves: which looks belong together, and drawings that hold whatever the numbers are."""

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from ml_platform.contracts.monitoring import Look
from ml_platform.serving.gateway.console.curves import HEIGHT, MOST_POINTS, WIDTH, Watch, draw, watches
from tests.samples.looks import make_look, make_reading, make_rollout

START = datetime(2013, 4, 1, 6, tzinfo=UTC)


def looks_of(canary: str | None, count: int, after: int = 0) -> list[Look]:
    return [make_look("a", START + timedelta(minutes=after + number), canary=canary) for number in range(count)]


def alone(count: int, after: int) -> list[Look]:
    reading = make_reading("error_rate", 50, canary=None, effect=None, effect_lower=None, effect_upper=None)
    told = {"readings": (reading,)}
    return [
        make_look("a", START + timedelta(minutes=after + number), canary=None, decision=told) for number in range(count)
    ]


def test_only_looks_at_the_newest_rollout_are_drawn() -> None:
    former, present = looks_of("b" * 64, 3), looks_of("c" * 64, 4, after=10)
    assert watches((*former, *present)) == [Watch(tuple(present))]
    assert watches(()) == []


def test_a_rollout_that_ended_is_still_shown_while_nothing_new_is_measured() -> None:
    former, quiet = looks_of("b" * 64, 3), looks_of(None, 2, after=10)
    assert watches((*former, *quiet)) == [Watch(tuple(former))]


def test_a_rollout_that_ended_is_shown_behind_what_is_watched_since() -> None:
    before, rollout, since = alone(2, 0), looks_of("b" * 64, 3, after=10), alone(4, 20)
    assert watches((*before, *rollout, *since)) == [Watch(tuple(since)), Watch(tuple(rollout))]
    assert watches((*before, *rollout)) == [Watch(tuple(rollout))]
    assert watches(before) == [Watch(tuple(before))]


def test_the_look_that_ended_a_rollout_is_its_last_although_its_slot_is_empty_by_then() -> None:
    rollout, since = looks_of("b" * 64, 3), alone(2, 20)
    [abort] = [look.model_copy(update={"canary": None, "exposure": 0.0}) for look in looks_of("b" * 64, 1, after=9)]
    assert watches((*rollout, abort, *since)) == [Watch(tuple(since)), Watch((*rollout, abort))]
    [promotion] = [look.model_copy(update={"production": "b" * 64}) for look in (abort,)]
    [watch] = watches((*rollout, promotion))
    assert (watch.canary, watch.production) == ("b" * 64, "a" * 64)


def test_production_that_was_replaced_is_not_the_same_curve() -> None:
    first, second = alone(2, 0), [look.model_copy(update={"production": "d" * 64}) for look in alone(2, 10)]
    assert watches((*first, *second)) == [Watch(tuple(second))]


def test_a_curve_runs_over_our_time_tells_the_products_and_marks_steps() -> None:
    looks = make_rollout("a", START, datetime.now(UTC), looks=20)
    curve = Watch(tuple(looks)).curves()[0]
    assert [point.told_at for point in curve.points] == [look.decision.at for look in looks]
    assert curve.steps == ((looks[10].looked_at, 0.25),)
    picture = draw(curve).svg()
    assert "1 Apr 06:00" in picture
    assert "1 Apr 09:10" in picture


def test_long_histories_are_thinned_and_keep_their_end() -> None:
    looks = make_rollout("a", START, datetime.now(UTC), looks=400)
    for curve in Watch(tuple(looks)).curves():
        assert len(curve.points) <= MOST_POINTS
        assert curve.points[-1].at == looks[-1].looked_at


def test_nothing_to_draw_says_so() -> None:
    empty = {"effect": None, "effect_lower": None, "effect_upper": None}
    look = make_look("a", START, decision={"readings": (make_reading("error_rate", 0, **empty),)})
    assert "nothing to draw yet" in draw(Watch((look,)).curves()[0]).svg()


finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.none() | finite


@given(
    st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=8),
    finite,
    st.sampled_from(["error_rate", "latency_p95", "cost_per_answer"]),
    st.integers(0, 3),
)
def test_whatever_was_measured_is_drawn_inside_its_picture(
    measured: list[tuple[float | None, float | None, float | None]], limit: float, metric: str, minutes: int
) -> None:
    looks = []
    for number, (value, low, high) in enumerate(measured):
        reading = make_reading(metric, 9, effect=value, effect_lower=low, effect_upper=high, limit=limit)
        at = START + timedelta(minutes=number * minutes)
        looks.append(make_look("a", at, decision={"readings": (reading,)}))
    picture = ET.fromstring(draw(Watch(tuple(looks)).curves()[0]).svg())  # noqa: S314 - ours
    for shape in picture.iter():
        points = [tuple(map(float, pair.split(","))) for pair in shape.get("points", "").split()]
        points += [(float(shape.get(x, "0")), float(shape.get(y, "0"))) for x, y in (("x1", "y1"), ("x2", "y2"))]
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points), ET.tostring(shape)
