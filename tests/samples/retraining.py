"""A product that sensors watch: its candidates in the ledger, and reports as the assets leave them."""

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import yaml

from benchmarks.tiny_product import write_tiny_product
from ml_platform.contracts.drift import DriftReport
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import PromotionPolicy, SlotName
from ml_platform.contracts.product import GuardrailSpec
from ml_platform.contracts.release import Release, VersionedPart
from ml_platform.contracts.triggers import Trigger
from ml_platform.contracts.windows import QualityReport
from ml_platform.features.publication import Publication
from ml_platform.lineage.artifacts import LocalArtifactStore, write_atomically
from ml_platform.lineage.contents import keep_content
from ml_platform.lineage.keys import SigningKey
from ml_platform.lineage.ledger import Ledger
from ml_platform.release.controller import Controller, Held
from tests.samples.releases import OPERATOR, PRODUCER, inputs_of, make_policy, make_release, make_results, trusting

FIRST = date(2024, 1, 22)
"""The day of the first candidate."""


def write_watched_product(root: Path, name: str = "parcel_desk", **retrain: Any) -> Path:
    """A tiny product that lives in the time of its data, with other values in the part `retrain` of its policy."""
    folder = write_tiny_product(root, name)
    brought = {"entity": ["parcel_id"], "given": ["days_underway"]}
    (folder / "serving.yaml").write_text(yaml.safe_dump({"version": "1.0.0", "time": "features"} | brought))
    _rewrite(folder / "product.yaml", lambda product: product["files"].update(serving="serving.yaml"))
    _rewrite(folder / "monitor_policy.yaml", lambda policy: policy["retrain"].update(retrain))
    return folder


def _rewrite(path: Path, change: Any) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def day(number: int) -> date:
    """So many days after the first candidate's."""
    return FIRST + timedelta(days=number)


def midnight(number: int) -> datetime:
    """The end of that day."""
    return datetime.combine(day(number + 1), time(), UTC)


@dataclass
class Watched:
    """What there is of one product; every candidate is registered a minute after the one before it."""

    home: Home
    product: str
    key: SigningKey = field(default_factory=SigningKey.generate)
    policy: PromotionPolicy = field(default_factory=make_policy)
    at: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(days=1))

    @property
    def controller(self) -> Controller:
        return Controller(Ledger(self.home.ledger_url), trusting(self.key), PRODUCER, trusting(OPERATOR))

    def candidate(
        self,
        number: int,
        trigger: Trigger | None = None,
        *,
        passes: bool = True,
        seed: int = 1,
        guardrails: GuardrailSpec | None = None,
    ) -> Release:
        """Registers a candidate of a day, judged by its gates; its guardrails are kept where they are given."""
        now, door = self._later(), self.controller
        door.pin_policy(self.product, self.policy, OPERATOR, "tests", now, "operator", only_first=True)
        made = make_release(day(number), seed, self.policy, self.product).model_copy(update={"trigger": trigger})
        if guardrails is not None:
            keep_content(LocalArtifactStore(self.home.artifacts), guardrails)
            part = VersionedPart(version=guardrails.version, content_sha256=guardrails.sha256)
            made = made.model_copy(update={"guardrails": part})
        door.register_release(made, self.policy, now, "tests")
        results = make_results(self.policy, Verdict.PASS if passes else Verdict.FAIL)
        reference = door.state(self.product).slots.get(SlotName.PRODUCTION, "base")
        door.record_verdicts(made, results, inputs_of(made, reference), self.key, now, "tests")
        return made

    def open(self, release: Release) -> None:
        moved = self.controller.open_canary(self.product, release.release_id, self._later(), "tests")
        assert not isinstance(moved, Held), moved

    def abort(self, release: Release) -> None:
        self.controller.abort_canary(self.product, release.release_id, "it failed", self._later(), "tests")

    def serve(self, release: Release) -> Release:
        """Promotes an opened or eligible candidate to production."""
        if self.controller.state(self.product).slots.get(SlotName.CANARY) != release.release_id:
            self.open(release)
        moved = self.controller.promote(self.product, release.release_id, self._later(), "tests")
        assert not isinstance(moved, Held), moved
        return release

    def drift(
        self, number: int, against: Release | None, verdict: Verdict = Verdict.FAIL, effect: float = 1.5
    ) -> DriftReport:
        """Leaves the drift report of a day where the asset leaves it."""
        report = drift_report(self.product, number, against, verdict, effect)
        put_report(self.home, self.product, "drift_report", day(number), report.model_dump(mode="json"), report.sha256)
        return report

    def quality(
        self,
        number: int,
        against: Release | None,
        verdict: Verdict = Verdict.PASS,
        *,
        effect: float = 1.5,
        labelled: int = 0,
    ) -> QualityReport:
        """Leaves the quality report of a day where the asset leaves it."""
        report = QualityReport(
            product=self.product,
            as_of=day(number),
            verdict=verdict,
            reason="missed_rate fell by 0.2",
            effect=effect,
            release_id=against.release_id if against else None,
            window_from=midnight(number - 7),
            window_until=midnight(number - 1),
            labelled=labelled,
            monitor_policy_sha256="8" * 64,
        )
        put_report(
            self.home, self.product, "quality_report", day(number), report.model_dump(mode="json"), report.sha256
        )
        return report

    def _later(self) -> datetime:
        self.at += timedelta(minutes=1)
        return self.at


def drift_report(product: str, number: int, against: Release | None, verdict: Verdict, effect: float) -> DriftReport:
    """A report that says so, in few words."""
    return DriftReport(
        product=product,
        as_of=day(number),
        window_from=midnight(number - 28),
        window_until=midnight(number),
        verdict=verdict,
        reason="1 of 2 columns moved: parcels.city",
        effect=effect,
        release_id=against.release_id if against else None,
        reference_as_of=against.data.as_of if against else None,
        reference_snapshot_sha256=against.data.snapshot_sha256 if against else None,
        current_snapshot_sha256="7" * 64,
        monitor_policy_sha256="8" * 64,
        parts=(),
    )


def put_report(home: Home, product: str, asset: str, of: date, facts: dict[str, Any], sha256: str) -> None:
    """The manifest of an asset's partition, as the IO manager writes it."""
    manifest = {
        "asset": f"{product}/{asset}",
        "partition": of.isoformat(),
        "value": {"kind": asset, "value_sha256": sha256, "facts": facts},
    }
    write_atomically(home.manifests / product / asset / f"{of.isoformat()}.json", json.dumps(manifest).encode())


def publish_as_of(home: Home, product: str, at: datetime) -> None:
    """Features of a later moment go online: time goes by for the product."""
    publication = Publication(
        product=product,
        definitions_sha256=None,
        features_sha256=None,
        snapshot_sha256=None,
        lookups={},
        at=at,
        entities={},
        rows={},
        lookup_rows={},
        files={},
        folder="f",
    )
    write_atomically(home.features / product / "nothing" / "current.json", publication.canonical_bytes())
