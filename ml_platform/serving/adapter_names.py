"""Names of adapters in an engine: product and digest, so that a name never means two things.

The digest covers the weights and their configuration: the same weights with another scaling are another model.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ml_platform.contracts.canonical import digest, file_sha256

CONFIGURATION = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
FILES = (CONFIGURATION, WEIGHTS)
"""What an adapter consists of; nothing else in its folder is read."""

_DIGEST = re.compile(r"@([0-9a-f]{64})$")


def adapter_name(product: str, files: Mapping[str, str]) -> str:
    """`product@digest` of an adapter whose FILES have these SHA-256 digests."""
    return f"{product}@{digest({name: files[name] for name in FILES})}"


def digest_in_name(name: str) -> str | None:
    """The digest that a name ends with, None for a name that holds none."""
    found = _DIGEST.search(name)
    return found.group(1) if found else None


def adapter_digest(folder: Path) -> str:
    """The digest of the adapter in a folder, as names hold it. Raises OSError for what cannot be read."""
    return digest({name: file_sha256(folder / name) for name in FILES})
