"""Keys over time: another root of trust for operators, rotation with overlap, revocation."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest

from ml_platform.contracts.home import Home
from ml_platform.errors import ContractError, EvidenceError, InvalidInputError, RefusedError
from ml_platform.lineage.key_rotation import list_keys, revoke_key, rotate_key
from ml_platform.lineage.keys import (
    KEY_VARIABLE,
    OPERATOR,
    OPERATOR_KEY_FILE_VARIABLE,
    OPERATOR_KEY_VARIABLE,
    OPERATORS_VARIABLE,
    SIGNING,
    TRUSTED_VARIABLE,
    SigningKey,
    operator_key,
    signing_key,
    trusted_keys,
    trusted_operators,
)
from ml_platform.lineage.ledger import Ledger
from ml_platform.release.controller import Controller, Held, Move
from tests.samples.releases import NOW, PRODUCER, PRODUCT, inputs_of, make_policy, make_release, make_results

POLICY, RELEASE = make_policy(), make_release()
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def controller_of(home: Home) -> Controller:
    """As a process that starts now sees the keys."""
    return Controller(Ledger(home.ledger_url), trusted_keys(home, {}), PRODUCER, trusted_operators(home, {}))


def prove(home: Home) -> Move | Held:
    """What a run does: pins the first policy, proves the release, asks for the canary."""
    controller, operator = controller_of(home), operator_key(home, {})
    if operator is not None:
        controller = controller_of(home)
        controller.pin_policy(PRODUCT, POLICY, operator, "first", NOW, "run", only_first=True)
    controller.register_release(RELEASE, POLICY, NOW, "run")
    key = signing_key(home, {})
    controller_of(home).record_verdicts(RELEASE, make_results(POLICY), inputs_of(RELEASE), key, NOW, "run")
    return controller_of(home).open_canary(PRODUCT, RELEASE.release_id, LATER, "run")


def test_operators_are_another_root_of_trust_than_evidence(home: Home) -> None:
    operator, signer = operator_key(home, {}), signing_key(home, {})
    assert operator is not None
    assert operator.key_id != signer.key_id
    assert list(trusted_operators(home, {})) == [operator.key_id]
    assert list(trusted_keys(home, {})) == [signer.key_id]
    assert stat.S_IMODE((home.keys / "operator_key.pem").stat().st_mode) == 0o600
    again = operator_key(home, {})
    assert again is not None
    assert again.key_id == operator.key_id


def test_where_operators_are_named_none_is_made(home: Home) -> None:
    named = SigningKey.generate()
    assert operator_key(home, {OPERATORS_VARIABLE: named.public.public_key}) is None
    assert not home.keys.exists()
    operator_key(home, {})
    assert operator_key(home, {OPERATORS_VARIABLE: named.public.public_key}) is None, "made before others were named"
    (home.keys / "operator_key.pem").unlink()
    assert operator_key(home, {}) is None
    assert len(trusted_operators(home, {})) == 1


def test_the_environment_may_give_the_operators_key(home: Home, tmp_path: Path) -> None:
    key = SigningKey.generate()
    path = tmp_path / "operator.pem"
    path.write_bytes(key.signer.private_bytes)
    path.chmod(0o600)
    environments = {OPERATOR_KEY_VARIABLE: key.signer.private_bytes.decode()}, {OPERATOR_KEY_FILE_VARIABLE: str(path)}
    for environment in environments:
        found = operator_key(home, environment)
        assert found is not None
        assert found.key_id == key.key_id
    path.chmod(0o644)
    with pytest.raises(EvidenceError, match="the operator key has mode 0644"):
        operator_key(home, {OPERATOR_KEY_FILE_VARIABLE: str(path)})


def test_after_a_rotation_the_old_evidence_still_counts_and_the_new_key_signs(home: Home) -> None:
    assert isinstance(prove(home), Move)
    old = signing_key(home, {})
    fresh = rotate_key(home, SIGNING, {})
    assert signing_key(home, {}).key_id == fresh.key_id != old.key_id
    assert set(trusted_keys(home, {})) == {old.key_id, fresh.key_id}
    assert isinstance(controller_of(home).promote(PRODUCT, RELEASE.release_id, LATER, "c"), Move)
    assert [one.signs for one in list_keys(home, {}) if one.role is SIGNING and one.key.key_id == fresh.key_id] == [
        True
    ]


def test_a_revoked_signing_key_proves_nothing_and_its_successor_proves_it_anew(home: Home) -> None:
    prove(home)
    old = signing_key(home, {})
    revoked, successor = revoke_key(home, old.key_id[:12], "laptop stolen", {})
    assert (revoked.revoked, revoked.revoked_because) == (True, "laptop stolen")
    assert successor is not None
    assert isinstance(controller_of(home).promote(PRODUCT, RELEASE.release_id, LATER, "c"), Held)
    assert len(Ledger(home.ledger_url).verify(trusted_keys(home, {}), trusted_operators(home, {}))) == 1
    prove(home)
    assert isinstance(controller_of(home).promote(PRODUCT, RELEASE.release_id, LATER, "c"), Move)


def test_a_revoked_operators_pin_holds_everything_until_the_successor_pins(home: Home) -> None:
    operator = operator_key(home, {})
    assert operator is not None
    prove(home)
    _, successor = revoke_key(home, operator.key_id, "left the company", {})
    assert successor is not None
    held = controller_of(home).promote(PRODUCT, RELEASE.release_id, LATER, "c")
    assert isinstance(held, Held)
    assert held.gates == ("policy_pinned",)
    assert isinstance(prove(home), Move), "the canary is still open, and no first pin is made a second time"
    assert controller_of(home).pinned(PRODUCT) is None
    controller_of(home).pin_policy(PRODUCT, POLICY, successor, "again", LATER, "operator")
    assert isinstance(controller_of(home).promote(PRODUCT, RELEASE.release_id, LATER, "c"), Move)


def test_a_key_revoked_before_its_turn_has_no_successor(home: Home) -> None:
    old = signing_key(home, {})
    current = rotate_key(home, SIGNING, {})
    assert revoke_key(home, old.key_id, "no longer needed", {})[1] is None
    assert signing_key(home, {}).key_id == current.key_id


@pytest.mark.parametrize("prefix", ["", "abc", "zzzz", "0" * 64])
def test_a_key_that_is_not_known_is_not_revoked(home: Home, prefix: str) -> None:
    signing_key(home, {})
    with pytest.raises(InvalidInputError, match=r"Known: [0-9a-f]{12} \(signing\)"):
        revoke_key(home, prefix, "r", {})


def test_what_the_environment_says_is_not_changed_here(home: Home) -> None:
    key = SigningKey.generate()
    given = {KEY_VARIABLE: key.signer.private_bytes.decode()}
    listed = {TRUSTED_VARIABLE: key.public.public_key}
    for environment in (given, listed):
        with pytest.raises(RefusedError, match=next(iter(environment))):
            rotate_key(home, SIGNING, environment)
        with pytest.raises(ContractError, match="is set, but empty"):
            rotate_key(home, SIGNING, dict.fromkeys(environment, ""))
    assert not home.keys.exists()
    (stranger,) = list_keys(home, given)
    assert (stranger.key.key_id, stranger.signs, stranger.trusted) == (key.key_id, True, False)
    with pytest.raises(RefusedError, match=f"put ! before {key.public.public_key}"):
        revoke_key(home, key.key_id, "r", listed)
    assert trusted_keys(home, {TRUSTED_VARIABLE: f"!{key.public.public_key}"})[key.key_id].revoked
    with pytest.raises(ContractError):
        trusted_keys(home, {TRUSTED_VARIABLE: f"!!{key.public.public_key}"})
    with pytest.raises(RefusedError, match="with a reason"):
        revoke_key(home, key.key_id, " ", {})


def test_rotating_the_operators_key_keeps_the_pins(home: Home) -> None:
    prove(home)
    before = controller_of(home).pinned(PRODUCT)
    rotate_key(home, OPERATOR, {})
    assert before == controller_of(home).pinned(PRODUCT)
    assert len(trusted_operators(home, {})) == 2
