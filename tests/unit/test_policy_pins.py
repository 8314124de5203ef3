"""Which promotion policy counts is an operator's signed word, and nobody else's."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ml_platform.contracts.canonical import canonical_bytes
from ml_platform.contracts.events import EventKind, PolicyPinned
from ml_platform.contracts.release import Release
from ml_platform.errors import EvidenceError, LedgerCorruptError, RefusedError
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.statements import read_pin, sign_evidence, sign_pin, verify_evidence, verify_pin
from ml_platform.release import door, recording
from ml_platform.release.controller import Controller, Held, Move
from tests.samples.releases import (
    NOW,
    OPERATOR,
    PRODUCT,
    inputs_of,
    make_controller,
    make_evidence,
    make_policy,
    make_release,
    make_results,
    pin,
    trusting,
)

KEY, STRANGER = SigningKey.generate(), SigningKey.generate()
POLICY, LOOSER = make_policy(), make_policy(version="1.1.0", evidence_valid_days=300)
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return make_controller(tmp_path, KEY)


def proven(controller: Controller, policy: object = POLICY) -> Release:
    """A release with all the evidence that its own policy asks for."""
    chosen = LOOSER if policy is LOOSER else POLICY
    release = make_release(policy=chosen)
    controller.register_release(release, chosen, NOW, "run")
    assert controller.record_verdicts(release, make_results(chosen), inputs_of(release), KEY, NOW, "run").eligible
    return release


def opened(controller: Controller, release: Release) -> Move | Held:
    return controller.open_canary(PRODUCT, release.release_id, LATER, "run")


def test_without_a_pin_nothing_serves(controller: Controller) -> None:
    held = opened(controller, proven(controller))
    assert isinstance(held, Held)
    assert held.gates == ("policy_pinned",)
    assert f"judged under {POLICY.sha256[:12]}" in held.reasons["policy_pinned"]
    assert f"`mlp policy pin {PRODUCT} --reason" in held.reasons["policy_pinned"]


def test_a_loosened_policy_serves_nothing_until_an_operator_pins_it(controller: Controller) -> None:
    pin(controller, POLICY)
    release = proven(controller, LOOSER)
    held = opened(controller, release)
    assert isinstance(held, Held)
    for digest in (POLICY.sha256[:12], LOOSER.sha256[:12]):
        assert digest in held.reasons["policy_pinned"]
    assert controller.state(PRODUCT).slots == {}
    pin(controller, LOOSER, LATER)
    assert isinstance(opened(controller, release), Move)


def test_pinning_another_policy_stops_the_canary_that_was_judged_under_the_old_one(controller: Controller) -> None:
    pin(controller, POLICY)
    release = proven(controller)
    opened(controller, release)
    controller.pause_canary(PRODUCT, release.release_id, "look", LATER, "operator")
    pin(controller, LOOSER, LATER)
    for move in (controller.advance_canary, controller.promote):
        held = move(PRODUCT, release.release_id, LATER, "run")
        assert isinstance(held, Held)
        assert held.gates == ("policy_pinned",)
    assert isinstance(controller.resume_canary(PRODUCT, release.release_id, "go on", LATER, "operator"), Held)
    assert controller.abort_canary(PRODUCT, release.release_id, "out", LATER, "operator").changed


def test_pinning_the_pinned_policy_again_records_nothing(controller: Controller) -> None:
    said = pin(controller)
    assert said == controller.pinned(PRODUCT)
    before = controller.ledger.events()
    assert pin(controller, at=LATER) is None
    assert controller.ledger.events() == before


def test_only_an_operator_pins_and_only_with_a_reason(controller: Controller) -> None:
    for key in (KEY, STRANGER):  # the key that signs evidence is no operator's
        with pytest.raises(EvidenceError, match="not trusted"):
            controller.pin_policy(PRODUCT, POLICY, key, "why", NOW, "run")
    with pytest.raises(RefusedError, match="with a reason"):
        controller.pin_policy(PRODUCT, POLICY, OPERATOR, " ", NOW, "run")
    assert controller.ledger.events() == ()


IN_NAME_ONLY = make_policy(
    gates=[
        gate.model_dump(mode="json") | ({"check": "schema_valid"} if gate.gate == "no_leakage" else {})
        for gate in POLICY.gates
    ]
)


def test_a_policy_whose_mandatory_gates_are_names_only_is_not_pinned(controller: Controller) -> None:
    with pytest.raises(RefusedError, match="in name only: 'no_leakage' must be a check of 'no_leakage'"):
        pin(controller, IN_NAME_ONLY)
    assert controller.ledger.events() == ()


def test_a_pin_from_before_lets_nothing_further_through_and_takes_nothing_away(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = make_release(policy=IN_NAME_ONLY)
    with monkeypatch.context() as before:
        for module in (door, recording):
            before.setattr(module, "why_in_name_only", lambda _: "")
        pin(controller, IN_NAME_ONLY)
        controller.register_release(release, IN_NAME_ONLY, NOW, "run")
        controller.record_verdicts(release, make_results(IN_NAME_ONLY), inputs_of(release), KEY, NOW, "run")
        assert isinstance(opened(controller, release), Move)
    held = controller.promote(PRODUCT, release.release_id, LATER + timedelta(days=1), "run")
    assert isinstance(held, Held)
    assert "'no_leakage' must be a check of 'no_leakage'. Correct it, and pin it with" in held.reasons["policy_pinned"]
    assert list(controller.state(PRODUCT).slots.values()) == [release.release_id]
    assert controller.ledger.verify(controller.trusted, controller.operators)
    assert controller.abort_canary(PRODUCT, release.release_id, "out", LATER, "operator").changed


def test_the_first_pin_is_made_once_whoever_signed_it(controller: Controller) -> None:
    first = controller.pin_policy(PRODUCT, POLICY, OPERATOR, "first", NOW, "run", only_first=True)
    assert first is not None
    assert controller.pin_policy(PRODUCT, LOOSER, OPERATOR, "first", NOW, "run", only_first=True) is None
    stranger = replace(controller, operators=trusting(STRANGER))
    assert stranger.pinned(PRODUCT) is None
    assert stranger.pin_policy(PRODUCT, LOOSER, STRANGER, "first", NOW, "run", only_first=True) is None


def test_an_old_pin_cannot_be_brought_back_nor_one_of_another_ledger(controller: Controller, tmp_path: Path) -> None:
    """Whoever can append to the ledger has the envelopes of all earlier pins."""
    elsewhere = make_controller(tmp_path / "elsewhere", KEY)
    pin(elsewhere, LOOSER, LATER)
    pin(controller, LOOSER)
    current = pin(controller, POLICY, LATER)
    old = controller.ledger.pins(PRODUCT)[0][1]
    foreign = elsewhere.ledger.pins(PRODUCT)[0][1]
    with controller.ledger.write(PRODUCT, LATER, "forger") as transaction:
        for envelope in (old, foreign):
            transaction.append_pin(read_pin(envelope), envelope)
    assert controller.pinned(PRODUCT) == current
    with pytest.raises(LedgerCorruptError, match="or was copied here"):
        controller.ledger.verify(trusting(KEY), trusting(OPERATOR))


def test_a_pin_that_no_operator_signed_changes_nothing_and_is_named(controller: Controller) -> None:
    current = pin(controller, POLICY)
    proven(controller, LOOSER)
    with controller.ledger.write(PRODUCT, LATER, "forger") as transaction:
        assert current is not None
        forged = current.model_copy(
            update={"policy_sha256": LOOSER.sha256, "after_sha256": transaction.replay.head_sha256}
        )
        transaction.append_pin(forged, sign_pin(forged, KEY))
    assert controller.pinned(PRODUCT) == current
    assert len(controller.ledger.verify(trusting(KEY))) == 1
    with pytest.raises(LedgerCorruptError, match=r"policy_pinned.*not trusted"):
        controller.ledger.verify(trusting(KEY), trusting(OPERATOR))


def test_the_pin_of_a_revoked_operator_no_longer_counts_and_is_no_damage(controller: Controller) -> None:
    pin(controller)
    release = proven(controller)
    revoked = {OPERATOR.key_id: OPERATOR.public.model_copy(update={"revoked": True})}
    assert isinstance(opened(replace(controller, operators=revoked), release), Held)
    (chain,) = controller.ledger.verify(trusting(KEY), revoked)
    assert chain.events == len(controller.ledger.events())


def test_a_pin_of_a_policy_that_was_never_recorded_is_refused(controller: Controller) -> None:
    with (
        pytest.raises(RefusedError, match="was not recorded before"),
        controller.ledger.write(PRODUCT, NOW, "forger") as transaction,
    ):
        transaction.append(PolicyPinned(policy_sha256=POLICY.sha256, envelope_sha256="0" * 64))
    assert controller.ledger.events() == ()


def test_an_envelope_whose_key_id_is_no_text_stops_no_move(controller: Controller) -> None:
    """Whoever can append to the ledger can append what is well-formed, and nothing more comes of it."""
    said = pin(controller)
    assert said is not None
    release = proven(controller)
    plain = json.loads(sign_pin(said, STRANGER))
    plain["signatures"][0]["keyid"] = 5
    with controller.ledger.write(PRODUCT, LATER, "forger") as transaction:
        transaction.append_pin(said, canonical_bytes(plain))
    assert controller.pinned(PRODUCT) == said
    assert isinstance(opened(controller, release), Move)


def test_a_flipped_bit_in_any_byte_of_a_pin_is_refused(controller: Controller) -> None:
    pin(controller)
    ((event, envelope),) = controller.ledger.pins(PRODUCT)
    assert event.kind is EventKind.POLICY_PINNED
    assert verify_pin(envelope, trusting(OPERATOR)) == controller.pinned(PRODUCT)
    for index in range(len(envelope)):
        changed = bytearray(envelope)
        changed[index] ^= 1 << index % 8
        with pytest.raises(EvidenceError):
            verify_pin(bytes(changed), trusting(OPERATOR))


def test_evidence_is_no_pin_and_a_pin_no_evidence(controller: Controller) -> None:
    said = pin(controller)
    assert said is not None
    with pytest.raises(EvidenceError, match="its predicate, PolicyPin"):
        verify_pin(sign_evidence(make_evidence(make_release(), POLICY, "late_recall"), OPERATOR), trusting(OPERATOR))
    with pytest.raises(EvidenceError, match="its predicate, Evidence"):
        verify_evidence(sign_pin(said, OPERATOR), trusting(OPERATOR))


def test_an_event_of_another_version_says_what_does_not_fit(controller: Controller) -> None:
    pin(controller)
    event = controller.ledger.events()[0]
    payload = {"policy": {key: value for key, value in event.payload["policy"].items() if key != "quarantine"}}
    with pytest.raises(LedgerCorruptError, match=r"event 1 of assistant.*'policy\.quarantine': Field required"):
        Replay(PRODUCT).add(event.model_copy(update={"payload": payload}))
