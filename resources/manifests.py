"""Asset values: small JSON manifests that name artifacts by digest, written whole and checked when read."""

from pathlib import Path
from typing import Any

from dagster import ConfigurableIOManager, InputContext, OutputContext
from pydantic import ValidationError

from ml_platform.contracts.base import Contract, Name, Sha256
from ml_platform.errors import ArtifactCorruptError, InvalidInputError
from ml_platform.lineage.artifacts import Artifact, write_atomically
from resources.reporting import readable_failures
from resources.state import home_at


class Value(Contract):
    """The value of an asset: what kind of thing it stands for, the digest that names it, and its facts."""

    kind: Name
    value_sha256: Sha256
    facts: dict[str, Any] = {}

    @classmethod
    def of(cls, artifact: Artifact) -> "Value":
        """The value that stands for an artifact."""
        return cls(kind=artifact.kind, value_sha256=artifact.sha256, facts=artifact.facts)


class AssetManifest(Contract):
    """The file of one asset partition; it names its place, so that a copy elsewhere is refused."""

    asset: str
    partition: str
    value: Value


class ManifestIOManager(ConfigurableIOManager):
    """Keeps `<home>/manifests/<asset key>/<partition>.json`; no pickle, nothing that runs when read."""

    home_path: str = ""

    def handle_output(self, context: OutputContext, obj: Value) -> None:
        """Writes the manifest of a materialized partition, the old one staying until the new one is whole."""
        asset, partition = context.asset_key.to_user_string(), context.asset_partition_key
        manifest = AssetManifest(asset=asset, partition=partition, value=obj)
        path = self._path(asset, partition)
        write_atomically(path, manifest.canonical_bytes())
        context.add_output_metadata({"manifest": str(path)})

    def load_input(self, context: InputContext) -> Value:
        """The value of an upstream partition; fails with the asset and day to materialize when it is missing."""
        with readable_failures():
            return self.read(context.asset_key.to_user_string(), context.asset_partition_key)

    def read(self, asset: str, partition: str) -> Value:
        """The value of a partition.

        Raises InvalidInputError when it was never materialized and ArtifactCorruptError when its
        file is not the manifest of that asset and partition.
        """
        path = self._path(asset, partition)
        if not path.is_file():
            raise InvalidInputError(
                f"{asset} has no partition {partition} (looked for {path}). Materialize {asset} for {partition} first, "
                "or run the whole chain."
            )
        try:
            manifest = AssetManifest.model_validate_json(path.read_bytes())
        except ValidationError as error:
            problem = error.errors()[0]
            raise ArtifactCorruptError(
                f"{path}: is not a manifest: {problem['msg']}. Materialize {asset} for {partition} again."
            ) from None
        if (manifest.asset, manifest.partition) != (asset, partition):
            raise ArtifactCorruptError(
                f"{path}: is the manifest of {manifest.asset} for {manifest.partition}, expected {asset} for "
                f"{partition}. Somebody moved it; materialize {asset} for {partition} again."
            )
        return manifest.value

    def _path(self, asset: str, partition: str) -> Path:
        return home_at(self.home_path).manifests / asset / f"{partition}.json"
