"""Contents of releases: prompt, guardrails, policies, how it serves; kept whole under the digests that name them."""

import json
from pathlib import Path
from typing import TypeVar

from ml_platform.contracts.base import Contract
from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.policy import ActionPolicy
from ml_platform.contracts.product import GuardrailSpec, PromptSpec
from ml_platform.contracts.products import Product
from ml_platform.contracts.serving import ServingContent
from ml_platform.errors import ArtifactCorruptError
from ml_platform.lineage.artifacts import ArtifactStore

FILE = "content.json"
KINDS: dict[type[Contract], str] = {
    PromptSpec: "prompt",
    GuardrailSpec: "guardrails",
    ActionPolicy: "action_policy",
    MonitorPolicy: "monitor_policy",
    ServingContent: "serving",
}
"""What is kept, and the kind of artifact that it becomes; the promotion policy is kept by the ledger."""

AnyContent = TypeVar("AnyContent", PromptSpec, GuardrailSpec, ActionPolicy, MonitorPolicy, ServingContent)


def keep_contents(store: ArtifactStore, product: Product) -> None:
    """Stores what a release of the product names by digest, so that a later edit of the folder does not lose it."""
    named = (product.prompt, product.guardrails, product.action_policy, product.monitor_policy)
    for content in (*named, product.serving_content):
        if content is not None:
            keep_content(store, content)


def find_content(store: ArtifactStore, contract: type[AnyContent], content_sha256: str) -> AnyContent | None:
    """The content of that digest, or None when it was never kept.

    The bytes are what the digest names: a contract that has got a key since then reads them with its default, and would
    write others. Raises ArtifactCorruptError when they are not those of the digest.
    """
    found = store.find(KINDS[contract], _recipe(content_sha256))
    if found is None:
        return None
    data = found.file(FILE).read_bytes()
    if (kept := bytes_sha256(data)) != content_sha256:
        raise ArtifactCorruptError(
            f"{found.file(FILE)}: is {contract.__name__} {kept[:12]}, not {content_sha256[:12]}. "
            "Materialize registered_release again."
        )
    # The very bytes that were hashed: the file may be another one by now.
    return contract.parse(json.loads(data), where=str(found.file(FILE)))


def keep_content(store: ArtifactStore, content: Contract) -> None:
    """Stores one content under its digest; nothing to do where it is."""

    def build(folder: Path) -> dict[str, str]:
        (folder / FILE).write_bytes(content.canonical_bytes())
        return {"content_sha256": content.sha256}

    store.make(KINDS[type(content)], _recipe(content.sha256), build)


def _recipe(content_sha256: str) -> dict[str, str]:
    return {"content_sha256": content_sha256}
