"""A verified artifact, and its bytes as whoever judges or computes with them reads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.errors import ArtifactCorruptError
from ml_platform.lineage.artifact_files import ArtifactManifest


@dataclass(frozen=True)
class Artifact:
    """A verified artifact on local disk. `reused` tells that it was there before."""

    sha256: str
    path: Path
    manifest: ArtifactManifest
    reused: bool = False

    @property
    def kind(self) -> str:
        """What sort of artifact this is: `snapshot`, `candidate`, ..."""
        return self.manifest.kind

    @property
    def facts(self) -> dict[str, Any]:
        """What its maker states about it."""
        return self.manifest.facts

    def file(self, name: str) -> Path:
        """The path of one of its files; raises ArtifactCorruptError for a name that it does not have."""
        if name not in self.manifest.files:
            raise ArtifactCorruptError(
                f"{self.kind} {self.sha256[:12]} has no file '{name}', only {', '.join(self.manifest.files)}."
            )
        return self.path / name

    def read(self, name: str) -> bytes:
        """The bytes of one of its files, hashed as they were read; raises ArtifactCorruptError.

        Whatever is judged or computed with is read here: since it was verified, the file may have become another one.
        """
        path, stored = self.file(name), self.manifest.files[name]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ArtifactCorruptError(f"{path}: cannot be read: {error}. Materialize the {self.kind} again.") from None
        if (found := bytes_sha256(data)) != stored.file_sha256:
            raise ArtifactCorruptError(
                f"{path}: SHA-256 is {found[:12]}…, the manifest of {self.kind} {self.sha256[:12]} says "
                f"{stored.file_sha256[:12]}…. The file was changed since it was opened: find out who can write there."
            )
        return data

    def text(self, name: str) -> str:
        """The text in one of its files; see `read`."""
        try:
            return self.read(name).decode()
        except UnicodeDecodeError as error:
            raise ArtifactCorruptError(
                f"{self.path / name}: is not UTF-8 text ({error}). Materialize the {self.kind} again."
            ) from None
