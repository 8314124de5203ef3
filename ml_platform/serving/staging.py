"""Staging: the very bytes that an engine loads, copied where only this user writes and hashed on the way.

The store is shared and may be written by others; between its verification and the engine's reading lies time. So the
files of the adapter are copied into a private folder that is named by the candidate's digest, each one hashed while it
is copied, and hashed again whenever an engine is about to read them.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_platform.contracts.canonical import file_sha256
from ml_platform.contracts.policy import ActionPolicy
from ml_platform.contracts.product import GuardrailSpec, PromptSpec
from ml_platform.contracts.release import Release, VersionedPart
from ml_platform.contracts.serving import ServingContent
from ml_platform.errors import ArtifactCorruptError, NotEligibleError, StorageError
from ml_platform.lineage.artifacts import Artifact, ArtifactStore
from ml_platform.lineage.contents import AnyContent, find_content
from ml_platform.lineage.exclusive import exclusively
from ml_platform.serving.adapter_names import FILES, WEIGHTS, adapter_name
from ml_platform.serving.deployment import AdmittedRelease

FOLDER = "adapter/"
HARMLESS = frozenset({".safetensors", ".json", ".md", ".txt", ".jinja"})
"""What may lie in an adapter's folder; weights in any other form can run code when they are loaded."""

LEFT_ALONE_SECONDS = 900.0
"""How long a stage that nobody names any more stays: another worker may still be behind."""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Stage:
    """Staged files and their digests."""

    path: Path
    files: Mapping[str, str]

    def verify(self) -> None:
        """Raises ArtifactCorruptError unless exactly these files are there, byte for byte."""
        try:
            present = {entry.name for entry in os.scandir(self.path) if entry.is_file(follow_symlinks=False)}
            found = {name: file_sha256(self.path / name) for name in self.files if name in present}
            entries = {entry.name for entry in os.scandir(self.path)}
        except OSError as error:
            raise ArtifactCorruptError(f"{self.path}: the staged adapter cannot be read: {error}.") from None
        if found != dict(self.files) or entries != set(self.files):
            changed = sorted(
                {name for name, _ in set(self.files.items()) ^ set(found.items())} | entries ^ {*self.files}
            )
            raise ArtifactCorruptError(
                f"{self.path}: the staged adapter was changed or damaged: {', '.join(changed)}. It is staged again."
            )


class Staging:
    """Stages of admitted releases below a folder; several processes of one user may share it."""

    def __init__(self, store: ArtifactStore, folder: Path) -> None:
        self._store, self._folder = store, folder

    def stage(self, release: Release) -> AdmittedRelease:
        """The release with its contents and its staged adapter, everything compared with the release's digests.

        A sound stage is used again, a damaged one replaced. Raises ArtifactCorruptError for bytes that are not the
        release's, NotEligibleError for a release that cannot be served by its parts, StorageError for a full disk.
        """
        if release.serving is None:
            raise NotEligibleError(
                f"release {release.release_id[:12]} does not say how it serves: it is older than this gateway. "
                "Materialize registered_release again."
            )
        serving = self._content(ServingContent, release.serving)
        prompt = self._content(PromptSpec, release.prompt)
        guardrails = self._content(GuardrailSpec, release.guardrails)
        action = self._content(ActionPolicy, release.action_policy) if release.action_policy else None
        candidate = self._store.open("candidate", release.model.candidate_sha256)
        files = _adapter_files(candidate, release)
        stage = self._staged(candidate, files)
        return AdmittedRelease(
            release=release,
            release_id=release.release_id,
            serving=serving,
            prompt=prompt,
            guardrails=guardrails,
            action_policy=action,
            adapter_name=adapter_name(release.product, files),
            adapter_path=stage.path,
        )

    def verify(self, release: Release) -> None:
        """Hashes the staged adapter again, staging it anew where it was damaged or is gone; as `stage` otherwise."""
        candidate_sha256 = release.model.candidate_sha256
        # The manifest is read from the store again: what a stage says about itself proves nothing.
        candidate = self._store.open("candidate", candidate_sha256)
        self._staged(candidate, _adapter_files(candidate, release))

    def sweep(self, keep: Iterable[str]) -> tuple[Path, ...]:
        """Removes stages of other candidates than these that nobody used for a while; returns what went."""
        kept, oldest = set(keep), time.time() - LEFT_ALONE_SECONDS
        gone = []
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            with contextlib.suppress(OSError):
                if path.name not in kept and path.stat().st_mtime < oldest:
                    shutil.rmtree(path)
                    gone.append(path)
        return tuple(gone)

    def _content(self, contract: type[AnyContent], part: VersionedPart) -> AnyContent:
        found = find_content(self._store, contract, part.content_sha256)
        if found is None:
            raise ArtifactCorruptError(
                f"{contract.__name__} {part.content_sha256[:12]} (version {part.version}) is not in the store. "
                "Materialize registered_release again."
            )
        return found

    def _staged(self, candidate: Artifact, files: Mapping[str, str]) -> Stage:
        stage = Stage(self._folder / candidate.sha256, files)
        try:
            if not _sound(stage):
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                # What one worker staged meanwhile, or is reading just now, must not be taken for a damaged stage.
                with exclusively(self._folder / ".lock"):
                    if not _sound(stage):
                        self._publish(candidate, stage)
        except OSError as error:
            raise StorageError(f"{stage.path}: the adapter could not be staged: {error}. Free disk space.") from error
        return stage

    def _publish(self, candidate: Artifact, stage: Stage) -> None:
        work = Path(tempfile.mkdtemp(prefix=".staging-", dir=self._folder))
        try:
            for name, sha256 in stage.files.items():
                _copy(candidate.file(FOLDER + name), work / name, sha256)
            if stage.path.exists():
                damaged = Path(tempfile.mkdtemp(prefix=".damaged-", dir=self._folder))
                stage.path.rename(damaged / "stage")
                shutil.rmtree(damaged, ignore_errors=True)
            work.rename(stage.path)
            stage.verify()
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _sound(stage: Stage) -> bool:
    """Whether the stage is there and intact; then it counts as used just now."""
    try:
        stage.verify()
    except ArtifactCorruptError:
        return False
    os.utime(stage.path)
    return True


def _adapter_files(candidate: Artifact, release: Release) -> dict[str, str]:
    """Weights and configuration of the adapter by name, with their digests; refuses what could run code."""
    stored = candidate.manifest.files
    named = {name.removeprefix(FOLDER): one.file_sha256 for name, one in stored.items() if name.startswith(FOLDER)}
    refused = sorted(name for name in named if Path(name).suffix not in HARMLESS or "/" in name)
    if refused:
        raise NotEligibleError(
            f"candidate {candidate.sha256[:12]}: its adapter holds {', '.join(refused)}. Only safetensors are served: "
            "other files can run code when they are loaded. Train it again."
        )
    if missing := sorted({*FILES} - named.keys()):
        raise ArtifactCorruptError(f"candidate {candidate.sha256[:12]}: its adapter lacks {', '.join(missing)}.")
    if named[WEIGHTS] != release.model.adapter_sha256:
        raise ArtifactCorruptError(
            f"candidate {candidate.sha256[:12]} holds adapter {named[WEIGHTS][:12]}, release "
            f"{release.release_id[:12]} names {release.model.adapter_sha256[:12]}. Build the release again."
        )
    return {name: named[name] for name in FILES}


def _copy(source: Path, target: Path, sha256: str) -> None:
    """Copies a file, readable by its owner alone; raises ArtifactCorruptError unless what was copied has the digest."""
    hashed = hashlib.sha256()
    with (
        source.open("rb") as reading,
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as writing,
    ):
        while block := reading.read(_BLOCK):
            hashed.update(block)
            writing.write(block)
    if hashed.hexdigest() != sha256:
        raise ArtifactCorruptError(
            f"{source}: SHA-256 is {hashed.hexdigest()[:12]}…, expected {sha256[:12]}…. The file was changed or "
            "damaged. Restore it, or train the candidate again."
        )
