"""Loaded releases: everything that answers need of one admitted release, made once and used by every request."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.contracts.home import Home
from ml_platform.errors import ContractError
from ml_platform.serving.breaker import BreakerRule
from ml_platform.serving.deployment import AdmittedRelease
from ml_platform.serving.facts import FactsSource
from ml_platform.serving.guardrails.deterministic import DeterministicGuardrails, safe_answer
from ml_platform.serving.guardrails.judge import JudgeGuardrails
from ml_platform.serving.guardrails.personal_data import redact, sound
from ml_platform.serving.guardrails.protocol import GuardrailChain, Guardrails
from ml_platform.serving.hooks import load_hook

if TYPE_CHECKING:
    import aiohttp

    from ml_platform.features.reading import OnlineReader

JUDGE_VARIABLE = "ML_PLATFORM_JUDGE_URL"
LONGEST_LOOKED_AT = 65_536
OPENING_SECONDS = 120.0
"""The first opening of a feature store loads its library, which takes seconds; without it a release serves too."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedRelease:
    """One release, ready to answer; no part of an answer comes from anywhere else."""

    admitted: AdmittedRelease
    guardrails: Guardrails
    facts: FactsSource
    breaker_rule: BreakerRule
    safe_reply: str
    fallback_reply: str

    @property
    def release_id(self) -> str:
        """The release's id."""
        return self.admitted.release_id

    def storable(self, utterance: str) -> str:
        """A question as it may be stored when the guardrails never saw it: without personal data, and not too long."""
        spec = self.admitted.guardrails
        if len(utterance) > LONGEST_LOOKED_AT:
            return "[longer than can be looked at]"
        return redact(sound(utterance), spec.redact)[0][: spec.max_utterance_characters]

    def cost_usd(self, tokens_in: int, tokens_out: int) -> float:
        """What an answer costs by the release's prices."""
        cost = self.admitted.serving.evaluation.cost
        return (tokens_in * cost.input_usd_per_million + tokens_out * cost.output_usd_per_million) / 1e6


class ReleaseLoader:
    """Loads admitted releases; `judge_url` is where a judge is served, for products whose guardrails ask one.

    It holds one HTTP session for all judges, made in the event loop; close it at the end.
    """

    def __init__(self, home: Home, *, judge_url: str | None = None, judge_key: str = "") -> None:
        self._home, self._judge_url, self._judge_key = home, judge_url, judge_key
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, admitted: AdmittedRelease) -> LoadedRelease:
        """The release, loaded.

        Raises ContractError for a hook that does not load or a judge that is nowhere, SourceDataError or
        ArtifactCorruptError for a list of terms that is not the release's: such a release must not serve.
        """
        serving, spec = admitted.serving, admitted.serving.spec
        hook = load_hook(spec.facts, serving.sources, admitted.release_id) if spec.facts else None
        facts = FactsSource(
            serving,
            self._reader(admitted),
            hook,
            kinds=admitted.guardrails.redact,
            policy=admitted.action_policy,
        )
        loaded = self.assemble(admitted, facts)
        problem = await facts.open(timeout_seconds=OPENING_SECONDS)
        if problem:
            logger.warning("release %s: %s; it serves as its product wants then", admitted.release_id[:12], problem)
        return loaded

    def assemble(self, admitted: AdmittedRelease, facts: FactsSource) -> LoadedRelease:
        """The release with the facts that it shows, from wherever they come; raises like a call."""
        serving, breaker = admitted.serving, admitted.serving.spec.breaker
        return LoadedRelease(
            admitted=admitted,
            guardrails=self._guardrails(admitted),
            facts=facts,
            breaker_rule=BreakerRule(
                error_rate=breaker.error_rate, window_seconds=breaker.window_seconds, min_count=breaker.min_count
            ),
            safe_reply=safe_answer(admitted.guardrails, serving.evaluation),
            fallback_reply=safe_answer(admitted.guardrails, serving.evaluation, fallback=True),
        )

    async def close(self) -> None:
        """Closes the connections to the judge."""
        if self._session is not None:
            await self._session.close()

    def _guardrails(self, admitted: AdmittedRelease) -> Guardrails:
        rules = DeterministicGuardrails(admitted.guardrails, admitted.serving.evaluation)
        judge = admitted.guardrails.judge
        if judge is None:
            return rules
        if self._judge_url is None:
            raise ContractError(
                f"release {admitted.release_id[:12]}: its guardrails ask the judge '{judge.model}', and nobody said "
                f"where that is served. Set {JUDGE_VARIABLE} to its URL."
            )
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession()
        return GuardrailChain(rules, JudgeGuardrails(judge, self._judge_url, self._session, api_key=self._judge_key))

    def _reader(self, admitted: AdmittedRelease) -> "OnlineReader | None":
        serving, release = admitted.serving, admitted.release
        if serving.features is None and not serving.spec.lookups:
            return None
        from ml_platform.features.reading import OnlineReader

        sha = release.features.definitions_sha256 if release.features else None
        return OnlineReader(self._home, release.product, serving.features, sha, serving.spec.lookups)
