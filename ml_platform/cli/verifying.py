"""A release checked again from its bytes: chain, signatures, gates, artifacts, contents."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ml_platform.cli.dossier import Dossier, artifact_digests, open_ledger, read_dossier
from ml_platform.contracts.home import Home
from ml_platform.errors import ArtifactCorruptError, MlPlatformError

if TYPE_CHECKING:
    from ml_platform.contracts.release import VersionedPart
    from ml_platform.lineage.artifacts import ArtifactStore
    from ml_platform.lineage.keys import TrustedKeys


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: `ok`, `broken`, or a `note` that breaks nothing: a gate may honestly say FAIL."""

    what: str
    state: Literal["ok", "note", "broken"]
    found: str


def verify_everything(home: Home, release_id: str) -> Iterator[Finding]:
    """Checks everything behind a release and goes on after what is wrong.

    Raises InvalidInputError for an unknown release and LedgerCorruptError where the ledger cannot be read at all.
    """
    from ml_platform.lineage.contents import KINDS
    from ml_platform.lineage.keys import trusted_keys, trusted_operators
    from ml_platform.lineage.object_store import artifact_store

    dossier = read_dossier(home, release_id, with_mlflow=False)
    yield _finding("ledger", lambda: _chains(home, trusted_keys(home), trusted_operators(home)))
    for row in dossier.gates:
        found = f"{row.verdict or 'no evidence'}: {row.reason}"
        yield Finding(f"gate {row.gate}", "ok" if row.verdict == "PASS" else "broken" if row.damaged else "note", found)
    yield Finding("evidence", "ok" if dossier.eligibility.eligible else "note", dossier.eligibility.sentence)
    yield _policy(home, dossier)
    store = artifact_store(home)
    for kind, sha256 in artifact_digests(dossier).items():

        def opened(kind: str = kind, sha256: str = sha256) -> str:
            artifact = store.open(kind, sha256)
            return f"{len(artifact.manifest.files)} files of {sha256[:12]} have their digests"

        yield _finding(kind, opened)
    for contract, kind in KINDS.items():
        # A kind is called what the release calls that part of it.
        if part := getattr(dossier.record.release, kind):
            yield _finding(kind, partial(_content, store, contract, part))
    yield _finding("base model", lambda: _base(home, dossier))


def _chains(home: Home, trusted: "TrustedKeys", operators: "TrustedKeys") -> str:
    chains = open_ledger(home).verify(trusted, operators)
    return ", ".join(f"{chain.product}: {chain.events} events" for chain in chains)


def _policy(home: Home, dossier: Dossier) -> Finding:
    from ml_platform.lineage.keys import trusted_operators
    from ml_platform.lineage.pins import counting_pin, why_not_pinned

    record = dossier.record
    try:
        pin = counting_pin(open_ledger(home).pins(record.release.product), trusted_operators(home))
    except MlPlatformError as error:
        return Finding("policy", "broken", str(error))
    reason = why_not_pinned(record.release.product, record.policy.sha256, pin)
    return Finding("policy", "note" if reason else "ok", reason or f"{record.policy.version} is the pinned one")


def _content(store: "ArtifactStore", contract: type[Any], part: "VersionedPart") -> str:
    from ml_platform.lineage.contents import find_content

    if find_content(store, contract, part.content_sha256) is None:
        raise ArtifactCorruptError(
            f"{contract.__name__} {part.content_sha256[:12]} (version {part.version}) is not in the store, or was "
            "damaged and is below corrupt/ now. Materialize registered_release again."
        )
    return f"version {part.version}, {part.content_sha256[:12]}, has its digest"


def _base(home: Home, dossier: Dossier) -> str:
    from ml_platform.families.lora.base_model import open_base

    model = dossier.record.release.model
    open_base(model.base_model, model.base_sha256, home)
    return f"{model.base_model} {model.base_sha256[:12]} has its digest"


def _finding(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", check())
    except MlPlatformError as error:
        return Finding(what, "broken", str(error))
