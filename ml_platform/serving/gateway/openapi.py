"""The OpenAPI document of the gateway: every endpoint, what it takes, and everything that it may answer."""

from functools import cache
from typing import Any

import orjson
from pydantic.json_schema import models_json_schema

from ml_platform import __version__
from ml_platform.contracts.provenance import Feedback, Outcome, ProvenanceRecord
from ml_platform.serving.gateway.asking import IGNORED, REFUSED, ChatRequest
from ml_platform.serving.gateway.openapi_shapes import SCHEMAS, TEXT, ref
from ml_platform.serving.gateway.saying import MOST, SentFeedback, SentOutcome

JSON = "application/json"
ERRORS = {
    400: "The request is wrong; the message says where.",
    401: "No key, or one that does not count.",
    403: "The key is not for this.",
    404: "There is no such product, entity, answer or path.",
    405: "The path has other methods: see Allow.",
    408: "The request did not arrive in time.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    429: "Too often, or every place is taken: see Retry-After.",
    431: "The head is too large.",
    500: "A mistake of ours; the response id finds it in the log.",
    503: "Nothing serves, or nothing can be recorded, at the moment.",
    504: "The answer would have come too late.",
}
ALWAYS = (405, 431, 500, 503)
PRINTABLE = {"type": "string", "pattern": "^[!-~]{1,128}$"}
"""What a header may hold that is a name."""
HEADER_KEY = {"type": "string", "pattern": "^[!-~]{1,120}$"}

CHAT = (
    "`model` is the product, the user's last message the question, `metadata` what it is about, `user` the id by which "
    "users stay with one release. Other messages are not shown to the model. System and developer messages are "
    "refused: the release's prompt has its rules. An answer leaves whole and recorded; with `stream` it comes in "
    f"chunks. Read and ignored, for the release decides how its model speaks: {', '.join(IGNORED)}. "
    f"Refused: `n` above 1, other response formats than text, {', '.join(REFUSED)}."
)


@cache
def openapi_bytes() -> bytes:
    """The document as JSON; OpenAPI 3.1."""
    return orjson.dumps(openapi_document())


def openapi_document() -> dict[str, Any]:
    """The document."""
    taken, kept = (ChatRequest, SentFeedback, SentOutcome), (ProvenanceRecord, Feedback, Outcome)
    modes: list[Any] = [(model, "validation") for model in taken] + [(model, "serialization") for model in kept]
    _, definitions = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ml_platform gateway",
            "version": __version__,
            "description": "Every answer comes from one admitted release and can be explained by its response id. "
            "People find pages at /console, which are no part of this interface: programs take what is here.",
        },
        "paths": _paths(),
        "security": [{"key": []}],
        "components": {
            "schemas": {**_closed(definitions["$defs"]), **SCHEMAS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key, `mlp_…`."}},
        },
    }


def _closed(schema: Any) -> Any:
    """The schema with what pydantic leaves unsaid: keys that fit no pattern are refused."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **made} if "patternProperties" in made else made


def _paths() -> dict[str, Any]:
    response_id = {"name": "response_id", "in": "path", "required": True, "schema": TEXT}
    found = {"200": _response("What produced it.", JSON, ref("Traced")), **_errors(401, 403, 404, 429)}
    return {
        "/v1/chat/completions": {"post": _chat()},
        "/v1/models": {"get": _operation("Products that may be asked", {"200": _ok("Models"), **_errors(401, 429)})},
        "/v1/responses/{response_id}": {"get": _operation("What produced an answer", found, parameters=[response_id])},
        "/v1/feedback": {"post": _said("What people thought of answers", "SentFeedback")},
        "/v1/outcomes": {"post": _said("What happened in the end", "SentOutcome")},
        "/healthz": {"get": _open("Whether it is alive", {"200": _ok("Alive")})},
        "/readyz": {"get": _open("Whether it can answer", {"200": _ok("Ready"), "503": _ok("Ready")})},
        "/metrics": {
            "get": _operation(
                "Figures for Prometheus; without a key on loopback",
                {"200": _response("The figures.", "text/plain", TEXT), **_errors(401, 403, 429)},
                security=[{}, {"key": []}],
            )
        },
        "/openapi.json": {"get": _open("This document", {"200": _response("It.", JSON, {"type": "object"})})},
    }


def _chat() -> dict[str, Any]:
    answer = _response("The answer.", JSON, ref("Completion"), "x-release-id", "x-status", "x-features")
    answer["content"]["text/event-stream"] = {"schema": TEXT}
    parameters = [
        _header("x-user-id", "The sticky id, where the body has none.", {**PRINTABLE, "maxLength": 256}),
        _header("x-deadline-ms", "How long the client waits.", {"type": "integer", "minimum": 1}),
        _header("x-release", "A slot or a release id; needs the scope operate.", PRINTABLE),
    ]
    responses = {"200": answer, **_errors(400, 401, 403, 404, 408, 413, 415, 429, 504)}
    return _operation(
        "Ask a question", responses, description=CHAT, parameters=parameters, requestBody=_body(ref("ChatRequest"))
    )


def _said(summary: str, name: str) -> dict[str, Any]:
    many = {"type": "array", "items": ref(name), "minItems": 1, "maxItems": MOST}
    return _operation(
        summary,
        {"200": _ok("Receipt"), **_errors(400, 401, 403, 408, 413, 415, 429)},
        description="One or many; each is durable before the response, and the same as before when it is sent again.",
        parameters=[_header("idempotency-key", "The key of what has none in the body.", HEADER_KEY)],
        requestBody=_body({"oneOf": [ref(name), many]}),
    )


def _open(summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return _operation(summary, responses, security=[])


def _operation(summary: str, responses: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"summary": summary, "responses": {**_errors(*ALWAYS), **responses}, **more}


def _ok(name: str) -> dict[str, Any]:
    return _response(name, JSON, ref(name))


def _errors(*codes: int) -> dict[str, Any]:
    return {str(code): _response(ERRORS[code], JSON, ref("Error")) for code in codes}


def _response(what: str, kind: str, schema: dict[str, Any], *more: str) -> dict[str, Any]:
    headers = {name: {"schema": TEXT} for name in ("x-response-id", *more)}
    return {"description": what, "headers": headers, "content": {kind: {"schema": schema}}}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {JSON: {"schema": schema}}}


def _header(name: str, what: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": what, "schema": schema}
