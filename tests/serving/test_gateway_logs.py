"""The log says whose key it was, of answers and of what was refused, and nobody fills a disk with it."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ml_platform.serving.gateway.access import Scope, revoke, token_sha256
from ml_platform.serving.gateway.exchange import Exchange
from ml_platform.serving.gateway.logs import JsonLines, TurnedAway
from tests.samples.gateway import Running, asked, running_gateway


@pytest.fixture
def gateway(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Running]:
    with (
        caplog.at_level(logging.INFO, "ml_platform.serving.gateway"),
        running_gateway(tmp_path, log_answers=True) as running,
    ):
        yield running


def ask(gateway: Running, token: str, **more: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {token}"}
    return httpx2.post(f"{gateway.url}/v1/chat/completions", json=asked(**more), headers=headers)


def lines(caplog: pytest.LogCaptureFixture) -> dict[str, dict[str, Any]]:
    """What the gateway's log says, by response id."""
    plain = [json.loads(JsonLines().format(record)) for record in caplog.records]
    return {line["response_id"]: line for line in plain if "response_id" in line}


def test_the_line_of_an_answer_names_the_key_and_what_it_cost(
    gateway: Running, caplog: pytest.LogCaptureFixture
) -> None:
    key = gateway.token()
    answer = ask(gateway, key)
    line = lines(caplog)[answer.json()["id"]]
    assert line["key_id"] == token_sha256(key)[: len(line["key_id"])] != ""
    assert line["cost_usd"] > 0
    assert key not in caplog.text


def test_a_request_that_is_refused_for_its_key_is_logged_with_the_id_of_the_key(
    gateway: Running, caplog: pytest.LogCaptureFixture
) -> None:
    gone, mute = gateway.token(name="gone"), gateway.token(Scope.FEEDBACK, name="mute")
    other, often = gateway.token(product="other", name="other"), gateway.token(rate_per_second=0.01, burst=1)
    [revoked] = revoke(gateway.home, "gone", datetime.now(UTC))
    assert ask(gateway, often).status_code == 200
    refused = {
        "invalid_api_key": ask(gateway, gone),
        "insufficient_scope": ask(gateway, mute),
        "product_not_allowed": ask(gateway, other),
        "rate_limit_exceeded": ask(gateway, often),
    }
    told = lines(caplog)
    for code, answer in refused.items():
        assert answer.json()["error"]["code"] == code
        line = told[answer.headers["x-response-id"]]
        assert line["message"] == f"turned away: {code}"
        assert len(line["key_id"]) == len(revoked.key_id)
    assert told[refused["invalid_api_key"].headers["x-response-id"]]["key_id"] == revoked.key_id


def test_a_key_that_was_never_made_here_leaves_no_trace_of_itself(
    gateway: Running, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask(gateway, "mlp_somebody-s-password")
    assert lines(caplog)[answer.headers["x-response-id"]]["key_id"] is None
    assert "password" not in caplog.text


def test_a_flood_of_refusals_is_a_line_a_second_for_each_key(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    turned_away = TurnedAway(clock=lambda: now)
    for number in range(500):
        now = number / 100
        for key_id in ("a" * 12, None):
            exchange = Exchange({"headers": []}, receive=None, send=None)  # type: ignore[arg-type] # never used
            exchange.key_id = key_id
            turned_away.tell(exchange, "rate_limit_exceeded")
    assert len(caplog.messages) == 2 * 5
    assert caplog.messages[0] == "turned away: rate_limit_exceeded"
    assert caplog.messages[-1] == "turned away: rate_limit_exceeded, and 99 more since the last line of it"
