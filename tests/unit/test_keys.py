"""Signing keys: made once, kept to oneself, trusted on purpose."""

import json
import multiprocessing
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ml_platform.contracts.home import Home
from ml_platform.errors import ContractError, EvidenceError
from ml_platform.lineage.keys import (
    KEY_FILE_VARIABLE,
    KEY_VARIABLE,
    OPERATOR_KEY_FILE_VARIABLE,
    OPERATOR_KEY_VARIABLE,
    OPERATORS_VARIABLE,
    TRUSTED_VARIABLE,
    SigningKey,
    operator_key,
    signing_key,
    trust,
    trusted_keys,
    trusted_operators,
)


def home_in(folder: Path) -> Home:
    return Home(folder / "home")


def test_the_first_run_makes_a_key_that_only_its_owner_can_read_and_trusts_it(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    key = signing_key(home, {})
    path = home.keys / "signing_key.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.keys.stat().st_mode) == 0o700
    assert signing_key(home, {}).key_id == key.key_id
    assert list(trusted_keys(home, {})) == [key.key_id]
    assert not list(home.keys.glob(".signing_key-*"))


def _key_id(root: str) -> str:
    return signing_key(Home(Path(root)), {}).key_id


def test_processes_that_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        ids = pool.map(_key_id, [str(tmp_path / "home")] * 12, chunksize=1)
    assert len(set(ids)) == 1
    assert list(trusted_keys(home_in(tmp_path), {})) == [ids[0]]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    home = home_in(tmp_path)
    signing_key(home, {})
    path = home.keys / "signing_key.pem"
    path.chmod(mode)
    with pytest.raises(EvidenceError, match=f"mode {mode:04o}.*chmod 600"):
        signing_key(home, {})


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_holds_no_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    home = home_in(tmp_path)
    home.keys.mkdir(parents=True)
    path = home.keys / "signing_key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(EvidenceError, match="no unencrypted Ed25519 private key"):
        signing_key(home, {})
    assert path.read_bytes() == content


def test_a_key_of_another_kind_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(EvidenceError, match="here: is no unencrypted Ed25519"):
        SigningKey.from_pem(pem, "here")


def test_the_environment_may_give_the_key_or_its_file(tmp_path: Path) -> None:
    key = SigningKey.generate()
    path = tmp_path / "key.pem"
    path.write_bytes(key.signer.private_bytes)
    path.chmod(0o600)
    home = home_in(tmp_path)
    assert signing_key(home, {KEY_VARIABLE: key.signer.private_bytes.decode()}).key_id == key.key_id
    assert signing_key(home, {KEY_FILE_VARIABLE: str(path)}).key_id == key.key_id
    assert not home.keys.exists()
    assert trusted_keys(home, {}) == {}


def test_a_named_key_file_that_is_not_there_is_an_error_and_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "key.pem"
    with pytest.raises(EvidenceError, match="no such signing key"):
        signing_key(home_in(tmp_path), {KEY_FILE_VARIABLE: str(missing)})
    assert not missing.exists()


def test_a_key_never_shows_in_its_representation_or_errors(tmp_path: Path) -> None:
    key = SigningKey.generate()
    secret = key.signer.private_bytes.decode().splitlines()[1]
    assert secret not in repr(key)
    with pytest.raises(EvidenceError) as caught:
        SigningKey.from_pem(key.signer.private_bytes.replace(b"-----END", b"----END"), "here")
    assert secret not in str(caught.value)


def test_listed_keys_replace_those_of_the_home(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    signing_key(home, {})
    one, other = SigningKey.generate().public, SigningKey.generate().public
    listed = trusted_keys(home, {TRUSTED_VARIABLE: f"{one.public_key}, {other.public_key}"})
    assert list(listed) == [one.key_id, other.key_id]
    assert listed[one.key_id] == one


@pytest.mark.parametrize("nothing", ["", " ", "\n"])
@pytest.mark.parametrize(
    ("variable", "ask"),
    [
        (KEY_VARIABLE, signing_key),
        (KEY_FILE_VARIABLE, signing_key),
        (TRUSTED_VARIABLE, trusted_keys),
        (OPERATOR_KEY_VARIABLE, operator_key),
        (OPERATOR_KEY_FILE_VARIABLE, operator_key),
        (OPERATORS_VARIABLE, operator_key),
        (OPERATORS_VARIABLE, trusted_operators),
    ],
)
def test_a_variable_that_is_set_to_nothing_is_an_error_and_makes_no_key(
    tmp_path: Path, ask: Callable[[Home, Mapping[str, str]], object], variable: str, nothing: str
) -> None:
    home = home_in(tmp_path)
    with pytest.raises(ContractError, match=f"{variable} is set, but empty.*unset it"):
        ask(home, {variable: nothing})
    assert not home.keys.exists()


@pytest.mark.parametrize("listed", ["abc", "A" * 64, "z" * 64, "a" * 66])
def test_a_listed_key_that_is_none_is_an_error(tmp_path: Path, listed: str) -> None:
    with pytest.raises(ContractError, match="is no public key"):
        trusted_keys(home_in(tmp_path), {TRUSTED_VARIABLE: listed})


def test_a_trusted_key_must_be_named_by_its_digest(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    path = trust(home, SigningKey.generate().public)
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(plain | {"public_key": SigningKey.generate().public.public_key}))
    with pytest.raises(ContractError, match="key_id must be the SHA-256 of the public key"):
        trusted_keys(home, {})


def test_one_unreadable_entry_makes_the_whole_list_unreadable(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    signing_key(home, {})
    (home.keys / "trusted" / "other.json").write_text("{")
    with pytest.raises(ContractError, match=r"other\.json"):
        trusted_keys(home, {})


def test_a_key_revoked_in_any_file_is_revoked(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    key = signing_key(home, {})
    for name in ("0.json", "z.json"):
        path = home.keys / "trusted" / name
        path.write_bytes(key.public.model_copy(update={"revoked": True}).canonical_bytes())
        assert trusted_keys(home, {})[key.key_id].revoked
        path.unlink()
