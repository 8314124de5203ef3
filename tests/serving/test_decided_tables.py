"""The table that serves: what is admitted and loaded, and what stays when the production that is wanted is not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.policy import SlotName
from ml_platform.serving.routing import RoutingTable
from ml_platform.serving.wanted import Place, Wanted, decide_table
from tests.samples.releases import make_release

RELEASES = {release.release_id: release for release in (make_release(seed=seed) for seed in range(1, 6))}
A, B, C, D, E = RELEASES
PLACES: tuple[Place, ...] = (*SlotName, None)
ids = st.sampled_from(list(RELEASES))


def wanted(places: dict[Place, str], refused: tuple[Place, ...] = (), **states: ReleaseState) -> Wanted:
    """What a ledger wants at epoch 7; `states` by letter."""
    slots = {place: release_id for place, release_id in places.items() if place is not None}
    of = {globals()[letter]: state for letter, state in states.items()}
    exposure = 0.2 if SlotName.CANARY in slots else 0.0
    state = DeploymentState(
        product="assistant",
        epoch=7,
        slots=slots,
        exposure=exposure,
        rollout="r" if exposure else "",
        last_good=places.get(None),
        releases=of,
    )
    found = {place: RELEASES[release_id] for place, release_id in places.items()}
    return Wanted(state, found, dict.fromkeys(refused, "no"))


def decided(what: Wanted, loaded: str, present: RoutingTable | None = None) -> RoutingTable | None:
    """The table when the releases of these letters are loaded."""
    return decide_table(what, [globals()[letter] for letter in loaded].__contains__, present)


ALL: dict[Place, str] = {SlotName.PRODUCTION: A, SlotName.CANARY: B, SlotName.SHADOW: C, None: D}
OLD = RoutingTable("assistant", 5, E, canary=B, shadow=C, last_good=D, exposure=0.05, rollout="old")


def test_all_that_is_loaded_serves_where_the_ledger_says() -> None:
    found = decided(wanted(ALL), "ABCD")
    assert found == RoutingTable("assistant", 7, A, B, C, D, exposure=0.2, rollout="r")


@pytest.mark.parametrize(("loaded", "canary", "shadow", "last_good"), [("A", None, None, None), ("AB", B, None, None)])
def test_what_is_not_loaded_yet_is_absent(
    loaded: str, canary: str | None, shadow: str | None, last_good: str | None
) -> None:
    found = decided(wanted(ALL), loaded)
    assert found
    assert (found.canary, found.shadow, found.last_good) == (canary, shadow, last_good)
    assert found.exposure == (0.2 if canary else 0.0)


def test_a_product_of_which_nothing_serves_and_nothing_may_has_no_table() -> None:
    assert decided(wanted({}), "ABCDE") is None
    assert decided(wanted(ALL), "BCD") is None
    assert decided(wanted(ALL, (SlotName.PRODUCTION,)), "ABCD") is None


def test_a_first_canary_serves_without_production() -> None:
    found = decided(wanted({SlotName.CANARY: B}), "B")
    assert found
    assert (found.production, found.canary) == (None, B)


def test_production_stays_when_the_next_one_is_refused_or_not_loaded() -> None:
    states: dict[str, Any] = {"A": ReleaseState.PRODUCTION, "B": ReleaseState.CANARY}
    assert decided(wanted(ALL, **states), "BCDE", OLD) == OLD
    assert decided(wanted(ALL, (SlotName.PRODUCTION,), **states), "ABCDE", OLD) == OLD


def test_what_stands_beside_production_goes_when_it_is_refused_or_taken_out() -> None:
    gone = {"canary": None, "shadow": None, "exposure": 0.0, "rollout": ""}
    for fallen in (ReleaseState.ABORTED, ReleaseState.ELIGIBLE):
        found = decided(wanted({SlotName.PRODUCTION: A}, B=fallen), "E", OLD)
        assert found == RoutingTable(**{**vars_of(OLD), **gone})
    found = decided(wanted(ALL, (*PLACES,), B=ReleaseState.CANARY), "ABCDE", OLD)
    assert found == RoutingTable("assistant", 5, E)


def test_a_release_that_is_refused_as_production_is_no_canary_any_more() -> None:
    found = decided(wanted({SlotName.PRODUCTION: B}, (SlotName.PRODUCTION,), B=ReleaseState.PRODUCTION), "BE", OLD)
    assert found
    assert (found.production, found.canary) == (E, None)


def vars_of(table: RoutingTable) -> dict[str, Any]:
    return {name: getattr(table, name) for name in table.__slots__}


tables = st.none() | st.builds(
    RoutingTable,
    product=st.just("assistant"),
    epoch=st.integers(0, 7),
    production=st.none() | ids,
    canary=st.none() | ids,
    shadow=st.none() | ids,
    last_good=st.none() | ids,
)


@given(
    places=st.dictionaries(st.sampled_from(PLACES), ids),
    refused=st.sets(st.sampled_from(PLACES)),
    states=st.dictionaries(st.sampled_from("ABCDE"), st.sampled_from(ReleaseState)),
    loaded=st.text("ABCDE", max_size=5),
    present=tables,
)
def test_nothing_serves_that_is_not_loaded_and_nothing_new_that_was_refused(
    places: dict[Place, str],
    refused: set[Place],
    states: dict[str, ReleaseState],
    loaded: str,
    present: RoutingTable | None,
) -> None:
    what = wanted(places, tuple(place for place in refused if place in places), **states)
    found = decided(what, loaded, present)
    if found is None:
        return
    before = set(present.releases) if present else set()
    allowed = {one.release_id for place, one in what.places.items() if place not in what.refused}
    ready = {globals()[letter] for letter in loaded}
    assert set(found.releases) <= before | (allowed & ready)
    assert (found.canary is None) <= (found.exposure == 0.0)
    assert found.epoch == (7 if found.epoch == 7 else present and present.epoch)
    if found.production is None:
        assert SlotName.PRODUCTION not in places or (present is not None and present.production is None)
