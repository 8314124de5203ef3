"""Guardrails by rules: offline, and quick enough to stand before and after every answer."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from time import perf_counter

from ml_platform.contracts.evaluation_spec import EvaluationSpec, TextField
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.guardrails import GuardrailReport, GuardrailVerdict, Stage
from ml_platform.contracts.product import GuardrailSpec
from ml_platform.evaluation.answers import ParsedAnswer, parse_answer
from ml_platform.evaluation.groundedness import ungrounded
from ml_platform.serving.guardrails.disguises import folded
from ml_platform.serving.guardrails.injection import find_injection
from ml_platform.serving.guardrails.personal_data import find_personal_data, redact, sound, visible
from ml_platform.serving.guardrails.protocol import Asked
from ml_platform.serving.guardrails.terms import Terms, load_terms

LONGEST_STORED_CHARACTERS = 65_536
"""Of a question that is longer than this nothing is stored; a cut could leave half a number that nothing recognises."""

Finding = str | None
"""What is wrong, in words that hold nothing of the text; None when nothing is."""


class DeterministicGuardrails:
    """The checks that one release's guardrails name, for answers of one schema.

    Raises SourceDataError or ArtifactCorruptError when the list of toxic terms is not the release's.
    """

    def __init__(self, spec: GuardrailSpec, evaluation: EvaluationSpec) -> None:
        self._spec, self._evaluation = spec, evaluation
        self._blocked = _either(spec.blocked_patterns)
        self._out_of_scope = Terms(spec.out_of_scope)
        self._terms = load_terms(spec.toxic_terms) if spec.toxic_terms is not None else Terms(())
        self._grounded = tuple(
            name for name, field in evaluation.fields.items() if isinstance(field, TextField) and field.grounded
        )

    async def check_input(self, utterance: str, *, timeout_seconds: float) -> GuardrailReport:  # noqa: ARG002 - never waits
        """See Guardrails."""
        return self.assess_input(utterance)

    async def check_output(self, answer: str, asked: Asked, *, timeout_seconds: float) -> GuardrailReport:  # noqa: ARG002 - never waits
        """See Guardrails."""
        return self.assess_output(answer, asked)

    def assess_input(self, utterance: str) -> GuardrailReport:
        """The verdicts on a question: form, personal_data, injection, out_of_scope.

        Personal data is taken out and passes. A question of a wrong form is looked at no further.
        """
        clean = sound(utterance)
        limit = self._spec.max_utterance_characters
        started = perf_counter()
        text, redacted = self._stored(clean)
        verdicts = [
            _verdict("personal_data", Stage.INPUT, lambda: None, _said(redacted), started),
            _verdict("form", Stage.INPUT, lambda: _wrong_form(utterance, clean, limit)),
        ]
        if verdicts[-1].verdict is Verdict.PASS:
            verdicts.append(_verdict("injection", Stage.INPUT, lambda: self._attack(clean)))
            verdicts.append(_verdict("out_of_scope", Stage.INPUT, lambda: self._beyond_scope(clean)))
        else:
            text = text[:limit]
        return GuardrailReport(stage=Stage.INPUT, verdicts=tuple(verdicts), text=text, redacted=redacted)

    def assess_output(self, answer: str, asked: Asked) -> GuardrailReport:
        """The verdicts on an answer: schema, grounded, personal_data, toxicity."""
        parsed: list[ParsedAnswer] = []

        def schema() -> Finding:
            parsed.append(parse_answer(answer, self._evaluation))
            return parsed[0].problem and "the answer does not fit the product's schema"

        verdicts = [_verdict("schema", Stage.OUTPUT, schema)]
        if verdicts[0].verdict is Verdict.PASS and self._grounded:
            verdicts.append(_verdict("grounded", Stage.OUTPUT, lambda: self._beyond_facts(parsed[0], asked)))
        read = parsed[0] if parsed else ParsedAnswer(answer, None)
        said = [answer] if read.fields is None else list(map(str, read.fields.values()))
        verdicts.append(_verdict("personal_data", Stage.OUTPUT, lambda: self._discloses(said, asked)))
        verdicts.append(_verdict("toxicity", Stage.OUTPUT, lambda: self._toxic(said)))
        text, redacted = self._stored_answer(read)
        return GuardrailReport(stage=Stage.OUTPUT, verdicts=tuple(verdicts), text=text, redacted=redacted)

    def _stored(self, text: str) -> tuple[str, dict[str, int]]:
        if len(text) > LONGEST_STORED_CHARACTERS:
            return "[longer than can be looked at]", {}
        return redact(text, self._spec.redact)

    def _stored_answer(self, read: ParsedAnswer) -> tuple[str, dict[str, int]]:
        """Field by field where there are fields: redacted as a text, JSON hides what stands beside its escapes."""
        if read.fields is None or len(read.text) > LONGEST_STORED_CHARACTERS:
            return self._stored(sound(read.text))
        clean = {name: redact(str(value), self._spec.redact) for name, value in read.fields.items()}
        redacted = sum((Counter(found) for _, found in clean.values()), Counter[str]())
        if not redacted:
            return read.text, {}
        fields = {name: text if found else read.fields[name] for name, (text, found) in clean.items()}
        return json.dumps(fields, ensure_ascii=False), dict(redacted)

    def _attack(self, text: str) -> Finding:
        if self._blocked is not None and self._blocked.search(folded(text)):
            return "a pattern that the product blocks"
        said = find_injection(text)
        return said and f"an attack: {said}"

    def _beyond_scope(self, text: str) -> Finding:
        if self._out_of_scope.count(text):
            return "a question that is not about what the product knows"
        return None

    def _beyond_facts(self, parsed: ParsedAnswer, asked: Asked) -> Finding:
        fields = parsed.fields or {}
        texts = [str(fields[name]) for name in self._grounded]
        missing = sum(len(ungrounded(text, asked.facts, asked.utterance)) for text in texts)
        if missing:
            return f"{missing} number(s), time(s) or code(s) that neither the facts nor the question hold"
        return None if all(text.strip() for text in texts) else "an empty reply"

    def _discloses(self, said: Sequence[str], asked: Asked) -> Finding:
        """Personal data that the facts hold, such as an airline's hotline, is no disclosure."""
        known = [visible(str(value)) for value in asked.facts.values() if value is not None]
        found = ((seen, one) for seen in map(visible, said) for one in find_personal_data(seen, self._spec.redact))
        kinds = {one.kind for seen, one in found if not any(seen[one.start : one.end] in fact for fact in known)}
        return f"personal data: {', '.join(sorted(kinds))}" if kinds else None

    def _toxic(self, said: Sequence[str]) -> Finding:
        count = sum(map(self._terms.count, said))
        return f"{count} term(s) of the list that the guardrails name" if count else None


def safe_answer(spec: GuardrailSpec, evaluation: EvaluationSpec, *, fallback: bool = False) -> str:
    """The answer that stands for a blocked one, or with `fallback` for one that no release could give.

    For a JSON product it is JSON: text fields hold the reply, label fields what `safe_labels` says.
    """
    reply = spec.fallback_reply if fallback else spec.safe_reply
    if evaluation.answer_format == "text":
        return reply
    fields = {
        name: reply if isinstance(field, TextField) else spec.safe_labels.get(name)
        for name, field in evaluation.fields.items()
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def _verdict(
    guardrail: str, stage: Stage, find: Callable[[], Finding], passing: str = "", started: float | None = None
) -> GuardrailVerdict:
    """The verdict of one check; a check that breaks lets nothing through."""
    started = perf_counter() if started is None else started
    try:
        finding = find()
        verdict = Verdict.FAIL if finding else Verdict.PASS
    except Exception as error:  # noqa: BLE001 - whatever it is, the text was not checked
        finding, verdict = f"the check broke: {type(error).__name__}", Verdict.ERROR
    return GuardrailVerdict(
        guardrail=guardrail,
        stage=stage,
        verdict=verdict,
        reason=finding or passing,
        latency_ms=(perf_counter() - started) * 1000.0,
    )


def _said(redacted: dict[str, int]) -> str:
    return "taken out: " + ", ".join(f"{count} {kind}" for kind, count in sorted(redacted.items())) if redacted else ""


def _wrong_form(utterance: str, clean: str, limit: int) -> Finding:
    if clean != utterance:
        return "the question is not valid Unicode"
    if not utterance.strip():
        return "the question is empty"
    return f"{len(utterance)} characters, at most {limit} are allowed" if len(utterance) > limit else None


def _either(patterns: Sequence[str]) -> re.Pattern[str] | None:
    """One pattern for all, over folded text; None for none."""
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE) if patterns else None
