"""Pages of incidents: what people write into one stays, and the times that it tells are true."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.monitor_policy import MonitorPolicy
from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.policy import SlotName
from ml_platform.release import incidents
from tests.samples.rollouts import WATCHED, Rollout, go_on, make_rollout, slots


@pytest.fixture
def world(tmp_path: Path) -> Rollout:
    return make_rollout(tmp_path / "home")


def page_of(world: Rollout) -> Path:
    (path,) = world.home.incidents.rglob("*.md")
    return path


def test_a_page_saved_in_another_encoding_is_completed_with_every_byte_of_it(world: Rollout, monkeypatch: Any) -> None:
    loop = world.loop()
    go_on(world, loop, canary_errors=0.4)
    page = page_of(world)
    text = page.read_bytes()
    note = "Jörg schaute nach: «die Küche brannte».\r\n".encode("latin-1")
    page.write_bytes(text + note)
    monkeypatch.setattr(incidents, "SETTLES", timedelta(0))
    world.look(loop)
    completed = page.read_bytes()
    assert completed.endswith(note)
    assert b"not over yet" not in completed
    assert b"Time to recovery: " in completed
    assert completed.split(b"- Time to recovery")[0] == text.split(b"- Time to recovery")[0]
    assert world.look(loop).decision.action is Action.HOLD
    assert page.read_bytes() == completed


def test_a_page_that_cannot_be_read_is_told_once_and_stops_neither_moves_nor_other_pages(
    world: Rollout, caplog: Any
) -> None:
    loop = world.loop()
    go_on(world, loop, canary_errors=0.4)
    page = page_of(world)
    page.unlink()
    page.mkdir()
    for _ in range(3):
        assert world.look(loop).decision.action is Action.HOLD
    assert caplog.text.count("Is a directory") == 1
    assert not loop._complaints
    world.try_out(3)
    go_on(world, loop, canary_errors=0.4)
    assert len([path for path in world.home.incidents.rglob("*.md") if path.is_file()]) == 1


def test_a_hard_limit_was_detected_from_the_first_bad_answer_within_its_window_on(world: Rollout) -> None:
    """One user had an error hours ago, which no limit counts any more: nothing was wrong with the release then."""
    loop = world.loop()
    go_on(world, loop)
    world.answer(1, errors=1.0, answered_at=datetime.now(UTC) - timedelta(hours=20))
    world.answer(30, answered_at=datetime.now(UTC) - timedelta(hours=10))
    assert world.look(loop).decision.action is Action.HOLD
    world.answer(30, errors=1.0)
    decision = world.look(loop).decision
    assert decision.action is Action.ROLL_BACK
    assert {one.verdict.value for one in decision.readings} != {"FAIL"}
    (line,) = (line for line in page_of(world).read_text("utf-8").splitlines() if "Time to detection" in line)
    told = re.fullmatch(r"- Time to detection: ([0-9.]+) s after the first bad answer that counted, .*", line)
    assert told, line
    assert float(told[1]) < 60.0


def test_a_freeze_is_over_when_the_product_goes_on(tmp_path: Path) -> None:
    few = WATCHED | {"moves": WATCHED["moves"] | {"max_per_day": 1}}
    world = make_rollout(tmp_path / "home", watched=MonitorPolicy.parse(few, where="a sample"))
    loop = world.loop()
    assert go_on(world, loop, rounds=6)[-1].action is Action.FREEZE
    page = page_of(world)
    for _ in range(2):
        assert world.look(loop).decision.incident is None
        assert "not over yet" in page.read_text("utf-8")
    world.controller.unfreeze(world.product, "the cause was found", datetime.now(UTC), "operator")
    world.look(world.successor(loop))
    assert "Time to recovery: " in page.read_text("utf-8")


def test_a_pause_is_over_when_the_canary_goes_on_or_goes(world: Rollout) -> None:
    loop = world.loop()
    go_on(world, loop)
    world.try_out(3)
    canary = slots(world)[SlotName.CANARY]
    world.answer(200, errors=0.95)
    assert world.look(loop).decision.action is Action.ROLL_BACK
    assert world.look(loop).decision.action is Action.PAUSE
    (page,) = world.home.incidents.rglob("*-pause.md")
    for _ in range(2):
        assert world.look(loop).decision.incident is None
        assert "not over yet" in page.read_text("utf-8")
    world.controller.abort_canary(world.product, canary, "it has waited enough", datetime.now(UTC), "operator")
    world.look(loop)
    assert "Time to recovery: " in page.read_text("utf-8")
