"""Labelling: which recorded questions a person should look at next, and whether what they say can teach; pure.

A question is worth a person's minute where the releases disagree, where a little other facts would have asked for
another answer, where its user was not content, or where a guardrail had to stop the answer.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.guardrails import Stage
from ml_platform.contracts.policy import ActionPolicy
from ml_platform.contracts.product import EvaluationSpec, LabelField, TextField
from ml_platform.contracts.products import Product
from ml_platform.contracts.provenance import Feedback, FeedbackKind, ProvenanceRecord
from ml_platform.contracts.routing import Cohort
from ml_platform.evaluation.answers import parse_answer
from ml_platform.evaluation.groundedness import ungrounded

NEAR = 0.05
"""A fact counts as near a threshold of the action policy within this share of it."""

SAID: dict[FeedbackKind, tuple[float, str]] = {
    FeedbackKind.CORRECTION: (1.0, "corrected in a form that teaches nothing"),
    FeedbackKind.THUMBS_DOWN: (0.75, "disliked"),
    FeedbackKind.REPHRASED: (0.75, "asked again in other words"),
    FeedbackKind.ABANDONED: (0.25, "walked away from"),
}
LABELS_DIFFER, WORDS_DIFFER, STOPPED, UNPARSABLE, AT_A_THRESHOLD = 1.0, 0.25, 0.75, 0.75, 0.5


@dataclass(frozen=True)
class Worth:
    """What a look at one question is worth, and why."""

    response_id: str
    score: float
    reasons: tuple[str, ...]


@dataclass
class _Glance:
    """What is kept of an answer while all are gone through."""

    user: str
    wording: str
    answer: str
    score: float
    reasons: list[str] = field(default_factory=list)


class Queue:
    """Goes through recorded answers once and ranks those that a person should label.

    `labelled` are the responses that need nobody any more. The same answers give the same queue, in whatever order
    they come.
    """

    def __init__(self, product: Product, labelled: Iterable[str] = (), reserved: Iterable[str] = ()) -> None:
        """`reserved` are the entities, as text, that golden sets keep: what is said of them teaches nothing."""
        self._product, self._done, self._reserved = product, set(labelled), set(reserved)
        self._seen: dict[str, _Glance] = {}
        self._copies: dict[str, str] = {}

    def see(self, record: ProvenanceRecord) -> None:
        """Takes an answer, or what the shadow made of its question."""
        if record.shadow_of is not None:
            if record.adapter is not None and not record.errors:
                self._copies[record.shadow_of] = record.answer
        elif record.adapter is not None and record.cohort is not Cohort.OPERATOR and not self._is_reserved(record):
            self._seen[record.response_id] = _glance(record, self._product.action_policy)

    def hear(self, said: Feedback, record: ProvenanceRecord) -> None:
        """Takes what a user said of an answer; a correction that teaches needs no labeller."""
        if said.kind is FeedbackKind.CORRECTION and not label_problem(self._product, record, said.text or ""):
            self._done.add(record.response_id)
        elif said.kind in SAID and (seen := self._seen.get(record.response_id)) is not None:
            score, reason = SAID[said.kind]
            if reason not in seen.reasons:
                seen.score += score
                seen.reasons.append(reason)

    def next(self, count: int) -> list[Worth]:
        """The questions that are worth most, best first: at most one of each user, and one of each wording."""
        ranked = sorted((self._worth(name) for name in self._seen if name not in self._done), key=_rank)
        chosen: list[Worth] = []
        users: set[str] = set()
        wordings: set[str] = set()
        for one in ranked:
            seen = self._seen[one.response_id]
            if len(chosen) == count or one.score <= 0:
                break
            if seen.user not in users and seen.wording not in wordings:
                users.add(seen.user)
                wordings.add(seen.wording)
                chosen.append(one)
        return chosen

    def _is_reserved(self, record: ProvenanceRecord) -> bool:
        return any(str(value) in self._reserved for value in record.entity.values())

    def _worth(self, response_id: str) -> Worth:
        seen = self._seen[response_id]
        score, reasons = seen.score, sorted(seen.reasons)
        copy = self._copies.get(response_id)
        if copy is not None and (found := _disagreement(seen.answer, copy, self._product.spec.evaluation)):
            score, reasons = score + found[0], [found[1], *reasons]
        return Worth(response_id, score, tuple(reasons))


def label_problem(product: Product, record: ProvenanceRecord, text: str) -> str:
    """Why an answer cannot teach as the right one to this question, for people; empty where it can.

    It must be what the product could have answered: its fields and labels, a risk as the action policy says, and
    nothing that stands neither in the facts nor in the question.
    """
    spec = product.spec.evaluation
    if not text.strip():
        return "it is empty"
    if record.adapter is None:
        return "no model answered the question: guardrails or a fallback did, and training cannot change that"
    parsed = parse_answer(text, spec)
    if parsed.problem:
        return f"it {'is ' if parsed.problem.startswith(('not', 'a ')) else ''}{parsed.problem}"
    if parsed.fields is None:
        return ""
    for name, kind in spec.fields.items():
        if isinstance(kind, TextField) and kind.grounded:
            said = str(parsed.fields[name])
            if missing := ungrounded(said, record.facts, record.utterance):
                return f"its {name} says {', '.join(missing)}, which neither the facts nor the question hold"
    return _policy_problem(product, record, parsed.fields)


def _policy_problem(product: Product, record: ProvenanceRecord, answer: Mapping[str, object]) -> str:
    policy, refusal = product.action_policy, product.spec.evaluation.refusal
    if policy is None or policy.field not in answer:
        return ""
    if refusal is not None and answer.get(refusal.field) in (*refusal.out_of_scope, *refusal.attack):
        return ""
    level = policy.level(dict(record.facts))
    found = answer[policy.field]
    return "" if found == level else f"its {policy.field} is {found}, where the action policy says {level}"


def _glance(record: ProvenanceRecord, policy: ActionPolicy | None) -> _Glance:
    seen = _Glance(
        user=record.user_sha256 or record.response_id,
        wording=hashlib.sha256(" ".join(record.utterance.casefold().split()).encode()).hexdigest(),
        answer=record.answer,
        score=0.0,
    )
    stopped = [one for one in record.verdicts if one.stage is Stage.OUTPUT and one.verdict is not Verdict.PASS]
    if stopped:
        seen.score += STOPPED
        seen.reasons.append(f"stopped by {stopped[0].guardrail}")
    if any(error.kind == "unparsable" for error in record.errors):
        seen.score += UNPARSABLE
        seen.reasons.append("a release gave no answer that could be read")
    if policy is not None and (fact := _at_a_threshold(record, policy)):
        seen.score += AT_A_THRESHOLD
        seen.reasons.append(f"{fact} lies at a threshold of the action policy")
    return seen


def _at_a_threshold(record: ProvenanceRecord, policy: ActionPolicy) -> str:
    """The first fact that lies so near a threshold that a little more or less of it asks for another answer."""
    for rule in (rule for level in policy.levels for rule in level.any):
        value = record.facts.get(rule.fact)
        limit = rule.at_least if rule.at_least is not None else rule.at_most
        if limit is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if abs(value - limit) <= NEAR * abs(limit):
            return rule.fact
    return ""


def _disagreement(answer: str, copy: str, spec: EvaluationSpec) -> tuple[float, str] | None:
    """How much two answers to one question differ, and in what; None where they do not."""
    if answer == copy:
        return None
    one, other = parse_answer(answer, spec), parse_answer(copy, spec)
    if one.fields is None or other.fields is None:
        both_text = not one.problem and not other.problem
        return (LABELS_DIFFER, "releases disagree") if both_text else None
    labels = [name for name, kind in spec.fields.items() if isinstance(kind, LabelField)]
    differing = [name for name in labels if one.fields[name] != other.fields[name]]
    if differing:
        return LABELS_DIFFER, f"releases disagree in {', '.join(differing)}"
    return (WORDS_DIFFER, "releases word it differently") if one.fields != other.fields else None


def _rank(one: Worth) -> tuple[float, str]:
    """Best first; equals in the order of a hash, so that no release or hour is preferred."""
    return -one.score, hashlib.sha256(f"labelling\n{one.response_id}".encode()).hexdigest()
