"""Clients that are slow, huge, broken or gone: each gets one clear error with an id, and nobody else notices."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path

import httpx2
import pytest

from ml_platform.serving.gateway import connection
from ml_platform.serving.gateway.connection import GatewayConnection
from ml_platform.serving.question import Question, ReplyStatus
from tests.samples.gateway import ANSWER, PRODUCT, Running, asked, running_gateway


class Held:
    """An answer that waits until it is let go, and what became of it."""

    def __init__(self) -> None:
        self.began = 0
        self.cancelled = 0

    async def __call__(self, question: Question) -> ReplyStatus | None:
        if question.utterance == "hold":
            self.began += 1
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return None


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def gateway(tmp_path: Path, held: Held) -> Iterator[Running]:
    with running_gateway(tmp_path, held, body_seconds=0.5, head_seconds=0.5) as running:
        yield running


def head(gateway: Running, length: int | str, token: str | None = None, path: str = "/v1/chat/completions") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token or gateway.token()}\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def connect(gateway: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.port), timeout=20)


def read_all(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The one response of a connection that the server ends."""
    data = b""
    while part := sock.recv(65_536):
        data += part
    top, _, body = data.partition(b"\r\n\r\n")
    status, *lines = top.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body  # type: ignore[misc]


def assert_still_answers(gateway: Running) -> None:
    headers = {"authorization": f"Bearer {gateway.token()}"}
    answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=asked(), headers=headers)
    assert answer.json()["choices"][0]["message"]["content"] == ANSWER


def assert_error(answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> None:
    found, headers, body = answer
    error = json.loads(body)["error"]
    assert (found, error["code"]) == (status, code)
    assert headers["x-response-id"] == error["response_id"]
    assert headers["content-type"] == "application/json"


def until(holds: object, what: str) -> None:
    end = time.monotonic() + 20
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.01)


def test_a_body_that_says_it_is_huge_is_refused_unread_and_the_client_can_read_why(gateway: Running) -> None:
    with connect(gateway) as sock:
        sock.sendall(head(gateway, 1 << 40))
        assert_error(read_all(sock), 413, "body_too_large")
    with connect(gateway) as sock:
        sock.sendall(head(gateway, 8 << 20) + b" " * (2 << 20))
        assert_error(read_all(sock), 413, "body_too_large")
    assert_still_answers(gateway)


def test_a_body_that_becomes_huge_in_chunks_is_refused(gateway: Running) -> None:
    start = head(gateway, 0).replace(b"content-length: 0", b"transfer-encoding: chunked")
    with connect(gateway) as sock:
        sock.sendall(start)
        with pytest.MonkeyPatch.context():
            for _ in range(40):
                try:
                    sock.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                except OSError:
                    break
        assert_error(read_all(sock), 413, "body_too_large")
    assert_still_answers(gateway)


def test_the_largest_body_that_is_allowed_is_read(gateway: Running) -> None:
    body = json.dumps(asked("x" * 60_000)).encode()
    headers = {"authorization": f"Bearer {gateway.token()}", "content-type": "application/json"}
    assert httpx2.post(f"{gateway.url}/v1/chat/completions", content=body, headers=headers).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(gateway: Running) -> None:
    with connect(gateway) as sock:
        sock.sendall(head(gateway, 100) + b'{"model":')
        assert_error(read_all(sock), 408, "request_timeout")


def test_a_head_that_does_not_come_is_not_waited_for(gateway: Running) -> None:
    with connect(gateway) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        assert_error(read_all(sock), 408, "request_timeout")
    with connect(gateway) as sock:
        assert sock.recv(100) == b"", "who says nothing is told nothing"


def test_a_head_without_end_is_refused(gateway: Running) -> None:
    with connect(gateway) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\n" + b"x-header: " + b"y" * 40_000)
        assert_error(read_all(sock), 431, "head_too_large")


def read_one(sock: socket.socket) -> int:
    """The status of the next response on a connection that goes on."""
    return read_whole(sock).status


def read_whole(sock: socket.socket) -> HTTPResponse:
    """The next response, its body read."""
    answer = HTTPResponse(sock)
    answer.begin()
    answer.read()
    return answer


def counted(monkeypatch: pytest.MonkeyPatch, method: str) -> list[object]:
    """Grows with every call of a method of the gateway's connections."""
    plain, calls = getattr(GatewayConnection, method), []

    def counting(self: GatewayConnection) -> None:
        plain(self)
        calls.append(self)

    monkeypatch.setattr(GatewayConnection, method, counting)
    return calls


def test_a_large_body_does_not_count_for_the_next_head(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, body = counted(monkeypatch, "on_message_begin"), json.dumps(asked("x" * 40_000)).encode()
    with connect(gateway) as sock:
        sock.sendall(head(gateway, len(body)))
        until(lambda: len(begun) == 1, "the head was read before the body was sent")
        sock.sendall(body)
        assert read_one(sock) == 200
        again = head(gateway, len(body))
        sock.sendall(again[:40])
        until(lambda: len(begun) == 2, "half a head was read")
        sock.sendall(again[40:] + body)
        assert read_one(sock) == 200


def test_a_request_that_has_begun_to_arrive_is_answered_by_a_gateway_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "IDLE_DRAIN_S", 0.01)
    begun, drained = counted(monkeypatch, "on_message_begin"), counted(monkeypatch, "_end_if_idle")
    answered = []
    with ThreadPoolExecutor(1) as beside:
        with running_gateway(tmp_path) as gateway:
            body = json.dumps(asked("Is it?")).encode()
            whole, sock = head(gateway, len(body)) + body, connect(gateway)
            sock.sendall(whole[:30])
            until(lambda: begun, "half a head was read")

            def finish() -> None:
                until(lambda: drained, "an idle connection would have been ended")
                sock.sendall(whole[30:])
                answered.append(read_one(sock))

            finishing = beside.submit(finish)
        finishing.result()
    sock.close()
    assert answered == [200]


def test_an_idle_client_that_asks_once_more_is_told_that_the_gateway_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = counted(monkeypatch, "shutdown")
    answers = []
    with ThreadPoolExecutor(1) as beside:
        with running_gateway(tmp_path) as gateway:
            body = json.dumps(asked("Is it?")).encode()
            whole, sock = head(gateway, len(body)) + body, connect(gateway)
            sock.sendall(whole)
            answers.append(read_whole(sock))

            def ask_again() -> None:
                until(lambda: ended, "the gateway ends")
                sock.sendall(whole)
                answers.append(read_whole(sock))

            asking = beside.submit(ask_again)
        asking.result()
    sock.close()
    assert [(answer.status, answer.getheader("connection")) for answer in answers] == [(200, None), (200, "close")]


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET nothing\r\n\r\n", b"\x00" * 100, b"PRI * HTTP/2\r\n\r\n"]
)
def test_what_is_no_http_gets_an_error_like_any_other(gateway: Running, data: bytes) -> None:
    with connect(gateway) as sock:
        sock.sendall(data)
        assert_error(read_all(sock), 400, "invalid_http")
    assert_still_answers(gateway)


def test_who_hangs_up_halfway_disturbs_nobody(gateway: Running) -> None:
    for data in (b"", b"POST /v1", head(gateway, 100), head(gateway, 100) + b'{"mod'):
        with connect(gateway) as sock:
            sock.sendall(data)
    assert_still_answers(gateway)


def test_who_hangs_up_while_he_is_answered_cancels_the_work(gateway: Running, held: Held) -> None:
    body = json.dumps(asked("hold")).encode()
    with connect(gateway) as sock:
        sock.sendall(head(gateway, len(body)) + body)
        until(lambda: held.began == 1, "the answer was begun")
    until(lambda: held.cancelled == 1, "the answer was given up")
    assert_still_answers(gateway)


def test_what_takes_longer_than_the_drain_is_told_that_the_server_ends(tmp_path: Path, held: Held) -> None:
    with running_gateway(tmp_path, held, drain_seconds=1) as gateway:
        body = json.dumps(asked("hold")).encode()
        sock = connect(gateway)
        sock.sendall(head(gateway, len(body)) + body)
        until(lambda: held.began == 1, "the answer was begun")
    with sock:
        assert_error(read_all(sock), 503, "shutting_down")


def test_connections_have_a_limit(tmp_path: Path) -> None:
    with running_gateway(tmp_path, connections=3) as gateway:
        socks = [connect(gateway) for _ in range(3)]
        for sock in socks:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
        with connect(gateway) as sock:
            answer = read_all(sock)
            assert_error(answer, 503, "overloaded")
            assert answer[1]["retry-after"] == "1"
        for sock in socks:
            sock.close()
        assert_still_answers(gateway)


def test_too_many_at_once_are_sent_away_and_come_again(tmp_path: Path, held: Held) -> None:
    with running_gateway(tmp_path, held, in_flight=2) as gateway:
        body = json.dumps(asked("hold")).encode()
        socks = [connect(gateway) for _ in range(2)]
        for sock in socks:
            sock.sendall(head(gateway, len(body)) + body)
        until(lambda: held.began == 2, "two answers were begun")
        headers = {"authorization": f"Bearer {gateway.token()}"}
        answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=asked(), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        for sock in socks:
            sock.close()
        until(lambda: held.cancelled == 2, "both were given up")
        assert_still_answers(gateway)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"[" * 30_000, "invalid_json"),
        (
            b'{"model": "' + PRODUCT.encode() + b'", "messages": [{"role": "user", "content": "\\ud800"}]}',
            "invalid_json",
        ),
        (b"null", "invalid_request"),
        (b"[]", "invalid_request"),
        (b'{"model": "x", "messages": [{"role": "user", "content": NaN}]}', "invalid_request"),
    ],
)
def test_a_body_that_is_no_request_is_told_so(gateway: Running, body: bytes, code: str) -> None:
    headers = {"authorization": f"Bearer {gateway.token()}", "content-type": "application/json"}
    for path in ("/v1/chat/completions", "/v1/feedback", "/v1/outcomes"):
        answer = httpx2.post(gateway.url + path, content=body, headers=headers)
        assert answer.status_code == 400, (path, answer.text)
        assert answer.json()["error"]["code"] in (code, "invalid_request")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_other_content_types_are_not_guessed_at(gateway: Running, kind: str) -> None:
    headers = {"authorization": f"Bearer {gateway.token()}", "content-type": kind}
    answer = httpx2.post(f"{gateway.url}/v1/chat/completions", content=json.dumps(asked()), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_compressed_bodies_are_not_unpacked(gateway: Running) -> None:
    headers = {"authorization": f"Bearer {gateway.token()}", "content-encoding": "gzip"}
    answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=asked(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")


@pytest.mark.parametrize("header", ["nan", "-5", "0", "soon", "1e400", ""])
def test_a_deadline_that_is_none_is_refused(gateway: Running, header: str) -> None:
    headers = {"authorization": f"Bearer {gateway.token()}", "x-deadline-ms": header}
    answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=asked(), headers=headers)
    assert answer.status_code == 400
    assert "x-deadline-ms" in answer.json()["error"]["message"]


def test_a_user_is_named_by_the_body_or_else_by_a_header(gateway: Running) -> None:
    token = gateway.token()
    for value, status in (("u", 200), ("x" * 257, 400), ("ü".encode("latin-1"), 400)):
        headers = {"authorization": f"Bearer {token}", "x-user-id": value}
        assert httpx2.post(f"{gateway.url}/v1/chat/completions", json=asked(), headers=headers).status_code == status
    headers["x-user-id"] = "header"
    for more, user in (({}, "header"), ({"user": "body"}, "body"), ({"safety_identifier": "newer"}, "newer")):
        httpx2.post(f"{gateway.url}/v1/chat/completions", json=asked(**more), headers=headers)
        assert gateway.answerer.seen[-1].user_id == user


def test_a_mistake_of_ours_is_logged_once_with_the_id_and_told_to_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def mistake(question: Question) -> ReplyStatus | None:
        raise ZeroDivisionError("a secret")

    with running_gateway(tmp_path, mistake) as gateway, caplog.at_level(logging.ERROR):
        headers = {"authorization": f"Bearer {gateway.token()}"}
        answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=asked(), headers=headers)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    logged = [record for record in caplog.records if getattr(record, "response_id", None)]
    assert [record.response_id for record in logged] == [answer.headers["x-response-id"]]  # type: ignore[attr-defined]


def test_every_path_and_method_that_is_not_there_is_an_error_with_an_id(gateway: Running) -> None:
    for method, path, status in (
        ("GET", "/", 404),
        ("GET", "/v1/responses/", 404),
        ("GET", "/v1/responses/a/b", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("OPTIONS", "/v1/feedback", 405),
        ("TRACE", "/healthz", 405),
        ("PUT", "/%2e%2e/etc/passwd", 404),
    ):
        answer = httpx2.request(method, gateway.url + path)
        assert answer.status_code == status, (method, path)
        assert answer.json()["error"]["response_id"] == answer.headers["x-response-id"]
        assert (status == 405) == ("allow" in answer.headers)


def test_pipelined_requests_are_answered_in_their_order(gateway: Running) -> None:
    one = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    with connect(gateway) as sock:
        sock.sendall(one * 3 + one.replace(b"host: x", b"host: x\r\nconnection: close"))
        data = b""
        while part := sock.recv(65_536):
            data += part
    assert data.count(b"HTTP/1.1 200 OK") == 4
