"""Attacks on admission: whoever writes to the ledger or its store without a key, and whatever a key that was taken back
signed, serves nothing; what served before goes on serving."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from ml_platform.contracts.events import (
    Payload,
    PolicyRecorded,
    ReleaseEligible,
    ReleaseRegistered,
)
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import PromotionPolicy
from ml_platform.contracts.release import Release, VersionedPart
from ml_platform.contracts.slot_moves import CanaryAdvanced, CanaryOpened, ReleasePromoted
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.ledger_rows import row_of
from ml_platform.lineage.ledger_schema import events
from ml_platform.lineage.statements import sign_evidence
from tests.samples.followed import POLICY, Watched, World
from tests.samples.releases import make_evidence, make_policy, make_results


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Home(tmp_path / "home"), f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def forge(world: World, *payloads: Payload, at: datetime | None = None) -> None:
    """Appends events that fit the chain and its rules, as somebody does who can insert rows and holds no key."""
    ledger = Ledger(world.url)
    replay = ledger.replay(world.product)
    with ledger._engine.connect().execution_options(writes=True) as connection, connection.begin():
        for payload in payloads:
            event = replay.next_event(payload, recorded_at=at or world.now, actor="mallory")
            replay.add(event)
            connection.execute(insert(events).values(**row_of(event)))


def attacked(world: World, attack: Callable[[], object], why: str, serve_first: bool = True) -> list[dict[str, Any]]:
    """The refusals after an attack on a product that serves, by a gateway that watched and by one that starts anew."""

    async def run() -> None:
        first = world.serve(1) if serve_first else None
        watched = Watched(world)
        await watched.look()
        attack()
        for gateway in (watched, Watched(world)):
            await gateway.look()
            found = gateway.deployments.of(world.product)
            if gateway is watched and first:
                assert found
                assert (found.table.production, found.table.canary) == (first, None)
            for release_id in found.table.releases if found else ():
                assert release_id == first
            assert any(why in one.reason for one in gateway.heard), gateway.heard

    asyncio.run(run())
    return world.events("admission_refused")


def unproven(world: World, seed: int = 2, policy: PromotionPolicy = POLICY) -> list[Payload]:
    """The events that register a release without any evidence and call it eligible."""
    release = release_of(world, seed, policy)
    expires = world.now + timedelta(days=30)
    eligible = ReleaseEligible(release_id=release.release_id, policy_sha256=policy.sha256, expires_at=expires)
    return [ReleaseRegistered(release=release), eligible]


def release_of(world: World, seed: int, policy: PromotionPolicy = POLICY) -> Release:
    part = VersionedPart(version=policy.version, content_sha256=policy.sha256)
    return world.release(seed).model_copy(update={"promotion_policy": part})


def opening(release_id: str, step: int = 1, exposure: float = 0.05) -> CanaryOpened:
    return CanaryOpened(release_id=release_id, step=step, exposure=exposure)


def test_a_canary_without_evidence_serves_nobody(world: World) -> None:
    release_id = release_of(world, 2).release_id
    said = attacked(world, lambda: forge(world, *unproven(world), opening(release_id)), "There is no evidence")
    assert {one["slot"] for one in said} == {"canary"}


def test_a_promotion_without_evidence_leaves_production_as_it_was(world: World) -> None:
    release_id = release_of(world, 2).release_id

    def attack() -> None:
        forge(world, *unproven(world), opening(release_id), ReleasePromoted(release_id=release_id))

    said = attacked(world, attack, "There is no evidence")
    assert said[0]["slot"] == "production"


def test_the_first_release_of_a_product_is_no_exception(world: World) -> None:
    release_id = release_of(world, 2).release_id

    def attack() -> None:
        forge(world, PolicyRecorded(policy=POLICY), *unproven(world), opening(release_id))

    attacked(world, attack, "No promotion policy", serve_first=False)


def test_an_easier_policy_that_no_operator_pinned_lets_nothing_in(world: World) -> None:
    easy = make_policy(version="9.0.0", evidence_valid_days=9999)
    release = release_of(world, 2, easy)

    def attack() -> None:
        forge(world, PolicyRecorded(policy=easy), *unproven(world, 2, easy))
        mallory = SigningKey.generate()
        for gate in easy.gate_names:
            evidence = make_evidence(release, easy, gate, at=world.now)
            with Ledger(world.url).write(world.product, world.now, "mallory") as transaction:
                transaction.append_evidence(evidence, sign_evidence(evidence, mallory))
        forge(world, opening(release.release_id))

    attacked(world, attack, "pinned is")


def test_evidence_that_an_unknown_key_signed_lets_nothing_in(world: World) -> None:
    release, mallory = release_of(world, 2), SigningKey.generate()

    def attack() -> None:
        forge(world, *unproven(world))
        for gate in POLICY.gate_names:
            evidence = make_evidence(release, POLICY, gate, at=world.now)
            with Ledger(world.url).write(world.product, world.now, "mallory") as transaction:
                transaction.append_evidence(evidence, sign_evidence(evidence, mallory))
        forge(world, opening(release.release_id))

    attacked(world, attack, "which is not trusted")


def test_evidence_of_another_release_lets_nothing_in(world: World) -> None:
    """True envelopes, copied: the release ids that the events name are not those that were signed."""
    release, other = release_of(world, 2), release_of(world, 3)

    def attack() -> None:
        forge(world, *unproven(world))
        for gate in POLICY.gate_names:
            true = sign_evidence(make_evidence(other, POLICY, gate, at=world.now), world.key)
            with Ledger(world.url).write(world.product, world.now, "mallory") as transaction:
                transaction.append_evidence(make_evidence(release, POLICY, gate, at=world.now), true)
        forge(world, opening(release.release_id))

    attacked(world, attack, "There is no evidence")


def test_evidence_that_expired_before_the_canary_opened_lets_nothing_in(world: World) -> None:
    def attack() -> None:
        release_id = world.prove(world.release(2))
        world.now += timedelta(days=POLICY.evidence_valid_days + 1)
        forge(world, opening(release_id))

    attacked(world, attack, "expired")


def test_a_move_from_the_future_lets_nothing_in(world: World) -> None:
    def attack() -> None:
        release_id = world.prove(world.release(2))
        forge(world, opening(release_id), at=world.now + timedelta(hours=2))

    attacked(world, attack, "still to come")


def test_a_move_that_is_dated_back_before_the_evidence_lets_nothing_in(world: World) -> None:
    def attack() -> None:
        release_id = world.prove(world.release(2))
        before = world.now - timedelta(hours=2)
        world.now += timedelta(days=POLICY.evidence_valid_days + 1)
        forge(world, opening(release_id), at=before)

    attacked(world, attack, "There is no evidence")


def test_more_users_than_the_plan_gives_are_given_to_nobody(world: World) -> None:
    def attack() -> None:
        release_id = world.try_out(2)
        forge(world, CanaryAdvanced(release_id=release_id, step=2, exposure=1.0))

    attacked(world, attack, "the plan says 20%")


def test_a_failed_gate_that_is_measured_later_takes_the_canary_out(world: World) -> None:
    def attack() -> None:
        release = world.release(2)
        world.prove(release)
        world.open(release.release_id)
        world.now += timedelta(minutes=1)
        results = make_results(POLICY, Verdict.FAIL)
        inputs = {"eval_report": "e" * 64, "candidate": release.model.candidate_sha256, "reference": "base"}
        world.controller.record_verdicts(release, results, inputs, world.key, world.now, "ci")

    attacked(world, attack, "FAIL")
