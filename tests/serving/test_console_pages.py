"""What pages show: the ledger, the controller, answers; and what they say when one of these is down."""

import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.events import AdmissionRefused
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.contracts.monitoring import Action
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import StorageError
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.provenance.store import Answered
from ml_platform.serving.deployment import Deployment
from ml_platform.serving.routing import RoutingTable
from tests.samples.console import RunningConsole, running_console
from tests.samples.followed import World
from tests.samples.looks import make_look, make_reading, make_rollout
from tests.samples.provenance import make_feedback, make_outcome, make_record

START = datetime(2013, 4, 1, 6, tzinfo=UTC)
HOSTILE = "</td><script>alert('x')</script><img src=x onerror=alert(1)>\u202e\u0000{{ 7 * 7 }}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    home = Home(tmp_path)
    world = World(home, home.ledger_url)
    world.first, world.second = world.serve(1), world.try_out(2)  # type: ignore[attr-defined]
    return world


@pytest.fixture
def console(world: World) -> Iterator[RunningConsole]:
    with running_console(world) as running:
        yield running


def words(page: str) -> str:
    """What people read, in one line."""
    inside = re.sub(r"<(script|style)>.*?</\1>", " ", page, flags=re.DOTALL)
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", inside).split()))


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_harmless(page: str) -> None:
    """No element and no attribute that anybody but us wrote."""
    found = Elements(page).found
    assert not {tag for tag, _ in found} & {"img", "iframe", "object", "embed", "base", "foreignobject"}
    assert sum(tag == "script" for tag, _ in found) <= 1, "ours"
    for tag, attributes in found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "/console").startswith(("/console", "data:image/svg+xml,")), (
                tag,
                attributes,
            )
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u0000]", page), "nothing that turns text around"


def test_slots_steps_metrics_waits_and_events_are_there(console: RunningConsole) -> None:
    world: Any = console.world
    for look in make_rollout(
        world.product, START, datetime.now(UTC), looks=12, production=world.first, canary=world.second
    ):
        console.looks.put(look)
    page = console.page()
    read = words(page)
    for said in (world.first[:12], world.second[:12], "95 % of users", "5 % of users , step 1 of 2", "hold"):
        assert said in read, said
    assert "missed_late_rate: labels that mature in 11 h" in read
    assert page.count("<svg") == 9 + 1, "nine metrics and the steps"
    assert "evidence of harm 1.3, stops at 180" in read
    assert f"release {world.second[:12]} became the canary" in read
    assert "7 gates say PASS of release" in read
    assert "No controller" not in read


def test_a_product_without_anything_says_so(tmp_path: Path) -> None:
    home = Home(tmp_path)
    world = World(home, home.ledger_url)
    world.prove(world.release(1))
    with running_console(world) as console:
        read = words(console.page())
    assert "No release was promoted yet" in read
    assert "No controller has looked at this product yet" in read
    assert "is eligible until" in read


def test_a_controller_that_no_longer_looks_is_missed(console: RunningConsole) -> None:
    world: Any = console.world
    console.looks.put(
        make_look(world.product, START, looked_at=datetime.now(UTC) - timedelta(minutes=3), production=world.first)
    )
    assert "No controller looks at this product: the last look was 3 min ago." in words(console.page())
    assert "LATE" in words(console.page("/console"))


def test_a_freeze_tells_who_why_and_how_it_ends(console: RunningConsole) -> None:
    world = console.world
    world.controller.freeze(world.product, "too many moves", world.now, "ops")
    read = words(console.page())
    assert "Frozen. too many moves" in read
    assert "by ops" in read
    assert f"mlp unfreeze {world.product}" in read
    assert "FROZEN" in words(console.page("/console"))


def test_refusals_are_shown_the_newest_first_and_not_without_end(console: RunningConsole) -> None:
    world: Any = console.world
    with Ledger(world.url).write(world.product, world.now, "gateway") as transaction:
        for number in range(8):
            refused = AdmissionRefused(
                release_id=world.first, slot=SlotName.PRODUCTION, reason=f"reason {number}", gateway="gateway-1"
            )
            transaction.append(refused)
    read = words(console.page())
    assert "reason 7" in read
    assert "5 more at this epoch" in read


def test_what_this_gateway_struggles_with_is_told(console: RunningConsole) -> None:
    console.problems["the engine"] = "the engine does not answer."
    read = words(console.page())
    assert "This gateway. the engine does not answer." in read
    assert "not loaded here" in read


def test_an_abort_shows_its_incident_its_limit_and_the_curves_that_led_to_it(console: RunningConsole) -> None:
    world: Any = console.world
    failed = make_reading(
        "error_rate", 90, verdict=Verdict.FAIL, e_value=2e6, reason="the evidence of harm reached 2e6"
    )
    breach = {
        "release_id": world.second,
        "signal": "error",
        "bad": 30,
        "answers": 60,
        "at_most": 0.3,
        "window_seconds": 60.0,
    }
    told = {"readings": (failed,), "breaches": (breach,), "incident": "canary did harm", "reason": "Error rate."}
    now = datetime.now(UTC)
    arms = {"production": world.first, "canary": world.second}
    console.looks.put(
        make_look(
            world.product, START, looked_at=now - timedelta(seconds=2), action=Action.ABORT, decision=told, **arms
        )
    )
    console.looks.put(make_look(world.product, START, looked_at=now, production=world.first, canary=None))
    read = words(console.page())
    assert "The last rollout, as it was measured" in read
    assert "the evidence of harm reached 2e6" in read


def test_whatever_was_written_by_others_is_text_and_nothing_else(console: RunningConsole) -> None:
    world: Any = console.world
    reading = make_reading("error_rate", 9, reason=HOSTILE, waits_for=HOSTILE)
    told = {"readings": (reading,), "reason": HOSTILE, "incident": HOSTILE, "waits_for": (HOSTILE,)}
    look = make_look(
        world.product, START, decision=told, production=world.first, canary=world.second, controller=HOSTILE
    )
    console.looks.put(look.model_copy(update={"looked_at": datetime.now(UTC)}))
    world.controller.freeze(world.product, HOSTILE, world.now, HOSTILE)
    console.problems["x"] = HOSTILE
    for path in ("", "/console"):
        page = console.page(path)
        assert_harmless(page)
    assert "&lt;script&gt;" in console.page()
    assert "\\u202e" in console.page()


def test_an_answer_is_shown_whole_and_harmless(world: World) -> None:
    record = make_record(
        3, product=world.product, utterance=f"Is it? {HOSTILE}", answer=f"No. {HOSTILE}", facts={"a": HOSTILE}
    )
    found = Answered(record, (make_feedback(3, text=HOSTILE),), (make_outcome(3),))
    with running_console(world, parts={"find": lambda _: found}) as console:
        page = console.page(f"/console/responses/{record.response_id}")
        with console.client(product="another") as client:
            other = client.get(f"/console/responses/{record.response_id}")
    assert_harmless(page)
    read = words(page)
    for said in (record.response_id, "Is it?", "No.", record.release_id, "injection", "403.7 ms", "flight_facts"):
        assert str(said) in read, said
    assert other.status_code == 404, "a key for another product learns nothing"


def test_an_answer_that_is_nowhere_is_told(console: RunningConsole) -> None:
    with console.client() as client:
        answer = client.get("/console/responses/resp_00000000")
    assert answer.status_code == 404
    assert "there is no answer of this id" in words(answer.text)


class Broken:
    """A store that raises, or hangs until it is let go, whatever it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error, self.let_go, self.asked = error, threading.Event(), 0

    def __getattr__(self, name: str) -> Any:
        def ask(*_: Any, **__: Any) -> Any:
            self.asked += 1
            if self._error is None:
                self.let_go.wait(60)
            raise self._error or StorageError("it was let go")

        return ask


DOWN = StorageError("the disk is gone <b>")


def test_without_the_ledger_what_this_gateway_serves_is_shown(world: World) -> None:
    broken = Broken(DOWN)
    with running_console(world, parts={"ledger": broken}) as console:
        console.deployments.swap(console.served())
        read = words(console.page())
        assert "The ledger cannot be read: the disk is gone" in read
        assert "What serves is shown as this gateway serves it." in read
        assert console.served().table.production[:12] in read  # type: ignore[index]
        assert "The ledger cannot be read" in words(console.page("/console"))


def test_without_the_ledger_and_nothing_loaded_the_page_says_why_it_is_empty(world: World) -> None:
    with running_console(world, parts={"ledger": Broken(DOWN)}) as console, console.client() as client:
        answer = client.get(f"/console/products/{world.product}")
    assert answer.status_code == 503
    assert "The ledger cannot be read" in words(answer.text)


def test_without_the_looks_the_ledger_is_shown_all_the_same(world: World) -> None:
    with running_console(world, parts={"looks": Broken(DOWN)}) as console:
        read = words(console.page())
    assert "The store of looks cannot be read: the disk is gone" in read
    assert "became the canary" in read
    assert "No controller has looked at this product yet" not in read


def test_looks_of_another_version_are_a_problem_of_theirs(world: World) -> None:
    with running_console(world, parts={"looks": Broken(ValueError("a field that nobody knows"))}) as console:
        assert "The store of looks cannot be read; the gateway's log says why." in words(console.page())


def test_without_the_store_of_answers_the_rest_goes_on(world: World) -> None:
    def down(_: str) -> None:
        raise DOWN

    with running_console(world, parts={"find": down}) as console, console.client() as client:
        answer = client.get("/console/responses/resp_12345678")
        assert answer.status_code == 503
        assert "cannot be read at the moment" in words(answer.text)
        assert "the disk is gone" not in answer.text, "where our files lie is for the log"
        assert client.get("/console").status_code == 200


@pytest.mark.parametrize("which", ["ledger", "looks"])
def test_a_store_that_hangs_is_waited_for_a_moment_once_and_asked_no_more(world: World, which: str) -> None:
    broken = Broken()
    with running_console(world, parts={which: broken}, patience_seconds=0.5) as console:
        if which == "ledger":
            console.deployments.swap(console.served())
        with console.client() as client:
            path = f"/console/products/{world.product}"
            first = client.get(path)
            asked, began = broken.asked, time.monotonic()
            for _ in range(20):
                assert client.get(path).status_code == 200
            took = time.monotonic() - began
        broken.let_go.set()
    assert first.status_code == 200
    assert "does not answer." in words(first.text)
    assert broken.asked <= asked + 1, "who hangs is not asked again and again"
    assert took < 10, "nor waited for again and again"


def test_what_was_read_before_is_shown_with_its_age_when_the_ledger_goes(world: World) -> None:
    class Going(Ledger):
        gone = False

        def read(self, product: str) -> Any:
            if self.gone:
                raise DOWN
            return super().read(product)

    ledger = Going(world.url)
    with running_console(world, parts={"ledger": ledger}) as console:
        assert "became the canary" in words(console.page())
        ledger.gone = True
        # Until the page is made anew and the ledger was asked again.
        end = time.monotonic() + 60
        while not re.search(r"What is shown is \d+ s old", read := words(console.page())):
            assert time.monotonic() < end, read
            time.sleep(0.1)
    assert "became the canary" in read


def test_a_store_that_answers_slowly_is_asked_less_often(world: World) -> None:
    class Slow(Ledger):
        reads = 0

        def read(self, product: str) -> Any:
            Slow.reads += 1
            time.sleep(0.3)
            return super().read(product)

    with running_console(world, parts={"ledger": Slow(world.url)}) as console, console.client() as client:
        client.get(f"/console/products/{world.product}")
        before, end = Slow.reads, time.monotonic() + 4
        while time.monotonic() < end:
            assert client.get(f"/console/products/{world.product}").status_code == 200
            time.sleep(0.1)
    assert Slow.reads - before <= 2, "a twentieth of the time at most, for each of its two questions"


def test_many_things_that_are_waited_for_are_counted_and_not_all_shown(console: RunningConsole) -> None:
    world: Any = console.world
    told = {"waits_for": tuple(f"thing {number}" for number in range(100))}
    console.looks.put(make_look(world.product, START, looked_at=datetime.now(UTC), decision=told))
    read = words(console.page())
    assert "thing 11 and 88 more" in read


def test_of_many_products_each_page_names_its_own_and_the_list_names_all(console: RunningConsole) -> None:
    for number in range(12):
        console.deployments.swap(Deployment(RoutingTable(f"product_{number}", 1, "a" * 64)))
    listed = words(console.page("/console"))
    assert all(f"product_{number}" in listed for number in range(12))
    page = console.page("/console/products/product_3")
    assert "product_3" in words(page)
    assert "product_4" not in page


def test_many_who_look_at_once_cost_one_reading(world: World) -> None:
    class Counting(Ledger):
        reads = 0

        def read(self, product: str) -> Any:
            Counting.reads += 1
            return super().read(product)

    with running_console(world, parts={"ledger": Counting(world.url)}) as console, console.client() as client:
        client.get(f"/console/products/{world.product}")
        before = Counting.reads
        threads = [threading.Thread(target=client.get, args=(f"/console/products/{world.product}",)) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert Counting.reads - before <= 8
