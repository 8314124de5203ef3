"""Attested artifacts: what the gates look at is found again only where a trusted key signed that it was made.

That bytes are what their digest names tells nothing of who put them there: whoever may write the store could lay a
better report below the recipe of a bad one, and the next run would sign what it finds.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_platform.contracts.canonical import digest
from ml_platform.contracts.evidence import Made
from ml_platform.contracts.home import Home
from ml_platform.errors import ArtifactCorruptError, EvidenceError
from ml_platform.lineage.artifact_files import ArtifactManifest, describe
from ml_platform.lineage.artifacts import (
    Artifact,
    ArtifactStore,
    Believed,
    Build,
    LocalArtifactStore,
    whoever_made_it,
)
from ml_platform.lineage.contents import KINDS
from ml_platform.lineage.keys import SigningKey, TrustedKeys, signing_key, trusted_keys
from ml_platform.lineage.statements import sign_made, verify_made

STATEMENT = "made_statement"
"""The kind of artifact that holds the signed statement about another one."""
ENVELOPE = "envelope.json"
NAMED_BY_CONTENT = frozenset(KINDS.values())
"""What needs no statement: whoever finds it compares it with the digest that a release names."""


class AttestedStore:
    """A store in which an artifact is found by its recipe only if a trusted key, not revoked, signed that it made it.

    `make` builds where only this platform writes, and signs what it built, with the key of the home. What nobody
    signed, or who does not count, is made anew and takes its place in the index. The statement is an artifact of its
    own, so that what was made keeps its digest.
    `open` takes what a digest names, whoever made it; `require_attested` asks for the statement there.
    """

    def __init__(self, store: ArtifactStore, home: Home) -> None:
        self._store = store
        self._home = home

    def make(
        self, kind: str, recipe: Mapping[str, Any], build: Build, believed: Believed = whoever_made_it
    ) -> Artifact:
        """See ArtifactStore. Raises EvidenceError before it builds where the key here is not trusted, ContractError
        where keys cannot be read, ArtifactCorruptError where somebody changed what was built on its way to the store.
        """
        if kind in NAMED_BY_CONTENT:
            return self._store.make(kind, recipe, build, believed)
        built: list[ArtifactManifest] = []

        def apart(folder: Path) -> Mapping[str, Any]:
            self._counting_key()  # before hours of work, not after them
            with self._private(kind, recipe) as work:
                facts = dict(build(work))
                built.append(describe(kind, recipe, work, facts))
                for path in work.iterdir():
                    shutil.move(path, folder / path.name)
            return facts

        # Until it is signed: a second process that waits for the recipe shall find the statement, too.
        about = {"kind": kind, "recipe_sha256": digest(dict(recipe))}
        with LocalArtifactStore(self._home.artifacts).locked(STATEMENT, about):
            made = self._store.make(kind, recipe, apart, lambda found: believed(found) and self.is_attested(found))
            if not made.reused:
                _require_untouched(made, *built)
                self._attest(made)
        return made

    def find(self, kind: str, recipe: Mapping[str, Any]) -> Artifact | None:
        """See ArtifactStore; None for what is not attested."""
        found = self._store.find(kind, recipe)
        return found if found is not None and (kind in NAMED_BY_CONTENT or self.is_attested(found)) else None

    def open(self, kind: str, sha256: str) -> Artifact:
        """See ArtifactStore."""
        return self._store.open(kind, sha256)

    def is_attested(self, artifact: Artifact) -> bool:
        """Whether a key that is trusted and not revoked signed that it made this very artifact."""
        said = _made(artifact)
        statement = self._store.find(STATEMENT, _recipe(said))
        return statement is not None and _verifies(statement, said, trusted_keys(self._home))

    def require_attested(self, *artifacts: Artifact) -> None:
        """Raises EvidenceError, which says what to make again, for an artifact that is not attested."""
        for artifact in artifacts:
            if not self.is_attested(artifact):
                raise EvidenceError(
                    f"{artifact.kind} {artifact.sha256[:12]}: no trusted key signed that it was made by this platform, "
                    "so that whoever may write the store could have put it there. Run the whole chain for this day "
                    "again, which makes anew what is not signed; `mlp keys list` tells whether the key here is trusted."
                )

    @contextmanager
    def _private(self, kind: str, recipe: Mapping[str, Any]) -> Iterator[Path]:
        """A fresh folder of this home, 0700; the recipe's lock must be held."""
        work = self._home.work / "building" / f"{kind}-{digest(dict(recipe))}"
        shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
        work.mkdir(parents=True, mode=0o700)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _counting_key(self) -> SigningKey:
        key = signing_key(self._home)
        trusted = trusted_keys(self._home).get(key.key_id)
        if trusted is None or trusted.revoked:
            raise EvidenceError(
                f"the key {key.key_id[:12]} that signs here is {'revoked' if trusted else 'not trusted'}, so that "
                "nothing made with it would count. `mlp keys list` shows the keys; name this one's public key in "
                "ML_PLATFORM_TRUSTED_KEYS, or sign with one that counts (ML_PLATFORM_SIGNING_KEY, `mlp keys rotate`)."
            )
        return key

    def _attest(self, made: Artifact) -> None:
        said, trusted = _made(made), trusted_keys(self._home)
        envelope = sign_made(said, self._counting_key())

        def build(folder: Path) -> dict[str, Any]:
            (folder / ENVELOPE).write_bytes(envelope)
            return said.model_dump(mode="json")

        self._store.make(STATEMENT, _recipe(said), build, lambda found: _verifies(found, said, trusted))


def _require_untouched(made: Artifact, built: ArtifactManifest) -> None:
    if made.sha256 != built.sha256:
        raise ArtifactCorruptError(
            f"{made.kind} {built.sha256[:12]}: somebody else changed it below {made.path.parent} while it was stored, "
            "and nothing of it is signed. Find out who may write there, then run again."
        )


def _made(artifact: Artifact) -> Made:
    return Made(kind=artifact.kind, recipe_sha256=digest(artifact.manifest.recipe), artifact_sha256=artifact.sha256)


def _recipe(said: Made) -> dict[str, str]:
    return {"kind": said.kind, "artifact_sha256": said.artifact_sha256}


def _verifies(statement: Artifact, said: Made, trusted: TrustedKeys) -> bool:
    try:
        return verify_made(statement.file(ENVELOPE).read_bytes(), trusted) == said
    except (EvidenceError, ArtifactCorruptError):
        return False
