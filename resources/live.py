"""The past of a product's live traffic as assets look at it, and what is in production now."""

from datetime import UTC, datetime, timedelta

from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.products import Product
from ml_platform.contracts.serving import ServingTime
from ml_platform.errors import ContractError
from ml_platform.lineage.contents import find_content
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.monitoring.assigned import known_releases
from ml_platform.monitoring.past import Past
from ml_platform.monitoring.product_day import product_time
from resources.state import StoreResource

NEVER = datetime.min.replace(tzinfo=UTC)


def past_of(store: StoreResource, product: Product, policy: MonitorPolicy | None = None) -> Past:
    """What was answered, by this home's ledger and provenance store; labels are mature at the policy's age."""
    ledger, age = Ledger(store.home.ledger_url), (policy or product.monitor_policy).label_age_hours
    releases = known_releases(ledger, store.store(), product.name)
    published = product_time(store.home, product.name, ServingTime.FEATURES, days=(), wall=NEVER)
    return Past(
        ProvenanceStore(store.home.provenance_url),
        product.name,
        releases,
        timedelta(hours=age),
        published=None if published is NEVER else published,
    )


def in_production(store: StoreResource, product: Product) -> tuple[str | None, datetime | None, MonitorPolicy]:
    """The release in production, when it was promoted, and its monitor policy; the folder's where none serves.

    A release whose policy is of an older form is watched by the folder's: what it was to be watched by nobody can read.
    """
    replay = Ledger(store.home.ledger_url).replay(product.name)
    release_id = replay.slots.get(SlotName.PRODUCTION)
    if release_id is None:
        return None, None, product.monitor_policy
    try:
        kept = find_content(store.store(), MonitorPolicy, replay.releases[release_id].monitor_policy.content_sha256)
    except ContractError:
        kept = None
    return release_id, replay.promoted[release_id].recorded_at, kept or product.monitor_policy
