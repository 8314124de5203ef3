"""Labelling: which recorded questions a person should look at next, and whether what they say can teach; pure.

A question is worth a person's minute where the releases disagree, where a little other facts would have asked for
another answer, where its user was not content, or where a guardrail had to stop the answer.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ml_platform.contracts.canonical import canonical_bytes
from ml_platform.contracts.evaluation_spec import EvaluationSpec, LabelField, TextField
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.guardrails import Stage
from ml_platform.contracts.labelling import GivenLabel
from ml_platform.contracts.labels import is_among
from ml_platform.contracts.policy import ActionPolicy
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
DISPUTED, LABELS_DIFFER, WORDS_DIFFER, STOPPED, UNPARSABLE, AT_A_THRESHOLD = 2.0, 1.0, 0.25, 0.75, 0.75, 0.5


@dataclass(frozen=True)
class Worth:
    """What a look at one question is worth, and why."""

    response_id: str
    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Glance:
    """What is kept of an answer while all are gone through; `reasons` are those in the record itself."""

    user: str
    wording: str
    answer: str
    reasons: tuple[tuple[float, str], ...]


class Queue:
    """Goes through recorded answers once and ranks those that a person should label.

    The same answers, labels and feedback give the same queue, in whatever order they come.
    """

    def __init__(
        self,
        product: Product,
        labels: Iterable[GivenLabel] = (),
        *,
        labeller: str | None = None,
        reserved: Iterable[str] = (),
    ) -> None:
        """`labels` are the newest of each labeller: a question leaves once it has one, and comes back for others to
        judge when labellers disagree; never to `labeller`, who said it already. `reserved` are the entities, as text,
        that golden sets keep: what is said of them teaches nothing.
        """
        self._product, self._reserved = product, set(reserved)
        given = list(labels)
        self._disputed = disputed(product, given)
        mine = {label.response_id for label in given if label.labeller == labeller}
        self._done = {label.response_id for label in given} - self._disputed | mine
        self._seen: dict[str, _Glance] = {}
        self._copies: dict[str, str] = {}
        self._said: dict[str, set[FeedbackKind]] = {}

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
        elif said.kind in SAID:
            self._said.setdefault(record.response_id, set()).add(said.kind)

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
        seen, copy = self._seen[response_id], self._copies.get(response_id)
        found = [(DISPUTED, "labellers disagree")] if response_id in self._disputed else []
        if copy is not None:
            found += _disagreement(seen.answer, copy, self._product.spec.evaluation)
        found += [SAID[kind] for kind in SAID if kind in self._said.get(response_id, ())]
        found += seen.reasons
        return Worth(response_id, sum(score for score, _ in found), tuple(reason for _, reason in found))


def disputed(product: Product, labels: Iterable[GivenLabel]) -> set[str]:
    """The responses whose labellers say different things, with no more than half of them on one side.

    What an answer says are its labels, where the product has any, else its words.
    """
    votes: dict[str, Counter[str]] = {}
    for label in labels:
        votes.setdefault(label.response_id, Counter())[_says(product.spec.evaluation, label.answer)] += 1
    return {name for name, said in votes.items() if 2 * said.most_common(1)[0][1] <= said.total()}


def _says(spec: EvaluationSpec, answer: str | None) -> str:
    if answer is None:
        return "nobody can answer it"
    fields = parse_answer(answer, spec).fields
    if fields is None:
        return " ".join(answer.casefold().split())
    labels = [name for name, kind in spec.fields.items() if isinstance(kind, LabelField)]
    return canonical_bytes({name: fields[name] for name in labels or fields}).decode()


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
    if refusal is not None and is_among(answer.get(refusal.field), (*refusal.out_of_scope, *refusal.attack)):
        return ""
    level = policy.level(dict(record.facts))
    found = answer[policy.field]
    return "" if found == level else f"its {policy.field} is {found}, where the action policy says {level}"


def _glance(record: ProvenanceRecord, policy: ActionPolicy | None) -> _Glance:
    reasons = []
    stopped = [one for one in record.verdicts if one.stage is Stage.OUTPUT and one.verdict is not Verdict.PASS]
    if stopped:
        reasons.append((STOPPED, f"stopped by {stopped[0].guardrail}"))
    if any(error.kind == "unparsable" for error in record.errors):
        reasons.append((UNPARSABLE, "a release gave no answer that could be read"))
    if policy is not None and (fact := _at_a_threshold(record, policy)):
        reasons.append((AT_A_THRESHOLD, f"{fact} lies at a threshold of the action policy"))
    words = " ".join(record.utterance.casefold().split())
    return _Glance(
        user=record.user_sha256 or record.response_id,
        wording=hashlib.sha256(words.encode()).hexdigest(),
        answer=record.answer,
        reasons=tuple(reasons),
    )


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


def _disagreement(answer: str, copy: str, spec: EvaluationSpec) -> list[tuple[float, str]]:
    """How much two answers to one question differ, and in what; nothing where they do not."""
    one, other = parse_answer(answer, spec), parse_answer(copy, spec)
    if answer == copy or one.problem or other.problem:
        return []
    if one.fields is None or other.fields is None:
        return [(LABELS_DIFFER, "releases disagree")]
    labels = [name for name, kind in spec.fields.items() if isinstance(kind, LabelField)]
    differing = [name for name in labels if one.fields[name] != other.fields[name]]
    if differing:
        return [(LABELS_DIFFER, f"releases disagree in {', '.join(differing)}")]
    return [(WORDS_DIFFER, "releases word it differently")] if one.fields != other.fields else []


def _rank(one: Worth) -> tuple[float, str]:
    """Best first; equals in the order of a hash, so that no release or hour is preferred."""
    return -one.score, hashlib.sha256(f"labelling\n{one.response_id}".encode()).hexdigest()
