"""The queue names the questions that are most worth a person's look: the same ones, whatever comes in which order."""

import json
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.guardrails import GuardrailVerdict, Stage
from ml_platform.contracts.labelling import GivenLabel
from ml_platform.contracts.products import Product, load_product
from ml_platform.contracts.provenance import Feedback, FeedbackKind, ProvenanceRecord, RecordedError
from ml_platform.contracts.routing import Cohort
from ml_platform.monitoring.labelling import Queue, Worth, label_problem
from tests.samples.answered import ASKED, CLOCK, FACTS, RIGHT, WRONG, answered, correction
from tests.samples.provenance import PRODUCT, RELEASES, make_feedback, response_id_of

FOLDER = Path(__file__).parents[3] / "products" / "flight_assistant"
CALM = {**FACTS, "late_chance": 10}


@pytest.fixture(scope="module")
def product() -> Product:
    return load_product(FOLDER)


def asked(number: int, **changes: Any) -> ProvenanceRecord:
    plain = {"utterance": f"question {number}", "facts": CALM, "answer": json.dumps({**WRONG, "risk": "low"})}
    return answered(number, **{**plain, **changes})


def copy_of(number: int, answer: dict[str, Any] | str, **changes: Any) -> ProvenanceRecord:
    plain = {
        "response_id": f"shadow_{number:032x}",
        "answer": answer if isinstance(answer, str) else json.dumps(answer),
        "cohort": Cohort.SHADOW,
        "shadow_of": response_id_of(number),
        "release_id": RELEASES[1],
    }
    return asked(number, **{**plain, **changes})


def said(number: int, kind: FeedbackKind, text: str | None = None) -> Feedback:
    return make_feedback(number, kind=kind, text=text, idempotency_key=f"{kind} {number}")


def label(number: int, answer: dict[str, Any] | None = RIGHT, by: str = "ana") -> GivenLabel:
    return GivenLabel(
        product=PRODUCT,
        response_id=response_id_of(number),
        labeller=by,
        answer=None if answer is None else json.dumps(answer),
        reason=None if answer else "unclear",
        labelled_at=CLOCK + timedelta(hours=1),
        known_at=ASKED + timedelta(hours=1),
    )


def fed(queue: Queue, records: list[ProvenanceRecord], feedback: list[Feedback] = []) -> Queue:  # noqa: B006 - only read
    by_id = {record.response_id: record for record in records}
    for record in records:
        queue.see(record)
    for one in feedback:
        queue.hear(one, by_id[one.response_id or ""])
    return queue


def numbers(found: list[Worth], most: int = 100) -> list[int]:
    names = {response_id_of(number): number for number in range(most)}
    return [names[one.response_id] for one in found]


def test_what_is_worth_most_comes_first_and_says_why(product: Product) -> None:
    stopped = GuardrailVerdict(guardrail="grounded", stage=Stage.OUTPUT, verdict=Verdict.FAIL)
    unread = RecordedError(kind="unparsable", message="release a: no JSON")
    records = [
        asked(1),
        asked(2),
        copy_of(2, {**WRONG, "risk": "high", "intent": "why"}),
        asked(3),
        copy_of(3, {**WRONG, "risk": "low", "reply": "Other words."}),
        asked(4, facts={**FACTS, "late_chance": 20}),
        asked(5, verdicts=(stopped,)),
        asked(6, errors=(unread,)),
        asked(7),
        asked(8),
        asked(9),
        asked(10),
    ]
    feedback = [
        said(7, FeedbackKind.THUMBS_DOWN),
        said(7, FeedbackKind.REPHRASED),
        said(8, FeedbackKind.ABANDONED),
        said(9, FeedbackKind.CORRECTION, "To Houston!"),
        said(10, FeedbackKind.THUMBS_UP),
    ]
    found = fed(Queue(product), records, feedback).next(20)
    assert {number: one.reasons for number, one in zip(numbers(found), found, strict=True)} == {
        7: ("disliked", "asked again in other words"),
        2: ("releases disagree in intent, risk",),
        9: ("corrected in a form that teaches nothing",),
        5: ("stopped by grounded",),
        6: ("a release gave no answer that could be read",),
        4: ("late_chance lies at a threshold of the action policy",),
        3: ("releases word it differently",),
        8: ("walked away from",),
    }
    assert numbers(found)[0] == 7
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": None},
        {"cohort": Cohort.OPERATOR},
        {"entity": {"flight_id": "golden flight"}},
        {"facts": CALM},
    ],
)
def test_what_nobody_can_learn_from_is_not_asked(product: Product, changes: dict[str, Any]) -> None:
    record = asked(1, **{"facts": {**FACTS, "late_chance": 20}, **changes})
    assert fed(Queue(product, reserved=["golden flight"]), [record]).next(5) == []


def test_a_copy_that_failed_disagrees_with_nobody(product: Product) -> None:
    failed = RecordedError(kind="engine_error", message="gone")
    for copy in (copy_of(1, "{", adapter="x@y"), copy_of(1, "", errors=(failed,)), copy_of(1, RIGHT, adapter=None)):
        assert fed(Queue(product), [asked(1), copy]).next(5) == []


def test_one_question_of_each_user_and_one_of_each_wording(product: Product) -> None:
    near = {**FACTS, "late_chance": 30}
    records = [
        *(asked(n, facts=near, user_sha256="5" * 64) for n in range(5)),
        *(asked(n, facts=near, utterance=f"The  SAME words{' ' * n}") for n in range(10, 15)),
        *(asked(n, facts=near, user_sha256=None) for n in range(20, 23)),
    ]
    found = numbers(fed(Queue(product), records).next(50))
    assert len(found) == 5
    assert len([n for n in found if n < 5]) == len([n for n in found if 10 <= n < 15]) == 1
    assert len([n for n in found if n >= 20]) == 3, "nobody knows who asked: each counts for one"


def test_no_order_changes_the_queue_and_asking_twice_gives_the_same(product: Product) -> None:
    near = {**FACTS, "late_chance": 20}
    records = [asked(n, facts=near if n % 2 else CALM, user_sha256=f"{n % 7:064x}") for n in range(40)]
    records += [copy_of(n, RIGHT) for n in range(0, 40, 5)]
    feedback = [said(n, FeedbackKind.THUMBS_DOWN) for n in range(0, 40, 3)]
    first = fed(Queue(product), records, feedback).next(7)
    for seed in range(5):
        order = random.Random(seed)  # noqa: S311 - any order
        queue, by_id = Queue(product), {record.response_id: record for record in records}
        mixed: list[Any] = order.sample([*records, *feedback], len(records) + len(feedback))
        for one in mixed:
            if isinstance(one, ProvenanceRecord):
                queue.see(one)
            else:
                queue.hear(one, by_id[one.response_id])
        assert queue.next(7) == first == queue.next(7)
        assert queue.next(3) == first[:3]


def test_a_label_takes_it_out_and_labellers_who_disagree_bring_it_back_for_a_third(product: Product) -> None:
    def ids(*labels: GivenLabel, by: str | None = None) -> list[int]:
        records = [asked(1), copy_of(1, {**WRONG, "intent": "why"})]
        return numbers(fed(Queue(product, labels, labeller=by), records).next(5))

    other = {**RIGHT, "risk": "high"}
    assert ids() == [1]
    assert ids(label(1)) == []
    assert ids(label(1), label(1, other, "ben")) == [1]
    assert ids(label(1), label(1, None, "ben")) == [1]
    assert ids(label(1), label(1, other, "ben"), by="ben") == [], "he has said what he thinks"
    assert ids(label(1), label(1, other, "ben"), label(1, RIGHT, "cy")) == []
    assert ids(label(1), label(1, {**RIGHT, "reply": "A delay is possible."}, "ben")) == [], "words may differ"


def test_a_correction_that_teaches_needs_no_labeller(product: Product) -> None:
    shown = asked(1, facts=FACTS)
    assert fed(Queue(product), [shown, copy_of(1, RIGHT)], [correction(1)]).next(5) == []
    assert numbers(fed(Queue(product), [shown], [correction(1, {**RIGHT, "risk": "low"})]).next(5)) == [1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (json.dumps(RIGHT), ""),
        (json.dumps({"intent": "out_of_scope", "risk": "none", "reply": "Sorry, not mine."}), ""),
        ("", "empty"),
        ("late!", "not JSON"),
        (json.dumps({**RIGHT, "risk": "none"}), "where the action policy says elevated"),
        (json.dumps({**RIGHT, "reply": "It goes to JFK."}), "its reply says JFK"),
        (json.dumps({**RIGHT, "more": 1}), "has the keys"),
        (json.dumps(RIGHT)[:-1] + ', "risk": "elevated"}', "a key is repeated"),
    ],
)
def test_a_label_is_what_the_product_could_have_answered(product: Product, text: str, problem: str) -> None:
    found = label_problem(product, asked(1, facts=FACTS), text)
    assert problem in found
    assert bool(problem) == bool(found)


def test_no_label_changes_what_guardrails_answer(product: Product) -> None:
    assert "no model answered" in label_problem(product, asked(1, adapter=None), json.dumps(RIGHT))
