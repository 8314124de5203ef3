"""The gateway as OpenAI's unmodified client sees it: answers, streams, and errors that say what to do."""

import re
from collections.abc import Iterator

import openai
import pytest

from ml_platform.errors import (
    DeadlineError,
    EngineBusyError,
    NotServingError,
    StorageError,
    UnknownEntityError,
    UnknownProductError,
)
from ml_platform.serving.gateway.access import Scope
from ml_platform.serving.question import Question, ReplyStatus
from tests.samples.gateway import ANSWER, PRODUCT, Running, running_gateway

ASK = {"model": PRODUCT, "messages": [{"role": "user", "content": "Will UA 1545 be late?"}]}


async def as_told(question: Question) -> ReplyStatus | None:
    """What the utterance says that should happen."""
    raised = {
        "unknown product": UnknownProductError("there is no product 'x'."),
        "unknown flight": UnknownEntityError("there is no flight 'XX 1'."),
        "nothing serves": NotServingError("secret host is down"),
        "disk full": StorageError("/secret/path is full"),
        "busy": EngineBusyError("secret host is busy"),
        "late": DeadlineError("too late"),
        "mistake": KeyError("secret"),
    }
    if question.utterance in raised:
        raise raised[question.utterance]
    return {"bad question": ReplyStatus.BLOCKED, "model down": ReplyStatus.FALLBACK}.get(question.utterance)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_gateway(tmp_path_factory.mktemp("home"), as_told) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: Running) -> Iterator[openai.OpenAI]:
    token = gateway.token(Scope.ASK)
    with openai.OpenAI(api_key=token, base_url=f"{gateway.url}/v1", max_retries=0, timeout=20) as client:
        yield client


def ask(client: openai.OpenAI, utterance: str = "Will UA 1545 be late?", **more: object) -> object:
    return client.chat.completions.create(model=PRODUCT, messages=[{"role": "user", "content": utterance}], **more)


def test_the_openai_client_gets_an_answer_with_its_ids(client: openai.OpenAI, gateway: Running) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=PRODUCT,
        messages=[{"role": "user", "content": "Will UA 1545 be late?"}],
        metadata={"flight_id": "2013-04-01-UA-1545-EWR"},
        user="traveller-1",
        temperature=0.7,
        max_tokens=64,
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert raw.headers["x-response-id"] == answer.id == answer.ml_platform["response_id"]
    assert raw.headers["x-release-id"] == "a" * 64 == answer.ml_platform["release_id"]
    assert raw.headers["x-status"] == "answered"
    question = gateway.answerer.seen[-1]
    assert (question.user_id, question.metadata) == ("traveller-1", {"flight_id": "2013-04-01-UA-1545-EWR"})
    assert gateway.find(answer.id).record.response_id == answer.id


def test_a_stream_is_the_same_answer_in_words(client: openai.OpenAI) -> None:
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))  # type: ignore[call-overload]
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(words) == ANSWER
    assert len(words) == len(ANSWER.split())
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.total_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].ml_platform["status"] == chunks[-2].ml_platform["status"] == "answered"
    assert [chunk.usage for chunk in ask(client, stream=True)] == [None] * (len(words) + 2)


@pytest.mark.parametrize("text", ["", " ", "one", "  two\n\nwords ", 'with "quotes" and \\u0000 and \0', "日本 🙂"])
def test_any_text_survives_being_streamed(text: str) -> None:
    import json

    from ml_platform.serving.gateway.replying import stream_bytes
    from ml_platform.serving.question import Reply
    from tests.samples.provenance import make_record

    data = stream_bytes(Reply(make_record(1), text, ReplyStatus.ANSWERED), wants_usage=False).decode()
    events = [json.loads(line.removeprefix("data: ")) for line in data.split("\n\n")[:-2]]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == text


def test_a_blocked_answer_says_so(client: openai.OpenAI) -> None:
    answer = ask(client, "bad question")
    assert answer.choices[0].finish_reason == "content_filter"
    assert answer.ml_platform["status"] == "blocked"


def test_a_fallback_reply_is_marked(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=PRODUCT, messages=[{"role": "user", "content": "model down"}]
    )
    assert raw.headers["x-status"] == "fallback"


def test_earlier_turns_are_read_and_the_last_one_is_the_question(client: openai.OpenAI, gateway: Running) -> None:
    first = ask(client).choices[0].message  # type: ignore[attr-defined]
    again = [{"role": "user", "content": "Hello"}, first, {"role": "user", "content": "Is it late now?"}]
    client.chat.completions.create(model=PRODUCT, messages=again)  # type: ignore[arg-type]
    assert gateway.answerer.seen[-1].utterance == "Is it late now?"
    turns = [("user", "Hello"), ("assistant", "Hi"), ("user", [{"type": "text", "text": "Is it late?"}])]
    client.chat.completions.create(
        model=PRODUCT,
        messages=[{"role": role, "content": content} for role, content in turns],  # type: ignore[misc]
    )
    assert gateway.answerer.seen[-1].utterance == "Is it late?"


@pytest.mark.parametrize(
    ("utterance", "error", "code"),
    [
        ("unknown product", openai.NotFoundError, "product_not_found"),
        ("unknown flight", openai.NotFoundError, "entity_not_found"),
        ("nothing serves", openai.InternalServerError, "not_serving"),
        ("disk full", openai.InternalServerError, "not_recorded"),
        ("busy", openai.RateLimitError, "engine_busy"),
        ("late", openai.InternalServerError, "deadline_exceeded"),
        ("mistake", openai.InternalServerError, "internal_error"),
    ],
)
def test_what_goes_wrong_becomes_the_clients_own_error_with_an_id_and_no_secret(
    client: openai.OpenAI, utterance: str, error: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(error) as caught:
        ask(client, utterance)
    assert caught.value.code == code
    assert caught.value.body["response_id"] == caught.value.response.headers["x-response-id"]  # type: ignore[index]
    assert re.fullmatch("resp_[0-9a-f]{32}", caught.value.response.headers["x-response-id"])
    assert "secret" not in caught.value.response.text
    assert "Traceback" not in caught.value.response.text


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"n": 2}, "unsupported_parameter", "one answer"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "unsupported_parameter", "'tools'"),
        ({"logprobs": True}, "unsupported_parameter", "'logprobs'"),
        ({"stop": "."}, "unsupported_parameter", "'stop'"),
        ({"response_format": {"type": "json_object"}}, "invalid_request", "response_format"),
        ({"temperature": "hot"}, "invalid_request", "temperature"),
        ({"wrong": 1}, "invalid_request", "unknown key 'wrong'"),
        ({"model": 3}, "invalid_request", "model"),
        ({"user": ""}, "invalid_request", "user"),
        ({"user": "u" * 257}, "invalid_request", "user"),
        ({"metadata": {"flight_id": ["a"]}}, "invalid_request", "metadata"),
        ({"metadata": {"delay": 2**60}}, "invalid_request", "metadata"),
        ({"messages": []}, "invalid_request", "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, "invalid_request", "content"),
        ({"messages": [{"role": "user", "content": []}]}, "invalid_request", "content"),
        ({"messages": [{"role": "user"}]}, "invalid_request", "content"),
        ({"messages": [{"content": "I"}]}, "invalid_request", "role"),
        ({"messages": [{"role": "assistant", "content": "I"}]}, "invalid_request", "must be the user's"),
        ({"messages": [{"role": "system", "content": "Obey"}]}, "unsupported_role", "release's"),
        ({"messages": [{"role": "developer", "content": "Obey"}]}, "unsupported_role", "release's"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused_in_words(
    client: openai.OpenAI, change: dict[str, object], code: str, says: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body={**ASK, **change}, cast_to=object)
    assert caught.value.code == code
    assert says in str(caught.value)


def test_models_are_the_products_that_the_key_may_ask(client: openai.OpenAI, gateway: Running) -> None:
    assert [model.id for model in client.models.list()] == [PRODUCT]
    other = openai.OpenAI(api_key=gateway.token(Scope.ASK, product="other"), base_url=f"{gateway.url}/v1")
    with other:
        assert list(other.models.list()) == []
