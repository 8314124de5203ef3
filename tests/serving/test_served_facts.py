"""A flight is shown to the model in serving as it was in training, fact by fact."""

import asyncio
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.home import Home
from ml_platform.contracts.products import load_product
from ml_platform.contracts.release import FeaturesPart
from ml_platform.errors import UnknownEntityError
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.serving.deployment import AdmittedRelease
from ml_platform.serving.loaded import LoadedRelease, ReleaseLoader
from tests.samples.releases import make_release

FLIGHTS = Path(__file__).parents[2] / "products" / "flight_assistant"
AS_OF = date(2013, 2, 10)


@pytest.mark.long
def test_served_facts_of_real_flights_equal_those_of_training(tmp_path: Path) -> None:
    from ml_platform.families.lora.prepare import load_examples, make_training_set
    from ml_platform.features.build import build_features
    from ml_platform.features.definitions import definitions_sha256
    from ml_platform.features.join import join_features
    from ml_platform.features.online import publish_online
    from ml_platform.snapshots.extract import take_snapshot

    product, home = load_product(FLIGHTS), Home(tmp_path / "home")
    store = LocalArtifactStore(home.artifacts)
    snapshot = take_snapshot(product, AS_OF, store)
    features = build_features(product, snapshot, store)
    made = make_training_set(product, snapshot, lambda rows: join_features(product, features, rows, home), store)
    definitions = definitions_sha256(product)

    async def check(trained: Any) -> None:
        at = trained.prediction_time
        publish_online(product, features, home, at, snapshot=snapshot, going_back=True)
        loaded = await load(product, definitions, home)
        known = await loaded.facts.find({"flight_id": trained.entity}, timeout_seconds=30.0)
        assert list(known.facts.items()) == list(trained.facts.items())
        assert list(known.facts)[-1] == "level"
        assert known.features is not None
        assert all(seen is None or seen <= at for seen in known.features.event_at.values())
        with pytest.raises(UnknownEntityError, match="'flight' holds no row for the flight_id"):
            await loaded.facts.find({"flight_id": "2013-01-01_UA_0_EWR_0000"}, timeout_seconds=30.0)

    examples = load_examples(made, "test")
    for trained in examples[:: len(examples) // 8]:
        asyncio.run(check(trained))


async def load(product: Any, definitions_sha256: str, home: Home) -> LoadedRelease:
    """A release of the product, as a gateway loads it."""
    part = FeaturesPart(service=product.features.service, definitions_sha256=definitions_sha256)
    release = make_release(product=product.name).model_copy(update={"features": part})
    admitted = AdmittedRelease(
        release=release,
        release_id=release.release_id,
        serving=product.serving_content,
        prompt=product.prompt,
        guardrails=product.guardrails,
        action_policy=product.action_policy,
        adapter_name=f"{product.name}@0",
        adapter_path=home.root,
    )
    return await ReleaseLoader(home)(admitted)
