"""What a candidate was made of, found by the digests that the artifacts themselves state.

Assets downstream of the candidate need its training set and its snapshot too. Reading them from the day's
manifests could mix two takes of the same day; the digests inside the candidate cannot.
"""

from dataclasses import dataclass

from ml_platform.contracts.release import Candidate
from ml_platform.lineage.artifacts import Artifact, ArtifactStore


@dataclass(frozen=True)
class Ancestry:
    """A candidate with the training set that it learned from and the snapshot that this was made of."""

    snapshot: Artifact
    training_set: Artifact
    candidate: Artifact


def trace_ancestry(store: ArtifactStore, candidate_sha256: str) -> Ancestry:
    """The candidate and its ancestors, each verified byte for byte. Raises ArtifactCorruptError."""
    candidate = store.open("candidate", candidate_sha256)
    made = Candidate.parse(candidate.facts, where=f"candidate {candidate_sha256[:12]}")
    training_set = store.open("training_set", made.training_set_sha256)
    return Ancestry(store.open("snapshot", str(training_set.facts["snapshot_sha256"])), training_set, candidate)
