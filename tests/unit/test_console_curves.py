"""Curves: which looks belong together, and drawings that hold whatever the numbers are."""

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from ml_platform.contracts.monitoring import Look
from ml_platform.serving.gateway.console.curves import HEIGHT, MOST_POINTS, WIDTH, curve_of, draw, rollout_looks
from tests.samples.looks import make_look, make_reading, make_rollout

START = datetime(2013, 4, 1, 6, tzinfo=UTC)


def looks_of(canary: str | None, count: int, after: int = 0) -> list[Look]:
    return [make_look("a", START + timedelta(minutes=after + number), canary=canary) for number in range(count)]


def test_only_looks_at_the_newest_rollout_are_drawn() -> None:
    former, present = looks_of("b" * 64, 3), looks_of("c" * 64, 4, after=10)
    assert rollout_looks((*former, *present)) == tuple(present)
    assert rollout_looks(()) == ()


def test_a_rollout_that_ended_is_still_shown_while_nothing_new_is_measured() -> None:
    former, quiet = looks_of("b" * 64, 3), looks_of(None, 2, after=10)
    assert rollout_looks((*former, *quiet)) == tuple(former)


def test_production_alone_before_and_after_a_rollout_is_not_one_curve() -> None:
    alone = {"canary": None, "effect": None, "effect_lower": None, "effect_upper": None}
    readings = (make_reading("error_rate", 50, **alone),)
    before, after = (
        [make_look("a", START + timedelta(minutes=m), canary=None, decision={"readings": readings}) for m in minutes]
        for minutes in ((0, 1), (20, 21, 22))
    )
    between = looks_of("b" * 64, 2, after=10)
    assert rollout_looks((*before, *between, *after)) == tuple(after)


def test_a_curve_has_its_points_in_the_products_time_and_marks_steps() -> None:
    looks = make_rollout("a", START, datetime.now(UTC), looks=20)
    curve = curve_of(looks[-1].decision.readings[0], looks)
    assert [point.at for point in curve.points] == [look.decision.at for look in looks]
    assert curve.steps == ((START + timedelta(minutes=100), 0.25),)


def test_long_histories_are_thinned_and_keep_their_end() -> None:
    looks = make_rollout("a", START, datetime.now(UTC), looks=400)
    curve = curve_of(looks[-1].decision.readings[0], looks)
    assert len(curve.points) <= MOST_POINTS
    assert curve.points[-1].at == looks[-1].decision.at


def test_nothing_to_draw_says_so() -> None:
    empty = {"effect": None, "effect_lower": None, "effect_upper": None}
    assert "nothing to draw yet" in draw(curve_of(make_reading("error_rate", 0, **empty), ())).svg()


finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.none() | finite


@given(
    st.lists(st.tuples(numbers, numbers, numbers), max_size=8),
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
    reading = looks[-1].decision.readings[0] if looks else make_reading(metric, 9, limit=limit)
    picture = ET.fromstring(draw(curve_of(reading, looks)).svg())  # noqa: S314 - ours
    for shape in picture.iter():
        points = [tuple(map(float, pair.split(","))) for pair in shape.get("points", "").split()]
        points += [(float(shape.get(x, "0")), float(shape.get(y, "0"))) for x, y in (("x1", "y1"), ("x2", "y2"))]
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points), ET.tostring(shape)
