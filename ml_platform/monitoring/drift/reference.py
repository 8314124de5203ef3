"""What a window is compared with: the release in production, what it learnt from, and the policy that it brought."""

from dataclasses import dataclass

from ml_platform.contracts.home import Home
from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.products import Product
from ml_platform.contracts.release import Release
from ml_platform.errors import ContractError
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.lineage.contents import find_content
from ml_platform.lineage.ledger import Ledger


@dataclass(frozen=True)
class Reference:
    """The release in production, None where none is, and the monitor policy that counts; `notes` say if it is not its.

    The release's own policy counts, for it moves with it. A release from before policies said what drift is gets that
    of the product's folder.
    """

    release: Release | None
    policy: MonitorPolicy
    notes: tuple[str, ...] = ()


def find_reference(product: Product, home: Home, store: ArtifactStore) -> Reference:
    """The reference of a product as the ledger has it now. Raises StorageError, LedgerCorruptError."""
    replay = Ledger(home.ledger_url).replay(product.name)
    release_id = replay.slots.get(SlotName.PRODUCTION)
    if release_id is None:
        return Reference(None, product.monitor_policy)
    release = replay.releases[release_id]
    name = f"release {release_id[:12]}"
    try:
        policy = find_content(store, MonitorPolicy, release.monitor_policy.content_sha256)
    except ContractError:
        note = f"{name} has a monitor policy of an older form: that of the product's folder counts"
        return Reference(release, product.monitor_policy, (note,))
    if policy is None:
        note = f"the monitor policy of {name} was not kept: that of the product's folder counts"
        return Reference(release, product.monitor_policy, (note,))
    return Reference(release, policy)
