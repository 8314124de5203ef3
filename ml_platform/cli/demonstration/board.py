"""The board: what a demonstration shows at any moment, filled by whoever learns something, read by view and page."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ml_platform.contracts.events import Event, EventKind
from ml_platform.lineage.story import tell

if TYPE_CHECKING:
    from ml_platform.contracts.deployment import DeploymentState
    from ml_platform.contracts.monitoring import Look
    from ml_platform.lineage.ledger import Ledger
    from ml_platform.lineage.looks import LookStore

DETAIL = (EventKind.EVIDENCE_RECORDED, EventKind.POLICY_RECORDED)
"""Kinds of events that come by the dozen; the page has them all."""
SECONDS_BETWEEN_LOOKS = 0.5
NEWEST = 400
SHORT = 12


@dataclass(frozen=True)
class Note:
    """One line of the story: when it was told, in seconds since the beginning, in our time and in the product's.

    `event` is the ledger's, None for what no event tells.
    """

    seconds: float
    at: datetime
    product_time: datetime | None
    text: str
    event: Event | None = None


@dataclass
class Board:
    """Everything that is shown. `names` are what people call the releases: A, X, B."""

    product: str
    fault: str
    act: str = ""
    doing: str = ""
    product_time: datetime | None = None
    planned: int = 0
    asked: int = 0
    answers: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    outcomes: int = 0
    names: dict[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    looks: list["Look"] = field(default_factory=list)
    state: "DeploymentState | None" = None
    processes: dict[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    told: Callable[[Note], None] = lambda _: None
    _sequence: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def look(self) -> "Look | None":
        """The controller's newest look."""
        return self.looks[-1] if self.looks else None

    @property
    def seconds(self) -> float:
        """Since the beginning, in our time."""
        return time.monotonic() - self.began

    @property
    def answered(self) -> int:
        """All questions that came back, whatever the answer."""
        return sum(self.answers.values())

    def say(self, text: str) -> None:
        """A line of the story that no event tells."""
        self._note(Note(self.seconds, datetime.now(UTC), self.product_time, text))

    def call(self, release_id: str, name: str) -> None:
        """From here on a release is called so."""
        self.names[release_id] = name

    def named(self, text: str) -> str:
        """A text in which the releases have their names beside the digits of their ids."""
        for release_id, name in self.names.items():
            text = text.replace(release_id[:SHORT], f"{name} ({release_id[:SHORT]})")
        return text

    def title(self, release_id: str | None) -> str:
        """What people call a release."""
        if release_id is None:
            return "–"
        return f"{self.names.get(release_id, '?')} {release_id[:SHORT]}"

    def see(self, state: "DeploymentState", newest: "list[Event]", look: "Look | None") -> None:
        """Takes in what ledger and controller say now; each event is told once."""
        with self._lock:
            self.state = state
            if look is not None and (self.look is None or look.looked_at > self.look.looked_at):
                self.looks.append(look)
            news = [event for event in newest if event.sequence > self._sequence]
            self._sequence = max([self._sequence, *(event.sequence for event in news)])
        for event in news:
            self._note(Note(self.seconds, event.recorded_at, self.product_time, tell(event), event))

    def _note(self, note: Note) -> None:
        self.notes.append(note)
        self.told(note)


class Watcher:
    """Looks at ledger and controller twice a second, in a thread; a context. What fails is tried again."""

    def __init__(self, board: Board, ledger: "Ledger", looks: "LookStore", *, show: Callable[[], None]) -> None:
        self._board, self._ledger, self._looks, self._show = board, ledger, looks, show
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="demo-watcher", daemon=True)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(5.0)
        self.look()

    def look(self) -> None:
        """Once."""
        from ml_platform.errors import MlPlatformError

        try:
            product = self._board.product
            newest = list(self._ledger.events(product, newest=NEWEST))
            self._board.see(self._ledger.state(product), newest, self._looks.latest(product))
        except MlPlatformError as error:
            self._board.doing = f"{self._board.doing.partition(' · ')[0]} · {error}"[:200]

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            self.look()
            self._show()
