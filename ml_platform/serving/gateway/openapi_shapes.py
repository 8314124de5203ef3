"""The shapes of what the gateway answers, as JSON Schema; what it takes and keeps describes itself."""

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}


def ref(name: str) -> dict[str, Any]:
    """The shape of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object with these keys, some of which it may lack."""
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


WHOLE = {"type": "integer", "minimum": 0}
MORE = object_of(
    {
        "response_id": TEXT,
        "release_id": {"type": ["string", "null"]},
        "status": {"enum": ["answered", "blocked", "fallback"]},
        "cohort": {"enum": ["production", "canary", "operator"]},
        "features_incomplete": {"type": "boolean"},
    }
)
USAGE = object_of({"prompt_tokens": WHOLE, "completion_tokens": WHOLE, "total_tokens": WHOLE})
MESSAGE = object_of({"role": {"const": "assistant"}, "content": TEXT, "refusal": {"type": "null"}})
CHOICE = object_of(
    {"index": {"const": 0}, "message": MESSAGE, "finish_reason": {"enum": ["stop", "content_filter"]}},
    logprobs={"type": "null"},
)
SCHEMAS: dict[str, Any] = {
    "Completion": object_of(
        {
            "id": TEXT,
            "object": {"const": "chat.completion"},
            "created": WHOLE,
            "model": TEXT,
            "choices": {"type": "array", "items": CHOICE, "minItems": 1, "maxItems": 1},
            "usage": USAGE,
            "ml_platform": MORE,
        },
        system_fingerprint={"type": ["string", "null"]},
        service_tier={"type": "null"},
    ),
    "Models": object_of(
        {
            "object": {"const": "list"},
            "data": {
                "type": "array",
                "items": object_of({"id": TEXT, "object": {"const": "model"}, "created": WHOLE, "owned_by": TEXT}),
            },
        }
    ),
    "Traced": object_of(
        {
            "object": {"const": "response"},
            "record": ref("ProvenanceRecord"),
            "feedback": {"type": "array", "items": ref("Feedback")},
            "outcomes": {"type": "array", "items": ref("Outcome")},
        }
    ),
    "Receipt": object_of({"object": {"const": "receipt"}, "accepted": {"type": "integer", "minimum": 1}}),
    "Alive": object_of({"status": {"const": "ok"}}),
    "Ready": object_of({"status": {"enum": ["ready", "not_ready"]}}, products={"type": "object"}),
    "Error": object_of(
        {
            "error": object_of(
                {
                    "message": TEXT,
                    "type": TEXT,
                    "code": TEXT,
                    "param": {"type": ["string", "null"]},
                    "response_id": TEXT,
                }
            )
        }
    ),
}
