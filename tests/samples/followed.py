"""A ledger, a store and a follower: releases with real artifacts, proven, staged, loaded into an engine in memory."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ml_platform.contracts.evaluation_spec import EvaluationSpec
from ml_platform.contracts.home import Home
from ml_platform.contracts.product import GuardrailSpec, PromptSpec
from ml_platform.contracts.release import Release, VersionedPart
from ml_platform.contracts.serving import ServingContent, ServingSpec
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.lineage.contents import keep_content
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.standing import Trust
from ml_platform.release.controller import Controller
from ml_platform.release.moves import Move
from ml_platform.serving.adapter_names import FILES, adapter_name
from ml_platform.serving.deployment import AdmittedRelease, Deployment, Deployments
from ml_platform.serving.following import Follower
from ml_platform.serving.loaded import LoadedRelease, ReleaseLoader
from ml_platform.serving.refusals import Refusal
from ml_platform.serving.routing import RoutingTable
from tests.samples.memory_engine import BASE, MemoryEngine
from tests.samples.releases import (
    OPERATOR,
    PRODUCER,
    PRODUCT,
    inputs_of,
    make_policy,
    make_release,
    make_results,
    trusting,
)

POLICY = make_policy()
PROMPT = PromptSpec(version="1.0.0", system="Answer.")
GUARDRAILS = GuardrailSpec(version="1.0.0", max_utterance_characters=500, safe_reply="No.")
SERVING = ServingContent(
    spec=ServingSpec(version="1.0.0"),
    evaluation=EvaluationSpec.model_validate(
        {
            "answer_format": "text",
            "max_test_examples": 1,
            "max_reference_examples": 1,
            "latency_requests": 1,
            "decoding": {"max_new_tokens": 8, "batch_size": 1},
            "cost": {"input_usd_per_million": 1.0, "output_usd_per_million": 1.0},
        }
    ),
    features=None,
)


@dataclass
class World:
    """A home with a ledger; what controllers and operators do, and the followers that watch."""

    home: Home
    url: str
    key: SigningKey = field(default_factory=SigningKey.generate)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    policy: Any = POLICY
    product: str = PRODUCT
    base: str = BASE
    adapters: dict[int, Path] = field(default_factory=dict)
    """Real adapters by seed; all other seeds have small ones that no model could use."""
    serving: ServingContent = SERVING

    def __post_init__(self) -> None:
        self.trust = Trust(trusting(self.key), trusting(OPERATOR))
        self.store = LocalArtifactStore(self.home.artifacts)
        for content in (PROMPT, GUARDRAILS, self.serving):
            keep_content(self.store, content)

    @property
    def controller(self) -> Controller:
        """A controller of its own, as another process has it."""
        return Controller(Ledger(self.url), self.trust.evidence, PRODUCER, self.trust.operators)

    def candidate(self, seed: int, **files: bytes) -> Artifact:
        """A candidate with a small adapter; `files` are further files of its folder."""

        def build(folder: Path) -> Mapping[str, Any]:
            adapter = folder / "adapter"
            if seed in self.adapters:
                shutil.copytree(self.adapters[seed], adapter)
                return {"seed": seed}
            adapter.mkdir()
            weights = {"lora_A": np.full((4, 8), float(seed), np.float32), "lora_B": np.ones((8, 4), np.float32)}
            save_file(weights, adapter / "adapter_model.safetensors")
            (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
            for name, data in files.items():
                (adapter / name).write_bytes(data)
            return {"seed": seed}

        recipe = {"seed": seed, "files": sorted(files), "real": seed in self.adapters}
        return self.store.make("candidate", recipe, build)

    def release(self, seed: int, **files: bytes) -> Release:
        """A release whose parts are all in the store."""
        candidate = self.candidate(seed, **files)
        plain = make_release(date(2013, 3, 31), seed, self.policy, self.product).model_dump()
        plain["model"] |= {
            "base_model": self.base,
            "candidate_sha256": candidate.sha256,
            "adapter_sha256": candidate.manifest.files["adapter/adapter_model.safetensors"].file_sha256,
        }
        plain["prompt"] = VersionedPart(version="1.0.0", content_sha256=PROMPT.sha256)
        plain["guardrails"] = VersionedPart(version="1.0.0", content_sha256=GUARDRAILS.sha256)
        plain["serving"] = VersionedPart(version="1.0.0", content_sha256=self.serving.sha256)
        return Release.model_validate(plain)

    def adapter(self, seed: int) -> str:
        """What an engine calls the adapter of such a release."""
        files = self.candidate(seed).manifest.files
        return adapter_name(self.product, {name: files[f"adapter/{name}"].file_sha256 for name in FILES})

    def prove(self, release: Release) -> str:
        """Registers it and signs a PASS of every gate, against what is in production now."""
        controller = self.controller
        controller.pin_policy(self.product, self.policy, OPERATOR, "tests", self.now, "operator", only_first=True)
        controller.register_release(release, self.policy, self.now, "ci")
        reference = controller.state(self.product).slots.get("production", "base")  # type: ignore[call-overload]
        results, inputs = make_results(self.policy), inputs_of(release, reference)
        controller.record_verdicts(release, results, inputs, self.key, self.now, "ci")
        return release.release_id

    def open(self, release_id: str) -> int:
        """The canary opens; the epoch."""
        return epoch_of(self.controller.open_canary(self.product, release_id, self.now, "ops"))

    def promote(self, release_id: str) -> int:
        """The canary goes into production; the epoch."""
        return epoch_of(self.controller.promote(self.product, release_id, self.now, "ops"))

    def serve(self, seed: int) -> str:
        """A new release, proven, opened and promoted."""
        release_id = self.prove(self.release(seed))
        self.open(release_id)
        self.promote(release_id)
        return release_id

    def try_out(self, seed: int) -> str:
        """A new release, proven and opened as the canary."""
        release_id = self.prove(self.release(seed))
        self.open(release_id)
        return release_id

    def shadow(self, seed: int) -> str:
        """A new release, proven and opened as the shadow."""
        release_id = self.prove(self.release(seed))
        epoch_of(self.controller.open_shadow(self.product, release_id, "to compare", self.now, "ops"))
        return release_id

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of a kind of event."""
        return [event.payload for event in Ledger(self.url).events(self.product) if event.kind == kind]


def epoch_of(moved: object) -> int:
    """The epoch of a move that must have succeeded."""
    assert isinstance(moved, Move), moved
    return moved.epoch


def all_but(adapter: str, loader: ReleaseLoader) -> Callable[[AdmittedRelease], Awaitable[LoadedRelease]]:
    """Loads releases, but for the one with this adapter: its own code fails."""

    async def load(admitted: AdmittedRelease) -> LoadedRelease:
        if admitted.adapter_name == adapter:
            raise ZeroDivisionError("in its hook")
        return await loader(admitted)

    return load


class Watched:
    """A follower on a world, with its own engine unless one is given."""

    def __init__(self, world: World, engine: MemoryEngine | None = None, **given: Any) -> None:
        self.world, self.engine = world, engine or MemoryEngine()
        self.deployments, self.heard = Deployments(), list[Refusal]()
        self.loader, self.seconds = ReleaseLoader(world.home), 0.0
        arguments: dict[str, Any] = {
            "ledger": Ledger(world.url),
            "store": world.store,
            "trust": lambda: world.trust,
            "engine": self.engine,
            "load": self.loader,
            "deployments": self.deployments,
            "staging": world.home.work / "staging",
            "gateway": "gateway-1",
            "listen": self.heard.append,
            "clock": lambda: world.now,
            "monotonic": lambda: self.seconds,
        }
        self.follower = Follower(**arguments | given)

    async def look(self) -> Deployment | None:
        """One round, waited for until all of it is done; then what serves."""
        await self.follower.look()
        await self.follower.settled()
        return self.deployments.of(self.world.product)

    async def look_later(self, seconds: float = 31.0) -> Deployment | None:
        """One round after so many seconds."""
        self.seconds += seconds
        return await self.look()

    def serves(self, release_id: str) -> bool:
        """Whether this release is in production here."""
        found = self.deployments.of(self.world.product)
        return found is not None and found.table.production == release_id

    @property
    def table(self) -> RoutingTable:
        """What serves."""
        found = self.deployments.of(self.world.product)
        assert found is not None, self.follower.problem
        assert not found.missing
        return replace(found.table)


async def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits for it; TimeoutError when it takes longer."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


def watching(world: World, steps: Callable[[Watched], Awaitable[None]]) -> None:
    """Takes these steps in an event loop, with a follower of this world."""

    async def run() -> None:
        watched = Watched(world)
        await steps(watched)
        await watched.follower.settled()
        await watched.loader.close()

    asyncio.run(run())
