"""What is decided, case by case: the first column says what stands, the last what is done about it."""

from dataclasses import replace

import pytest

from ml_platform.contracts.deployment import DeploymentState, ReleaseState
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.monitor_policy import Signal
from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.routing import Cohort
from ml_platform.release.decide import decide
from ml_platform.release.situation import Findings, Past
from tests.samples.decisions import (
    ALONE,
    ALONE_BAD,
    CANARY,
    FINE,
    GOOD,
    HARMFUL,
    NOW,
    PLAN,
    PRODUCTION,
    UNSURE,
    WAITING,
    breach,
    reading,
    standing,
)

SHARED = {Signal.ERROR: "Both fail."}
CASES: dict[str, tuple[DeploymentState, Findings, Past, Action]] = {
    "nothing serves": (standing(slots={}, canary_step=0, exposure=0.0), FINE, GOOD, Action.HOLD),
    "a canary that nothing speaks against goes up": (standing(), FINE, GOOD, Action.STEP_UP),
    "it goes up without proof": (standing(), UNSURE, GOOD, Action.STEP_UP),
    "at the last step proof promotes it": (standing(2), FINE, GOOD, Action.PROMOTE),
    "at the last step no proof is no promotion": (standing(2), UNSURE, GOOD, Action.HOLD),
    "at the last step a missing metric is no promotion": (
        standing(2),
        Findings(readings=(reading(Verdict.PASS),)),
        GOOD,
        Action.HOLD,
    ),
    "no readings are no promotion": (standing(2), Findings(), GOOD, Action.HOLD),
    "an unreadable metric goes nowhere": (standing(), Findings(readings=(reading(Verdict.ERROR),)), GOOD, Action.HOLD),
    "proven harm aborts": (standing(), HARMFUL, GOOD, Action.ABORT),
    "proven harm aborts at the last step": (standing(2), HARMFUL, GOOD, Action.ABORT),
    "a broken hard limit aborts": (standing(), replace(FINE, breaches=(breach(CANARY),)), GOOD, Action.ABORT),
    "it aborts within the cool-down": (standing(), HARMFUL, replace(GOOD, since_move=0), Action.ABORT),
    "it aborts whatever the number of moves": (standing(), HARMFUL, replace(GOOD, moves_today=99), Action.ABORT),
    "it aborts while frozen": (standing(frozen="why"), HARMFUL, GOOD, Action.ABORT),
    "it aborts while paused": (
        standing(releases={PRODUCTION: ReleaseState.PRODUCTION, CANARY: ReleaseState.PAUSED}),
        HARMFUL,
        GOOD,
        Action.ABORT,
    ),
    "doubt goes no further": (
        standing(),
        Findings(readings=(reading(Verdict.INCONCLUSIVE, e_value=11.0), reading(Verdict.PASS, "cost"))),
        GOOD,
        Action.HOLD,
    ),
    "both arms broke a limit: nobody's fault": (
        standing(),
        replace(FINE, breaches=(breach(CANARY), breach(PRODUCTION))),
        GOOD,
        Action.HOLD,
    ),
    "a common cause: nobody's fault": (
        standing(),
        replace(FINE, breaches=(breach(CANARY),), common_causes=SHARED),
        GOOD,
        Action.HOLD,
    ),
    "a common cause does not hide what randomization proves": (
        standing(),
        replace(HARMFUL, common_causes=SHARED),
        GOOD,
        Action.ABORT,
    ),
    "a common cause may distort a mean": (
        standing(),
        Findings(readings=(reading(Verdict.PASS), reading(Verdict.FAIL, "cost")), common_causes=SHARED),
        GOOD,
        Action.HOLD,
    ),
    "what both arms suffer excuses the canary no other signal": (
        standing(),
        replace(FINE, breaches=(breach(CANARY), breach(PRODUCTION), breach(CANARY, Signal.UNSAFE))),
        GOOD,
        Action.ABORT,
    ),
    "nor production": (
        standing(),
        replace(FINE, breaches=(breach(PRODUCTION, Signal.UNSAFE),), common_causes=SHARED),
        GOOD,
        Action.ROLL_BACK,
    ),
    "every signal may have a cause of its own": (
        standing(),
        replace(
            FINE,
            breaches=(breach(CANARY, Signal.UNSAFE), breach(PRODUCTION, Signal.UNSAFE), breach(CANARY)),
            common_causes=SHARED,
        ),
        GOOD,
        Action.HOLD,
    ),
    "production alone waits for the end of what both suffer": (
        standing(),
        replace(ALONE_BAD, common_causes=SHARED),
        GOOD,
        Action.HOLD,
    ),
    "beside a canary that does no better, production too bad is nobody's fault": (
        standing(),
        replace(FINE, alone=ALONE_BAD.alone),
        GOOD,
        Action.STEP_UP,
    ),
    "beside one that is proven to do better, it is taken back": (
        standing(),
        Findings(readings=(reading(Verdict.PASS, effect_upper=-0.01),), alone=ALONE_BAD.alone),
        GOOD,
        Action.ROLL_BACK,
    ),
    "beside one that nobody asks, too": (standing(), ALONE_BAD, GOOD, Action.ROLL_BACK),
    "production that broke a limit is taken back": (
        standing(0, **ALONE),
        Findings(breaches=(breach(PRODUCTION),)),
        GOOD,
        Action.ROLL_BACK,
    ),
    "production proven too bad is taken back": (standing(0, **ALONE), ALONE_BAD, GOOD, Action.ROLL_BACK),
    "it is taken back while frozen": (standing(0, **ALONE, frozen="why"), ALONE_BAD, GOOD, Action.ROLL_BACK),
    "it is taken back beside a canary": (
        standing(),
        replace(FINE, breaches=(breach(PRODUCTION),)),
        GOOD,
        Action.ROLL_BACK,
    ),
    "without an earlier release there is no way back": (
        standing(0, **ALONE | {"last_good": None}),
        ALONE_BAD,
        GOOD,
        Action.HOLD,
    ),
    "two that fail one after the other freeze": (
        standing(0, **ALONE),
        ALONE_BAD,
        replace(GOOD, since_rollback=1),
        Action.FREEZE,
    ),
    "frozen already, they hold": (
        standing(0, **ALONE, frozen="why"),
        ALONE_BAD,
        replace(GOOD, since_rollback=1),
        Action.HOLD,
    ),
    "frozen for harm, they hold long after": (
        standing(0, **ALONE, frozen="why"),
        ALONE_BAD,
        replace(GOOD, since_rollback=999, left_to_people=True),
        Action.HOLD,
    ),
    "long after a rollback there may be another": (
        standing(0, **ALONE),
        ALONE_BAD,
        replace(GOOD, since_rollback=999),
        Action.ROLL_BACK,
    ),
    "a rollback too many freezes": (standing(0, **ALONE), ALONE_BAD, replace(GOOD, moves_today=6), Action.FREEZE),
    "a step too many freezes": (standing(), FINE, replace(GOOD, moves_today=6), Action.FREEZE),
    "a promotion too many freezes": (standing(2), FINE, replace(GOOD, moves_today=6), Action.FREEZE),
    "stops beyond the most freeze": (standing(), UNSURE, replace(GOOD, moves_today=7, since_move=0), Action.FREEZE),
    "frozen: nothing goes forward": (standing(2, frozen="why"), FINE, GOOD, Action.HOLD),
    "the cool-down holds": (standing(2), FINE, replace(GOOD, since_move=9), Action.HOLD),
    "no answer since the move: the cool-down has not begun": (
        standing(),
        FINE,
        replace(GOOD, since_move=None),
        Action.HOLD,
    ),
    "the step's minutes hold": (standing(2), FINE, replace(GOOD, step_minutes=29), Action.HOLD),
    "no answer at this step: it has not begun": (standing(), FINE, replace(GOOD, step_minutes=None), Action.HOLD),
    "too few users of the canary hold": (
        standing(),
        FINE,
        replace(GOOD, users={Cohort.PRODUCTION: 90, Cohort.CANARY: 19}),
        Action.HOLD,
    ),
    "too few users of production hold": (standing(), FINE, replace(GOOD, users={Cohort.CANARY: 90}), Action.HOLD),
    "nothing to compare with": (standing(slots={SlotName.CANARY: CANARY}), FINE, GOOD, Action.HOLD),
    "a canary alone that does harm goes": (
        standing(slots={SlotName.CANARY: CANARY}),
        Findings(breaches=(breach(CANARY),)),
        GOOD,
        Action.ABORT,
    ),
    "paused: nothing goes forward": (
        standing(releases={PRODUCTION: ReleaseState.PRODUCTION, CANARY: ReleaseState.PAUSED}),
        FINE,
        GOOD,
        Action.HOLD,
    ),
    "another production pauses the canary": (standing(), FINE, replace(GOOD, rebased=True), Action.PAUSE),
    "no canary: nothing to do": (standing(0, **ALONE), Findings(), GOOD, Action.HOLD),
    "what waited for the end of a freeze opens": (
        standing(0, **ALONE),
        Findings(),
        replace(GOOD, waiting=WAITING),
        Action.OPEN,
    ),
    "not within the cool-down": (
        standing(0, **ALONE),
        Findings(),
        replace(GOOD, waiting=WAITING, since_move=1),
        Action.HOLD,
    ),
    "not while frozen": (
        standing(0, **ALONE, frozen="why"),
        Findings(),
        replace(GOOD, waiting=WAITING),
        Action.HOLD,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_case_is_decided_as_its_name_says(case: str) -> None:
    state, findings, past, action = CASES[case]
    decision = decide(PLAN, state, findings, past, NOW)
    assert decision.action is action, decision.reason
    assert decision.reason
    assert (decision.epoch, decision.at) == (5, NOW)
    assert decision.waits_for or action is not Action.HOLD
    assert decision.incident or action not in (Action.ABORT, Action.ROLL_BACK, Action.FREEZE, Action.PAUSE)
