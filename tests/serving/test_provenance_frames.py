"""Whatever a crash or a disk does to a segment: what was acknowledged is read, or its loss is seen."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.lineage.provenance.frames import MAGIC, Kind, frame_around, frame_bytes, read_frames

payloads = st.lists(st.binary(max_size=30) | st.just(MAGIC * 2), min_size=1, max_size=6)


def segment_of(found: list[bytes], *, sealed: bool = True) -> bytes:
    """A segment each of whose payloads was synced before the next was written."""
    data = b""
    for payload in found:
        data += frame_bytes(Kind.RESPONSE, payload, len(data))
    return data + (frame_bytes(Kind.SEAL, b"", len(data)) if sealed else b"")


def payloads_in(data: bytes) -> list[bytes]:
    return [frame.payload for frame in read_frames(data).frames if frame.kind is not Kind.SEAL]


@given(payloads)
def test_a_segment_is_read_as_it_was_written_from_any_frame_on(found: list[bytes]) -> None:
    data = segment_of(found)
    reading = read_frames(data)
    assert [frame.payload for frame in reading.frames[:-1]] == found
    assert reading.sealed
    assert (reading.damage, reading.end) == ((), len(data))
    for frame in reading.frames:
        assert read_frames(data[frame.start :], frame.start).frames[0] == frame


@given(payloads, st.data())
def test_a_segment_that_is_cut_anywhere_keeps_every_whole_frame(found: list[bytes], draw: st.DataObject) -> None:
    data = segment_of(found, sealed=False)
    cut = draw.draw(st.integers(0, len(data)))
    reading = read_frames(data[:cut])
    whole = [frame for frame in read_frames(data).frames if frame.end <= cut]
    assert list(reading.frames) == whole
    assert reading.damage == ()
    assert reading.end == (whole[-1].end if whole else 0)


@given(payloads, st.data())
def test_a_write_that_the_crash_scattered_is_no_damage(found: list[bytes], draw: st.DataObject) -> None:
    """Pages of an unsynced write reach the disk in any order: what is whole behind a hole was never acknowledged."""
    before = segment_of(found, sealed=False)
    batch = b"".join(frame_bytes(Kind.RESPONSE, bytes([n]) * 20, len(before)) for n in range(3))
    hole = draw.draw(st.integers(0, len(batch) - 1))
    scattered = before + batch[:hole] + bytes(min(7, len(batch) - hole)) + batch[hole + 7 :]
    if scattered != before + batch:
        reading = read_frames(scattered)
        assert [frame.payload for frame in reading.frames][: len(found)] == found
        assert reading.damage == ()


@given(payloads, st.data())
def test_a_flipped_bit_in_a_sealed_segment_is_seen_and_costs_one_frame(found: list[bytes], draw: st.DataObject) -> None:
    data = bytearray(segment_of(found))
    last = read_frames(bytes(data)).frames[-1].start
    place = draw.draw(st.integers(0, last - 1))
    data[place] ^= 1 << draw.draw(st.integers(0, 7))
    reading = read_frames(bytes(data))
    assert len(reading.damage) == 1
    assert reading.damage[0].start <= place < reading.damage[0].end
    assert reading.sealed
    assert len(payloads_in(bytes(data))) == len(found) - 1


@settings(max_examples=200)
@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda noise: MAGIC + noise), st.integers(0, 10**9))
def test_any_bytes_have_a_reading(noise: bytes, offset: int) -> None:
    reading = read_frames(noise, offset)
    assert offset <= reading.end <= offset + len(noise)


def test_zeros_behind_the_last_write_are_its_end() -> None:
    data = segment_of([b"one", b"two"], sealed=False)
    assert read_frames(data + bytes(4096)).end == len(data)


@given(payloads, st.integers(0, 10**6))
def test_the_frame_around_any_byte_of_a_payload_is_found(found: list[bytes], offset: int) -> None:
    data = segment_of(found)
    for frame in read_frames(data, offset).frames:
        for place in range(frame.end - offset - len(frame.payload), frame.end - offset):
            assert frame_around(data, place, offset) == frame
    assert frame_around(data[:-1] + bytes([data[-1] ^ 1]), len(data) - 1) is None
    assert frame_around(b"nothing", 3) is None
