"""What a release names by digest is kept whole, whatever becomes of the product folder."""

import json
from pathlib import Path

import pytest

from ml_platform.contracts.canonical import bytes_sha256, canonical_bytes
from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.policy import ActionPolicy
from ml_platform.contracts.product import GuardrailSpec, PromptSpec
from ml_platform.contracts.products import load_product
from ml_platform.contracts.release import Release
from ml_platform.contracts.serving import ServingContent
from ml_platform.errors import ArtifactCorruptError
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.lineage.contents import find_content, keep_contents
from tests.samples.releases import make_release

FOLDER = Path(__file__).resolve().parents[2] / "products" / "flight_assistant"


def test_every_part_of_a_release_is_found_again_by_its_digest(tmp_path: Path) -> None:
    product, store = load_product(FOLDER), LocalArtifactStore(tmp_path)
    assert find_content(store, PromptSpec, product.prompt.sha256) is None
    keep_contents(store, product)
    assert find_content(store, PromptSpec, product.prompt.sha256) == product.prompt
    assert find_content(store, GuardrailSpec, product.guardrails.sha256) == product.guardrails
    assert find_content(store, MonitorPolicy, product.monitor_policy.sha256) == product.monitor_policy
    kept = find_content(store, ServingContent, product.serving_content.sha256)
    assert kept == product.serving_content
    assert product.action_policy is not None
    assert find_content(store, ActionPolicy, product.action_policy.sha256) == product.action_policy


def test_content_that_was_written_before_a_contract_grew_is_still_what_its_digest_names(tmp_path: Path) -> None:
    store, now = LocalArtifactStore(tmp_path), load_product(FOLDER).serving_content
    older = json.loads(now.canonical_bytes())
    del older["types"], older["spec"]["shadow_share"]
    data = canonical_bytes(older)
    recipe = {"content_sha256": bytes_sha256(data)}
    store.make("serving", recipe, lambda folder: {"bytes": (folder / "content.json").write_bytes(data)})
    found = find_content(store, ServingContent, recipe["content_sha256"])
    unshadowed = now.spec.model_copy(update={"shadow_share": 0.0})
    assert found == now.model_copy(update={"types": {}, "spec": unshadowed})


def test_content_of_another_digest_is_refused(tmp_path: Path) -> None:
    store, product = LocalArtifactStore(tmp_path), load_product(FOLDER)
    data = product.prompt.canonical_bytes()
    store.make(
        "prompt", {"content_sha256": "a" * 64}, lambda folder: {"n": (folder / "content.json").write_bytes(data)}
    )
    with pytest.raises(ArtifactCorruptError, match=f"is PromptSpec {product.prompt.sha256[:12]}, not aaaaaaaaaaaa"):
        find_content(store, PromptSpec, "a" * 64)


def test_a_release_from_before_serving_was_a_part_keeps_its_id(tmp_path: Path) -> None:
    older = make_release()
    assert "serving" not in json.loads(older.canonical_bytes())
    named = older.model_copy(update={"serving": older.prompt})
    assert json.loads(named.canonical_bytes())["serving"] == older.prompt.model_dump()
    assert named.release_id != older.release_id
    assert Release.parse(json.loads(named.canonical_bytes()), where="here") == named
    assert Release.parse(json.loads(older.canonical_bytes()), where="here") == older
