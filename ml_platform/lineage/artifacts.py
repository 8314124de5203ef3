"""Content-addressed artifacts: made once for a recipe, published whole, verified before every use."""

import errno
import fcntl
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ml_platform.contracts.canonical import digest
from ml_platform.errors import ArtifactCorruptError, StorageError
from ml_platform.lineage.artifact import Artifact
from ml_platform.lineage.artifact_files import (
    MANIFEST,
    ArtifactManifest,
    StoredFile,
    describe,
    read_manifest,
    sync,
    sync_tree,
    verify_files,
    write_atomically,
)
from ml_platform.lineage.exclusive import exclusively

__all__ = [
    "Artifact",
    "ArtifactManifest",
    "ArtifactStore",
    "Believed",
    "Build",
    "LocalArtifactStore",
    "StoredFile",
    "whoever_made_it",
    "write_atomically",
]

Build = Callable[[Path], Mapping[str, Any]]
"""Writes files into the folder that it is given and returns the facts of the manifest."""

_STORAGE_FAILED = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE}
)
"""What a builder cannot be blamed for: any other OSError of its own passes through."""


Believed = Callable[[Artifact], bool]
"""Whether what was found by its recipe may be used; what may not is made anew and takes its place in the index."""


def whoever_made_it(_found: Artifact) -> bool:
    """Believes every artifact whose bytes are what its digest names."""
    return True


class ArtifactStore(Protocol):
    """Where artifacts live; every implementation passes tests/unit/test_artifact_stores.py."""

    def make(
        self, kind: str, recipe: Mapping[str, Any], build: Build, believed: Believed = whoever_made_it
    ) -> Artifact:
        """The artifact of a recipe: the stored one if it verifies and is believed, otherwise a newly built one."""
        ...

    def find(self, kind: str, recipe: Mapping[str, Any]) -> Artifact | None:
        """The stored and verified artifact of a recipe, or None; raises StorageError when that cannot be read."""
        ...

    def open(self, kind: str, sha256: str) -> Artifact:
        """The artifact of that digest; raises ArtifactCorruptError when it is missing or changed.

        StorageError says that the store could not be read, which is no fault of the artifact.
        """
        ...


class LocalArtifactStore:
    """Artifacts in a folder: `<kind>/<sha256>/`, with an index `<kind>/by_recipe/<recipe_sha256>`.

    An artifact is written to a temporary folder, hashed, synced and renamed, so that a crash at
    any moment leaves either the whole artifact or none. A second process with the same recipe waits
    for the first and reuses its work. What a killed process left behind goes when the next one builds.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(
        self, kind: str, recipe: Mapping[str, Any], build: Build, believed: Believed = whoever_made_it
    ) -> Artifact:
        """See ArtifactStore. Raises StorageError when the disk is full or not writable."""
        with self.locked(kind, recipe):
            found = self.find(kind, recipe)
            if found is not None and believed(found):
                return found
            with self.workspace(kind, recipe) as work:
                facts = self._built(kind, build, work)
                with self.errors_explained(kind):
                    return self._publish(kind, recipe, work, facts)

    def find(self, kind: str, recipe: Mapping[str, Any]) -> Artifact | None:
        """See ArtifactStore. An artifact that no longer verifies is set aside, so that it is made anew."""
        name = digest(dict(recipe))
        index = self.root / kind / "by_recipe" / name
        with self.errors_explained(kind):
            # A pipe is no index either: whoever reads one waits for good.
            indexed = index.read_bytes().decode("ascii", "replace").strip() if index.is_file() else ""
            if not is_sha256(indexed):
                return None
            try:
                found = self.open(kind, indexed)
            except ArtifactCorruptError:
                self.set_aside(kind, indexed)
                return None
        return found if digest(found.manifest.recipe) == name else None

    def open(self, kind: str, sha256: str) -> Artifact:
        """See ArtifactStore. Hashes every file."""
        path = self.root / kind / sha256
        if not is_sha256(sha256):
            raise ArtifactCorruptError(f"'{sha256}' is no digest of a {kind}. Expected 64 hexadecimal digits.")
        with self.errors_explained(kind):
            manifest = read_manifest(path / MANIFEST, kind, sha256)
            verify_files(path, manifest, sha256)
        return Artifact(sha256, path, manifest, reused=True)

    def adopt(self, manifest: ArtifactManifest, work: Path) -> Artifact:
        """Publishes a folder that already holds exactly the manifest's files, e.g. one that was downloaded."""
        verify_files(work, manifest, manifest.sha256)
        return self._publish_as(manifest, work)

    def set_aside(self, kind: str, sha256: str) -> None:
        """Moves a damaged artifact to `corrupt/`, where people can look at it; a sound one stays."""
        path = self.root / kind / sha256
        with self._exclusively(f"{kind}-{sha256}"):
            if path.exists() and not self._verifies(kind, sha256):
                corrupt = tempfile.mkdtemp(prefix=f"{kind}-{sha256[:12]}-", dir=self._folder("corrupt"))
                path.rename(Path(corrupt) / sha256)

    @contextmanager
    def locked(self, kind: str, recipe: Mapping[str, Any]) -> Iterator[None]:
        """Holds the lock of a recipe; the system releases it when the process ends, however it ends."""
        with self._exclusively(f"{kind}-{digest(dict(recipe))}"):
            yield

    @contextmanager
    def workspace(self, kind: str, recipe: Mapping[str, Any]) -> Iterator[Path]:
        """A fresh folder to build in, gone afterwards; the recipe's lock must be held."""
        name = f"{kind}-{digest(dict(recipe))}"
        with self.errors_explained(kind):
            self._remove_leftovers(name)
            work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder("tmp")))
            work.chmod(0o755)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def errors_explained(self, kind: str) -> Iterator[None]:
        """Turns an OSError of the store into a StorageError."""
        try:
            yield
        except OSError as error:
            raise self._failed(kind, error) from error

    def _built(self, kind: str, build: Build, work: Path) -> dict[str, Any]:
        try:
            return dict(build(work))
        except OSError as error:
            if error.errno not in _STORAGE_FAILED:
                raise
            raise self._failed(kind, error) from error

    def _failed(self, kind: str, error: OSError) -> StorageError:
        return StorageError(
            f"the {kind} could not be stored below {self.root}, or not be read: {error}. What was published before is "
            "untouched. Free disk space or correct the permissions, then run again."
        )

    def _publish(self, kind: str, recipe: Mapping[str, Any], work: Path, facts: dict[str, Any]) -> Artifact:
        published = self._publish_as(describe(kind, recipe, work, facts), work)
        write_atomically(self._folder(kind, "by_recipe") / digest(dict(recipe)), published.sha256.encode())
        return published

    def _publish_as(self, manifest: ArtifactManifest, work: Path) -> Artifact:
        kind, sha256 = manifest.kind, manifest.sha256
        (work / MANIFEST).write_bytes(manifest.canonical_bytes())
        sync_tree(work)
        target = self._folder(kind) / sha256
        self.set_aside(kind, sha256)
        with self._exclusively(f"{kind}-{sha256}"):
            if not target.exists():
                work.rename(target)
                sync(target.parent)
        return Artifact(sha256, target, manifest)

    def _verifies(self, kind: str, sha256: str) -> bool:
        try:
            self.open(kind, sha256)
        except ArtifactCorruptError:
            return False
        return True

    @contextmanager
    def _exclusively(self, name: str) -> Iterator[None]:
        with self.errors_explained(name.partition("-")[0]):
            lock = self._lock_file(name)
            lock.touch()
        with exclusively(lock):
            yield

    def _remove_leftovers(self, mine: str) -> None:
        """Deletes work whose process is gone: nobody holds its lock, or it is ours, which we hold."""
        for path in self._folder("tmp").iterdir():
            name = path.name.rpartition("-")[0]
            if name == mine or self._unlocked(name):
                shutil.rmtree(path, ignore_errors=True)
        kind, _, recipe = mine.rpartition("-")
        for path in (self.root / kind / "by_recipe").glob(f".{recipe}-*"):
            path.unlink(missing_ok=True)

    def _unlocked(self, name: str) -> bool:
        with self._lock_file(name).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            return True

    def _lock_file(self, name: str) -> Path:
        return self._folder("locks") / name

    def _folder(self, *parts: str) -> Path:
        folder = self.root.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def is_sha256(text: str) -> bool:
    """Whether a text is a digest, and so safe as the name of a folder."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None
