"""Prompts: whether users ask what the release learnt, by the meaning of their questions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_platform.contracts.drift import ColumnDrift, Distances, DriftPart, Moved
from ml_platform.contracts.monitor_policy import DriftPolicy
from ml_platform.evaluation.drawing import shortened
from ml_platform.lineage.artifacts import ArtifactStore
from ml_platform.monitoring.drift.columns import corrected, sampled
from ml_platform.monitoring.drift.distances import (
    Found,
    Integers,
    effective_rows,
    population_stability,
    resemblance_of_categories,
    resemblance_of_vectors,
    variance_between,
)
from ml_platform.monitoring.drift.embedding import Vectors, embed, kept_vectors

MOST_LIVE, MOST_LEARNT = 500, 1_000
RESEMBLES = 0.5
"""The cosine from which on two questions resemble each other: other words for the same have 0.6 and more, questions
about something else 0.3 and less."""
SHOWN, LONGEST = 5, 200

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Prompts:
    """Questions of one side, and which hang together: those of one user, or those of one wording."""

    texts: tuple[str, ...]
    block: Integers | None

    def drawn(self, most: int, seed: int) -> "Prompts":
        """At most so many of them, the same every time."""
        places = sampled(len(self.texts), most, seed)
        block = None if self.block is None else self.block[places]
        return Prompts(tuple(self.texts[place] for place in places), block)


@dataclass(frozen=True)
class ComparedPrompts:
    """What moved, with the drawn live questions and their vectors."""

    columns: tuple[ColumnDrift, ...]
    live: tuple[str, ...]
    vectors: Vectors | None


def blocks_of(names: Sequence[str]) -> Integers:
    """A number for each name, the same for the same name."""
    _, numbers = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    return numbers.astype(np.int64)


def compare_prompts(
    learnt: Prompts, live: Prompts, policy: DriftPolicy, store: ArtifactStore, seed: int
) -> ComparedPrompts:
    """Two columns: `meaning`, how far the questions are from those learnt as a whole, and `unlike_anything_learnt`.

    The second is the share of live questions that resemble no learnt one, beyond that of learnt ones which resemble no
    other of another wording. With too few questions on either side neither is tested.
    """
    counts = {"reference_rows": len(learnt.texts), "current_rows": len(live.texts)}
    names = ("meaning", "unlike_anything_learnt")
    if min(counts.values()) < policy.min_rows:
        rows = f"{len(live.texts):,} questions now and {len(learnt.texts):,} learnt"
        reason = f"{rows}; the policy wants {policy.min_rows:,} of each"
        columns = tuple(_plain(name, reason, counts) for name in names)
        return ComparedPrompts(columns, (), None)
    learnt, live = learnt.drawn(MOST_LEARNT, seed), live.drawn(min(MOST_LIVE, policy.sample_rows), seed + 1)
    left, right = kept_vectors(store, learnt.texts), embed(live.texts)
    meaning = _column(names[0], _meaning(left, right, learnt, live), "embedding", policy, counts)
    alone = nearest(right, left) < RESEMBLES
    novelty = _column(names[1], _novelty(left, alone, learnt, live), "novelty", policy, counts)
    strange = sorted({shortened(live.texts[place], LONGEST) for place in np.flatnonzero(alone)})[:SHOWN]
    novelty = novelty.model_copy(update={"new_values": tuple(strange), "new_share": float(alone.mean())})
    return ComparedPrompts(tuple(corrected([meaning, novelty], policy)), live.texts, right)


def nearest(texts: Vectors, others: Vectors) -> Vectors:
    """The cosine of each text to the one among the others that is most like it; -1 where there are none."""
    if not len(others):
        return np.full(len(texts), -1.0, np.float32)
    found: Vectors = (texts @ others.T).max(axis=1)
    return found


def _meaning(left: Vectors, right: Vectors, learnt: Prompts, live: Prompts) -> Found:
    # Wordings resemble each other more than what one user asks: each side has its own resemblance.
    n = effective_rows(len(left), resemblance_of_vectors(left, learnt.block), learnt.block)
    m = effective_rows(len(right), resemblance_of_vectors(right, live.block), live.block)
    return variance_between(left, right, (n, m))


def _novelty(left: Vectors, alone: Mask, learnt: Prompts, live: Prompts) -> Found:
    own, new = _alone_among_themselves(left, learnt.block).astype(np.int64), alone.astype(np.int64)
    n = effective_rows(len(own), resemblance_of_categories(own, 2, learnt.block), learnt.block)
    m = effective_rows(len(new), resemblance_of_categories(new, 2, live.block), live.block)
    counts = [np.bincount(one, minlength=2) for one in (own, new)]
    chance = population_stability(counts[0], counts[1], n * m / (n + m), 1.0 / n + 1.0 / m).p_value
    return Found(max(0.0, float(new.mean() - own.mean())), chance)


def _alone_among_themselves(vectors: Vectors, block: Integers | None) -> Mask:
    """Which learnt questions resemble no other one of another wording."""
    alike = vectors @ vectors.T
    same = np.eye(len(vectors), dtype=bool) if block is None else block[:, None] == block[None, :]
    alike[same] = -1.0
    found: Mask = alike.max(axis=1) < RESEMBLES
    return found


def _plain(name: str, reason: str, counts: dict[str, int]) -> ColumnDrift:
    return ColumnDrift(
        part=DriftPart.PROMPTS, table="prompts", column=name, moved=Moved.NOT_TESTED, reason=reason, **counts
    )


def _column(name: str, found: Found, method: str, policy: DriftPolicy, counts: dict[str, int]) -> ColumnDrift:
    return _plain(name, "", counts).model_copy(
        update={
            "method": method,
            "effect": round(found.effect, 6),
            "threshold": policy.embedding,
            "p_value": found.p_value,
            "distances": Distances.model_validate({method: round(found.effect, 6)}),
        }
    )
