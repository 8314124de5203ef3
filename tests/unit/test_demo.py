"""The demonstration's own parts: its plan, the variant it writes, what it plants, whom it asks, what is left of it."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from ml_platform.cli.demo import MARK, begin_home, enter
from ml_platform.cli.demonstration.board import Board
from ml_platform.cli.demonstration.page import write_page
from ml_platform.cli.demonstration.plan import DemoPlan, Stretch, read_plan
from ml_platform.cli.demonstration.planting import plant, spoilt
from ml_platform.cli.demonstration.plots import MOST_POINTS, thinned
from ml_platform.cli.demonstration.processes import Processes, answers
from ml_platform.cli.demonstration.story import Told
from ml_platform.cli.demonstration.traffic import Travellers, moments, whiles
from ml_platform.cli.demonstration.variant import merge, write_variant
from ml_platform.cli.demonstration.view import render
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.product import PromptSpec
from ml_platform.contracts.products import load_product
from ml_platform.contracts.release import Release, VersionedPart
from ml_platform.errors import BusyError, InvalidInputError, OperationError
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.lineage.contents import find_content, keep_content, keep_contents
from ml_platform.release.moves import Move
from ml_platform.serving.replay.traffic import Asked, Happened, Traffic
from ml_platform.serving.replay.travellers import Answer, GatewayClient
from tests.samples.looks import make_look
from tests.samples.proven import Proven, make_proven, prove

PRODUCT = Path(__file__).resolve().parents[2] / "products" / "flight_assistant"
DAY = date(2013, 4, 11)
MIDNIGHT = datetime(2013, 4, 11, tzinfo=UTC)


@pytest.fixture(scope="module")
def plan() -> DemoPlan:
    return read_plan(PRODUCT)


@pytest.fixture
def proven(tmp_path: Path) -> Proven:
    return make_proven(tmp_path)


def test_the_variant_is_a_product_that_differs_where_the_plan_says_and_nowhere_else(
    plan: DemoPlan, tmp_path: Path
) -> None:
    variant = load_product(write_variant(PRODUCT, plan.short, tmp_path))
    product = load_product(PRODUCT)
    assert variant.name == plan.short.product != product.name
    assert variant.prompt == product.prompt
    assert variant.guardrails == product.guardrails
    assert variant.features == product.features
    assert variant.promotion_policy.gate_names == product.promotion_policy.gate_names
    assert variant.spec.examples.max_examples < product.spec.examples.max_examples
    assert variant.spec.training.rank == product.spec.training.rank
    assert variant.spec.sources == product.spec.sources


def test_writing_the_variant_again_leaves_nothing_of_the_one_before(plan: DemoPlan, tmp_path: Path) -> None:
    folder = write_variant(PRODUCT, plan.short, tmp_path)
    (folder / "left_over.py").write_text("")
    assert not (write_variant(PRODUCT, plan.short, tmp_path) / "left_over.py").exists()


def test_a_change_to_a_file_that_is_not_there_is_refused(plan: DemoPlan, tmp_path: Path) -> None:
    form = plan.short.model_copy(update={"changes": {"promotion.yaml": {"version": "1.0.0"}}})
    with pytest.raises(InvalidInputError, match=r"promotion\.yaml, which is no file of flight_assistant"):
        write_variant(PRODUCT, form, tmp_path)


def test_lists_of_named_members_are_merged_by_name_and_others_replaced() -> None:
    gates = [{"gate": "a", "at_least": 0.9, "min_n": 5}, {"gate": "b", "at_least": 0.8}]
    assert merge(gates, [{"gate": "b", "at_least": 0.5}, {"gate": "c"}]) == [
        {"gate": "a", "at_least": 0.9, "min_n": 5},
        {"gate": "b", "at_least": 0.5},
        {"gate": "c"},
    ]
    assert merge(gates, [{"gate": "a", "absent": True}]) == [{"gate": "b", "at_least": 0.8}]
    assert merge({"steps": [0.1, 0.5], "x": {"y": 1}}, {"steps": [0.3], "x": {"z": 2}}) == {
        "steps": [0.3],
        "x": {"y": 1, "z": 2},
    }


def test_a_product_without_a_plan_has_no_demonstration(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="has no demonstration"):
        read_plan(tmp_path)


def test_an_unknown_fault_is_answered_with_the_known_ones(plan: DemoPlan) -> None:
    with pytest.raises(InvalidInputError, match="skewed_feature, worse_prompt, slow, unsafe"):
        plan.fault("meteor")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("skewed_feature", {"serving"}),
        ("worse_prompt", {"prompt"}),
        ("slow", {"prompt", "serving"}),
        ("unsafe", {"prompt"}),
    ],
)
def test_a_fault_spoils_the_parts_that_it_names_and_never_the_weights(
    plan: DemoPlan, tmp_path: Path, name: str, parts: set[str]
) -> None:
    store, good = kept_release(tmp_path)
    bad, changed = spoilt(store, good, plan.fault(name))
    assert set(changed) == parts
    assert bad.release_id != good.release_id
    assert bad.model == good.model
    same = set(Release.model_fields) - parts
    assert {part: getattr(bad, part) for part in same} == {part: getattr(good, part) for part in same}
    assert find_content(store, PromptSpec, bad.prompt.content_sha256) is not None


def test_a_skewed_feature_reads_every_chance_as_nought(plan: DemoPlan) -> None:
    source = (PRODUCT / "facts.py").read_text()
    for old, new in plan.fault("skewed_feature").sources["facts.py"].items():
        assert old in source
        source = source.replace(old, new)
    found: dict[str, Any] = {}
    exec(compile(source, "facts.py", "exec"), found)  # noqa: S102 - the product's own hook, with the fault in it
    names = (
        *("origin_late_rate_3h", "route_late_rate_30d", "carrier_late_rate_7d", "origin_delay_mean_3h"),
        *("route_delay_mean_30d", "temperature_f", "wind_mph", "precipitation_in", "visibility_miles"),
    )
    row = dict.fromkeys(names, 0.4) | {"origin_departures_3h": 40, "carrier": "UA", "flight_number": 1}
    row |= {"origin": "EWR", "dest": "ORD", "scheduled_departure_local": "2013-04-11T10:00"}
    assert found["facts_of"](row)["late_chance"] == 0


def test_the_planted_release_may_become_the_canary_with_the_verdicts_of_the_good_one(
    proven: Proven, monkeypatch: pytest.MonkeyPatch
) -> None:
    door, store, now = proven.controller, LocalArtifactStore(proven.home.artifacts), datetime.now(UTC)
    prompt = PromptSpec(version="1.0.0", system="{facts}")
    keep_content(store, prompt)
    part = VersionedPart(version="1.0.0", content_sha256=prompt.sha256)
    good = proven.release.model_copy(update={"prompt": part})
    product = good.product
    prove(proven, good, "e" * 64)
    assert isinstance(door.open_canary(product, good.release_id, now, "test"), Move)
    assert isinstance(door.promote(product, good.release_id, now, "test"), Move)
    planted = plant(proven.home, store, good, read_plan(PRODUCT).fault("worse_prompt"))
    assert planted.parts == ("prompt",)
    assert planted.release.prompt.version == "1.0.1"
    assert isinstance(door.open_canary(product, planted.release.release_id, datetime.now(UTC), "test"), Move)
    # Nothing else than the open door is needed to take it back whole.
    door.abort_canary(product, planted.release.release_id, "seen", datetime.now(UTC), "test")
    assert door.state(product).slots == {SlotName.PRODUCTION: good.release_id}


def test_questions_wait_for_the_features_of_their_while() -> None:
    asked = [question(hours) for hours in (1, 5, 7, 13, 30)]
    found = list(whiles(asked, MIDNIGHT, MIDNIGHT + timedelta(days=2), (6, 12)))
    told = [(moment.hour + 24 * (moment.day - 11), [one.name for one in questions]) for moment, questions in found]
    assert told == [(6, ["q1", "q5", "q7"]), (12, ["q13"]), (30, ["q30"])]
    assert [one.hour for one in moments(DAY, DAY + timedelta(days=1), (18, 0))] == [0, 18]


def test_outcomes_are_told_when_they_were_known_and_not_before() -> None:
    gateway = RecordingGateway()
    players = travellers(gateway, [question(1), question(13)], [outcome(1, 8), outcome(13, 40)])
    asyncio.run(players.play(Stretch(first=DAY, last=DAY, questions=10), at_once=2))
    # The flight of the first question had landed by noon; that of the second lands on the next day.
    assert gateway.log == ["publish 6", "ask q1", "tell h1", "publish 12", "ask q13"]
    asyncio.run(players.reach(MIDNIGHT + timedelta(hours=41)))
    assert gateway.log[-2:] == ["tell h13", "publish 41"]
    assert players.board.outcomes == 2
    assert players.board.answered == players.board.asked == 2


def test_a_stretch_ends_as_soon_as_it_is_decided() -> None:
    gateway = RecordingGateway()
    players = travellers(gateway, [question(7) for _ in range(20)], [])
    board = players.board
    asked = asyncio.run(
        players.play(Stretch(first=DAY, last=DAY, questions=20), until=lambda: board.asked >= 3, at_once=1)
    )
    assert asked == board.asked == 3


def test_a_home_that_is_no_demonstrations_is_never_removed(tmp_path: Path) -> None:
    precious = tmp_path / "demo" / "slow"
    precious.mkdir(parents=True)
    (precious / "ledger.sqlite").write_text("precious")
    with pytest.raises(InvalidInputError, match="is no home of a demonstration"):
        begin_home(Home(tmp_path), "slow")
    assert (precious / "ledger.sqlite").read_text() == "precious"


def test_a_demonstration_begins_anew_and_keeps_the_artifacts_that_it_shares(tmp_path: Path) -> None:
    first = begin_home(Home(tmp_path), "slow")
    (first.artifacts / "candidate").mkdir()
    (first.root / "ledger.sqlite").write_text("old")
    again = begin_home(Home(tmp_path), "slow")
    assert not (again.root / "ledger.sqlite").exists()
    assert (again.artifacts / "candidate").is_dir()
    assert (tmp_path / "artifacts" / "candidate").is_dir()


def test_a_home_in_which_somebody_plays_is_left_alone(tmp_path: Path) -> None:
    home = begin_home(Home(tmp_path), "slow")
    (home.root / MARK).write_text("1")
    with pytest.raises(BusyError, match="is being played"):
        begin_home(Home(tmp_path), "slow")


def test_no_ledger_store_or_key_of_elsewhere_is_within_its_reach(
    plan: DemoPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    elsewhere = ("ML_PLATFORM_LEDGER_URL", "ML_PLATFORM_SIGNING_KEY", "ML_PLATFORM_MONITORING_URL")
    for name in (*elsewhere, "MLFLOW_TRACKING_URI", "ML_PLATFORM_ARTIFACT_URL"):
        os.environ[name] = "somewhere else"
    os.environ["ML_PLATFORM_PRODUCTS"] = str(tmp_path)
    home = begin_home(Home(tmp_path), "slow")
    enter(home, PRODUCT.parents[1], plan.short, "flight_assistant")
    assert {name for name, value in os.environ.items() if value == "somewhere else"} == set()
    assert os.environ["ML_PLATFORM_HOME"] == str(home.root)
    assert os.environ["ML_PLATFORM_PRODUCTS"].split(os.pathsep) == [str(home.root / "products"), str(tmp_path)]
    assert home.ledger_url.endswith(f"{home.root / 'ledger.sqlite'}")


def test_children_end_with_the_context_and_one_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Processes(tmp_path, {}, tmp_path / "logs") as processes:
        processes.start("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"])
        processes.start("victim", [sys.executable, "-c", "import sys; print('it hurts'); sys.exit(3)"])
        with pytest.raises(OperationError, match=r"victim ended with 3[\s\S]*it hurts"):
            processes.wait_until(lambda: False, "nothing", 30.0, every=0.05)
        sleeper = processes._children["sleeper"][0]
    assert sleeper.poll() == -signal.SIGTERM
    assert not answers("http://127.0.0.1:9/healthz")


def test_what_a_child_has_started_ends_with_it(tmp_path: Path) -> None:
    sleep = f"[{sys.executable!r}, '-c', 'import time; time.sleep(600)']"
    parent = f"import subprocess, time; print(subprocess.Popen({sleep}).pid, flush=True); time.sleep(600)"
    with Processes(tmp_path, {}, tmp_path / "logs") as processes:
        processes.start("parent", [sys.executable, "-c", parent])
        processes.wait_until(lambda: bool(processes.last_words("parent")), "a grandchild", 30.0, every=0.05)
        grandchild = int(processes.last_words("parent"))
        assert psutil.pid_exists(grandchild)
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE


def test_the_page_holds_every_event_and_nothing_from_outside(proven: Proven, tmp_path: Path) -> None:
    product, release_id = proven.release.product, proven.release.release_id
    door, now = proven.controller, datetime.now(UTC)
    door.open_canary(product, release_id, now, "test")
    door.abort_canary(product, release_id, "it said <b>nonsense</b>", now, "test")
    board = Board(product, "A <i>fault</i>", product_time=MIDNIGHT)
    board.call(release_id, "X")
    board.say("the first line")
    for users in (10, 40, 80):
        at = now + timedelta(seconds=users)
        look = make_look(product, at, users=users, looked_at=at, canary=release_id)
        board.see(door.state(product), list(door.ledger.events(product)), look)
    board.answers[(release_id, "canary", "answered")] = 7
    told = Told(bad=release_id, spoilt=("prompt",))
    plan = read_plan(PRODUCT)
    page = write_page(proven.home, board, told, plan.short, plan.fault("slow")).read_text()
    told_of = [int(number) for number in re.findall(r"<td class=\"time\">#(\d+)", page)]
    assert told_of == [one.sequence for one in door.ledger.events(product)]
    assert "<b>nonsense</b>" not in page
    assert "&lt;b&gt;nonsense" in page
    assert page.count("its numbers") == len(told_of)
    assert page.count("<svg") > 5
    assert not re.search(r"<script|src=\"|https?://(?!www\.w3\.org)", page)


def test_a_plot_of_many_looks_keeps_its_first_and_its_last() -> None:
    reading = make_look("assistant", MIDNIGHT).decision.readings[0]
    points = [(float(second), reading) for second in range(5_000)]
    kept = thinned(points)
    assert len(kept) == MOST_POINTS
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:2]) == points[:2]


def test_each_event_is_told_once_by_the_name_of_its_release(proven: Proven) -> None:
    product, release_id = proven.release.product, proven.release.release_id
    board, door = Board(product, "a fault"), proven.controller
    board.call(release_id, "A")
    for _ in range(3):
        board.see(door.state(product), list(door.ledger.events(product)), None)
    door.open_canary(product, release_id, datetime.now(UTC), "test")
    board.see(door.state(product), list(door.ledger.events(product)), None)
    sequences = [note.event.sequence for note in board.notes if note.event]
    assert sequences == list(range(1, len(sequences) + 1))
    assert board.named(board.notes[-1].text) == f"release A ({release_id[:12]}) became the canary at 5%"
    assert board.state is not None
    assert board.state.slots == {SlotName.CANARY: release_id}
    text = drawn(board)
    assert f"A  {release_id[:12]}" in text
    assert "5 %" in text


def drawn(board: Board) -> str:
    from rich.console import Console

    console = Console(width=160, record=True, file=None, force_terminal=False, quiet=False)
    with console.capture() as captured:
        console.print(render(board))
    return captured.get()


def kept_release(tmp_path: Path) -> tuple[LocalArtifactStore, Release]:
    """A release of the product itself, with its contents in a store."""
    from tests.samples.releases import make_release

    store, product = LocalArtifactStore(tmp_path / "artifacts"), load_product(PRODUCT)
    keep_contents(store, product)
    digests = {
        "prompt": (product.prompt.version, product.prompt.sha256),
        "guardrails": (product.guardrails.version, product.guardrails.sha256),
        "serving": (product.serving.version, product.serving_content.sha256),
    }
    parts = {name: VersionedPart(version=said, content_sha256=sha256) for name, (said, sha256) in digests.items()}
    return store, make_release().model_copy(update=parts)


def question(hours: int) -> Asked:
    at = MIDNIGHT + timedelta(hours=hours)
    return Asked(at=at, name=f"q{hours}", user="u", utterance="?", metadata={"flight_id": f"f{hours}"})


def outcome(hours: int, known: int) -> Happened:
    at = MIDNIGHT + timedelta(hours=known)
    return Happened(at=at, name=f"h{hours}", entity={"flight_id": f"f{hours}"}, values={"late": True})


@dataclass
class RecordingGateway:
    """What a gateway was asked and told, in order; it answers at once."""

    log: list[str] = field(default_factory=list)

    async def ask(self, _: str, asked: Asked) -> Answer:
        self.log.append(f"ask {asked.name}")
        return Answer(200, "answered", "a" * 64, "production", "r", 1.0)

    async def tell(self, _: str, outcomes: Sequence[Happened]) -> None:
        self.log += [f"tell {one.name}" for one in outcomes]


def travellers(gateway: RecordingGateway, asked: list[Asked], happened: list[Happened]) -> Travellers:
    async def publish(at: datetime) -> None:
        gateway.log.append(f"publish {(at - MIDNIGHT) // timedelta(hours=1)}")

    def make(begin: datetime, end: datetime, limit: int) -> Traffic:
        return Traffic("assistant", begin, end, asked[:limit], happened, 0)

    form = read_plan(PRODUCT).short.model_copy(update={"hours": (6, 12)})
    client = cast("GatewayClient", gateway)
    return Travellers(Board("assistant", "a fault"), client, form, ("flight_id",), publish, make)
