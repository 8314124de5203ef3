"""The monitor policies of releases that serve, read from what they keep."""

import time
from dataclasses import dataclass, field

from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.release import Release
from ml_platform.errors import ContractError, IntegrityError, StorageError
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.contents import find_content

ASKED_AGAIN_S = 10.0
"""After so long a policy that was not there is asked for again: what was put back is watched without a restart."""


@dataclass(frozen=True)
class Watched:
    """The policy by which a release is watched; None where it cannot be read, which `why` tells."""

    policy: MonitorPolicy | None
    why: str = ""


@dataclass
class MonitorPolicies:
    """Asks a store once for each policy, for one that is not there again and again.

    Raises StorageError while the store does not answer.
    """

    store: ArtifactStore
    _known: dict[str, Watched] = field(default_factory=dict)
    _missing: dict[str, tuple[float, Watched]] = field(default_factory=dict)

    def of(self, release: Release) -> Watched:
        """The policy that a release keeps."""
        sha256 = release.monitor_policy.content_sha256
        if sha256 in self._known:
            return self._known[sha256]
        asked_at, before = self._missing.get(sha256, (0.0, None))
        if before is None or time.monotonic() - asked_at >= ASKED_AGAIN_S:
            before = self._ask(release, sha256, before)
        return before

    def _ask(self, release: Release, sha256: str, before: Watched | None) -> Watched:
        name = f"release {release.release_id[:12]}"
        try:
            policy = find_content(self.store, MonitorPolicy, sha256)
        except ContractError:
            older = f"The monitor policy {release.monitor_policy.version} of {name} is of an older form"
            told = f"{older}, which says less than is watched today. Train it again, or move it by hand."
            return self._known.setdefault(sha256, Watched(None, told))
        except IntegrityError as error:
            found = Watched(None, f"The monitor policy of {name} is damaged: {error}")
        except StorageError:
            if before is None:
                raise
            found = before
        else:
            if policy is not None:
                return self._known.setdefault(sha256, Watched(policy))
            lost = "it was never kept, or was damaged and set aside. Train it again, or move it by hand"
            found = Watched(None, f"The monitor policy of {name} is not in the store: {lost}.")
        self._missing[sha256] = time.monotonic(), found
        return found
