"""Rate limits that all workers share: one moment a caller in shared memory, whatever many callers there are."""

import hashlib
import mmap
import os
import struct
import tempfile
from dataclasses import dataclass

_SLOT = struct.Struct("=Qd")
SLOTS = 1 << 18
PROBES = 8


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests a second in the long run, and `burst` of them at once."""

    per_second: float
    burst: int

    @property
    def interval_s(self) -> float:
        """The seconds that one request uses up."""
        return 1.0 / self.per_second


class RateTable:
    """A table of callers in a file that workers map: each holds the moment at which all that he used is paid back.

    That is the token bucket as one number (GCRA, ITU-T I.371): no lock, no growth. Two workers that write the same
    place at once lose one request's worth, which a limit can bear. A place whose moment has passed is free; where
    all places that a caller may have are taken, two callers share one.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, SLOTS * _SLOT.size)

    def wait_s(self, caller: str, rate: Rate, now: float) -> float:
        """0.0 when one more request of the caller may pass, which is then counted; else the seconds until it may.

        `now` is seconds of a clock that all workers share.
        """
        number = int.from_bytes(hashlib.blake2b(caller.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        place, paid_back = self._place_of(number, now)
        paid_back = max(paid_back, now)
        wait = paid_back + rate.interval_s - now - rate.burst * rate.interval_s
        if wait > 1e-9:
            return wait
        _SLOT.pack_into(self._memory, place, number, paid_back + rate.interval_s)
        return 0.0

    def close(self) -> None:
        """Lets go of the memory."""
        self._memory.close()

    def _place_of(self, number: int, now: float) -> tuple[int, float]:
        """The caller's place and his moment; a free one where he has none."""
        free: int | None = None
        for step in range(PROBES):
            place = (number + step) % SLOTS * _SLOT.size
            owner, moment = _SLOT.unpack_from(self._memory, place)
            if owner == number:
                return place, moment
            if free is None and moment <= now:
                free = place
        if free is not None:
            return free, now
        place = number % SLOTS * _SLOT.size
        return place, float(_SLOT.unpack_from(self._memory, place)[1])


def new_table_file() -> int:
    """A descriptor of an empty table that has no name and goes with the last process that holds it."""
    with tempfile.TemporaryFile() as file:
        file.truncate(SLOTS * _SLOT.size)
        return os.dup(file.fileno())
