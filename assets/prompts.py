"""Prompts of releases, kept like their weights: production is compared as it serves, with its own prompt."""

from pathlib import Path

from ml_platform.contracts.product import PromptSpec
from ml_platform.lineage.artifacts import ArtifactStore

KIND = "prompt"
FILE = "prompt.json"


def keep_prompt(store: ArtifactStore, prompt: PromptSpec) -> None:
    """Stores the prompt under its digest, so that a later edit of the product folder does not lose it."""

    def build(folder: Path) -> dict[str, str]:
        (folder / FILE).write_bytes(prompt.canonical_bytes())
        return {"version": prompt.version}

    store.make(KIND, _recipe(prompt.sha256), build)


def find_prompt(store: ArtifactStore, prompt_sha256: str) -> PromptSpec | None:
    """The prompt of that digest, or None when it was never kept."""
    found = store.find(KIND, _recipe(prompt_sha256))
    return None if found is None else PromptSpec.read(found.file(FILE))


def _recipe(prompt_sha256: str) -> dict[str, str]:
    return {"prompt_sha256": prompt_sha256}
