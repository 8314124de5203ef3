"""Random lives of a product: whatever happens in whatever order, nothing unproven ever serves."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ml_platform.contracts.evidence import Evidence
from ml_platform.lineage import verification
from ml_platform.lineage.keys import TrustedKeys
from ml_platform.lineage.statements import verify_evidence
from ml_platform.release import recording
from tests.properties.life_machine import Life

pytestmark = pytest.mark.early

STEPS = 50
OFTEN = (
    *("open", "advance", "pause", "resume", "abort", "promote", "roll back", "race"),
    *("open refused", "promote refused", "roll back refused", "race refused", "died", "killed", "tampered"),
    *("gateway refused", "admitted", "refused"),
    *("open_shadow", "open_shadow refused", "close_shadow", "close_shadow refused", "shadow held", "shadow to canary"),
    *("frozen", "decided step_up", "decided promote", "decided abort", "decided roll_back", "decided not", "signed"),
)
"""What must have happened several times, lest the lives prove nothing."""


def remembering(verify: Callable[[bytes, TrustedKeys], Evidence]) -> Callable[[bytes, TrustedKeys], Evidence]:
    """The same function, which is pure, asked once only for the same envelope and keys: a third of a life's time.

    The ledger itself is verified with the plain one at the end of every life.
    """
    known: dict[tuple[bytes, tuple[tuple[str, bool], ...]], Evidence] = {}

    def ask(envelope: bytes, trusted: TrustedKeys) -> Evidence:
        question = envelope, tuple((key_id, key.revoked) for key_id, key in trusted.items())
        if question not in known:
            known[question] = verify(envelope, trusted)
        return known[question]

    return ask


@contextmanager
def untraced() -> Iterator[None]:
    """Without the tracer of coverage, which doubles the time of these steps; other tests reach the same lines."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


def live(lives: int, *, derandomize: bool) -> Counter[str]:
    """So many lives of so many steps; tells how often everything happened."""
    Life.done.clear()
    with untraced(), pytest.MonkeyPatch.context() as patch:
        for module in (verification, recording):
            patch.setattr(module, "verify_evidence", remembering(verify_evidence))
        run_state_machine_as_test(
            Life,
            settings=settings(
                max_examples=lives,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=derandomize,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
    return Counter(Life.done)


@pytest.mark.parametrize(
    ("lives", "steps", "often"), [(60, 1_000, 1), pytest.param(252, 10_000, 3, marks=pytest.mark.full_size)]
)
def test_nothing_unproven_serves_in_thousands_of_random_steps(lives: int, steps: int, often: int) -> None:
    """The same steps every time, but for who wins a race: what fails here fails again."""
    done = live(lives, derandomize=True)
    assert done["steps"] >= steps, done
    assert {what: done[what] for what in OFTEN if done[what] < often} == {}, done


@pytest.mark.long
def test_nothing_unproven_serves_in_a_hundred_thousand_random_steps() -> None:
    """Other steps every time."""
    done = live(2400, derandomize=False)
    assert done["steps"] >= 100_000, done
