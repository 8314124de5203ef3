"""Routing: what must hold for every user, exposure, rollout and product."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.routing import Cohort, Route, RouteReason
from ml_platform.errors import RefusedError
from ml_platform.serving.routing import RoutingTable, route

PRODUCTION, CANARY, SHADOW, OLD = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
USERS = [f"traveller-{number}" for number in range(4000)]
users = st.text(min_size=1, max_size=40)
shares = st.floats(0.0, 1.0)


def table(exposure: float = 0.5, **changed: object) -> RoutingTable:
    parts: dict[str, object] = {"product": "flights", "epoch": 7, "production": PRODUCTION, "canary": CANARY}
    return RoutingTable(**{**parts, "exposure": exposure, **changed})  # type: ignore[arg-type]


def asked(by: RoutingTable, user: str | None, response: str = "r1", **more: object) -> Route:
    return route(by, user_id=user, response_id=response, **more)  # type: ignore[arg-type]


def canary_users(by: RoutingTable, among: list[str] = USERS) -> set[str]:
    return {user for user in among if asked(by, user).cohort is Cohort.CANARY}


@given(users, shares, shares)
def test_raising_the_exposure_takes_nobody_out_of_the_canary(user: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if asked(table(low), user).cohort is Cohort.CANARY:
        assert asked(table(high), user).cohort is Cohort.CANARY


@given(users)
def test_no_exposure_is_nobody_and_full_exposure_is_everybody(user: str) -> None:
    assert asked(table(0.0), user).release_id == PRODUCTION
    assert asked(table(1.0), user).release_id == CANARY


@given(users, shares)
def test_the_record_holds_enough_to_see_why_a_user_was_in_the_canary(user: str, exposure: float) -> None:
    found = asked(table(exposure), user)
    assert found.user_draw is not None
    assert 0.0 <= found.user_draw < 1.0
    near = abs(found.user_draw - exposure) < 2**-52
    assert near or (found.cohort is Cohort.CANARY) == (found.user_draw < exposure)


@pytest.mark.parametrize("exposure", [0.01, 0.05, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("rollout", ["first", "second", "third"])
def test_the_share_of_canary_users_is_the_exposure_within_chance(exposure: float, rollout: str) -> None:
    """4.5 standard deviations of the binomial: one table in 150,000 would fail by chance, and these are fixed."""
    found = len(canary_users(table(exposure, rollout=rollout)))
    spread = math.sqrt(len(USERS) * exposure * (1 - exposure))
    assert abs(found - len(USERS) * exposure) < 4.5 * spread


@given(st.permutations(USERS[:40]))
def test_the_order_of_requests_decides_nothing(order: list[str]) -> None:
    assert canary_users(table(0.3), order) == canary_users(table(0.3), USERS[:40])


def test_another_process_draws_the_same_users() -> None:
    program = (
        "from ml_platform.serving.routing import RoutingTable, route\n"
        f"t = RoutingTable('flights', 7, {PRODUCTION!r}, {CANARY!r}, exposure=0.5)\n"
        "print([route(t, user_id=f'traveller-{n}', response_id='r1').cohort.value for n in range(50)])"
    )
    # Another hash seed: nothing may rest on Python's own hash.
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "4711"},
        check=True,
        capture_output=True,
        text=True,
        cwd=sys.path[0] or None,
    ).stdout
    assert told.strip() == str([asked(table(), user).cohort.value for user in USERS[:50]])


def test_the_draw_is_what_it_always_was() -> None:
    """A change of the hash would move every user of every running canary at once."""
    drawn = [asked(table(0.5), user).cohort is Cohort.CANARY for user in USERS[:16]]
    assert "".join("c" if one else "p" for one in drawn) == "ccpcpppppcpcccpp"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (table(0.5), table(0.5, product="hotels")),
        (table(0.5), table(0.5, canary=OLD)),
        (table(0.5, rollout="1"), table(0.5, rollout="2")),
    ],
    ids=["product", "release", "rollout"],
)
def test_cohorts_of_two_products_releases_or_rollouts_are_independent(one: RoutingTable, other: RoutingTable) -> None:
    both = len(canary_users(one) & canary_users(other))
    assert abs(both - len(USERS) * 0.25) < 4.5 * math.sqrt(len(USERS) * 0.25 * 0.75)


def test_parts_of_the_hash_do_not_run_into_each_other() -> None:
    one = asked(table(product="ab", rollout="c"), "u").user_draw
    assert one != asked(table(product="a", rollout="bc"), "u").user_draw


@given(users, shares, st.sets(st.sampled_from([PRODUCTION, CANARY, OLD])))
def test_nobody_is_sent_to_what_is_unavailable_or_less_proven(user: str, exposure: float, down: set[str]) -> None:
    found = asked(table(exposure, last_good=OLD), user, unavailable=down)
    assert found.release_id not in down
    assert found.cohort is asked(table(exposure, last_good=OLD), user).cohort
    if found.cohort is Cohort.PRODUCTION:
        assert found.release_id != CANARY
    if len(down) == 3 or (found.cohort is Cohort.PRODUCTION and down >= {PRODUCTION, OLD}):
        assert (found.release_id, found.reason) == (None, RouteReason.NOTHING_SERVES)
    else:
        assert found.release_id is not None


def test_a_canary_that_is_down_gives_its_users_to_production_and_they_stay_its_cohort() -> None:
    found = asked(table(1.0), "u", unavailable={CANARY})
    assert (found.release_id, found.cohort, found.reason) == (PRODUCTION, Cohort.CANARY, RouteReason.FELL_BACK)


def test_a_first_release_serves_its_share_and_everybody_else_gets_the_fallback_reply() -> None:
    first = table(0.1, production=None)
    found = {asked(first, user).release_id for user in USERS[:200]}
    assert found == {CANARY, None}


def test_a_request_without_a_user_is_no_part_of_the_canary() -> None:
    found = asked(table(1.0), None)
    assert (found.release_id, found.user_draw) == (PRODUCTION, None)


@pytest.mark.parametrize(("said", "release"), [("canary", CANARY), ("production", PRODUCTION), (OLD, OLD)])
def test_an_operator_chooses_a_slot_or_a_release_that_serves(said: str, release: str) -> None:
    found = asked(table(last_good=OLD), "u", override=said, may_override=True)
    assert (found.release_id, found.cohort, found.epoch) == (release, Cohort.OPERATOR, 7)


def test_an_override_by_anybody_else_is_refused() -> None:
    with pytest.raises(RefusedError, match="scope 'operate'"):
        asked(table(), "u", override="canary")


@pytest.mark.parametrize("said", ["shadow", "e" * 64, "", "canary"])
def test_an_override_to_what_does_not_serve_is_refused_and_says_what_does(said: str) -> None:
    with pytest.raises(RefusedError, match=rf"Ask for one of: {PRODUCTION}\."):
        asked(table(), "u", override=said, may_override=True, unavailable={CANARY})


def test_the_shadow_gets_its_share_of_responses_and_changes_no_route() -> None:
    plain, shadowed = table(0.3), table(0.3, shadow=SHADOW, shadow_share=0.2)
    copies = 0
    for number, user in enumerate(USERS):
        with_shadow, without = asked(shadowed, user, f"r{number}"), asked(plain, user, f"r{number}")
        assert with_shadow.model_copy(update={"shadow_release_id": None}) == without
        copies += with_shadow.shadow_release_id == SHADOW
    assert abs(copies - 800) < 4.5 * math.sqrt(4000 * 0.2 * 0.8)


def test_the_sample_of_the_shadow_follows_the_response_and_not_the_user() -> None:
    shadowed = table(0.3, shadow=SHADOW, shadow_share=0.5)
    drawn = [asked(shadowed, "u", f"r{number}").shadow_release_id for number in range(64)]
    assert drawn == [asked(shadowed, "u", f"r{number}").shadow_release_id for number in range(64)]
    assert {SHADOW, None} == set(drawn)


def test_a_shadow_that_answers_anyway_or_is_down_gets_no_copy() -> None:
    full: dict[str, object] = {"shadow": SHADOW, "shadow_share": 1.0}
    assert asked(table(exposure=0.0, **full), "u").shadow_release_id == SHADOW
    assert asked(table(exposure=0.0, **full), "u", unavailable={SHADOW}).shadow_release_id is None
    assert asked(table(1.0, shadow=CANARY, shadow_share=1.0), "u").shadow_release_id is None


def test_a_table_says_what_the_deployment_says() -> None:
    slots = {SlotName.PRODUCTION: PRODUCTION, SlotName.CANARY: CANARY}
    state = DeploymentState(product="flights", epoch=7, slots=slots, exposure=0.5, last_good=OLD)
    made = RoutingTable.of(state)
    assert made == table(0.5, last_good=OLD)
    assert made.releases == (PRODUCTION, CANARY, OLD)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan, math.inf])
def test_a_share_beyond_zero_and_one_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="expected a share from 0 to 1"):
        table(share)
    with pytest.raises(ValueError, match="expected a share from 0 to 1"):
        table(0.5, shadow_share=share)


def test_a_route_that_contradicts_itself_is_no_route() -> None:
    parts = {"product": "p", "epoch": 1, "cohort": "production", "reason": "assigned", "exposure": 0.0}
    with pytest.raises(ValueError, match="contradicts itself"):
        Route.model_validate({**parts, "release_id": None})
