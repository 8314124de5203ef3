"""Looks of controllers: the latest, a history that stays small, and the lease that one of two controllers holds."""

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from ml_platform.contracts.monitoring import Action, Decision, Look
from ml_platform.errors import ContractError, StorageError
from ml_platform.lineage import looks as looks_module
from ml_platform.lineage.looks import LookStore

NOW = datetime(2013, 4, 1, 6, 0, tzinfo=UTC)


def look(seconds: float = 0.0, *, product: str = "assistant", action: Action = Action.HOLD, step: int = 1) -> Look:
    at = NOW + timedelta(seconds=seconds)
    decision = Decision(product=product, action=action, release_id="a" * 64, reason="waits", epoch=1, at=at)
    return Look(
        product=product,
        looked_at=at,
        controller="here",
        production=None,
        canary="a" * 64,
        shadow=None,
        exposure=0.05,
        step=step,
        frozen=None,
        decision=decision,
    )


@pytest.fixture
def store(tmp_path: Path) -> LookStore:
    return LookStore(f"sqlite:///{tmp_path / 'monitoring.sqlite'}")


def test_who_only_reads_makes_no_file(store: LookStore, tmp_path: Path) -> None:
    assert (store.latest("assistant"), store.history("assistant"), store.products()) == (None, (), ())
    assert store.lease_holder("controller") is None
    assert list(tmp_path.iterdir()) == []


def test_the_latest_look_is_what_was_put_last(store: LookStore) -> None:
    for seconds in (0, 1, 2):
        store.put(look(seconds))
    store.put(look(product="another"))
    assert store.latest("assistant") == look(2)
    assert store.products() == ("another", "assistant")
    assert store.history("assistant") == (look(0),)  # the others said nothing new, and came within seconds


def test_what_changed_is_in_the_history_at_once(store: LookStore) -> None:
    said = [look(0), look(1, action=Action.STEP_UP), look(2, step=2), look(60, step=2)]
    for one in said:
        store.put(one)
    assert store.history("assistant") == tuple(said)
    assert store.history("assistant", since=NOW + timedelta(seconds=2)) == tuple(said[2:])
    assert store.history("assistant", most=2) == (said[0], said[3])
    assert store.history("assistant", most=1) == (said[3],)


def test_the_history_stays_small_and_keeps_its_ends(store: LookStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks_module, "KEPT", 20)
    for number in range(100):
        store.put(look(10.0 * number))
    found = store.history("assistant")
    assert len(found) <= 20
    assert (found[0], found[-1]) == (look(0), look(990.0))


def test_a_lease_is_one_holders_until_it_runs_out_or_is_dropped(store: LookStore) -> None:
    assert store.take_lease("controller", "a", 60.0)
    assert store.take_lease("controller", "a", 60.0)
    assert not store.take_lease("controller", "b", 60.0)
    assert store.take_lease("another", "b", 60.0)
    store.drop_lease("controller", "b")
    assert store.lease_holder("controller") == "a"
    store.drop_lease("controller", "a")
    assert store.take_lease("controller", "b", 0.05)
    time.sleep(0.1)
    assert store.lease_holder("controller") is None
    assert store.take_lease("controller", "a", 60.0)


def test_of_many_processes_one_gets_the_lease(store: LookStore) -> None:
    store.put(look())
    children = []
    for number in range(6):
        if (child := os.fork()) == 0:
            code = 2
            try:
                code = int(LookStore(store.url).take_lease("controller", str(number), 60.0))
            finally:
                os._exit(code)
        children.append(child)
    assert sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children) == [0, 0, 0, 0, 0, 1]


def test_a_killed_holder_loses_the_lease_when_it_runs_out(store: LookStore) -> None:
    if (child := os.fork()) == 0:
        LookStore(store.url).take_lease("controller", "dead", 3.0)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert not store.take_lease("controller", "b", 1.0)
    end = time.monotonic() + 60
    while not store.take_lease("controller", "b", 1.0):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "monitoring.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match="looks in sqlite"):
        LookStore(f"sqlite:///{tmp_path / 'monitoring.sqlite'}").put(look())
    with pytest.raises(ContractError, match="expected a file"):
        LookStore("mysql://somewhere/else").put(look())


def test_a_store_may_be_deleted_at_any_time(store: LookStore, tmp_path: Path) -> None:
    store.put(look())
    store.close()
    for path in tmp_path.iterdir():
        path.unlink()
    again = LookStore(store.url)
    again.put(look(1))
    assert again.latest("assistant") == look(1)
    with again._engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM looks")) == 1
