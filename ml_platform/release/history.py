"""The history of releases, read from the ledger: which there were, what the gates said, where each is now."""

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from ml_platform.contracts.deployment import ReleaseState
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.policy import PromotionPolicy
from ml_platform.contracts.release import Release
from ml_platform.errors import InvalidInputError, LedgerCorruptError
from ml_platform.lineage.keys import TrustedKeys
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.quarantine import Quarantine, quarantine_in
from ml_platform.lineage.replay import Replay
from ml_platform.lineage.verification import Eligibility, assess_evidence

MIN_PREFIX = 4


@dataclass(frozen=True)
class ReleaseRecord:
    """One release and what the ledger says of it.

    `verdicts` has every gate of its policy in the policy's order, None where nothing was recorded; `held_by` are
    the gates that held it when it was last judged, with their reasons; `quarantine` follows from its falls.
    """

    release: Release
    policy: PromotionPolicy
    state: ReleaseState
    verdicts: Mapping[str, Verdict | None]
    held_by: Mapping[str, str]
    recorded_at: datetime
    actor: str
    quarantine: Quarantine
    mlflow_version: str | None = None

    @property
    def release_id(self) -> str:
        """64 hexadecimal digits."""
        return self.release.release_id

    @property
    def as_of(self) -> date:
        """The day whose data it learned from."""
        return self.release.data.as_of


def release_history(
    ledger: Ledger, product: str, mlflow_versions: Mapping[str, str] | None = None
) -> list[ReleaseRecord]:
    """Every release of a product, the newest registration first; [] for a product without any.

    `mlflow_versions` maps release ids to versions, as MlflowRegistry.versions gives them.
    """
    replay = ledger.replay(product)
    versions = mlflow_versions or {}
    return [_record(replay, release_id, versions.get(release_id)) for release_id in reversed(replay.releases)]


def find_release(ledger: Ledger, prefix: str) -> ReleaseRecord:
    """The release, of whatever product, whose id begins with `prefix`.

    Raises InvalidInputError for a prefix that is too short, no hexadecimal number, unknown, or of several, and
    LedgerCorruptError where it is of no product that can be read and the chain of another is damaged.
    """
    wanted = prefix.strip().lower()
    if len(wanted) < MIN_PREFIX or set(wanted) - set(string.hexdigits):
        raise InvalidInputError(
            f"release '{prefix}': expected the first {MIN_PREFIX} or more of the 64 hexadecimal digits of a release "
            "id. `mlp releases PRODUCT` lists them."
        )
    damaged: list[LedgerCorruptError] = []
    replays = list(_readable(ledger, damaged))
    found = [
        _record(replay, release_id, None)
        for replay in replays
        for release_id in replay.releases
        if release_id.startswith(wanted)
    ]
    if not found and damaged:
        told = " ".join(str(error) for error in damaged)
        raise LedgerCorruptError(f"release '{prefix}': no release that can be read begins so. {told}") from damaged[0]
    if not found:
        known = sum(len(replay.releases) for replay in replays)
        hint = f"{known} are. `mlp releases PRODUCT` lists them." if known else "None is. Make one with `mlp run`."
        raise InvalidInputError(f"release '{prefix}': no registered release begins so. {hint}")
    if len(found) > 1:
        several = ", ".join(f"{one.release_id[:16]} ({one.release.product})" for one in found)
        raise InvalidInputError(f"release '{prefix}': {len(found)} releases begin so: {several}. Give more digits.")
    return found[0]


def verify_release(ledger: Ledger, record: ReleaseRecord, trusted: TrustedKeys, now: datetime) -> Eligibility:
    """Whether the evidence in the ledger lets a release through now, every signature checked again."""
    envelopes = ledger.envelopes(record.release.product, record.release_id)
    return assess_evidence(envelopes, trusted, record.policy, record.release, now)


def _readable(ledger: Ledger, damaged: list[LedgerCorruptError]) -> Iterator[Replay]:
    """Every product whose chain verifies; what is wrong with the others is added to `damaged`, and is theirs alone."""
    for product in ledger.products():
        try:
            yield ledger.replay(product)
        except LedgerCorruptError as error:
            damaged.append(error)


def _record(replay: Replay, release_id: str, mlflow_version: str | None) -> ReleaseRecord:
    release = replay.releases[release_id]
    policy = replay.policies[release.promotion_policy.content_sha256]
    said = {one.gate: one.verdict for one in replay.evidence.get(release_id, ()) if one.policy_sha256 == policy.sha256}
    judged = replay.judged.get(release_id)
    registered = replay.registered[release_id]
    return ReleaseRecord(
        release=release,
        policy=policy,
        state=replay.states[release_id],
        verdicts={gate: said.get(gate) for gate in policy.gate_names},
        held_by=getattr(judged, "gates", {}),
        recorded_at=registered.recorded_at,
        actor=registered.actor,
        quarantine=quarantine_in(replay, release_id),
        mlflow_version=mlflow_version,
    )
