"""Facts of a question: what it is about, looked up, with the features of this moment, as the release shows them.

A store that is down or hangs never blocks the event loop: what is in memory is read at once, the rest in threads.
"""

import importlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.example import FactValue
from ml_platform.contracts.policy import ActionPolicy
from ml_platform.contracts.provenance import Entity, FeaturesRead, Scalar
from ml_platform.contracts.serving import ServingContent, ServingTime
from ml_platform.errors import InvalidInputError, UnknownEntityError
from ml_platform.families.lora.templates import spoken
from ml_platform.serving.brought import Brought, read_brought, without_personal_data
from ml_platform.serving.guardrails.personal_data import sound
from ml_platform.serving.threads import CallThreads

if TYPE_CHECKING:
    from ml_platform.features.reading import OnlineReader

STORE_SECONDS = 1.0
"""The longest that a question waits for the feature store; it then has the rest of its deadline for the answer."""

COMPLAINTS_EVERY_SECONDS = 10.0
logger = logging.getLogger(__name__)
FactsHook = Callable[[Mapping[str, Any]], Mapping[str, FactValue]]


class FactsError(Exception):
    """The release's code cannot make facts of this row; it becomes an error of the release, and its message is kept."""


@dataclass(frozen=True, slots=True)
class KnownFacts:
    """The facts of a prompt and where they come from.

    `unknown` names the features without a value, missing or too old. `problem` says why something could not be read
    at all, "" if everything was; without `answerable` not even what the question is about is known.
    """

    entity: Entity
    facts: dict[str, FactValue]
    features: FeaturesRead | None
    unknown: tuple[str, ...] = ()
    problem: str = ""
    answerable: bool = True


@dataclass(frozen=True, slots=True)
class _Stored:
    """A request's columns with those that were looked up, and its features; `problem`: the store failed."""

    row: dict[str, Any]
    features: FeaturesRead | None
    problem: str = ""


class FactsSource:
    """The facts of one release; `kinds` are the personal data that are taken out of what requests bring.

    `policy` is the release's own action policy, which may tell the model the level of the facts.
    """

    def __init__(
        self,
        content: ServingContent,
        reader: "OnlineReader | None",
        hook: FactsHook | None,
        *,
        kinds: tuple[str, ...] = (),
        policy: ActionPolicy | None = None,
        threads: CallThreads | None = None,
    ) -> None:
        self._content, self._reader, self._hook, self._kinds = content, reader, hook, kinds
        self._policy = policy
        self._threads = threads or CallThreads("feature-store")
        self._complain_at = 0.0
        spec = content.spec
        self._looked_up = tuple(key for lookup in spec.lookups.values() for key in lookup.key)
        self._features = content.features.feature_names if content.features else ()
        shown = set(self._features) if hook else set(self._features) & set(content.facts)
        self._shown = tuple(name for name in self._features if name in shown)

    def entity_of(self, metadata: Mapping[str, Scalar]) -> Entity:
        """What a request says it is about, as it may be stored before anything was looked up; {} if it does not."""
        try:
            return without_personal_data(read_brought(self._content, metadata), (), self._kinds).entity
        except InvalidInputError:
            return {}

    async def find(self, metadata: Mapping[str, Scalar], *, timeout_seconds: float) -> KnownFacts:
        """The facts for a request.

        Raises InvalidInputError for metadata that is missing or of a wrong type, UnknownEntityError for what is in no
        lookup, and FactsError when the release's hook breaks. A store that fails is no error: see KnownFacts.
        """
        # Before anything else sees it, but for the keys of lookups: those are known once a table holds them.
        brought = without_personal_data(read_brought(self._content, metadata), self._looked_up, self._kinds)
        seconds = min(STORE_SECONDS, timeout_seconds)
        try:
            stored = self._at_hand(brought)
            if stored is None:
                stored = await self._threads.call(lambda: self._stored(brought), timeout_seconds=seconds)
        except UnknownEntityError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever breaks in the store, the product's policy decides
            stored = _Stored(brought.row, None, self._complained(error))
        answerable = not stored.problem or not self._content.spec.lookups
        if not answerable:
            entity = without_personal_data(brought, (), self._kinds).entity
            return KnownFacts(entity, {}, None, self._shown, stored.problem, answerable=False)
        values = stored.features.values if stored.features is not None else {}
        row = {**stored.row, **{name: values.get(name) for name in self._features}}
        unknown = tuple(name for name in self._shown if row[name] is None)
        return KnownFacts(brought.entity, self._facts(row), stored.features, unknown, stored.problem)

    async def open(self, *, timeout_seconds: float) -> str:
        """Opens what is published, so that the first question need not wait for it; why not, or "" when it is open."""
        reader = self._reader
        if reader is None:
            return ""

        def opened() -> None:
            if self._features:
                # It takes seconds, which the first question after the first publication would wait for.
                importlib.import_module("feast")
            reader.pinned()

        try:
            await self._threads.call(opened, timeout_seconds=timeout_seconds)
        except Exception as error:  # noqa: BLE001 - the release serves without, as its product wants
            return self._complained(error)
        return ""

    @property
    def publication(self) -> str | None:
        """The name of the publication whose features are in memory, None where none are."""
        published = None if self._reader is None else self._reader.at_hand()
        return None if published is None else published.publication.folder

    def _at_hand(self, brought: Brought) -> "_Stored | None":
        """What is in memory for a request, None where a file has to be read."""
        row = dict(brought.row)
        if self._reader is None:
            return _Stored(row, None)
        published = self._reader.at_hand()
        if published is None:
            return None
        for name in self._content.spec.lookups:
            found = published.cached_look_up(name, row)
            if found is None:
                return None
            row |= found
        if not self._features:
            return _Stored(row, None)
        features = published.cached(row, self._now())
        return None if features is None else _Stored(row, features)

    def _stored(self, brought: Brought) -> "_Stored":
        """What one publication holds for a request: all of it tells of the same moment."""
        row = dict(brought.row)
        if self._reader is None:
            return _Stored(row, None)
        published = self._reader.pinned()
        for name in self._content.spec.lookups:
            found = published.look_up(name, row)
            if found is None:
                raise UnknownEntityError(self._nowhere(name))
            row |= found
        features = published.read(row, self._now()) if self._features else None
        return _Stored(row, features)

    def _complained(self, error: Exception) -> str:
        """Why the store cannot be read, in words for a record; the whole of it goes to the log, now and then."""
        if isinstance(error, TimeoutError):
            return "the feature store did not answer in time"
        now = time.monotonic()
        if now >= self._complain_at:
            self._complain_at = now + COMPLAINTS_EVERY_SECONDS
            logger.warning("the feature store cannot be read: %s: %s", type(error).__name__, error)
        return f"the feature store cannot be read: {type(error).__name__}"

    def _now(self) -> datetime | None:
        return datetime.now(UTC) if self._content.spec.time is ServingTime.CLOCK else None

    def _nowhere(self, lookup: str) -> str:
        keys = ", ".join(self._content.spec.lookups[lookup].key)
        return (
            f"'{lookup}' holds no row for the {keys} of this request: it is not known yet, or too old, or misspelt. "
            "Correct the metadata."
        )

    def _facts(self, row: dict[str, Any]) -> dict[str, FactValue]:
        facts = self._found(row)
        return facts if self._policy is None else self._policy.show(facts)

    def _found(self, row: dict[str, Any]) -> dict[str, FactValue]:
        if self._hook is None:
            return {name: _fact(row.get(name)) for name in self._content.facts}
        try:
            return {sound(name): _fact(value) for name, value in self._hook(row).items()}
        except Exception as error:
            # Its words may hold what the request brought, so only its kind is told.
            raise FactsError(f"the hook {self._content.spec.facts} raised {type(error).__name__}") from error


def _fact(value: Any) -> FactValue:
    """A value as it stands in a prompt: plain, and None for NaN and for infinities, which are no values."""
    if isinstance(value, str):
        return sound(value)
    if value is None or isinstance(value, bool | int):
        return value
    if hasattr(value, "item"):
        return _fact(value.item())
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    return spoken(value)
