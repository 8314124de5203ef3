"""A release as people and programs read it: what the ledger, the policy, the registry and the store say of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.cli.output import percent
from ml_platform.contracts.home import Home
from ml_platform.errors import InvalidInputError, UnknownProductError

if TYPE_CHECKING:
    from ml_platform.lineage.ledger import Ledger
    from ml_platform.lineage.verification import Eligibility
    from ml_platform.release.history import ReleaseRecord

SQLITE = "sqlite:///"


def has_ledger(home: Home) -> bool:
    """Whether there is a ledger to read; asking creates none. A server is taken to be there."""
    return not home.ledger_url.startswith(SQLITE) or Path(home.ledger_url.removeprefix(SQLITE)).is_file()


def open_ledger(home: Home) -> "Ledger":
    """The ledger below the home; raises InvalidInputError where nothing was ever run."""
    from ml_platform.lineage.ledger import Ledger

    if not has_ledger(home):
        raise InvalidInputError(
            f"there is no ledger at {home.ledger_url}: nothing was run here yet. Start with `mlp run PRODUCT "
            "--as-of DATE`, or name the home of earlier runs in ML_PLATFORM_HOME."
        )
    return Ledger(home.ledger_url)


def known_products(home: Home, ledger: "Ledger | None" = None) -> list[str]:
    """The products that have a folder here or a chain in the ledger, by name."""
    from ml_platform.contracts.products import product_folders
    from ml_platform.lineage.ledger import Ledger

    if ledger is None and has_ledger(home):
        ledger = Ledger(home.ledger_url)
    return sorted({*product_folders(), *(ledger.products() if ledger else ())})


def require_known(product: str, known: Iterable[str]) -> None:
    """Raises UnknownProductError for a product that is not known."""
    if product not in known:
        raise UnknownProductError(f"there is no product '{product}'; known products: {', '.join(known) or 'none'}.")


@dataclass(frozen=True)
class GateRow:
    """One gate of the release's policy and what its newest evidence says; no verdict without evidence."""

    gate: str
    claim: str
    verdict: str | None
    reason: str
    measured_at: datetime | None
    expires_at: datetime | None
    damaged: bool = False

    def json(self) -> dict[str, Any]:
        """Plain data."""
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Dossier:
    """A release with its evidence, every signature checked at `read_at`."""

    record: "ReleaseRecord"
    eligibility: "Eligibility"
    slots: dict[str, str]
    exposure: float
    mlflow_version: str | None

    @property
    def slot(self) -> str | None:
        """The slot in which the release serves, or None."""
        return next((slot for slot, found in self.slots.items() if found == self.record.release_id), None)

    @property
    def gates(self) -> tuple[GateRow, ...]:
        """Every gate in the policy's order, then what else holds the release."""
        return tuple(self._gate_rows())

    @property
    def outcome(self) -> str:
        """Where the release is now, in a sentence."""
        if self.slot == "canary":
            return f"canary, open to {percent(self.exposure)} of the users"
        if self.slot == "shadow":
            return "shadow, answers copies of questions that nobody sees"
        if self.slot:
            return self.slot
        if self.record.quarantine.holds(datetime.now(UTC)):
            return f"{self.record.state.value}. {self.record.quarantine.sentence}"
        held = ", ".join(self.record.held_by)
        return f"held: {held}" if held and self.record.state.value == "held" else self.record.state.value

    def json(self) -> dict[str, Any]:
        """Plain data: the tuple, where it serves, its gates."""
        record = self.record
        return {
            "release_id": record.release_id,
            "product": record.release.product,
            "state": record.state.value,
            "slot": self.slot,
            "exposure": self.exposure if self.slot == "canary" else None,
            "outcome": self.outcome,
            "eligible": self.eligibility.eligible,
            "eligible_until": self.eligibility.expires_at.isoformat() if self.eligibility.expires_at else None,
            "registered_at": record.recorded_at.isoformat(),
            "registered_by": record.actor,
            "mlflow_version": self.mlflow_version,
            "gates": [row.json() for row in self.gates],
            "release": record.release.model_dump(mode="json"),
            "artifacts": artifact_digests(self),
        }

    def _gate_rows(self) -> Iterator[GateRow]:
        reasons = dict(self.eligibility.reasons)
        for gate in self.record.policy.gates:
            held, evidence = reasons.pop(gate.gate, ""), self.eligibility.evidence.get(gate.gate)
            if evidence is None:
                yield GateRow(gate.gate, gate.claim, None, held, None, None)
                continue
            result = evidence.result
            reason = held if held and result.verdict.value == "PASS" else result.reason
            yield GateRow(
                gate.gate, gate.claim, result.verdict.value, reason, evidence.measured_at, evidence.expires_at
            )
        for name, reason in reasons.items():
            yield GateRow(name, "every envelope verifies", "ERROR", reason, None, None, damaged=True)


def read_dossier(home: Home, release_id: str, *, with_mlflow: bool = True) -> Dossier:
    """All that is known of the release whose id begins so. Raises InvalidInputError for an unknown one."""
    from ml_platform.lineage.keys import trusted_keys
    from ml_platform.release.history import find_release, verify_release

    ledger = open_ledger(home)
    record = find_release(ledger, release_id)
    state = ledger.state(record.release.product)
    return Dossier(
        record=record,
        eligibility=verify_release(ledger, record, trusted_keys(home), datetime.now(UTC)),
        slots={slot.value: found for slot, found in state.slots.items()},
        exposure=state.exposure,
        mlflow_version=_mlflow_version(home, record) if with_mlflow else None,
    )


def artifact_digests(dossier: Dossier) -> dict[str, str]:
    """The artifacts behind a release by kind; the report as the evidence names it."""
    release = dossier.record.release
    found = {
        "snapshot": release.data.snapshot_sha256,
        "training_set": release.data.training_set_sha256,
        "candidate": release.model.candidate_sha256,
    }
    for evidence in dossier.eligibility.evidence.values():
        if "eval_report" in evidence.inputs:
            found["eval_report"] = evidence.inputs["eval_report"]
    return found


def artifact_path(home: Home, kind: str, sha256: str) -> Path:
    """Where an artifact lies when it is on this machine."""
    return home.artifacts / kind / sha256


def _mlflow_version(home: Home, record: "ReleaseRecord") -> str | None:
    url = home.mlflow_url
    if url.startswith(SQLITE) and not Path(url.removeprefix(SQLITE)).is_file():
        return None
    from ml_platform.registry.mlflow_registry import MlflowRegistry

    registry = MlflowRegistry(url, home.mlflow_artifacts)
    return registry.versions(record.release.product).get(record.release_id)
