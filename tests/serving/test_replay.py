"""Past days played to a gateway: in their order, at their pace, the same each time, and nothing hidden."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tiny_product import FIRST_DAY, ROWS_A_DAY
from ml_platform.contracts.evaluation_spec import CostSpec
from ml_platform.contracts.products import load_product
from ml_platform.errors import ContractError, EngineError, InvalidInputError, OperationError, SourceDataError
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.lineage.provenance.shipping import Shipper
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.serving.question import Question, ReplyStatus
from ml_platform.serving.replay.playing import Pace, Player
from ml_platform.serving.replay.tally import Tally
from ml_platform.serving.replay.traffic import Asked, Happened, Traffic, TrafficContext, make_traffic
from ml_platform.serving.replay.travellers import GatewayClient
from ml_platform.snapshots.extract import take_snapshot
from tests.samples.gateway import Running, running_gateway
from tests.samples.provenance import PRODUCT
from tests.samples.replayed import HOOK, write_replayed_product

DAY = datetime(2013, 4, 1, tzinfo=UTC)
COST = CostSpec(input_usd_per_million=1.0, output_usd_per_million=1.0)
AT_ONCE = Pace(speed=None, at_once=4, step=timedelta(hours=6))


@pytest.fixture(scope="module")
def parcels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    """A product with a replay hook, and a snapshot of all its days."""
    folder = write_replayed_product(tmp_path_factory.mktemp("products"))
    store = LocalArtifactStore(tmp_path_factory.mktemp("artifacts"))
    return folder, take_snapshot(load_product(folder), date(2024, 1, 30), store)


def context_of(parcels: tuple[Path, Artifact], days: int = 10, **changes: Any) -> TrafficContext:
    values: dict[str, Any] = {"first": FIRST_DAY, "until": FIRST_DAY + timedelta(days=days), "users": 20}
    return TrafficContext(load_product(parcels[0]), parcels[1], **values | changes)


def test_the_same_days_are_the_same_traffic(parcels: tuple[Path, Artifact]) -> None:
    once, again = make_traffic(context_of(parcels)), make_traffic(context_of(parcels))
    assert once == again
    assert len(once.questions) == 10 * ROWS_A_DAY
    assert [one.at for one in once.questions] == sorted(one.at for one in once.questions)
    assert len({one.user for one in once.questions}) > 5


def test_a_limit_leaves_out_evenly_and_a_higher_one_only_adds(parcels: tuple[Path, Artifact]) -> None:
    few, more = make_traffic(context_of(parcels), 8), make_traffic(context_of(parcels), 16)
    assert (len(few.questions), few.left_out) == (8, 22)
    assert {one.name for one in few.questions} < {one.name for one in more.questions}
    assert len({one.at.date() for one in few.questions}) > 3


def test_only_outcomes_of_what_was_asked_are_sent_and_late_ones_too(parcels: tuple[Path, Artifact]) -> None:
    traffic = make_traffic(context_of(parcels, days=2), 4)
    assert {one.entity["parcel_id"] for one in traffic.outcomes} == {one.name for one in traffic.questions}
    assert traffic.outcomes[-1].at >= traffic.until


def test_days_without_questions_are_said_to_be_so(parcels: tuple[Path, Artifact]) -> None:
    past = context_of(parcels, first=FIRST_DAY - timedelta(days=9), until=FIRST_DAY - timedelta(days=2))
    with pytest.raises(SourceDataError, match="made no question from 2023-12-23 until before 2023-12-30"):
        make_traffic(past)


def test_a_snapshot_that_ends_before_the_last_day_is_refused(parcels: tuple[Path, Artifact]) -> None:
    with pytest.raises(InvalidInputError, match="the snapshot ends before 2024-02-10"):
        make_traffic(context_of(parcels, days=40))


@pytest.mark.parametrize(
    ("hook", "error", "words"),
    [
        ("def traffic(context):\n    return ['a question']\n", ContractError, "made a str"),
        ("def traffic(context):\n    return 1 / 0\n", SourceDataError, "raised ZeroDivisionError"),
        ("def other(context):\n    return []\n", ContractError, "no function 'traffic'"),
    ],
    ids=["something else", "an error", "no such function"],
)
def test_a_hook_that_cannot_be_meant_is_named(
    parcels: tuple[Path, Artifact], hook: str, error: type[Exception], words: str
) -> None:
    folder = parcels[0]
    (folder / "replay.py").write_text(hook, encoding="utf-8")
    try:
        with pytest.raises(error, match=words):
            make_traffic(context_of(parcels))
    finally:
        (folder / "replay.py").write_text(HOOK, encoding="utf-8")


def make_day(questions: int = 12, hours: int = 24) -> Traffic:
    """A day on which somebody asks every so often, and outcomes come three hours later."""
    step = timedelta(hours=hours) / questions
    asked = [
        Asked(
            DAY + number * step, f"F{number:03d}", f"traveller-{number % 5}", "late?", {"flight_id": f"F{number:03d}"}
        )
        for number in range(questions)
    ]
    after = timedelta(hours=3)
    happened = [
        Happened(one.at + after, f"{one.name}/landed", {"flight_id": one.name}, {"late": True}) for one in asked
    ]
    return Traffic(PRODUCT, DAY, DAY + timedelta(days=1), asked, happened, 0)


def player_on(gateway: Running, traffic: Traffic, pace: Pace = AT_ONCE, **more: Any) -> Player:
    client = GatewayClient(more.pop("url", gateway.url), gateway.token())
    tally = Tally(PRODUCT, traffic.first, len(traffic.questions), len(traffic.outcomes), COST)
    return Player(traffic, client, more.pop("publish", None), pace, tally, **more)


def play(player: Player) -> Tally:
    async def whole() -> Tally:
        async with player.gateway:
            return await player.play()

    return asyncio.run(whole())


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Running]:
    with running_gateway(tmp_path / "home") as running:
        yield running


def stored(gateway: Running) -> ProvenanceStore:
    store = ProvenanceStore(gateway.home.provenance_url)
    Shipper(gateway.home.provenance_log, store).ship()
    return store


def test_every_question_is_answered_and_every_outcome_joined(gateway: Running) -> None:
    tally = play(player_on(gateway, make_day()))
    assert (tally.asked, tally.count("answered"), tally.outcomes_sent) == (12, 12, 12)
    assert (tally.refused.total(), tally.failed.total()) == (0, 0)
    assert tally.event_time == DAY + timedelta(days=1)
    assert tally.cost_usd > 0
    store = stored(gateway)
    now = datetime.now(UTC)
    found = list(store.scan_answered(PRODUCT, now - timedelta(hours=1), now + timedelta(hours=1)))
    store.close()
    assert [[one.values for one in answered.outcomes] for answered in found] == [[{"late": True}]] * 12


def test_played_again_outcomes_are_the_ones_that_were_known(gateway: Running) -> None:
    for _ in range(2):
        play(player_on(gateway, make_day()))
    store = stored(gateway)
    now = datetime.now(UTC)
    found = list(store.scan_answered(PRODUCT, now - timedelta(hours=1), now + timedelta(hours=1)))
    assert len(found) == 24
    assert {len(answered.outcomes) for answered in found} == {1}
    assert store.conflicts() == ()
    store.close()


def test_what_is_asked_at_a_moment_sees_what_was_published_before_it(tmp_path: Path) -> None:
    happened: list[tuple[str, datetime]] = []
    traffic = make_day(8)
    asked_at = {one.name: one.at for one in traffic.questions}

    async def ask(question: Question) -> None:
        happened.append(("asked", asked_at[str(question.metadata["flight_id"])]))
        await asyncio.sleep(0.01)

    async def publish(at: datetime) -> None:
        await asyncio.sleep(0.01)
        happened.append(("published", at))

    with running_gateway(tmp_path / "home", ask) as running:
        tally = play(player_on(running, traffic, publish=publish))
    assert tally.publications == 4
    assert [at for _, at in happened] == sorted(at for _, at in happened)
    for place, (what, at) in enumerate(happened):
        if what == "asked":
            newest = max(moment for kind, moment in happened[:place] if kind == "published")
            assert timedelta(0) <= at - newest < timedelta(hours=6)


def test_a_slow_gateway_delays_the_past_and_is_not_drowned(tmp_path: Path) -> None:
    now, most = 0, 0

    async def ask(_: Question) -> None:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.02)
        now -= 1

    with running_gateway(tmp_path / "home", ask) as running:
        tally = play(player_on(running, make_day(40), Pace(speed=1e6, at_once=3, step=timedelta(hours=6))))
    assert tally.count("answered") == 40
    assert most == 3


def test_time_goes_by_at_the_pace_that_was_asked_for(gateway: Running) -> None:
    async def timed() -> float:
        player = player_on(gateway, make_day(6), Pace(speed=86_400 / 0.6, at_once=4, step=timedelta(hours=6)))
        begin = asyncio.get_running_loop().time()
        async with player.gateway:
            await player.play()
        return asyncio.get_running_loop().time() - begin

    # The last event of the day is the outcome at 23:00; nothing waits for what came after the day.
    assert 0.57 <= asyncio.run(timed()) < 20.0


def test_fallback_blocked_and_failed_answers_are_told_apart(tmp_path: Path) -> None:
    async def ask(question: Question) -> ReplyStatus:
        number = int(str(question.metadata["flight_id"])[1:])
        if number % 4 == 3:
            raise EngineError("the engine is not there")
        return (ReplyStatus.ANSWERED, ReplyStatus.BLOCKED, ReplyStatus.FALLBACK)[number % 4]

    with running_gateway(tmp_path / "home", ask) as running:
        tally = play(player_on(running, make_day(8)))
    assert {status: tally.count(status) for status in ("answered", "blocked", "fallback")} == {
        "answered": 2,
        "blocked": 2,
        "fallback": 2,
    }
    assert tally.failed == {"engine_unavailable": 2}
    assert tally.replies == 6
    assert sum(arm["answered"] for arm in tally.json()["arms"]) == 2


def test_a_gateway_that_is_not_there_counts_as_failed_and_loses_no_outcome_silently(gateway: Running) -> None:
    traffic = make_day(2)
    nobody = player_on(gateway, traffic, url="http://127.0.0.1:9")
    with pytest.raises(OperationError, match="did not take 1 outcomes"):
        play(nobody)
    assert nobody.tally.failed.total() >= 1


def test_before_anything_is_played_the_gateway_must_serve_the_product(gateway: Running) -> None:
    async def require(url: str, key: str, product: str) -> None:
        async with GatewayClient(url, key) as client:
            await client.require_product(product)

    asyncio.run(require(gateway.url, gateway.token(), PRODUCT))
    with pytest.raises(OperationError, match="not parcel_desk"):
        asyncio.run(require(gateway.url, gateway.token(product=None), "parcel_desk"))
    with pytest.raises(OperationError, match=r"refuses: .*--key-file"):
        asyncio.run(require(gateway.url, "mlp_nobodys", PRODUCT))
    with pytest.raises(OperationError, match="no gateway answers"):
        asyncio.run(require("http://127.0.0.1:9", gateway.token(), PRODUCT))


def test_it_is_known_when_the_gateway_has_opened_what_was_published(gateway: Running) -> None:
    async def found(since: float) -> bool:
        async with GatewayClient(gateway.url, gateway.token()) as client:
            return await client.finds_features(PRODUCT, since, seconds=0.3)

    assert not asyncio.run(found(0.0)), "nothing was ever published"
    gateway.metrics._published(PRODUCT).set(1_000.0)
    assert asyncio.run(found(999.0))
    assert not asyncio.run(found(1_001.0)), "what is open is older than what was published"
