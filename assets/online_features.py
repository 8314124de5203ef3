"""Beside the canary: features and lookups of the day go online, where a gateway reads them."""

from typing import TYPE_CHECKING, Any

from dagster import AssetExecutionContext, AssetsDefinition, DataVersion, MaterializeResult, MetadataValue

from assets.chain import Chain
from assets.shown import markdown_table
from ml_platform.contracts.canonical import digest
from ml_platform.contracts.release import Release
from ml_platform.errors import RefusedError
from resources.manifests import Value
from resources.reporting import readable_failures, report_to
from resources.state import StoreResource

if TYPE_CHECKING:
    from ml_platform.lineage.replay import Replay
    from ml_platform.release.publishing import WentOnline

CODE = ("contracts", "features", "lineage/artifacts.py", "release/publishing.py", "snapshots")


def online_features_asset(chain: Chain) -> AssetsDefinition:
    """`online_features` of one product."""
    product = chain.product

    @chain.asset(
        "online_features",
        kinds={"python", "sqlite"},
        code=CODE,
        settings=[product.features, product.serving],
        upstream=["registered_release"],
    )
    def online_features(
        context: AssetExecutionContext, registered_release: Value, store: StoreResource
    ) -> MaterializeResult[Value]:
        """What was known at the end of the day goes online: features by entity, and the rows that serving looks up.

        For the day's release by its definitions, and for what serves beside it by its own, so that both stay fresh.
        Data that does not meet its expectations stays offline, and a past day never replaces a later one.
        """
        from ml_platform.lineage.ledger import Ledger
        from ml_platform.release.publishing import publish_releases

        with readable_failures():
            known = Ledger(store.home.ledger_url).replay(product.name)
            release = _registered(known, registered_release.value_sha256)
            beside = [known.releases[one] for one in known.slots.values() if one != release.release_id]
            artifacts = store.store()
            snapshot = artifacts.open("snapshot", release.data.snapshot_sha256)
            report = report_to(context.log)
            found = publish_releases(product, [release, *beside], snapshot, artifacts, store.home, report)
        facts = {"release_id": release.release_id, "online": [_facts(one) for one in found]}
        return MaterializeResult(
            value=Value(kind="online_features", value_sha256=digest(facts), facts=facts),
            metadata=_shown(found),
            data_version=DataVersion(digest(facts)),
        )

    return online_features


def _registered(known: "Replay", release_id: str) -> Release:
    """The release as the ledger has it: the file that names it proves nothing."""
    if release_id not in known.releases:
        raise RefusedError(
            f"release {release_id[:12]} of {known.product} is not in the ledger. Materialize registered_release again."
        )
    return known.releases[release_id]


def _facts(online: "WentOnline") -> dict[str, Any]:
    """What is online, without the name of its folder, which differs from one publication of the same to the next."""
    published = online.publication
    there = {} if published is None else published.model_dump(mode="json", exclude={"folder", "files", "product"})
    return {"release_id": online.release_id, "outcome": online.sentence, **there}


def _shown(found: "tuple[WentOnline, ...]") -> dict[str, Any]:
    online = [(one.release_id, one.publication) for one in found if one.publication is not None]
    rows = [
        (
            f"`{release_id[:12]}`",
            f"{published.at:%Y-%m-%d %H:%M}",
            f"`{(published.definitions_sha256 or 'none')[:12]}`",
            kind,
            f"`{name}`",
            count,
        )
        for release_id, published in online
        for kind, counts in (("view", published.rows), ("lookup", published.lookup_rows))
        for name, count in counts.items()
    ]
    headers = ("release", "known at (UTC)", "definitions", "kind", "name", "entities or keys")
    return {
        "outcome": MetadataValue.text(found[0].sentence),
        "online": MetadataValue.md(markdown_table(headers, rows) if rows else "Nothing."),
        "dagster/row_count": MetadataValue.int(sum(int(row[-1]) for row in rows)),
        "others": MetadataValue.md("\n".join(f"- `{o.release_id[:12]}` {o.sentence}" for o in found[1:]) or "None."),
    }
