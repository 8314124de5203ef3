"""The console's entrance: a key once, a cookie from then on, and nothing for anybody else."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from pathlib import Path

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_platform.contracts.home import Home
from ml_platform.serving.gateway.access import Scope, revoke
from ml_platform.serving.gateway.console.entrance import next_path
from ml_platform.serving.gateway.console.sessions import COOKIE, LASTS, Sessions, cookie_of
from ml_platform.serving.gateway.openapi import openapi_document
from tests.samples.console import RunningConsole, running_console
from tests.samples.followed import World

PAGES = ("/console", "/console/products/assistant", "/console/responses/resp_12345678", "/console/find?response_id=a")
NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningConsole]:
    home = Home(tmp_path_factory.mktemp("home"))
    world = World(home, home.ledger_url)
    world.serve(1)
    with running_console(world) as running:
        yield running


def sign_in(console: RunningConsole, key: str, **headers: str) -> httpx2.Response:
    form = {"key": key, "next": "/console/products/assistant"}
    return httpx2.post(f"{console.url}/console/login", data=form, headers=headers, timeout=20)


def cookie(answer: httpx2.Response) -> SimpleCookie:
    return SimpleCookie(answer.headers["set-cookie"])


@pytest.mark.parametrize("path", PAGES)
def test_nobody_sees_a_page_without_a_key(console: RunningConsole, path: str) -> None:
    for headers in ({}, {"cookie": f"{COOKIE}=x"}, {"authorization": "Bearer mlp_no"}):
        answer = httpx2.get(console.url + path, headers=headers, timeout=20)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "assistant</" not in answer.text
        assert '<form action="/console/login" method="post">' in answer.text


def test_a_key_becomes_a_cookie_that_no_script_reads_and_no_other_site_sends(console: RunningConsole) -> None:
    token = console.token()
    answer = sign_in(console, token)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/products/assistant")
    morsel = cookie(answer)[COOKIE]
    assert token not in morsel.value
    assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Strict", "/console")
    assert int(morsel["max-age"]) == LASTS.total_seconds()
    page = httpx2.get(f"{console.url}/console", headers={"cookie": f"a=b; {COOKIE}={morsel.value}"}, timeout=20)
    assert page.status_code == 200
    assert "assistant" in page.text
    assert token not in page.text


def test_who_signed_in_is_in_the_log_and_the_key_is_not(
    console: RunningConsole, caplog: pytest.LogCaptureFixture
) -> None:
    token = console.token()
    with caplog.at_level("INFO", logger="ml_platform.serving.gateway.console"):
        sign_in(console, token)
    assert "signed in to the console" in caplog.text
    assert token not in caplog.text


def test_cookies_are_for_tls_alone_once_the_gateway_is_reached_from_afar(console: RunningConsole) -> None:
    assert not cookie(sign_in(console, console.token()))[COOKIE]["secure"]
    assert cookie(sign_in(console, console.token(), **{"x-forwarded-proto": "https"}))[COOKIE]["secure"] is True


def test_a_key_that_does_not_count_or_may_not_operate_gets_no_cookie(console: RunningConsole) -> None:
    for key, status, said in (
        ("mlp_nothing", 401, "does not count"),
        ("", 401, "does not count"),
        (console.token(Scope.ASK, Scope.FEEDBACK), 403, "lacks the scope"),
    ):
        answer = sign_in(console, key)
        assert answer.status_code == status
        assert said in answer.text
        assert "set-cookie" not in answer.headers


def test_a_key_that_is_revoked_ends_its_sessions(console: RunningConsole) -> None:
    token = console.token()
    value = cookie(sign_in(console, token))[COOKIE].value
    headers = {"cookie": f"{COOKIE}={value}"}
    assert httpx2.get(f"{console.url}/console", headers=headers, timeout=20).status_code == 200
    revoke(console.world.home, value[:64], datetime.now(UTC))
    assert httpx2.get(f"{console.url}/console", headers=headers, timeout=20).status_code == 401


def test_signing_out_takes_the_cookie_away(console: RunningConsole) -> None:
    answer = httpx2.post(f"{console.url}/console/logout", timeout=20)
    assert answer.status_code == 303
    assert cookie(answer)[COOKIE]["max-age"] == "0"


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"origin": "http://["},
    ],
)
def test_forms_on_other_sites_do_nothing(console: RunningConsole, headers: dict[str, str]) -> None:
    for path in ("login", "logout"):
        answer = httpx2.post(
            f"{console.url}/console/{path}", data={"key": console.token()}, headers=headers, timeout=20
        )
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


def test_the_forms_own_page_may_send_it(console: RunningConsole) -> None:
    headers = {"origin": console.url, "sec-fetch-site": "same-origin"}
    assert sign_in(console, console.token(), **headers).status_code == 303


@pytest.mark.parametrize(
    "said",
    [
        "https://elsewhere.example",
        "//elsewhere.example",
        "/consoleX",
        "/console//elsewhere",
        "/console/\r\nx: y",
        "",
        "/console/logout",
    ],
)
def test_after_signing_in_nobody_is_sent_elsewhere(said: str) -> None:
    assert next_path(said) == "/console"


def test_a_key_for_one_product_opens_that_one_alone(console: RunningConsole) -> None:
    with console.client(product="another_product") as client:
        assert "assistant" not in client.get("/console").text
        assert client.get("/console/products/assistant").status_code == 404
    with console.client(product="assistant") as client:
        assert client.get("/console/products/assistant").status_code == 200


def test_keys_come_no_more_often_than_they_may(console: RunningConsole) -> None:
    from ml_platform.serving.gateway.access import grant

    token, _ = grant(
        console.world.home, "slow", None, [Scope.OPERATE], now=datetime.now(UTC), rate_per_second=0.01, burst=2
    )
    headers = {"authorization": f"Bearer {token}"}
    found = [httpx2.get(f"{console.url}/console", headers=headers, timeout=20) for _ in range(3)]
    assert [answer.status_code for answer in found] == [200, 200, 429]
    assert int(found[-1].headers["retry-after"]) >= 1
    assert "Too often" in found[-1].text


@pytest.mark.parametrize("path", ["/console", "/console/login", "/console/products/none", "/console/find"])
def test_every_page_forbids_scripts_frames_and_whatever_comes_from_elsewhere(
    console: RunningConsole, path: str
) -> None:
    with console.client() as client:
        answer = client.get(path)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    for kind in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/=]{44}'", policy[kind]), "no script and no style but ours, by digest"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == policy["connect-src"] == "'self'"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-response-id"].startswith("resp_")
    assert not re.search(r"(src|href|action)=\"(https?:|//)", answer.text)
    assert " style=" not in answer.text
    assert " on" not in re.sub(r"<script>.*?</script>", "", re.sub(r">[^<]*<", "><", answer.text), flags=re.DOTALL)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/console/products/none", 404),
        ("GET", "/console/products/../../etc", 404),
        ("GET", "/console/nothing", 404),
        ("GET", "/console/find", 400),
        ("GET", "/console/find?response_id=" + "a" * 2_000, 400),
        ("GET", "/console/find?response_id=%3Cscript%3E", 400),
        ("GET", "/console/find?response_id=%0d%0aset-cookie:a=b", 400),
        ("POST", "/console", 405),
        ("GET", "/console/logout", 405),
        ("POST", "/console/login", 415),
    ],
)
def test_what_is_wrong_is_told_and_breaks_nothing(console: RunningConsole, method: str, path: str, status: int) -> None:
    with console.client() as client:
        answer = client.request(method, path)
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    assert "<script>alert" not in answer.text


def test_a_form_may_be_small_and_have_few_fields(console: RunningConsole) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    for body, status in ((b"key=" + b"a" * 5_000, 413), (b"a=b&" * 20, 400), (b"\xff\x00=%ff", 401), (b"", 401)):
        answer = httpx2.post(f"{console.url}/console/login", content=body, headers=kind, timeout=20)
        assert answer.status_code == status, body[:20]


def test_an_id_is_looked_up_where_answers_are(console: RunningConsole) -> None:
    with console.client() as client:
        answer = client.get("/console/find", params={"response_id": " resp_12345678 "})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/responses/resp_12345678")


def test_the_console_is_no_part_of_the_interface_for_programs() -> None:
    document = openapi_document()
    assert not [path for path in document["paths"] if path.startswith("/console")]
    assert "/console" in document["info"]["description"]


def test_a_cookie_ends_by_itself_and_cannot_be_stretched_or_turned_to_another_key() -> None:
    sessions = Sessions(b"secret")
    value = sessions.begin("a" * 64, NOW)
    assert sessions.read(value, NOW) == "a" * 64
    assert sessions.read(value, NOW + LASTS) is None
    key, ends, signature = value.split(".")
    assert sessions.read(f"{'b' * 64}.{ends}.{signature}", NOW) is None
    assert sessions.read(f"{key}.{int(ends) + 1}.{signature}", NOW) is None
    assert Sessions(b"another").read(value, NOW - timedelta(days=1)) is None


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200), st.text(max_size=200))
def test_no_cookie_that_we_did_not_make_is_believed(header: bytes, value: str) -> None:
    sessions = Sessions(b"secret")
    assert sessions.read(cookie_of(header), NOW) is None
    assert sessions.read(value, NOW) is None


def test_the_secret_lies_where_its_owner_alone_reads_it(console: RunningConsole) -> None:
    path: Path = console.world.home.keys / "console_secret"
    assert path.stat().st_mode & 0o777 == 0o600
