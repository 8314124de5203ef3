"""From the log to the store nothing is lost or doubled, and an answer is traced wherever its record is."""

import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.errors import StorageError
from ml_platform.lineage.provenance.frames import Kind
from ml_platform.lineage.provenance.recorder import KINDS
from ml_platform.lineage.provenance.segments import Segment, segments_in
from ml_platform.lineage.provenance.shipping import Shipped, Shipper
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.lineage.provenance.trace import find_in_log, trace
from ml_platform.lineage.provenance.wal import WriteAheadLog
from ml_platform.lineage.provenance.writing import Progress
from tests.samples.provenance import LATER, NOW, PRODUCT, make_feedback, make_outcome, make_record, response_id_of

DOWN = "postgresql://nobody@localhost:1/nowhere"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def store(tmp_path: Path) -> ProvenanceStore:
    return ProvenanceStore(f"sqlite:///{tmp_path / 'provenance.sqlite'}")


def append(log: WriteAheadLog, *values: object) -> None:
    for future in [log.submit(value.log_bytes(), KINDS[type(value)]) for value in values]:  # type: ignore[attr-defined,index]
        future.result(60)


def ids(store: ProvenanceStore) -> list[str]:
    return [record.response_id for record in store.scan(PRODUCT, NOW, LATER)]


def test_segments_are_shipped_while_they_are_written_and_removed_once_they_are_done(
    folder: Path, store: ProvenanceStore
) -> None:
    log, shipper = WriteAheadLog(folder), Shipper(folder, store)
    append(log, make_record(1), make_feedback(1), make_outcome(1))
    assert shipper.ship() == Shipped(frames=3)
    assert shipper.ship() == Shipped()
    append(log, make_record(2))
    assert shipper.ship() == Shipped(frames=1)
    assert len(segments_in(folder)) == 1
    log.close()
    assert shipper.ship() == Shipped(segments=1)
    assert segments_in(folder) == ()
    assert ids(store) == [response_id_of(1), response_id_of(2)]
    assert len(store.join([make_record(1)])[0].feedback) == 1


def test_a_turn_over_segments_to_which_nothing_was_added_asks_the_store_nothing(
    folder: Path, store: ProvenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, shipper = WriteAheadLog(folder), Shipper(folder, store)
    append(log, make_record(1))
    shipper.ship()
    with monkeypatch.context() as closed:
        closed.setattr(store, "shipped_until", None)
        assert shipper.ship() == Shipped()
    append(log, make_record(2))
    assert shipper.ship() == Shipped(frames=1)
    log.close()


def test_what_a_store_that_was_put_back_has_lost_is_shipped_again_with_the_next_record(
    folder: Path, store: ProvenanceStore, tmp_path: Path
) -> None:
    log, shipper = WriteAheadLog(folder), Shipper(folder, store)
    append(log, make_record(1))
    shipper.ship()
    store.close()
    for path in tmp_path.glob("provenance.sqlite*"):
        path.unlink()
    vars(store).pop("_engine")
    append(log, make_record(2))
    assert shipper.ship() == Shipped(frames=2)
    assert ids(store) == [response_id_of(1), response_id_of(2)]
    log.close()


def test_many_frames_go_in_several_transactions(
    folder: Path, store: ProvenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_platform.lineage.provenance.shipping.FRAMES_AT_ONCE", 4)
    log = WriteAheadLog(folder, segment_bytes=20_000)
    append(log, *(make_record(number) for number in range(30)))
    log.close()
    assert Shipper(folder, store).ship().frames == 30
    assert ids(store) == [response_id_of(number) for number in range(30)]


@pytest.mark.parametrize("at", ["before the file goes", "before it is forgotten", "between two transactions"])
def test_a_shipper_that_dies_anywhere_is_continued_by_the_next(
    folder: Path, store: ProvenanceStore, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def die(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("ml_platform.lineage.provenance.shipping.FRAMES_AT_ONCE", 4)
    log = WriteAheadLog(folder)
    append(log, *(make_record(number) for number in range(10)))
    log.close()
    with monkeypatch.context() as patch:
        if at == "before the file goes":
            patch.setattr("ml_platform.lineage.provenance.shipping.remove", die)
        elif at == "before it is forgotten":
            patch.setattr(ProvenanceStore, "forget", die)
        else:
            write, calls = ProvenanceStore.write, []

            def write_once(self: ProvenanceStore, progress: Progress) -> int:
                calls.append(progress)
                return write(self, progress) if len(calls) == 1 else die()

            patch.setattr(ProvenanceStore, "write", write_once)
        with pytest.raises(KeyboardInterrupt):
            Shipper(folder, store).ship()
    Shipper(folder, store).ship()
    assert segments_in(folder) == ()
    assert ids(store) == [response_id_of(number) for number in range(10)]
    assert store.conflicts() == ()


def test_a_write_that_a_dead_process_left_half_is_cut(folder: Path, store: ProvenanceStore) -> None:
    log = WriteAheadLog(folder)
    append(log, make_record(1), make_record(2))
    log.close()
    (path,) = segments_in(folder)
    whole = path.read_bytes()
    half = whole[: whole.index(make_record(2).log_bytes()) + 99]
    path.write_bytes(half)
    assert Shipper(folder, store).ship() == Shipped(frames=1, segments=1)
    assert ids(store) == [response_id_of(1)]


def test_damage_is_on_record_its_file_is_kept_and_the_rest_is_shipped(
    folder: Path, store: ProvenanceStore, caplog: pytest.LogCaptureFixture
) -> None:
    log = WriteAheadLog(folder)
    for number in (1, 2, 3):
        append(log, make_record(number))
    log.close()
    (path,) = segments_in(folder)
    path.write_bytes(path.read_bytes().replace(make_record(2).log_bytes(), make_record(2).log_bytes().swapcase()))
    assert Shipper(folder, store).ship() == Shipped(frames=2, conflicts=1, segments=1)
    assert ids(store) == [response_id_of(1), response_id_of(3)]
    assert [conflict.kind for conflict in store.conflicts()] == ["damage"]
    assert "had been acknowledged" in store.conflicts()[0].reason
    assert [kept.suffix for kept in folder.iterdir() if kept.stem == path.stem] == [".damaged"]
    assert "1 conflicts" in caplog.text


def test_while_one_ships_another_does_not(folder: Path, store: ProvenanceStore) -> None:
    log, shipper, other = WriteAheadLog(folder), Shipper(folder, store), Shipper(folder, store)
    append(log, make_record(1))
    with shipper._at_it_alone() as alone:
        assert alone
        assert other.ship() == Shipped()
    assert other.ship() == Shipped(frames=1)
    log.close()


def test_a_store_that_is_down_loses_nothing_and_stops_nothing(
    folder: Path, store: ProvenanceStore, caplog: pytest.LogCaptureFixture
) -> None:
    log = WriteAheadLog(folder)
    append(log, make_record(1))
    down = Shipper(folder, ProvenanceStore(DOWN), every_s=0.01)
    with pytest.raises(StorageError):
        down.ship()
    down.start()
    append(log, make_record(2))
    down.stop()
    assert "answers wait in the log" in caplog.text
    log.close()
    Shipper(folder, store).ship()
    assert ids(store) == [response_id_of(1), response_id_of(2)]


def test_in_the_background_everything_arrives_and_the_end_waits_for_the_rest(
    folder: Path, store: ProvenanceStore
) -> None:
    log, shipper = WriteAheadLog(folder), Shipper(folder, store, every_s=0.01)
    shipper.start()
    for number in range(20):
        append(log, make_record(number))
    log.close()
    shipper.stop()
    assert ids(store) == [response_id_of(number) for number in range(20)]
    assert segments_in(folder) == ()


def test_an_answer_is_traced_in_the_log_and_in_the_store_with_what_was_said(
    folder: Path, store: ProvenanceStore
) -> None:
    log = WriteAheadLog(folder)
    append(log, make_record(1), make_feedback(2), make_record(2), make_outcome(2))
    assert trace(response_id_of(3), store, folder) is None
    in_log = trace(response_id_of(2), store, folder)
    assert in_log is not None
    assert (in_log.record, in_log.feedback) == (make_record(2), ())
    assert find_in_log(response_id_of(2), folder, store) == make_record(2)
    Shipper(folder, store).ship()
    assert find_in_log(response_id_of(2), folder, store) is None, "only what the store does not have is looked through"
    in_store = trace(response_id_of(2), store, folder)
    assert in_store is not None
    assert (in_store.record, in_store.feedback, in_store.outcomes) == (
        make_record(2),
        (make_feedback(2),),
        (make_outcome(2),),
    )
    log.close()


def test_an_answer_that_is_shipped_between_two_looks_is_still_traced(
    folder: Path, store: ProvenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = WriteAheadLog(folder)
    append(log, make_record(1))
    log.close()

    def ship_first(*arguments: object) -> None:
        Shipper(folder, store).ship()
        return find_in_log(*arguments)  # type: ignore[arg-type,return-value]

    monkeypatch.setattr("ml_platform.lineage.provenance.trace.find_in_log", ship_first)
    found = trace(response_id_of(1), store, folder)
    assert found is not None
    assert found.record == make_record(1)


def test_while_the_store_is_down_the_log_is_what_there_is(folder: Path) -> None:
    log, down = WriteAheadLog(folder), ProvenanceStore(DOWN)
    append(log, make_record(1))
    found = trace(response_id_of(1), down, folder)
    assert found is not None
    assert found.record == make_record(1)
    with pytest.raises(StorageError):
        trace(response_id_of(2), down, folder)
    log.close()


def test_an_id_in_an_utterance_is_not_mistaken_for_the_id(folder: Path, store: ProvenanceStore) -> None:
    log = WriteAheadLog(folder)
    append(log, make_record(1, utterance=f'"response_id":"{response_id_of(2)}"', answer=response_id_of(2)))
    assert trace(response_id_of(2), store, folder) is None
    log.close()


def test_a_segment_in_the_making_is_nobodys_to_take(folder: Path, store: ProvenanceStore) -> None:
    segment = Segment.create(folder)
    assert Shipper(folder, store).ship() == Shipped()
    assert segment.path.exists()
    segment.seal()
    assert Shipper(folder, store).ship() == Shipped(segments=1)
    assert Kind.SEAL not in {Kind.RESPONSE, Kind.FEEDBACK, Kind.OUTCOME}


def test_a_shipper_of_its_own_process_ships_all_before_it_ends(folder: Path, store: ProvenanceStore) -> None:
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from ml_platform.lineage.provenance.shipping import ship_until_terminated\n"
        "import signal, threading\n"
        "real = signal.signal\n"
        "def told(*given):\n    real(*given)\n    print('listens', flush=True)\n"
        "signal.signal = told\n"
        "ship_until_terminated(Path(sys.argv[1]), sys.argv[2])\n"
    )
    log = WriteAheadLog(folder)
    command = [sys.executable, "-c", program, str(folder), store.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["listens\n"] * 2
        append(log, *(make_record(number) for number in range(30)))
        log.close()
        process.terminate()
        assert process.wait(60) == 0
    assert len(ids(store)) == 30
    assert segments_in(folder) == ()
