"""Keys: who may, for how long, how often; kept as digests, followed within a second."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from ml_platform.cli.app import run
from ml_platform.contracts.home import Home
from ml_platform.errors import ContractError, InvalidInputError
from ml_platform.serving.gateway.access import Access, Scope, ensure_local_key, grant, keys_file, revoke, token_sha256
from tests.samples.gateway import PRODUCT, Running, asked, running_gateway

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    return Home(tmp_path)


def code_of(answer: httpx2.Response) -> str:
    assert answer.headers["x-response-id"] == answer.json()["error"]["response_id"]
    return str(answer.json()["error"]["code"])


def test_a_key_is_kept_as_its_digest_in_a_file_for_its_owner_alone(home: Home) -> None:
    token, key = grant(home, "website", PRODUCT, [Scope.ASK], now=NOW)
    text = keys_file(home).read_text()
    assert token.startswith("mlp_")
    assert len(token) >= 4 + 43  # 256 bits
    assert token not in text
    assert token.removeprefix("mlp_") not in text
    assert key.key_sha256 == token_sha256(token)
    assert stat.S_IMODE(keys_file(home).stat().st_mode) == 0o600


def test_a_name_belongs_to_one_valid_key(home: Home) -> None:
    grant(home, "website", PRODUCT, [Scope.ASK], now=NOW)
    with pytest.raises(InvalidInputError, match="Revoke it first"):
        grant(home, "website", PRODUCT, [Scope.ASK], now=NOW)
    revoke(home, "website", NOW)
    grant(home, "website", PRODUCT, [Scope.ASK], now=NOW)


def test_a_key_is_revoked_by_name_or_by_digits_that_fit_no_other(home: Home) -> None:
    _, one = grant(home, "one", PRODUCT, [Scope.ASK], now=NOW)
    assert [key.name for key in revoke(home, one.key_id[:6], NOW, "it leaked")] == ["one"]
    with pytest.raises(InvalidInputError, match="no valid key"):
        revoke(home, "one", NOW)
    with pytest.raises(InvalidInputError, match="no valid key"):
        revoke(home, "", NOW)


def test_keys_end_when_they_said_and_are_found_until_then(home: Home) -> None:
    token, _ = grant(home, "short", PRODUCT, [Scope.ASK], now=NOW, expires_at=NOW + timedelta(hours=1))
    access = Access(home)
    assert access.find(token, NOW) is not None
    assert access.find(token, NOW + timedelta(hours=1)) is None
    assert access.find(token + "x", NOW) is None
    assert access.find("", NOW) is None


def test_changes_are_followed_within_a_second_and_a_broken_file_changes_nothing(home: Home) -> None:
    token, _ = grant(home, "one", PRODUCT, [Scope.ASK], now=NOW)
    at = [0.0]
    access = Access(home, clock=lambda: at[0])
    later, _ = grant(home, "two", PRODUCT, [Scope.ASK], now=NOW)
    assert access.find(later, NOW) is None
    at[0] = 0.6
    assert access.find(later, NOW) is not None
    keys_file(home).write_text("{broken")
    at[0] = 1.2
    assert access.find(token, NOW) is not None
    with pytest.raises(ContractError):
        Access(home)
    keys_file(home).unlink()
    at[0] = 1.8
    assert access.find(token, NOW) is None


def test_the_local_key_is_made_once_and_again_when_it_counts_no_more(home: Home) -> None:
    path = ensure_local_key(home)
    first = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_local_key(home).read_text() == first
    key = Access(home).find(first.strip(), datetime.now(UTC))
    assert key is not None
    assert all(key.allows(scope, "any_product") for scope in Scope)
    revoke(home, "local", datetime.now(UTC))
    assert ensure_local_key(home).read_text() != first
    path.write_text("mlp_wrong\n")
    token = ensure_local_key(home).read_text().strip()
    assert Access(home).find(token, datetime.now(UTC)) is not None


def test_the_commands_grant_list_and_revoke(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["access", "grant", PRODUCT, "--name", "website", "--scope", "ask", "--expires-days", "2", "--json"]) == 0
    )
    granted = json.loads(capsys.readouterr().out)
    assert (granted["scopes"], granted["product"], granted["state"]) == (["ask"], PRODUCT, "valid")
    assert run(["access", "grant", "all", "--name", "everybody"]) == 0
    assert capsys.readouterr().out.startswith("mlp_")
    assert run(["access", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == ["website", "everybody"]
    assert granted["token"] not in json.dumps(listed)
    assert run(["access", "list", "other", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["everybody"]
    assert run(["access", "revoke", granted["key_id"], "--reason", "it leaked"]) == 0
    assert run(["access", "list"]) == 0
    assert "revoked" in capsys.readouterr().out
    assert run(["access", "revoke", "website"]) == 1
    assert run(["access", "grant", "Wrong Name", "--name", "x"]) == 1


def test_who_has_no_key_that_counts_gets_401(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        good = gateway.token()
        for header in (
            {},
            {"authorization": "Bearer mlp_wrong"},
            {"authorization": f"Basic {good}"},
            {"authorization": good},
            {"authorization": "Bearer"},
            {"authorization": "Bearer \xff".encode("latin-1")},
        ):
            answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=asked(), headers=header)
            assert (answer.status_code, code_of(answer)) == (401, "invalid_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert gateway.answerer.seen == []


def call(gateway: Running, token: str, method: str, path: str, **more: object) -> httpx2.Response:
    headers = {"authorization": f"Bearer {token}"}
    return httpx2.request(method, gateway.url + path, headers=headers, **more)  # type: ignore[arg-type]


def test_a_key_opens_what_its_scopes_and_product_say(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        ask, say, operate = (gateway.token(scope) for scope in (Scope.ASK, Scope.FEEDBACK, Scope.OPERATE))
        other = gateway.token(product="other")
        feedback = {"idempotency_key": "1", "response_id": "resp_12345678", "kind": "thumbs_up"}
        assert call(gateway, ask, "POST", "/v1/chat/completions", json=asked()).status_code == 200
        for token in (say, operate):
            answer = call(gateway, token, "POST", "/v1/chat/completions", json=asked())
            assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
        answer = call(gateway, other, "POST", "/v1/chat/completions", json=asked())
        assert (answer.status_code, code_of(answer)) == (403, "product_not_allowed")
        assert call(gateway, say, "POST", "/v1/feedback", json=feedback).status_code == 200
        assert code_of(call(gateway, ask, "POST", "/v1/feedback", json=feedback)) == "insufficient_scope"
        named = {**feedback, "product": "another"}
        assert code_of(call(gateway, say, "POST", "/v1/feedback", json=named)) == "product_not_allowed"
        for token in (ask, say):
            assert code_of(call(gateway, token, "GET", "/v1/responses/resp_12345678")) == "insufficient_scope"


def test_only_operators_may_choose_the_release(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        for scopes, may in (((Scope.ASK,), False), ((Scope.ASK, Scope.OPERATE), True)):
            headers = {"authorization": f"Bearer {gateway.token(*scopes)}", "x-release": "canary"}
            httpx2.post(f"{gateway.url}/v1/chat/completions", json=asked(), headers=headers)
            assert (gateway.answerer.seen[-1].override, gateway.answerer.seen[-1].may_override) == ("canary", may)


def test_a_revoked_key_is_refused_by_a_gateway_that_runs(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        token = gateway.token(name="leaked")
        assert call(gateway, token, "GET", "/v1/models").status_code == 200
        revoke(gateway.home, "leaked", datetime.now(UTC))
        assert call(gateway, token, "GET", "/v1/models").status_code == 401


def test_who_asks_too_often_waits_as_long_as_he_is_told(tmp_path: Path) -> None:
    with running_gateway(tmp_path, user_rate=0.5, user_burst=2) as gateway:
        slow = gateway.token(rate_per_second=0.1, burst=3)
        answers = [call(gateway, slow, "GET", "/v1/models") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert code_of(answers[-1]) == "rate_limit_exceeded"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
        quick = gateway.token()
        for user, statuses in (("a", [200, 200, 429]), ("b", [200, 200, 429])):
            body = {**asked(), "user": user}
            got = [call(gateway, quick, "POST", "/v1/chat/completions", json=body).status_code for _ in range(3)]
            assert got == statuses
        assert call(gateway, quick, "POST", "/v1/chat/completions", json=asked()).status_code == 200


def test_a_library_that_wants_its_own_figures_shared_takes_ours_from_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feast sets this variable when it is imported, long after our figures have their place."""
    with running_gateway(tmp_path) as gateway:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        assert "mlp_in_flight" in httpx2.get(f"{gateway.url}/metrics").text


def test_away_from_loopback_the_figures_and_products_are_for_operators(tmp_path: Path) -> None:
    with running_gateway(tmp_path, host="0.0.0.0") as gateway:  # noqa: S104 - told so; it is bound to loopback
        assert httpx2.get(f"{gateway.url}/metrics").status_code == 401
        assert httpx2.get(f"{gateway.url}/healthz").status_code == 200
        assert "products" not in httpx2.get(f"{gateway.url}/readyz").json()
        operate, ask = gateway.token(Scope.OPERATE), gateway.token(Scope.ASK)
        assert call(gateway, operate, "GET", "/metrics").status_code == 200
        assert call(gateway, ask, "GET", "/metrics").status_code == 403
        assert "products" in call(gateway, operate, "GET", "/readyz").json()
    with running_gateway(tmp_path / "loopback") as gateway:
        page = httpx2.get(f"{gateway.url}/metrics")
        assert page.status_code == 200
        assert "mlp_in_flight" in page.text


FROM_BEYOND = {
    "one header": {"x-forwarded-proto": "https"},
    "an empty one": {"x-forwarded-for": ""},
    "the standard's": {"forwarded": "for=203.0.113.9;proto=https"},
    "the name that was asked": {"host": "gateway.example"},
    "a name that begins like this machine's": {"host": "127.0.0.1.example:8080"},
}


@pytest.mark.parametrize("headers", FROM_BEYOND.values(), ids=FROM_BEYOND)
def test_behind_a_proxy_the_figures_and_products_are_for_operators(tmp_path: Path, headers: dict[str, str]) -> None:
    with running_gateway(tmp_path) as gateway:
        assert httpx2.get(f"{gateway.url}/metrics", headers=headers).status_code == 401
        assert "products" not in httpx2.get(f"{gateway.url}/readyz", headers=headers).json()
        operate = {**headers, "authorization": f"Bearer {gateway.token(Scope.OPERATE)}"}
        assert httpx2.get(f"{gateway.url}/metrics", headers=operate).status_code == 200
        assert "products" in httpx2.get(f"{gateway.url}/readyz", headers=operate).json()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "[::1]:8080"])
def test_on_this_machine_the_figures_need_no_key_by_any_of_its_names(tmp_path: Path, host: str) -> None:
    with running_gateway(tmp_path) as gateway:
        assert httpx2.get(f"{gateway.url}/metrics", headers={"host": host}).status_code == 200
