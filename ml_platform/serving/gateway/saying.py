"""What is said of answers later: feedback and outcomes, one or many at a time, durable before they are confirmed."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ml_platform.contracts.base import Column, Name
from ml_platform.contracts.canonical import digest
from ml_platform.contracts.provenance import Feedback, FeedbackKind, Outcome, ResponseId
from ml_platform.errors import ContractError
from ml_platform.lineage.provenance.schema import LONGEST_ENTITY_BYTES
from ml_platform.lineage.provenance.writing import fits
from ml_platform.serving.gateway.asking import Real, Text, Whole, unreadable
from ml_platform.serving.gateway.failures import HttpError
from ml_platform.serving.guardrails.personal_data import redact

MOST = 500

HEADER_KEY = re.compile(r"[\x21-\x7e]{1,120}")
Key = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$")]
"""Printable: what every database takes as a name."""


ABOUT_SOMETHING: list[Any] = [
    {"required": ["response_id"], "properties": {"response_id": {"type": "string"}}},
    {"required": ["entity"], "properties": {"entity": {"minProperties": 1}}},
]
CORRECTION_SAYS_WHAT: dict[str, Any] = {
    "if": {"properties": {"kind": {"const": FeedbackKind.CORRECTION.value}}},
    "then": {"required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}},
}


class _Sent(BaseModel):
    """What clients send; strictly read, with times as text of ISO 8601."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, json_schema_extra={"anyOf": ABOUT_SOMETHING})

    idempotency_key: Key | None = None
    product: Name | None = None
    response_id: ResponseId | None = None
    entity: Annotated[dict[Column, Whole | Text], Field(max_length=16)] = {}


class SentFeedback(_Sent):
    """Feedback as it is sent; `product` may be left out with a key for one product."""

    model_config = ConfigDict(json_schema_extra={"anyOf": ABOUT_SOMETHING, **CORRECTION_SAYS_WHAT})

    kind: FeedbackKind
    text: Annotated[str, Field(max_length=8_000)] | None = None
    given_at: AwareDatetime | None = None

    def said(self, key: str, product: str, received_at: datetime) -> Feedback:
        """It as it is kept: without personal data that has a shape. Raises ContractError."""
        text = None if self.text is None else redact(self.text)[0]
        return _kept(Feedback, self, {"text": text}, key, product, received_at)


class SentOutcome(_Sent):
    """An outcome as it is sent; `product` may be left out with a key for one product."""

    occurred_at: AwareDatetime
    values: Annotated[dict[Name, bool | Whole | Real | Text | None], Field(min_length=1, max_length=64)]

    def said(self, key: str, product: str, received_at: datetime) -> Outcome:
        """It as it is kept. Raises ContractError."""
        return _kept(Outcome, self, {}, key, product, received_at)


Sent = TypeVar("Sent", SentFeedback, SentOutcome)
Kept = TypeVar("Kept", Feedback, Outcome)


def read_said(
    body: bytes, model: type[Sent], header: str | None, product_of: Callable[[str | None], str]
) -> list[Feedback | Outcome]:
    """What a body says, one object or a list of them.

    `header` is the idempotency key of what has none of its own, in a list with its place behind it; without either,
    the name of what was said is its digest. `product_of` says for which product a key may speak, given the one that
    is named. Raises HttpError 400 for what cannot be read, and what `product_of` raises.
    """
    now = datetime.now(UTC)
    many = body.lstrip(b" \t\r\n")[:1] == b"["
    try:
        sent = _many(model).validate_json(body) if many else [model.model_validate_json(body)]
    except ValidationError as error:
        raise unreadable(model, error) from None
    if header is not None and not HEADER_KEY.fullmatch(header):
        message = "the header idempotency-key must have 1 to 120 printable characters and no space."
        raise HttpError(400, "invalid_header", message, "idempotency-key")
    try:
        return [
            one.said(_key_of(one, header, place if many else None), product_of(one.product), now)
            for place, one in enumerate(sent)
        ]
    except ContractError as error:
        raise HttpError(400, "invalid_request", str(error)) from None


def _key_of(one: _Sent, header: str | None, place: int | None) -> str:
    if one.idempotency_key is not None:
        return one.idempotency_key
    if header is not None:
        return header if place is None else f"{header}.{place}"
    return "sha256:" + digest(one.model_dump(mode="json"))


def _kept(
    contract: type[Kept], sent: _Sent, changes: dict[str, Any], key: str, product: str, received_at: datetime
) -> Kept:
    plain = sent.model_dump() | changes
    plain |= {"idempotency_key": key, "product": product, "received_at": received_at}
    try:
        kept = contract(**plain)
    except ValidationError as error:
        said = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ContractError(f"'{key}': {said}.") from None
    if not fits(kept.entity_key):
        limit = f"more than {LONGEST_ENTITY_BYTES:,} bytes as JSON"
        raise ContractError(f"'{key}': its entity has {limit}. Name it by fewer columns, or by the response_id alone.")
    return kept


@cache
def _many(model: type[Sent]) -> TypeAdapter[list[Sent]]:
    return TypeAdapter(Annotated[list[model], Field(min_length=1, max_length=MOST)])  # type: ignore[arg-type,valid-type]
