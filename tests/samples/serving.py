"""Loaded releases, an engine in memory and a real provenance log: what answering needs, without a model.

Every part of release `n` says `n`: the prompt, the facts, the features, the adapter, the replies of the guardrails.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ml_platform.contracts.home import Home
from ml_platform.contracts.product import GuardrailSpec, PromptSpec
from ml_platform.contracts.provenance import FeaturesRead, ProvenanceRecord
from ml_platform.contracts.release import FeaturesPart, VersionedPart
from ml_platform.contracts.report import Decoding
from ml_platform.contracts.serving import ServingContent
from ml_platform.lineage.provenance.recorder import Recorder
from ml_platform.lineage.provenance.segments import read_segment, segments_in
from ml_platform.lineage.provenance.wal import WriteAheadLog
from ml_platform.serving.answering import Answerer
from ml_platform.serving.deadline import Deadline
from ml_platform.serving.deployment import AdmittedRelease, Deployment, Deployments
from ml_platform.serving.engine_client import Generated
from ml_platform.serving.facts import FactsSource
from ml_platform.serving.hooks import load_hook
from ml_platform.serving.loaded import LoadedRelease, ReleaseLoader
from ml_platform.serving.question import Question
from ml_platform.serving.routing import RoutingTable
from tests.samples.releases import make_release

PRODUCT = "assistant"
NOW = datetime(2013, 4, 1, 12, tzinfo=UTC)
FEATURES: dict[str, Any] = {
    "service": "counters",
    "views": {"now": {"source": "events", "entity": ["item"], "columns": {"level": "level"}, "ttl_hours": 1.0}},
}
EVALUATION: dict[str, Any] = {
    "answer_format": "json",
    "fields": {
        "label": {"kind": "label", "values": ["yes", "no"]},
        "reply": {"kind": "text", "grounded": True},
    },
    "max_test_examples": 10,
    "max_reference_examples": 10,
    "latency_requests": 1,
    "decoding": {"max_new_tokens": 32, "batch_size": 1},
    "cost": {"input_usd_per_million": 1.0, "output_usd_per_million": 2.0},
}
HOOK = "def facts(row):\n    return {'item': row['item'], 'level': row['level'], 'shown_by': %d}\n"

Answers = Callable[[str, Sequence[Mapping[str, str]]], Awaitable[Generated]]


class Published:
    """One publication in memory: the rows of a lookup and the features of each item."""

    def __init__(self, number: int, rows: Mapping[str, Mapping[str, Any]], event_at: datetime) -> None:
        self.number, self.rows, self.event_at = number, rows, event_at

    def look_up(self, lookup: str, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
        assert lookup == "items"
        return self.rows.get(str(row["item"]))

    def read(self, row: Mapping[str, Any], now: datetime | None) -> FeaturesRead:
        level = self.rows[str(row["item"])].get("level", self.number)
        return FeaturesRead(
            service="counters",
            definitions_sha256=f"{self.number:064x}",
            read_at=now or self.event_at,
            keys={"item": row["item"]},
            values={"level": level},
            event_at={"level": self.event_at},
        )

    cached, cached_look_up = read, look_up


class Shelf:
    """A reader of what is published in memory; `failing` is raised, or awaited for ever, in its place."""

    def __init__(self, published: Published) -> None:
        self.published = published
        self.failing: Callable[[], None] | None = None

    def at_hand(self) -> Published | None:
        return None if self.failing else self.published

    def pinned(self) -> Published:
        if self.failing:
            self.failing()
        return self.published


@dataclass
class Engine:
    """An engine in memory that counts what it is asked; `say` makes its answers."""

    say: Answers
    asked: list[tuple[str, Sequence[Mapping[str, str]]]] = field(default_factory=list)
    cancelled: int = 0

    async def generate(
        self, model: str, messages: Sequence[Mapping[str, str]], decoding: Decoding, *, deadline: Deadline
    ) -> Generated:
        assert decoding.max_new_tokens == 32
        assert deadline.at > 0.0
        self.asked.append((model, messages))
        try:
            return await self.say(model, messages)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def generated(text: str, **changes: Any) -> Generated:
    """What an engine says, as if it had taken a moment."""
    plain: dict[str, Any] = {
        "tokens_in": 100,
        "tokens_out": 20,
        "first_token_ms": 3.0,
        "queue_ms": 0.5,
        "finished": True,
    }
    return Generated(text=text, **plain | changes)


async def good_answer(model: str, messages: Sequence[Mapping[str, str]]) -> Generated:
    """An answer that says which adapter gave it and which facts it saw."""
    system = messages[0]["content"].split("\n")
    shown = next(line for line in system if line.startswith("shown by="))
    return generated(json.dumps({"label": "yes", "reply": f"Level {shown.partition('=')[2]}."}))


def make_loaded(number: int, **changes: Any) -> LoadedRelease:
    """Release `number`; `serving`, `guardrails` and `rows` change what it is made of."""
    spec: dict[str, Any] = {
        "version": f"{number}.0.0",
        "entity": ["item"],
        "lookups": {"items": {"source": "items", "key": ["item"], "columns": ["name"]}},
        "facts": "facts.py:facts",
    }
    content = ServingContent.model_validate(
        {
            "spec": spec | changes.get("serving", {}),
            "evaluation": EVALUATION | changes.get("evaluation", {}),
            "features": FEATURES,
            "sources": {"facts.py": changes.get("hook", HOOK % number)},
        }
    )
    prompt = PromptSpec(version=f"{number}.0.0", system=f"prompt {number}\n{{facts}}")
    guardrails = GuardrailSpec.model_validate(
        {
            "version": f"{number}.0.0",
            "max_utterance_characters": 200,
            "safe_reply": f"safe {number}",
            "fallback_reply": f"fallback {number}",
            "safe_labels": {"label": "no"},
            "redact": ["email", "phone", "card"],
            **changes.get("guardrails", {}),
        }
    )
    parts = {
        name: VersionedPart(version=f"{number}.0.0", content_sha256=part.sha256)
        for name, part in (("prompt", prompt), ("guardrails", guardrails), ("serving", content))
    }
    release = make_release(date(2013, 1, 1), number, product=changes.get("product", PRODUCT)).model_copy(
        update={**parts, "features": FeaturesPart(service="counters", definitions_sha256=f"{number:064x}")}
    )
    admitted = AdmittedRelease(
        release=release,
        release_id=release.release_id,
        serving=content,
        prompt=prompt,
        guardrails=guardrails,
        action_policy=None,
        adapter_name=f"{release.product}@{number:064x}",
        adapter_path=Path("/nowhere"),
    )
    rows = changes.get("rows", {"a": {"name": "first"}, "b": {"name": "second"}})
    shelf: Any = changes.get("shelf") or Shelf(Published(number, rows, NOW))
    hook = load_hook("facts.py:facts", content.sources, admitted.release_id)
    facts = FactsSource(content, shelf, hook, kinds=guardrails.redact)
    return ReleaseLoader(Home(Path("/nowhere"))).assemble(admitted, facts)


def deploy(epoch: int, production: LoadedRelease | None, *others: LoadedRelease, **table: Any) -> Deployment:
    """A deployment at an epoch; the others are loaded too, and serve as the table's names say."""
    loaded = [one for one in (production, *others) if one is not None]
    named: dict[str, Any] = {
        name: value.release_id if isinstance(value, LoadedRelease) else value for name, value in table.items()
    }
    named["production"] = None if production is None else production.release_id
    routing = RoutingTable(product=loaded[0].admitted.release.product, epoch=epoch, **named)
    return Deployment(routing, {one.release_id: one for one in loaded})


_numbers = itertools.count()


def question(utterance: str = "Is it high?", **changes: Any) -> Question:
    """A question about item `a`, which has ten seconds."""
    seconds = changes.pop("seconds", 10.0)
    plain: dict[str, Any] = {
        "response_id": f"resp_{next(_numbers):08d}",
        "product": PRODUCT,
        "utterance": utterance,
        "metadata": {"item": "a"},
        "user_id": "user-1",
        "deadline": Deadline.after(seconds, time.monotonic()),
        "received_at": NOW,
    }
    return Question(**plain | changes)


@dataclass
class Served:
    """An answerer on a real log, and what it is made of."""

    answerer: Answerer
    deployments: Deployments
    engine: Engine
    recorder: Recorder
    log: WriteAheadLog

    def records(self) -> dict[str, ProvenanceRecord]:
        """What the log holds by now, by response; a response that is there twice is an error."""
        found: dict[str, ProvenanceRecord] = {}
        for segment in segments_in(self.log.folder):
            for frame in read_segment(segment).frames:
                if frame.payload:
                    record = ProvenanceRecord.from_log(frame.payload)
                    assert record.response_id not in found, f"{record.response_id} is recorded twice"
                    found[record.response_id] = record
        return found


@asynccontextmanager
async def serving(folder: Path, *deployments: Deployment, say: Answers = good_answer) -> AsyncIterator[Served]:
    """Deployments that serve, on a log below the folder."""
    log = WriteAheadLog(folder / "log")
    current = Deployments()
    for deployment in deployments:
        current.swap(deployment)
    engine, recorder = Engine(say), Recorder(log)
    answerer = Answerer(current, engine, recorder, user_salt=b"salt", code_commit="c" * 40)  # type: ignore[arg-type]
    try:
        yield Served(answerer, current, engine, recorder, log)
        await answerer.drain()
    finally:
        log.close()
