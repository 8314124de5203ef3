"""The libraries that compute: another version of one of them may train another adapter, or say something else."""

from importlib.metadata import version

_PACKAGES = ("accelerate", "peft", "safetensors", "tokenizers", "torch", "transformers")


def library_versions() -> dict[str, str]:
    """Package -> installed version, for recipes. Loads none of them."""
    return {name: version(name) for name in _PACKAGES}
