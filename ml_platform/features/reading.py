"""The online reader: follows the publications of one shelf, and reads from one whole publication at a time."""

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.contracts.home import Home
from ml_platform.contracts.provenance import FeaturesRead
from ml_platform.contracts.serving import LookupSpec
from ml_platform.errors import MlPlatformError, OperationError, StorageError
from ml_platform.features.lookups import Row
from ml_platform.features.opened import OpenPublication
from ml_platform.features.publication import CURRENT, current_publication, shelf_of

LOOK_EVERY_SECONDS = 0.2
_log = logging.getLogger(__name__)
_Identity = tuple[int, int, int]


class OnlineReader:
    """Reads what is online for one set of definitions; thread-safe, and cheap enough for every question.

    A new publication is looked for at most every LOOK_EVERY_SECONDS and opened beside the questions: until it is open,
    the former answers. Where its files are missing or damaged, the former goes on too, as long as its own files are
    there; then every read raises StorageError until the next publication. Without any, OperationError.
    """

    def __init__(
        self,
        home: Home,
        product: str,
        features: FeatureSpec | None,
        definitions_sha256: str | None,
        lookups: Mapping[str, LookupSpec],
    ) -> None:
        self._product, self._features, self._lookups = product, features, lookups
        self._shelf: Path = shelf_of(home, product, definitions_sha256, lookups)
        self._opened: OpenPublication | None = None
        self._seen: _Identity | None = None
        self._failed: MlPlatformError | None = None
        self._look_at = 0.0
        self._looking, self._opening = threading.Lock(), threading.Lock()
        self._looker: threading.Thread | None = None

    def published_at(self) -> datetime:
        """The moment that is online. Raises OperationError when nothing is."""
        return self.pinned().publication.at

    def look_up(self, lookup: str, row: Row) -> Row | None:
        """The columns of a lookup for the key that `row` names, None where it has none."""
        return self.pinned().look_up(lookup, row)

    def read(self, row: Row, now: datetime | None) -> FeaturesRead:
        """Every feature of the entities that `row` names; see OpenPublication.read."""
        return self.pinned().read(row, now)

    def pinned(self) -> OpenPublication:
        """What is online now, as one value: lookups and features read from it tell of the same moment."""
        opened = self._opened
        if opened is not None and time.monotonic() < self._look_at:
            return opened
        with self._looking:
            if time.monotonic() >= self._look_at:
                self._look()
                self._look_at = time.monotonic() + LOOK_EVERY_SECONDS
            opened, failed = self._opened, self._failed
        if opened is None:
            raise failed or OperationError(self._nothing())
        return opened

    def at_hand(self) -> OpenPublication | None:
        """What is open, without waiting for any file: a look that is due is made beside. None where nothing is open."""
        if time.monotonic() >= self._look_at and (self._looker is None or not self._looker.is_alive()):
            self._looker = threading.Thread(target=self._look_beside, name="look-for-features", daemon=True)
            self._looker.start()
        return self._opened

    def refresh(self) -> OpenPublication:
        """Looks at once and waits until the newest publication is open."""
        with self._looking:
            self._open(self._current_identity())
            self._look_at = time.monotonic() + LOOK_EVERY_SECONDS
            opened, failed = self._opened, self._failed
        if opened is None:
            raise failed or OperationError(self._nothing())
        return opened

    def close(self) -> None:
        """Lets go of the files; a later read opens them again."""
        with self._opening:
            opened, self._opened, self._seen = self._opened, None, None
            self._look_at = 0.0
        if opened is not None:
            opened.close()

    def _look_beside(self) -> None:
        with suppress(MlPlatformError):  # whoever reads next gets it
            self.pinned()

    def _look(self) -> None:
        """Notices a new publication or lost files; opens at once only where there is nothing to answer from."""
        identity = self._current_identity()
        if self._opened is None:
            self._open(identity)
        elif identity is not None and identity != self._seen:
            threading.Thread(target=self._open, args=(identity,), name="open-features", daemon=True).start()
        elif not self._opened.is_there():
            self._opened, self._seen = None, None
            self._open(identity)

    def _open(self, identity: _Identity | None) -> None:
        """Opens what `current.json` names, unless that is what is open or has just failed."""
        with self._opening:
            if identity is not None and identity == self._seen and self._opened is not None:
                return
            try:
                opened = self._newest()
            except MlPlatformError as error:
                if str(error) != str(self._failed):
                    _log.error("%s", error)
                self._failed = error
            else:
                self._opened, self._failed = opened, None
            self._seen = identity

    def _newest(self) -> OpenPublication:
        """The current publication; where it is replaced and removed while it is opened, the one after it."""
        for _ in range(3):
            identity = self._current_identity()
            publication = current_publication(self._shelf)
            if publication is None:
                raise OperationError(self._nothing())
            if self._features is not None and publication.features_sha256 is None:
                raise StorageError(f"{self._shelf / CURRENT}: holds no features of {self._product}. Publish again.")
            try:
                return OpenPublication(publication, self._shelf, self._features, self._lookups)
            except StorageError:
                if identity == self._current_identity():
                    raise
        raise StorageError(
            f"{self._shelf}: publications are replaced faster than they can be opened. Publish less often."
        )

    def _current_identity(self) -> _Identity | None:
        try:
            stat = (self._shelf / CURRENT).stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _nothing(self) -> str:
        return (
            f"{self._shelf / CURRENT}: no features of {self._product} are online yet. Publish them: run the asset "
            "online_features, or `mlp run`."
        )
