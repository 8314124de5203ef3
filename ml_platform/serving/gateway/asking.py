"""What a chat completion may ask: OpenAI's request, strictly read, and what of it counts here.

The release decides how its model speaks: parameters of decoding are read, checked and ignored (IGNORED says which).
What would change the kind of answer (several answers, tools, logprobs, formats, stop words) is refused, for an answer
without it would be another than was asked for.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ml_platform.contracts.base import Column
from ml_platform.contracts.explain import explain
from ml_platform.contracts.serving import LONGEST_BROUGHT
from ml_platform.serving.gateway.failures import HttpError

SAFE_INTEGER = (1 << 53) - 1
"""Beyond it, JSON's readers disagree on what a number is."""


def _integral(value: Any) -> Any:
    """1.0 is an integer in JSON, whatever Python says."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


INTEGRAL = BeforeValidator(_integral)
"""Outermost: constraints that stand behind it would not be in the schema."""

UserId = Annotated[str, Field(min_length=1, max_length=256)]
Whole = Annotated[int, Field(ge=-SAFE_INTEGER, le=SAFE_INTEGER), INTEGRAL]
Real = Annotated[float, Field(ge=-SAFE_INTEGER, le=SAFE_INTEGER, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=LONGEST_BROUGHT)]
Said = Annotated[str, Field(pattern=r"\S")]
Metadata = Annotated[dict[Column, bool | Whole | Real | Text], Field(max_length=16)]

IGNORED = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "store",
    "service_tier",
    "prompt_cache_key",
)
REFUSED = (
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "stop",
    "modalities",
    "audio",
    "prediction",
    "reasoning_effort",
    "verbosity",
    "web_search_options",
)


class _Read(BaseModel):
    """A part of a request: unknown keys are refused, and nothing is taken for what it is not."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextPart(_Read):
    """A piece of a message; only text is read."""

    type: Literal["text"]
    text: Said


class UserMessage(_Read):
    """What the user said."""

    role: Literal["user"]
    content: Said | Annotated[list[TextPart], Field(min_length=1, max_length=64)]
    name: Annotated[str, Field(max_length=64)] | None = None

    @property
    def text(self) -> str:
        """The whole content as one text."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class AssistantMessage(_Read):
    """What was answered before, as it was answered."""

    role: Literal["assistant"]
    content: str | list[TextPart] | None = None
    refusal: str | None = None
    name: Annotated[str, Field(max_length=64)] | None = None


Message = Annotated[UserMessage | AssistantMessage, Field(discriminator="role")]


ONE_OF_THE_USER: dict[str, Any] = {
    "contains": {"type": "object", "properties": {"role": {"const": "user"}}, "required": ["role"]}
}


class StreamOptions(_Read):
    """How a stream ends."""

    include_usage: bool = False
    include_obfuscation: bool = False


class TextFormat(_Read):
    """The only format that can be asked for: the release's."""

    type: Literal["text"]


class ChatRequest(_Read):
    """A chat completion: `model` is the product, the user's last message the question, `metadata` what it is about.

    Other messages are read and not shown to the model: a release is proven on single questions.
    """

    model: Annotated[str, Field(min_length=1, max_length=64)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=128, json_schema_extra=ONE_OF_THE_USER)]
    metadata: Metadata | None = None
    user: UserId | None = None
    safety_identifier: UserId | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=1), INTEGRAL] | None = None
    response_format: TextFormat | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    max_tokens: Annotated[int, Field(ge=1), INTEGRAL] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1), INTEGRAL] | None = None
    seed: Annotated[int, INTEGRAL] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    store: bool | None = None
    service_tier: Annotated[str, Field(max_length=64)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=256)] | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if all(message.role != "user" for message in self.messages):
            raise ValueError("one of the messages must be the user's: the last of them is the question")
        return self

    @property
    def utterance(self) -> str:
        """The question."""
        return next(message.text for message in reversed(self.messages) if isinstance(message, UserMessage))

    @property
    def user_id(self) -> str | None:
        """The sticky id, by the name that OpenAI has for it now or had before."""
        return self.user or self.safety_identifier

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with what it cost in tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


def read_chat_request(body: bytes) -> ChatRequest:
    """The request in a body. Raises HttpError 400 that names what is wrong and where."""
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _explained(error) from None


def unreadable(model: type[BaseModel], error: ValidationError, data: Any = None) -> HttpError:
    """What is wrong with a body, in words; at most the first five problems."""
    problems = error.errors(include_url=False)
    first = problems[0]
    param = ".".join(str(part) for part in first["loc"]) or None
    if first["type"] == "json_invalid":
        return HttpError(400, "invalid_json", f"the body is no JSON: {first['msg'].removeprefix('Invalid JSON: ')}.")
    lines = explain(model, error, data, "the request").splitlines()
    more = f" And {len(lines) - 5} more." if len(lines) > 5 else ""
    return HttpError(400, "invalid_request", " ".join(lines[:5]) + more, param)


def _explained(error: ValidationError) -> HttpError:
    """The words for what OpenAI has and we have not come first: they say why."""
    for problem in error.errors(include_url=False):
        key = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden" and key in REFUSED and len(problem["loc"]) == 1:
            message = f"'{key}' is not supported: the release decides how its model answers. Leave it out."
            return HttpError(400, "unsupported_parameter", message, key)
        if key == "n":
            return HttpError(400, "unsupported_parameter", "'n' must be 1: a question gets one answer.", "n")
        if key == "messages" and problem["type"] == "union_tag_invalid":
            message = "messages may have the roles user and assistant: the rules of the prompt are the release's."
            return HttpError(400, "unsupported_role", message, ".".join(str(part) for part in problem["loc"]))
    return unreadable(ChatRequest, error)
