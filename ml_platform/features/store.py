"""The local Feast store: opened quietly, with our own offline store, SQLite online and one file as registry."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feast import FeatureStore

PROJECT = "ml_platform"
OFFLINE_STORE = "ml_platform.features.asof.AsofOfflineStore"
ONLINE_FILE = "online.sqlite"
LOOKUPS_FILE = "lookups.sqlite"
REGISTRY_FILE = "registry.db"


def open_store(folder: Path, offline_store: str = OFFLINE_STORE) -> "FeatureStore":
    """The Feast store whose registry and online store lie in `folder`; nothing is written by opening it.

    `offline_store` may also be one of Feast's own: `duckdb` or `dask`.
    """
    from feast import FeatureStore, RepoConfig

    config = RepoConfig(
        project=PROJECT,
        provider="local",
        repo_path=folder,
        # A registry here never changes after it was published: read once, never refresh.
        registry={"path": str(folder / REGISTRY_FILE), "cache_ttl_seconds": 0},
        offline_store={"type": offline_store},
        online_store={"type": "sqlite", "path": str(folder / ONLINE_FILE)},
        entity_key_serialization_version=3,
    )
    return FeatureStore(config=config)


def sql_name(name: str) -> str:
    """A column name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
