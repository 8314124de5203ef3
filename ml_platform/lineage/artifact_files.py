"""What an artifact's folder holds: the manifest, its files, and whether every byte is what it was."""

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ml_platform.contracts.base import Contract, Name, Sha256
from ml_platform.contracts.canonical import canonical_bytes, file_sha256
from ml_platform.errors import ArtifactCorruptError, StorageError

MANIFEST = "manifest.json"


class StoredFile(Contract):
    """A file of an artifact."""

    file_sha256: Sha256
    size_bytes: int


class ArtifactManifest(Contract):
    """What an artifact is: its files, the recipe it was made by, and the facts its maker states."""

    kind: Name
    recipe: dict[str, Any]
    files: dict[str, StoredFile]
    facts: dict[str, Any]


def describe(kind: str, recipe: Mapping[str, Any], folder: Path, facts: dict[str, Any]) -> ArtifactManifest:
    """The manifest of the files in a folder; raises StorageError for what cannot be stored under a digest."""
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    for path in paths:
        if path.is_symlink() or not path.is_file() or path == folder / MANIFEST:
            name = path.relative_to(folder)
            raise StorageError(
                f"the {kind} cannot hold '{name}': links, devices and the store's own {MANIFEST} have no bytes of "
                "their own. Write plain files under other names."
            )
    files = {
        path.relative_to(folder).as_posix(): StoredFile(file_sha256=file_sha256(path), size_bytes=path.stat().st_size)
        for path in paths
    }
    plain = json.loads(canonical_bytes({"recipe": dict(recipe), "facts": facts}))
    return ArtifactManifest(kind=kind, recipe=plain["recipe"], files=files, facts=plain["facts"])


def parse_manifest(data: bytes, where: str, kind: str, sha256: str) -> ArtifactManifest:
    """The manifest in these bytes, whose digest must be `sha256`; raises ArtifactCorruptError.

    The names in it lead to files below the artifact's folder and nowhere else, so that a download writes nowhere else.
    """
    try:
        manifest = ArtifactManifest.model_validate_json(data)
    except ValueError:
        manifest = None
    if manifest is None or manifest.kind != kind or manifest.sha256 != sha256:
        raise ArtifactCorruptError(
            f"{where}: is not the manifest of {kind} {sha256[:12]}: its digest differs. Materialize the {kind} again."
        )
    for name in manifest.files:
        if not _stays_inside(name):
            raise ArtifactCorruptError(
                f"{where}: the manifest of {kind} {sha256[:12]} names {name!r}, which is no file of its own folder. "
                f"Somebody wrote it by hand: find out who can write there. Materialize the {kind} again."
            )
    return manifest


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    plain = path.as_posix() == name and bool(path.parts) and "\0" not in name
    return plain and not path.is_absolute() and ".." not in path.parts and name != MANIFEST


def read_manifest(path: Path, kind: str, sha256: str) -> ArtifactManifest:
    """The manifest in a file, whose digest must be `sha256`; raises ArtifactCorruptError."""
    if not path.is_file():
        raise ArtifactCorruptError(f"{path}: {kind} {sha256[:12]} is missing. Materialize the {kind} again.")
    return parse_manifest(path.read_bytes(), str(path), kind, sha256)


def verify_files(folder: Path, manifest: ArtifactManifest, sha256: str) -> None:
    """Raises ArtifactCorruptError unless the folder holds exactly the manifest's files, byte for byte."""
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {MANIFEST}
    if present != set(manifest.files):
        differing = ", ".join(sorted(present ^ set(manifest.files)))
        raise ArtifactCorruptError(
            f"{folder}: {manifest.kind} {sha256[:12]} has missing or additional files: {differing}. "
            f"Materialize the {manifest.kind} again."
        )
    for name, stored in manifest.files.items():
        if differs := _difference(folder / name, stored, f"the manifest of {manifest.kind} {sha256[:12]} says"):
            raise ArtifactCorruptError(
                f"{folder / name}: {differs}. The file was changed or damaged; materialize the {manifest.kind} again."
            )


def _difference(path: Path, stored: StoredFile, says: str) -> str | None:
    """What the file is that it should not be. Only a plain file of the right size is read: a pipe would never end."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        return f"is a link, a pipe or a device, {says} a file of {stored.size_bytes} bytes"
    if found.st_size != stored.size_bytes:
        return f"holds {found.st_size} bytes, {says} {stored.size_bytes}"
    if (sha256 := file_sha256(path)) != stored.file_sha256:
        return f"SHA-256 is {sha256[:12]}…, {says} {stored.file_sha256[:12]}…"
    return None


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file whole: after a crash it holds the old bytes or the new ones, never a mixture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Puts a folder and everything below it on the disk."""
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Puts a file, or the names in a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
