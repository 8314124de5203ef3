"""The way of one question from release to release, on one deployment that was taken once."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ml_platform.contracts.provenance import RecordedError
from ml_platform.contracts.routing import Cohort, Route, RouteReason
from ml_platform.serving.attempt import Attempt, Draft, ReleaseFailureError
from ml_platform.serving.deployment import Deployment
from ml_platform.serving.loaded import LoadedRelease
from ml_platform.serving.question import Question, ReplyStatus
from ml_platform.serving.routing import route


@dataclass(frozen=True, slots=True)
class Rung:
    """A release that a question may go to now, and the route that says why."""

    route: Route
    loaded: LoadedRelease


class Journey:
    """Where one question has come to; `errors` are for its record, `recording` says that the log has it."""

    def __init__(self, question: Question, deployment: Deployment, started: float) -> None:
        self.question, self.deployment, self.started = question, deployment, started
        self.errors: list[RecordedError] = []
        self.recording = False
        self.route: Route | None = None
        self.rung: Rung | None = None
        self.attempt: Attempt | None = None
        self._failed: set[str] = set()

    @property
    def usual_seconds(self) -> float:
        """The time that the product gives a question, whatever this asker wants."""
        usual = self.question.usual_seconds
        return self.question.deadline.remaining(self.started) if usual is None else usual

    @property
    def spokesman(self) -> LoadedRelease:
        """The release whose words stand for an answer that none gave: the one asked last, or else the first."""
        if self.rung is not None:
            return self.rung.loaded
        releases = self.deployment.releases
        return next(releases[one] for one in (*self.deployment.table.releases, *releases) if one in releases)

    def next_rung(self, shut: AbstractSet[str], now: float) -> Rung | None:
        """The release to ask next, None when nobody is left or it is too late.

        `shut` are the releases whose breaker is open. Raises RefusedError like `route`. An operator asks for one
        release, and no other answers in its place.
        """
        question, deployment = self.question, self.deployment
        if self.route is not None and self.route.cohort is Cohort.OPERATOR:
            self.route = nothing_serves(self.route)
            return None
        unavailable = deployment.missing | shut | self._failed
        first, self.route = self.route is None, route(
            deployment.table,
            user_id=question.user_id,
            response_id=question.response_id,
            unavailable=unavailable,
            override=question.override,
            may_override=question.may_override,
        )  # fmt: skip
        if first and self.route.reason in (RouteReason.FELL_BACK, RouteReason.NOTHING_SERVES):
            self._say_why(self.route, shut)
        if question.deadline.passed(now):
            if first:
                late = "the deadline passed before a release was asked"
                self.errors.append(RecordedError(kind="deadline", message=late))
            self.route = nothing_serves(self.route)
        if self.route.release_id is None:
            return None
        self.rung = Rung(self.route, deployment.releases[self.route.release_id])
        return self.rung

    def another(self, rung: Rung) -> bool:
        """Whether another release could answer if this one does not."""
        table, releases = self.deployment.table, self.deployment.releases
        gone = {rung.loaded.release_id, *self._failed}
        ladder = () if rung.route.cohort is Cohort.OPERATOR else (table.production, table.last_good)
        return any(one in releases and one not in gone for one in ladder if one is not None)

    def leave(self, rung: Rung, failure: ReleaseFailureError | None = None) -> None:
        """Takes note that this release did not answer."""
        self._failed.add(rung.loaded.release_id)
        if failure is not None:
            self.errors.append(failure.recorded(rung.loaded.release_id))

    def fallback(self) -> Draft:
        """The product's fallback reply as a draft, with what is known of the question."""
        loaded, tried = self.spokesman, self.attempt.draft if self.attempt else None
        entity = tried.entity if tried is not None else None
        return Draft(
            utterance=self.stored_utterance(),
            status=ReplyStatus.FALLBACK,
            answer=loaded.fallback_reply,
            stored_answer=loaded.fallback_reply,
            entity=entity if entity is not None else loaded.facts.entity_of(self.question.metadata),
        )

    def stored_utterance(self) -> str:
        """The question without personal data, whether or not guardrails have seen it."""
        seen = self.attempt.draft.utterance if self.attempt else ""
        return seen or self.spokesman.storable(self.question.utterance)

    def _say_why(self, taken: Route, shut: AbstractSet[str]) -> None:
        table = self.deployment.table
        assigned = table.canary if taken.cohort is Cohort.CANARY else table.production
        if assigned is None:
            self.errors.append(RecordedError(kind="not_loaded", message="no release is in production"))
        elif assigned in shut:
            self.errors.append(
                RecordedError(kind="breaker_open", message=f"release {assigned[:12]}: its breaker is open")
            )
        elif assigned in self.deployment.missing:
            self.errors.append(RecordedError(kind="not_loaded", message=f"release {assigned[:12]}: not loaded here"))


def nothing_serves(taken: Route) -> Route:
    """The route of a question that no release answered."""
    return taken.model_copy(update={"release_id": None, "reason": RouteReason.NOTHING_SERVES})
