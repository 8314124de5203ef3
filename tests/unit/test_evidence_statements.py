"""Signed evidence: one byte string for one statement, and every other one refused."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from ml_platform.contracts.canonical import canonical_bytes
from ml_platform.contracts.evidence import Evidence
from ml_platform.errors import EvidenceError
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.statements import (
    MAX_ENVELOPE_BYTES,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    read_evidence,
    sign_evidence,
    signed_by,
    verify_evidence,
)
from tests.samples.releases import compared, make_evidence, make_policy, make_release, measured, trusting

KEY = SigningKey.generate()
TRUSTED = trusting(KEY)


def sample() -> Evidence:
    evidence = make_evidence(make_release(), make_policy(), "late_recall")
    result = evidence.result.model_copy(
        update={
            "reason": "late_recall is 0.71 — žluťoučký 🛫",
            "measurements": (measured("late_recall", 0.71, 84, 0.62, 0.8, slice={"origin": "JFK"}),),
            "comparisons": (compared("late_recall"),),
        }
    )
    return evidence.model_copy(update={"result": result})


def sign_bytes(payload: bytes, key: SigningKey = KEY, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """An envelope whose signature fits, whatever the payload is."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, payload_type, {})
    envelope.sign(key.signer)
    return canonical_bytes(envelope.to_dict())


def payload_of(envelope: bytes) -> dict[str, Any]:
    return json.loads(base64.b64decode(json.loads(envelope)["payload"]))  # type: ignore[no-any-return]


def test_evidence_comes_back_as_it_was_signed() -> None:
    envelope = sign_evidence(sample(), KEY)
    assert verify_evidence(envelope, TRUSTED) == sample()
    assert read_evidence(envelope) == sample()
    assert signed_by(envelope) == KEY.key_id


def test_signing_twice_gives_the_same_bytes() -> None:
    assert sign_evidence(sample(), KEY) == sign_evidence(sample(), KEY)


def test_the_statement_is_in_toto_about_the_release() -> None:
    statement = payload_of(sign_evidence(sample(), KEY))
    assert statement["_type"] == STATEMENT_TYPE
    assert statement["subject"] == [{"name": "assistant", "digest": {"sha256": make_release().release_id}}]
    assert statement["predicateType"] == PREDICATE_TYPE
    assert statement["predicate"]["policy_sha256"] == make_policy().sha256


def test_every_flipped_bit_of_an_envelope_is_refused() -> None:
    envelope = sign_evidence(sample(), KEY)
    for index in range(len(envelope)):
        for bit in range(8):
            changed = bytearray(envelope)
            changed[index] ^= 1 << bit
            with pytest.raises(EvidenceError):
                verify_evidence(bytes(changed), TRUSTED)


def test_every_missing_repeated_and_inserted_byte_is_refused() -> None:
    envelope = sign_evidence(sample(), KEY)
    for index in range(len(envelope)):
        byte = envelope[index : index + 1]
        longer = envelope[:index] + byte + envelope[index:]
        for changed in (envelope[:index] + envelope[index + 1 :], longer, envelope[:index] + b" " + envelope[index:]):
            with pytest.raises(EvidenceError):
                verify_evidence(changed, TRUSTED)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'"' + b"a" * 10, b"1e999"])
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    for read in (read_evidence, signed_by, lambda bad: verify_evidence(bad, TRUSTED)):
        with pytest.raises(EvidenceError):
            read(data)


def test_an_envelope_beyond_all_measure_is_refused_unread() -> None:
    with pytest.raises(EvidenceError, match="expected at most"):
        verify_evidence(b" " * (MAX_ENVELOPE_BYTES + 1), TRUSTED)


def test_evidence_signed_by_a_stranger_is_refused() -> None:
    envelope = sign_evidence(sample(), SigningKey.generate())
    with pytest.raises(EvidenceError, match="which is not trusted"):
        verify_evidence(envelope, TRUSTED)


def test_evidence_signed_by_a_stranger_in_the_name_of_a_trusted_key_is_refused() -> None:
    plain = json.loads(sign_evidence(sample(), SigningKey.generate()))
    plain["signatures"][0]["keyid"] = KEY.key_id
    with pytest.raises(EvidenceError, match="does not fit"):
        verify_evidence(canonical_bytes(plain), TRUSTED)


def test_evidence_of_a_revoked_key_is_refused() -> None:
    revoked = {KEY.key_id: KEY.public.model_copy(update={"revoked": True})}
    with pytest.raises(EvidenceError, match="revoked"):
        verify_evidence(sign_evidence(sample(), KEY), revoked)


def test_a_signature_for_another_payload_type_is_refused() -> None:
    envelope = sign_bytes(canonical_bytes(payload_of(sign_evidence(sample(), KEY))), payload_type="text/plain")
    with pytest.raises(EvidenceError, match="payload type is 'text/plain'"):
        verify_evidence(envelope, TRUSTED)


def _add(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda statement: statement.__setitem__(key, value)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "an unknown key beside the predicate": _add("more", 1),
    "another predicate type": _add("predicateType", "https://slsa.dev/provenance/v1"),
    "another statement type": _add("_type", "https://in-toto.io/Statement/v0.1"),
    "an unknown key in the predicate": lambda s: s["predicate"].__setitem__("more", 1),
    "an unknown key in the result": lambda s: s["predicate"]["result"].__setitem__("more", 1),
    "a subject of another release": lambda s: s["subject"][0]["digest"].__setitem__("sha256", "0" * 64),
    "a subject of another product": lambda s: s["subject"][0].__setitem__("name", "other"),
    "a second subject": lambda s: s["subject"].append(s["subject"][0]),
    "a second digest": lambda s: s["subject"][0]["digest"].__setitem__("sha1", "0" * 40),
    "no subject": lambda s: s.__delitem__("subject"),
    "a number as text": lambda s: s["predicate"]["result"]["measurements"][0].__setitem__("n", "84"),
    "a whole number as a share": lambda s: s["predicate"]["result"]["measurements"][0].__setitem__("value", 1),
    "a verdict of its own": lambda s: s["predicate"]["result"].__setitem__("verdict", "MAYBE"),
    "a time without a zone": lambda s: s["predicate"].__setitem__("measured_at", "2013-04-01T06:00:00"),
    "a time written otherwise": lambda s: s["predicate"].__setitem__("measured_at", "2013-04-01T06:00:00+00:00"),
    "a default left out": lambda s: s["predicate"]["result"]["measurements"][0].__delitem__("unit"),
    "a predicate that is a list": lambda s: s.__setitem__("predicate", []),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_correctly_signed_statement_of_another_form_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    statement = payload_of(sign_evidence(sample(), KEY))
    change(statement)
    with pytest.raises(EvidenceError, match="no canonical in-toto statement"):
        verify_evidence(sign_bytes(canonical_bytes(statement)), TRUSTED)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda payload: payload + b" ",
        lambda payload: b" " + payload,
        lambda payload: payload.replace(b'"_type"', b'"_type":"x","_type"', 1),
        lambda payload: payload.replace(b'"verdict":"PASS"', b'"verdict":"FAIL","verdict":"PASS"', 1),
        lambda payload: payload.replace(b'":', b'": ', 1),
        lambda payload: json.dumps(json.loads(payload), sort_keys=True, separators=(",", ":")).encode(),
        lambda payload: payload.replace(b"0.71", b"7.1e-1", 1),
    ],
    ids=["trailing", "leading", "repeated", "repeated verdict", "spaced", "escaped", "another number"],
)
def test_a_correctly_signed_payload_written_otherwise_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    payload = base64.b64decode(json.loads(sign_evidence(sample(), KEY))["payload"])
    assert spoil(payload) != payload
    with pytest.raises(EvidenceError):
        verify_evidence(sign_bytes(spoil(payload)), TRUSTED)


def test_an_envelope_with_two_signatures_is_refused() -> None:
    from securesystemslib.dsse import Envelope

    envelope = Envelope(canonical_bytes(payload_of(sign_evidence(sample(), KEY))), PAYLOAD_TYPE, {})
    envelope.sign(KEY.signer)
    envelope.sign(SigningKey.generate().signer)
    with pytest.raises(EvidenceError, match="one signature"):
        verify_evidence(canonical_bytes(envelope.to_dict()), TRUSTED)


def test_an_envelope_without_a_signature_is_refused() -> None:
    plain = json.loads(sign_evidence(sample(), KEY))
    with pytest.raises(EvidenceError, match="one signature"):
        verify_evidence(canonical_bytes(plain | {"signatures": []}), TRUSTED)


@pytest.mark.parametrize("key_id", [5, 0.5, None, True, [], {}, ""])
def test_a_key_id_that_no_trusted_key_could_have_is_refused(key_id: object) -> None:
    plain = json.loads(sign_evidence(sample(), KEY))
    plain["signatures"][0]["keyid"] = key_id
    with pytest.raises(EvidenceError):
        verify_evidence(canonical_bytes(plain), TRUSTED)


def test_unknown_keys_beside_a_signature_that_fits_are_refused() -> None:
    plain = json.loads(sign_evidence(sample(), KEY))
    plain["signatures"][0]["more"] = 1
    for read in (read_evidence, signed_by, lambda bad: verify_evidence(bad, TRUSTED)):
        with pytest.raises(EvidenceError, match="unknown"):
            read(canonical_bytes(plain))


def test_repeated_keys_of_an_envelope_are_refused() -> None:
    envelope = sign_evidence(sample(), KEY)
    with pytest.raises(EvidenceError, match="repeated"):
        verify_evidence(envelope.replace(b'{"payload":', b'{"payload":"","payload":', 1), TRUSTED)
