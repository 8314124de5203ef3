"""How a record lies in a segment of the log, and what of a segment can be read after a crash or damage."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

MAGIC = b"mPr1"
_FIELDS = struct.Struct("<4sBIQ")
_CRC = struct.Struct("<I")
HEAD_BYTES = _FIELDS.size + _CRC.size
LARGEST_PAYLOAD = 1 << 24


class Kind(IntEnum):
    """What a frame holds."""

    RESPONSE = 1
    FEEDBACK = 2
    OUTCOME = 3
    SEAL = 255


@dataclass(frozen=True)
class Frame:
    """One record between two offsets of its segment.

    `synced` is how much of the segment was known to be on the disk when the frame was written: damage before that is
    no torn write, for it had been acknowledged.
    """

    kind: Kind
    payload: bytes
    start: int
    end: int
    synced: int


@dataclass(frozen=True)
class Damage:
    """Bytes between two offsets that had been acknowledged and cannot be read."""

    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """What a segment holds from an offset on: whole frames, damage between them, and where the whole part ends.

    Beyond `end` there is nothing, or a write that was cut short and that nobody was told of.
    """

    frames: tuple[Frame, ...]
    damage: tuple[Damage, ...]
    end: int

    @property
    def sealed(self) -> bool:
        """Whether its writer ended the segment, so that nothing follows."""
        return bool(self.frames) and self.frames[-1].kind is Kind.SEAL


def frame_bytes(kind: Kind, payload: bytes, synced: int) -> bytes:
    """The frame of a payload: magic, kind, length, `synced`, CRC-32 of all of it, payload."""
    fields = _FIELDS.pack(MAGIC, kind, len(payload), synced)
    return fields + _CRC.pack(zlib.crc32(payload, zlib.crc32(fields))) + payload


def read_frames(data: bytes, offset: int = 0) -> Reading:
    """What `data` holds, which lies at `offset` of its segment; total: any bytes at all have a reading."""
    frames: list[Frame] = []
    damage: list[Damage] = []
    position = 0
    while position < len(data):
        frame = _frame_at(data, position, offset)
        if frame is None:
            frame = next(_acknowledged_after(data, position, offset), None)
            if frame is None:
                break
            damage.append(Damage(offset + position, frame.start))
        frames.append(frame)
        position = frame.end - offset
    return Reading(tuple(frames), tuple(damage), offset + position)


def frame_around(data: bytes, place: int, offset: int = 0) -> Frame | None:
    """The whole frame that holds the byte at `place`, found without reading those before it; None if there is none."""
    position = place
    while (position := data.rfind(MAGIC, 0, position)) >= 0:
        frame = _frame_at(data, position, offset)
        if frame is not None:
            return frame if frame.end - offset > place else None
    return None


def _frame_at(data: bytes, position: int, offset: int) -> Frame | None:
    body = position + HEAD_BYTES
    if body > len(data):
        return None
    magic, kind, length, synced = _FIELDS.unpack_from(data, position)
    if magic != MAGIC or length > LARGEST_PAYLOAD or body + length > len(data):
        return None
    payload = data[body : body + length]
    (crc,) = _CRC.unpack_from(data, position + _FIELDS.size)
    if crc != zlib.crc32(payload, zlib.crc32(data[position : position + _FIELDS.size])) or kind not in _KINDS:
        return None
    return Frame(Kind(kind), payload, offset + position, offset + body + length, synced)


_KINDS = frozenset(Kind)


def _acknowledged_after(data: bytes, position: int, offset: int) -> Iterator[Frame]:
    """Whole frames behind a bad place that were written once that place was known to be on the disk."""
    bad = position
    while (position := data.find(MAGIC, position + 1)) >= 0:
        frame = _frame_at(data, position, offset)
        if frame is not None and frame.synced > offset + bad:
            yield frame
