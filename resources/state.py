"""The home of all local state and the artifact store in it, as Dagster resources."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import ConfigurableIOManager, ConfigurableResource, IOManagerDefinition, ResourceDefinition

from ml_platform.contracts.home import Home
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.object_store import artifact_store
from resources.running_code import require_code_as_loaded

if TYPE_CHECKING:
    from ml_platform.lineage.attested import AttestedStore

PROJECT = Path(__file__).resolve().parent.parent
"""The checkout or image that holds definitions.py."""


def home_at(path: str = "") -> Home:
    """The home at a path, else the one that ML_PLATFORM_HOME names, else `.ml_platform` beside definitions.py.

    The last differs from the command line, which looks in its working directory: a code location may
    be started from anywhere. Resources take a path rather than another resource, for Dagster 1.13 warns of
    itself when resources are nested.
    """
    return Home(Path(path or os.environ.get("ML_PLATFORM_HOME") or PROJECT / ".ml_platform").resolve())


class StoreResource(ConfigurableResource[ArtifactStore]):
    """The home, and the content-addressed store that holds the bytes which the assets' manifests name."""

    home_path: str = ""

    @property
    def home(self) -> Home:
        """Where state lives; nothing is created by asking for it."""
        return home_at(self.home_path)

    def store(self) -> "AttestedStore":
        """The store below the home, or the object store that ML_PLATFORM_ARTIFACT_URL names.

        Gates look at what assets make: what is found there by a recipe counts with a signature only. Raises
        IntegrityError where the code changed since this process loaded it.
        """
        from ml_platform.lineage.attested import AttestedStore

        require_code_as_loaded()

        return AttestedStore(artifact_store(self.home), self.home)


def as_it_stands(resource: ConfigurableResource[Any] | ConfigurableIOManager) -> ResourceDefinition:
    """The resource for runs, without a word of run config in it.

    Dagster takes each field of a resource for a setting of the run, which whoever reaches the webserver may write: in
    another home a run would make keys of its own, trust them, and record in the ledger what they sign.
    """
    if isinstance(resource, ConfigurableIOManager):
        return IOManagerDefinition(resource_fn=lambda _: resource, config_schema={})
    return ResourceDefinition(resource_fn=lambda _: resource, config_schema={})
