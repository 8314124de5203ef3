"""A home in which flight_assistant serves for real, but for the model: releases, features and guardrails are its own.

Snapshot, features and lookups are those of real flights; prompt, guardrails, policies and hooks those of the product's
folder; releases are registered, proven and pinned. Only their adapters hold nothing, which an engine that answers at
once does not mind.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ml_platform.contracts.home import Home
from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.products import Product, load_product
from ml_platform.contracts.release import FeaturesPart, Release, VersionedPart
from ml_platform.features.build import build_features
from ml_platform.features.definitions import definitions_sha256
from ml_platform.features.online import publish_online
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.lineage.contents import keep_contents
from ml_platform.lineage.keys import operator_key, signing_key, trusted_keys, trusted_operators
from ml_platform.lineage.ledger import Ledger
from ml_platform.release.controller import Controller
from ml_platform.release.moves import Move
from ml_platform.snapshots.extract import cutoff, load_table, take_snapshot
from tests.samples.releases import PRODUCER, inputs_of, make_release, make_results

PRODUCT = Path(__file__).resolve().parents[1] / "products" / "flight_assistant"
AS_OF = date(2013, 3, 31)
ACTOR = "a benchmark"


@dataclass(frozen=True)
class Served:
    """The home and what can be done in it."""

    home: Home
    product: Product
    releases: tuple[str, ...]
    flights: tuple[Mapping[str, Any], ...]

    @property
    def controller(self) -> Controller:
        """A controller with the keys of the home."""
        ledger = Ledger(self.home.ledger_url)
        return Controller(ledger, trusted_keys(self.home), PRODUCER, trusted_operators(self.home))

    def bodies(self, count: int, *, stream: bool = False, users: int = 5_000) -> list[str]:
        """Questions about flights that leave in the next hours, as an OpenAI client words them."""
        chance = random.Random(0)  # noqa: S311 - which are asked, no secret
        asked = ("Will {} be late?", "how late will {} be", "Why is {} at risk of a delay?", "Is {} worse than usual?")
        made = []
        for number in range(count):
            flight = chance.choice(self.flights)
            name = f"{flight['carrier']}{flight['flight_number']}"
            body: dict[str, Any] = {
                "model": self.product.name,
                "messages": [{"role": "user", "content": asked[number % len(asked)].format(name)}],
                "metadata": {"flight_id": flight["flight_id"]},
                "user": f"traveller-{chance.randrange(users)}",
            }
            made.append(json.dumps(body | ({"stream": True} if stream else {})))
        return made

    def move(self, moved: object) -> int:
        """The epoch of a move that must have succeeded."""
        assert isinstance(moved, Move), moved
        return moved.epoch


def make_served_home(root: Path, releases: int = 1, watched: MonitorPolicy | None = None) -> Served:
    """The home below `root`, with so many proven releases, of which the first is in production.

    `watched` is the monitor policy of all of them, None for the product's.
    """
    home, product = Home(root), load_product(PRODUCT)
    product = replace(product, monitor_policy=watched or product.monitor_policy)
    store = LocalArtifactStore(home.artifacts)
    snapshot = take_snapshot(product, AS_OF, store)
    features = build_features(product, snapshot, store)
    publish_online(product, features, home, cutoff(AS_OF), snapshot=snapshot, going_back=True)
    keep_contents(store, product)
    candidates = [_candidate(store, seed) for seed in range(1, releases + 1)]
    made = [_release(product, snapshot, candidate) for candidate in candidates]
    plan = load_table(snapshot, "schedule")
    soon = plan[plan["scheduled_departure"].between(cutoff(AS_OF), cutoff(AS_OF) + timedelta(hours=20))]
    flights = [{str(key): value for key, value in row.items()} for row in soon.to_dict("records")]
    served = Served(home, product, tuple(one.release_id for one in made), tuple(flights))
    _prove(served, made)
    return served


def _candidate(store: LocalArtifactStore, seed: int) -> Artifact:
    def build(folder: Path) -> Mapping[str, Any]:
        (folder / "adapter").mkdir()
        weights = {"lora_A": np.full((4, 8), float(seed), np.float32)}
        save_file(weights, folder / "adapter" / "adapter_model.safetensors")
        (folder / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        return {"seed": seed}

    return store.make("candidate", {"seed": seed, "of": "a benchmark"}, build)


def _release(product: Product, snapshot: Artifact, candidate: Artifact) -> Release:
    plain = make_release(AS_OF, 1, product.promotion_policy, product.name).model_dump()
    plain["data"]["snapshot_sha256"] = snapshot.sha256
    assert product.features is not None
    plain["features"] = FeaturesPart(service=product.features.service, definitions_sha256=definitions_sha256(product))
    plain["model"] |= {
        "base_model": product.spec.training.base_model,
        "candidate_sha256": candidate.sha256,
        "adapter_sha256": candidate.manifest.files["adapter/adapter_model.safetensors"].file_sha256,
    }
    contents = {
        "prompt": product.prompt,
        "guardrails": product.guardrails,
        "action_policy": product.action_policy,
        "promotion_policy": product.promotion_policy,
        "monitor_policy": product.monitor_policy,
    }
    for name, content in contents.items():
        assert content is not None
        plain[name] = VersionedPart(version=content.version, content_sha256=content.sha256)
    plain["serving"] = VersionedPart(version=product.serving.version, content_sha256=product.serving_content.sha256)
    return Release.model_validate(plain)


def _prove(served: Served, releases: list[Release]) -> None:
    key, operator, now = signing_key(served.home), operator_key(served.home), datetime.now(UTC)
    assert operator is not None
    product, policy, controller = served.product.name, served.product.promotion_policy, served.controller
    controller.pin_policy(product, policy, operator, ACTOR, now, ACTOR, only_first=True)
    for place, release in enumerate(releases):
        controller.register_release(release, policy, now, ACTOR)
        reference = served.releases[0] if place else "base"
        inputs = inputs_of(release, reference)
        assert controller.record_verdicts(release, make_results(policy), inputs, key, now, ACTOR).eligible
        if not place:
            served.move(controller.open_canary(product, release.release_id, now, ACTOR))
            served.move(controller.promote(product, release.release_id, now, ACTOR))
