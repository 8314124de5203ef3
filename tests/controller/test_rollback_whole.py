"""Rolling back takes everything back: after it, the same question has the answer that it had before, byte for byte."""

import json
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_platform.contracts.home import Home
from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.product import GuardrailSpec, PromptSpec
from ml_platform.contracts.release import Release, VersionedPart
from ml_platform.contracts.serving import ServingContent
from ml_platform.lineage.contents import keep_content
from ml_platform.serving.gateway.access import ensure_local_key
from tests.samples.followed import SERVING
from tests.samples.releases import PRODUCT
from tests.samples.rollouts import Rollout, slots
from tests.samples.served import PATIENCE_S, Processes, TinyServed, wait_until

OTHER_PROMPT = PromptSpec(version="2.0.0", system="Say something else, at length.")
STRICTER = GuardrailSpec(version="2.0.0", max_utterance_characters=60, safe_reply="Shorter, please.")
SHORT, LONG = (
    "Will UA 1545 be late?",
    "Will UA 1545 from Newark to Houston be late this very long afternoon, do you think?",
)
PARTS = (
    "release_id",
    "prompt",
    "guardrails",
    "adapter",
    "answer",
    "facts",
    "verdicts",
    "input_tokens",
    "output_tokens",
)


@dataclass
class RealRollout(Rollout, TinyServed):
    """Real adapters on the tiny model; the second release has another prompt and other thresholds, too."""

    serving: ServingContent = SERVING

    def release(self, seed: int, **files: bytes) -> Release:
        made = super().release(seed, **files)
        if seed == 1:
            return made
        parts = {"prompt": OTHER_PROMPT, "guardrails": STRICTER}
        for content in parts.values():
            keep_content(self.store, content)
        named = {
            name: VersionedPart(version=content.version, content_sha256=content.sha256)
            for name, content in parts.items()
        }
        return made.model_copy(update=named)


@dataclass
class Client:
    """Asks the gateway, and looks up what it recorded."""

    world: RealRollout
    url: str
    key: str

    def ask(self, question: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The body without what differs with every answer, and the record."""
        body = {"model": PRODUCT, "messages": [{"role": "user", "content": question}], "user": "traveller-1"}
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), headers=headers, method="POST"
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310 - loopback
            said, name = json.loads(response.read()), response.headers["x-response-id"]
            release_id = response.headers["x-release-id"]
        found = self._record(name)
        assert found["release_id"] == release_id
        for changing in ("id", "created"):
            said.pop(changing)
        assert said["ml_platform"].pop("response_id") == name
        return said, {
            part: [drop_times(one) for one in found[part]] if part == "verdicts" else found[part] for part in PARTS
        }

    def _record(self, name: str) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while (record := self.world.records.find(name)) is None:
            assert time.monotonic() < end
            time.sleep(0.05)
        return record.model_dump(mode="json")

    def is_answered_by(self, release_id: str) -> bool:
        """Whether two workers in a row, more or less, answer with this release."""
        return all(self.ask(SHORT)[1]["release_id"] == release_id for _ in range(6))


def drop_times(verdict: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in verdict.items() if not name.endswith("_ms")}


def as_bytes(asked: tuple[dict[str, Any], dict[str, Any]]) -> bytes:
    return json.dumps(asked, sort_keys=True).encode()


def test_an_answer_after_a_rollback_is_what_it_was_before_the_promotion(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    world = RealRollout(home, home.ledger_url)
    good = world.serve(1)
    key = ensure_local_key(home).read_text("utf-8").strip()
    with Processes(world) as processes:
        client = Client(world, processes.url, key)
        wait_until(lambda: client.is_answered_by(good), "the first release answers")
        before = [as_bytes(client.ask(question)) for question in (SHORT, LONG)]
        bad = world.serve(2)
        wait_until(lambda: client.is_answered_by(bad), "the second release answers")
        meanwhile = [as_bytes(client.ask(question)) for question in (SHORT, LONG)]
        assert all(one != other for one, other in zip(before, meanwhile, strict=True))
        world.answer(30, errors=1.0, answered_at=datetime.now(UTC))
        loop = world.loop()
        decision = world.look(loop).decision
        assert (decision.action, decision.release_id) == (Action.ROLL_BACK, bad), decision.reason
        assert set(slots(world).values()) == {good}
        wait_until(lambda: client.is_answered_by(good), "the first release answers again")
        after = [as_bytes(client.ask(question)) for question in (SHORT, LONG)]
    assert after == before
