"""What a decision used can be taken out again, all of it, and nothing else under its name."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ml_platform.contracts.monitor_policy import MonitorPolicy, Signal
from ml_platform.contracts.monitoring import Action, Decision, Seen
from ml_platform.contracts.routing import Cohort
from ml_platform.errors import ArtifactCorruptError
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.lineage.contents import find_content
from ml_platform.monitoring.keeping import DECISION, SEEN, keep_decision, load_kept
from tests.samples.monitoring import monitor_policy
from tests.samples.provenance import NOW, PRODUCT, RELEASES, response_id_of


def seen(number: int) -> Seen:
    return Seen(
        response_id=response_id_of(number),
        release_id=RELEASES[number % 2],
        cohort=Cohort.CANARY if number % 2 else Cohort.PRODUCTION,
        epoch=3,
        exposure=0.05,
        at=NOW + timedelta(microseconds=number),
        answered_at=NOW + timedelta(hours=number),
        user=f"{number:064x}",
        signals={Signal.ERROR: 1.0, Signal.LATENCY_MS: 0.1 + 0.2},
        mature=number > 1,
        labelled=number > 2,
    )


DECISION_MADE = Decision(
    product=PRODUCT, action=Action.ABORT, release_id=RELEASES[1], reason="harm", epoch=3, at=NOW, waits_for=("nothing",)
)


@pytest.fixture
def store(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path)


def test_what_was_kept_comes_back_to_the_last_digit(store: LocalArtifactStore) -> None:
    answers = tuple(sorted((seen(number) for number in range(5)), key=lambda one: one.response_id))
    kept = keep_decision(store, DECISION_MADE, answers)
    assert load_kept(store, kept) == (DECISION_MADE, answers)


def test_the_order_of_the_answers_changes_nothing_and_of_each_the_last_counts(store: LocalArtifactStore) -> None:
    answers = [seen(number) for number in range(5)]
    kept = keep_decision(store, DECISION_MADE, answers)
    before = [replace(one, mature=False) for one in answers]
    assert keep_decision(store, DECISION_MADE, [*before, *reversed(answers)]) == kept
    assert keep_decision(store, DECISION_MADE, answers[1:]) != kept


def test_a_decision_on_nothing_is_kept_as_well(store: LocalArtifactStore) -> None:
    assert load_kept(store, keep_decision(store, DECISION_MADE, ())) == (DECISION_MADE, ())


def test_the_policies_that_it_was_made_by_are_kept_too(store: LocalArtifactStore) -> None:
    policy = monitor_policy()
    other = policy.model_copy(update={"version": "2.0.0"})
    keep_decision(store, DECISION_MADE, (), (policy, other))
    assert find_content(store, MonitorPolicy, policy.sha256) == policy
    assert find_content(store, MonitorPolicy, other.sha256) == other


@pytest.mark.parametrize("name", [DECISION, SEEN])
def test_what_was_changed_since_is_refused(store: LocalArtifactStore, name: str) -> None:
    kept = keep_decision(store, DECISION_MADE, [seen(1)])
    path = store.open("decision", kept).file(name)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactCorruptError):
        load_kept(store, kept)
