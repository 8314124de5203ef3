"""Golden sets grow old: how old they are, how much of what users ask they resemble, and when somebody should look."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime

from ml_platform.contracts.drift import GoldenHealth
from ml_platform.contracts.example import Example
from ml_platform.contracts.products import Product
from ml_platform.families.lora.prepare import load_examples
from ml_platform.lineage.artifacts import Artifact, ArtifactStore
from ml_platform.monitoring.drift.embedding import Vectors, kept_vectors
from ml_platform.monitoring.drift.prompts import RESEMBLES, nearest

OLD_DAYS = 180
"""Older than half a year, a golden set asks about another season."""
COVERAGE_WANTED = 0.8


def golden_health(
    product: Product, training_set: Artifact, now: datetime, live: Vectors | None, store: ArtifactStore
) -> tuple[GoldenHealth, ...]:
    """Every golden set that a release was judged with, in the product's order; `live` are vectors of sampled questions.

    Attacks and their look-alikes are not meant to resemble users' questions: they have no coverage, and do not age.
    """
    return tuple(
        _health(name, spec.version, load_examples(training_set, f"golden/{name}"), now, live, store)
        for name, spec in product.spec.evaluation.golden_sets.items()
        if name in training_set.facts.get("golden", {})
    )


def assess_golden(name: str, version: str, asked: Sequence[Example], now: date, coverage: float | None) -> GoldenHealth:
    """The health of one golden set, with a warning where somebody should look; pure."""
    usual = [one for one in asked if one.kind == "answer"]
    times = [one.prediction_time.date() for one in usual if one.prediction_time is not None]
    newest = max(times, default=None)
    age = None if newest is None else max(0, (now - newest).days)
    found: dict[str, str | None] = {
        "age": f"its newest question is {age} days old" if age is not None and age > OLD_DAYS else None,
        "coverage": f"only {coverage:.0%} of what users ask resembles one of its questions"
        if coverage is not None and coverage < COVERAGE_WANTED
        else None,
    }
    return GoldenHealth(
        golden_set=name,
        version=version,
        examples=len(asked),
        newest=newest,
        age_days=age,
        coverage=coverage,
        warning=_warning(name, found),
    )


def _warning(name: str, found: Mapping[str, str | None]) -> str | None:
    said = [words for words in found.values() if words]
    if not said:
        return None
    return f"golden set {name}: {' and '.join(said)}. Add newer questions (mlp label next), or gates judge by old ones."


def _health(
    name: str, version: str, asked: Sequence[Example], now: datetime, live: Vectors | None, store: ArtifactStore
) -> GoldenHealth:
    usual = [one.utterance for one in asked if one.kind == "answer"]
    coverage = None
    if live is not None and len(live) and usual:
        coverage = round(float((nearest(live, kept_vectors(store, usual)) >= RESEMBLES).mean()), 6)
    return assess_golden(name, version, asked, now.date(), coverage)
