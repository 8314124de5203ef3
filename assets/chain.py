"""What all assets of one product share: keys, partitions, owner, tags, freshness and code versions."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from dagster import AssetIn, AssetKey, AssetsDefinition, DailyPartitionsDefinition, FreshnessPolicy, asset

import ml_platform
from ml_platform.contracts.base import Contract
from ml_platform.contracts.canonical import digest, sources_sha256
from ml_platform.contracts.products import Product

DAGSTERS_EMAIL = re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}\b")
"""What Dagster takes for an e-mail address; the owner of anything else must be a team."""
LIBRARY = Path(ml_platform.__file__).parent
WEEK = timedelta(days=7)
"""How far apart the runs of the schedule are."""

CHAIN = (
    "snapshot",
    "training_set",
    "candidate",
    "eval_report",
    "gate_verdict",
    "registered_release",
    "canary_alias",
    "online_features",
)
"""The assets of every product, in the order of the chain."""


@dataclass(frozen=True)
class Chain:
    """One product's chain of assets."""

    product: Product

    def key(self, name: str) -> AssetKey:
        """`<product>/<name>`."""
        return AssetKey([self.product.name, name])

    @cached_property
    def partitions(self) -> DailyPartitionsDefinition:
        """One partition a day (UTC) from the product's first_as_of to the last complete day.

        A partition `D` sees what was known at the end of day D.
        """
        return DailyPartitionsDefinition(start_date=self.product.spec.first_as_of.isoformat(), timezone="UTC")

    @cached_property
    def freshness(self) -> FreshnessPolicy | None:
        """Fails when the weekly run is missing for max_staleness_days; None without a limit."""
        days = self.product.spec.max_staleness_days
        return None if days is None else FreshnessPolicy.time_window(fail_window=WEEK + timedelta(days=days))

    @property
    def owners(self) -> list[str]:
        """The product's owner in the spelling that Dagster takes: an e-mail address or `team:name`.

        An address that Dagster knows none in (letters of other alphabets, `.internal`) becomes the name of a team: an
        owner that it refuses would take every product's chain away.
        """
        owner = self.product.spec.owner
        if DAGSTERS_EMAIL.fullmatch(owner):
            return [owner]
        team = re.sub(r"[^\w-]+", "-", owner.removeprefix("team:")).strip("-").lower()
        return [f"team:{team or 'unnamed'}"]

    @property
    def tags(self) -> dict[str, str]:
        """Tags of every asset and run of the product."""
        return {"ml_platform/product": self.product.name, "ml_platform/family": self.product.spec.family}

    def code_version(self, code: Iterable[str], settings: Iterable[Any]) -> str:
        """The first 12 digits of a digest over sources of the library, code of the product, and settings.

        `code` are files or folders below `ml_platform/`; `settings` are those values of the product folder that
        shape the asset, so that a changed threshold does not make a training set look outdated.
        """
        library = sources_sha256([LIBRARY / part for part in code], LIBRARY)
        values = [value.model_dump(mode="json") if isinstance(value, Contract) else value for value in settings]
        return digest({"library": library, "product": self.product.file_digests(), "settings": values})[:12]

    def described(
        self, name: str, *, kinds: Iterable[str], code: Iterable[str], settings: Iterable[Any]
    ) -> dict[str, Any]:
        """What `@asset` and AssetOut both take; see `code_version` for the last two."""
        return {
            "key": self.key(name),
            "group_name": self.product.name,
            "owners": self.owners,
            "tags": self.tags,
            "kinds": {*kinds},
            "code_version": self.code_version(code, settings),
            "freshness_policy": self.freshness,
        }

    def asset(
        self,
        name: str,
        *,
        kinds: Iterable[str],
        code: Iterable[str],
        settings: Iterable[Any],
        upstream: Iterable[str] = (),
        beside: Iterable[str] = (),
        pool: str | None = None,
    ) -> Callable[[Callable[..., Any]], AssetsDefinition]:
        """The decorator of one asset of the chain; `upstream` names the assets whose values the function takes.

        `beside` names those that it is drawn behind, because they look at the same things, and takes nothing from.
        """
        decorator: Callable[[Callable[..., Any]], AssetsDefinition] = asset(
            **self.described(name, kinds=kinds, code=code, settings=settings),
            ins={one: AssetIn(self.key(one)) for one in upstream},
            deps=[self.key(one) for one in beside],
            partitions_def=self.partitions,
            pool=pool,
        )
        return decorator


def as_of(partition: str) -> date:
    """The day that a partition key names."""
    return date.fromisoformat(partition)
