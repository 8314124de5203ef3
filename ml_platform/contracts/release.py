"""The release: the complete tuple that moves as one unit, and the candidate inside it."""

from datetime import date
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ml_platform.contracts.base import Contract, GrowingContract, Name, SemanticVersion, Sha256
from ml_platform.contracts.triggers import Trigger


class DataPart(Contract):
    """The data that a release learned from."""

    as_of: date
    snapshot_sha256: Sha256
    training_set_sha256: Sha256


class FeaturesPart(Contract):
    """The feature definitions that training and serving share."""

    service: str
    definitions_sha256: Sha256


class ModelPart(Contract):
    """The trained artifact: base weights, adapter and how it was trained."""

    family: Name
    base_model: str
    base_sha256: Sha256
    candidate_sha256: Sha256
    adapter_sha256: Sha256
    training: dict[str, Any]
    seed: int


class VersionedPart(Contract):
    """A value of the product folder, named by its version and the digest of its canonical JSON."""

    version: SemanticVersion
    content_sha256: Sha256


class CodePart(Contract):
    """The code that made the candidate: version, digest of the sources and the commit, if known."""

    version: str
    source_sha256: Sha256
    git_commit: str | None


class EnvironmentPart(Contract):
    """What the code ran on: versions of Python and of the libraries that shape results."""

    python: str
    accelerator: str
    packages: dict[str, str]


class Release(GrowingContract):
    """The complete tuple. Its id is the SHA-256 of its canonical JSON, so nothing in it can change.

    `trigger` is why its run started by itself; None for runs that people start, backfills among them.
    """

    came_later: ClassVar[tuple[str, ...]] = ("serving", "trigger")

    product: Name
    data: DataPart
    features: FeaturesPart | None
    model: ModelPart
    prompt: VersionedPart
    guardrails: VersionedPart
    action_policy: VersionedPart | None
    promotion_policy: VersionedPart
    monitor_policy: VersionedPart
    serving: VersionedPart | None = None
    upstream_releases: tuple[Sha256, ...] = ()
    code: CodePart
    environment: EnvironmentPart
    trigger: Trigger | None = None

    @property
    def release_id(self) -> str:
        """64 hexadecimal digits; people may use the first 12."""
        return self.sha256

    @property
    def behaviour_sha256(self) -> str:
        """The digest of all that can change what it does: without why its run started, and from which commit."""
        code = self.code.model_copy(update={"git_commit": None})
        return self.model_copy(update={"trigger": None, "code": code}).sha256


class Candidate(Contract):
    """The manifest of a trained artifact: digests of what it is and of what it came from."""

    product: Name
    as_of: date
    family: Name
    base_model: str
    base_sha256: Sha256
    training_set_sha256: Sha256
    adapter_sha256: Sha256
    training: dict[str, Any]
    seed: int
    steps: Annotated[int, Field(ge=1)]
    train_loss: float
    validation_loss: float | None
