"""The monitor policies of releases that serve, read from what they keep."""

from dataclasses import dataclass, field

from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.release import Release
from ml_platform.errors import ContractError, IntegrityError
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.contents import find_content


@dataclass(frozen=True)
class Watched:
    """The policy by which a release is watched; None where it cannot be read, which `why` tells."""

    policy: MonitorPolicy | None
    why: str = ""


@dataclass
class MonitorPolicies:
    """Asks a store once for each policy. Raises StorageError while the store does not answer."""

    store: ArtifactStore
    _known: dict[str, Watched] = field(default_factory=dict)

    def of(self, release: Release) -> Watched:
        """The policy that a release keeps."""
        sha256 = release.monitor_policy.content_sha256
        if sha256 not in self._known:
            self._known[sha256] = self._read(release, sha256)
        return self._known[sha256]

    def _read(self, release: Release, sha256: str) -> Watched:
        name = f"release {release.release_id[:12]}"
        try:
            policy = find_content(self.store, MonitorPolicy, sha256)
        except ContractError:
            older = f"The monitor policy {release.monitor_policy.version} of {name} is of an older form"
            return Watched(None, f"{older}, which says less than is watched today. Train it again, or move it by hand.")
        except IntegrityError as error:
            return Watched(None, f"The monitor policy of {name} is damaged: {error}")
        return Watched(policy, "" if policy else f"The monitor policy of {name} was never kept.")
