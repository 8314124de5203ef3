"""Artifacts in an object store: any filesystem that fsspec knows, with a verified cache on local disk."""

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_platform.contracts.canonical import digest
from ml_platform.contracts.home import Home
from ml_platform.errors import ArtifactCorruptError, MlPlatformError, StorageError
from ml_platform.lineage.artifact_files import MANIFEST, ArtifactManifest, parse_manifest
from ml_platform.lineage.artifacts import (
    Artifact,
    ArtifactStore,
    Believed,
    Build,
    LocalArtifactStore,
    is_sha256,
    whoever_made_it,
)

URL_VARIABLE = "ML_PLATFORM_ARTIFACT_URL"


def artifact_store(home: Home) -> ArtifactStore:
    """The store of this machine: the folder of the home, or the object store that ML_PLATFORM_ARTIFACT_URL names."""
    url = os.environ.get(URL_VARIABLE)
    return ObjectArtifactStore(url, home.artifacts) if url else LocalArtifactStore(home.artifacts)


class ObjectArtifactStore:
    """Artifacts below a URL such as `s3://bucket/artifacts`, laid out as LocalArtifactStore does.

    Files are uploaded first, the manifest after them, the index last: an artifact without a manifest
    does not exist, and an upload that broke off is repeated from the cache. Downloads are verified
    before they are used. Whoever is asked to make an artifact that its cache holds puts there again
    what was lost, cut or set aside. The lock of a recipe holds on this machine only: two machines may build the
    same artifact at once, and since a name is a digest, they then write the same bytes.
    """

    def __init__(self, url: str, cache: Path) -> None:
        self.url = url.rstrip("/")
        self.cache = LocalArtifactStore(cache)

    def make(
        self, kind: str, recipe: Mapping[str, Any], build: Build, believed: Believed = whoever_made_it
    ) -> Artifact:
        """See ArtifactStore. Raises StorageError when the disk or the object store fails."""
        found = self.find(kind, recipe)
        if found is None or not believed(found):
            found = self.cache.make(kind, recipe, build, believed)
        with self._errors_explained(kind):
            self._upload(found)
        return found

    def find(self, kind: str, recipe: Mapping[str, Any]) -> Artifact | None:
        """See ArtifactStore. An artifact that no longer verifies is set aside, so that it is made anew."""
        name = digest(dict(recipe))
        with self._errors_explained(kind):
            indexed = self._read(f"{kind}/by_recipe/{name}")
        sha256 = (indexed or b"").decode("ascii", "replace").strip()
        if not is_sha256(sha256):
            return None
        try:
            found = self.open(kind, sha256)
        except ArtifactCorruptError:
            with self._errors_explained(kind):
                self._set_aside(kind, sha256)
            return None
        return found if digest(found.manifest.recipe) == name else None

    def open(self, kind: str, sha256: str) -> Artifact:
        """See ArtifactStore. Uses the cached copy when it verifies, otherwise downloads and verifies."""
        try:
            return self.cache.open(kind, sha256)
        except ArtifactCorruptError:
            if not is_sha256(sha256):
                raise
            self.cache.set_aside(kind, sha256)
        with self._errors_explained(kind):
            return self._download(kind, sha256)

    def _download(self, kind: str, sha256: str) -> Artifact:
        place = f"{self.url}/{kind}/{sha256}"
        data = self._read(f"{kind}/{sha256}/{MANIFEST}")
        if data is None:
            raise ArtifactCorruptError(f"{place}: {kind} {sha256[:12]} is missing. Materialize the {kind} again.")
        manifest = parse_manifest(data, f"{place}/{MANIFEST}", kind, sha256)
        download = {"downloaded": sha256}
        with self.cache.locked(kind, download), self.cache.workspace(kind, download) as work:
            for name, stored in manifest.files.items():
                self._fetch(f"{kind}/{sha256}/{name}", work / name, stored.size_bytes)
            return replace(self.cache.adopt(manifest, work), reused=True)

    def _upload(self, artifact: Artifact) -> None:
        manifest, folder = artifact.manifest, f"{artifact.kind}/{artifact.sha256}"
        if not self._holds(manifest, folder):
            self._set_aside(artifact.kind, artifact.sha256)
            for name in manifest.files:
                self._put(artifact.path / name, f"{folder}/{name}")
            self._write(f"{folder}/{MANIFEST}", manifest.canonical_bytes())
        index = f"{artifact.kind}/by_recipe/{digest(manifest.recipe)}"
        if self._read(index) != artifact.sha256.encode():
            self._write(index, artifact.sha256.encode())

    def _holds(self, manifest: ArtifactManifest, folder: str) -> bool:
        """Whether a whole artifact stands there: its manifest, which is written last, and files of the right sizes."""
        return self._read(f"{folder}/{MANIFEST}") == manifest.canonical_bytes() and all(
            self._size(f"{folder}/{name}") == stored.size_bytes for name, stored in manifest.files.items()
        )

    def _set_aside(self, kind: str, sha256: str) -> None:
        """Moves a damaged artifact to `corrupt/`; what has no manifest is no artifact yet: somebody uploads it."""
        filesystem, root = self._filesystem()
        place = f"{root}/{kind}/{sha256}"
        if filesystem.exists(f"{place}/{MANIFEST}"):
            corrupt = f"{root}/corrupt/{kind}-{sha256[:12]}-{uuid.uuid4().hex[:8]}"
            filesystem.makedirs(corrupt.rpartition("/")[0], exist_ok=True)
            filesystem.mv(place, corrupt, recursive=True)

    def _info(self, name: str) -> Mapping[str, Any]:
        """What stands under a name: its `size`, and as `type` file, directory or other; empty where nothing does."""
        filesystem, root = self._filesystem()
        try:
            info: Mapping[str, Any] = filesystem.info(f"{root}/{name}")
        except FileNotFoundError:
            return {}
        return info

    def _size(self, name: str) -> int | None:
        """The bytes of a file; None for what is none, such as a pipe in a shared folder, which never ends."""
        info = self._info(name)
        return info["size"] if info.get("type") == "file" else None

    def _read(self, name: str) -> bytes | None:
        if self._size(name) is None:
            return None
        filesystem, root = self._filesystem()
        try:
            data: bytes = filesystem.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            return None
        return data

    def _write(self, name: str, data: bytes) -> None:
        filesystem, root = self._filesystem()
        self._make_parent(name)
        if self._info(name).get("type") == "other":
            filesystem.rm_file(f"{root}/{name}")
        filesystem.pipe_file(f"{root}/{name}", data)

    def _put(self, source: Path, name: str) -> None:
        filesystem, root = self._filesystem()
        self._make_parent(name)
        filesystem.put_file(str(source), f"{root}/{name}")

    def _fetch(self, name: str, target: Path, size_bytes: int) -> None:
        filesystem, root = self._filesystem()
        found = self._size(name)
        if found != size_bytes:
            raise ArtifactCorruptError(
                f"{self.url}/{name}: {'is missing' if found is None else f'holds {found} bytes'}, the manifest says "
                f"{size_bytes} bytes. Materialize it again."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        filesystem.get_file(f"{root}/{name}", str(target))

    def _make_parent(self, name: str) -> None:
        filesystem, root = self._filesystem()
        filesystem.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)

    def _filesystem(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        filesystem, root = url_to_fs(self.url)
        return filesystem, str(root).rstrip("/")

    @contextmanager
    def _errors_explained(self, kind: str) -> Iterator[None]:
        """Turns whatever a client raises into a StorageError: those of S3 are of no common kind, and no OSErrors."""
        try:
            yield
        except MlPlatformError:
            raise
        except Exception as error:
            raise StorageError(
                f"the {kind} could not be exchanged with {self.url}: {type(error).__name__}: {error}. What was "
                f"published before is untouched. Check {URL_VARIABLE}, the network and the credentials, then run again."
            ) from error
