"""Records: what is kept of one answer, made of its route, the release that gave it and its draft."""

import hashlib
from datetime import datetime

from ml_platform.contracts.provenance import ProvenanceRecord, RecordedError, Timings
from ml_platform.contracts.routing import Cohort, Route
from ml_platform.serving.attempt import Draft
from ml_platform.serving.loaded import LoadedRelease
from ml_platform.serving.question import Question


class RecordWriter:
    """Makes records; `user_salt` hides who asked, `code_commit` is the commit that this gateway runs."""

    def __init__(self, user_salt: bytes, code_commit: str | None) -> None:
        self._key = hashlib.sha256(user_salt).digest()
        self._code_commit = code_commit

    def user_sha256(self, user_id: str | None) -> str | None:
        """The user's name under which answers are grouped: the same each time, and nobody can tell who it is."""
        if user_id is None:
            return None
        # Keyed, and quicker than HMAC by its setting up; the salt itself may have any length.
        name = user_id.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(name, digest_size=32, key=self._key, person=b"mlp.user").hexdigest()

    def record(
        self,
        question: Question,
        route: Route,
        loaded: LoadedRelease,
        draft: Draft,
        *,
        answered_at: datetime,
        total_ms: float,
        errors: tuple[RecordedError, ...] = (),
        shadow_of: str | None = None,
    ) -> ProvenanceRecord:
        """The record of an answer; `loaded` gave it, or lent its fallback reply where no release answered."""
        release = loaded.admitted.release
        return ProvenanceRecord(
            response_id=question.response_id,
            answered_at=answered_at,
            product=route.product,
            release_id=route.release_id,
            epoch=route.epoch,
            cohort=Cohort.SHADOW if shadow_of else route.cohort,
            route_reason=route.reason,
            exposure=route.exposure,
            user_draw=route.user_draw,
            shadow_of=shadow_of,
            user_sha256=self.user_sha256(question.user_id),
            entity=draft.entity or {},
            utterance=draft.utterance,
            facts=draft.facts or {},
            features=draft.features,
            prompt=release.prompt if draft.asked_model else None,
            guardrails=release.guardrails,
            verdicts=draft.verdicts,
            adapter=loaded.admitted.adapter_name if draft.asked_model else None,
            answer=draft.stored_answer,
            input_tokens=draft.tokens_in,
            output_tokens=draft.tokens_out,
            cost_usd=loaded.cost_usd(draft.tokens_in, draft.tokens_out),
            timings=Timings(
                queue_ms=draft.queue_ms,
                features_ms=draft.features_ms,
                first_token_ms=draft.first_token_ms,
                total_ms=total_ms,
            ),
            code_commit=self._code_commit,
            errors=(*errors, *draft.errors),
        )
