"""The console in headless Chromium: people sign in, look, look up an answer, and sign out; nothing else runs."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from ml_platform.contracts.home import Home
from ml_platform.lineage.provenance.store import Answered
from tests.samples.console import RunningConsole, running_console
from tests.samples.followed import World
from tests.samples.looks import make_look, make_rollout
from tests.samples.provenance import make_record

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: see `mlp doctor`")
START = datetime(2013, 4, 1, 6, tzinfo=UTC)
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'><svg onload='window.hacked = 3'>"
RECORD = make_record(3, utterance=f"Is it? {HOSTILE}", answer=f"No. {HOSTILE}")


@dataclass
class Visit:
    """A page in a browser, and what went wrong in it."""

    page: Page
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def visiting(browser: Browser) -> Callable[..., Any]:
    @contextmanager
    def visit(**options: Any) -> Iterator[Visit]:
        context = browser.new_context(**options)
        page = context.new_page()
        page.set_default_timeout(20_000)
        found = Visit(page)
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        # A browser writes refused pages into its console; what breaks the policy or a script stands there, too.
        page.on("console", lambda said: "status of 40" in said.text or found.complaints.append(said.text))
        page.on(
            "request",
            lambda sent: sent.url.startswith(("http://127.0.0.1", "data:")) or found.complaints.append(sent.url),
        )
        yield found
        context.close()

    return visit


@contextmanager
def a_console(folder: Path) -> Iterator[RunningConsole]:
    home = Home(folder)
    world = World(home, home.ledger_url)
    first, second = world.serve(1), world.try_out(2)
    with running_console(world, parts={"find": lambda _: Answered(RECORD, (), ())}) as running:
        for look in make_rollout(world.product, START, datetime.now(UTC), looks=20, production=first, canary=second):
            running.looks.put(look)
        yield running


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningConsole]:
    """One for all who only look."""
    with a_console(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RunningConsole]:
    """One of which something changes."""
    with a_console(tmp_path) as running:
        yield running


def sign_in(visit: Visit, console: RunningConsole, path: str = "/console") -> None:
    visit.page.goto(console.url + path)
    visit.page.get_by_label("API key").fill(console.token())
    visit.page.get_by_role("button", name="Sign in").click()


def test_people_sign_in_look_around_and_sign_out(console: RunningConsole, visiting: Any) -> None:
    with visiting() as visit:
        page = visit.page
        sign_in(visit, console)
        page.get_by_role("link", name=console.world.product).first.click()
        page.get_by_role("heading", name="Canary against production").wait_for()
        assert page.locator(".metric").count() == 9
        assert page.locator(".metric svg polygon").count() == 9
        assert page.locator("#decision .word").inner_text() == "hold"
        page.get_by_label("Response id").fill(f"  {RECORD.response_id} ")
        page.get_by_role("button", name="Look up").click()
        page.get_by_role("heading", name="Answer", exact=True).wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("button", name="Sign in").wait_for()
        page.goto(f"{console.url}/console")
        page.get_by_role("button", name="Sign in").wait_for()
        assert visit.complaints == []


def test_a_wrong_key_is_told_and_the_form_stays(console: RunningConsole, visiting: Any) -> None:
    with visiting() as visit:
        visit.page.goto(f"{console.url}/console")
        visit.page.get_by_label("API key").fill("mlp_wrong")
        visit.page.get_by_role("button", name="Sign in").click()
        visit.page.get_by_role("alert").wait_for()
        assert "does not count" in visit.page.get_by_role("alert").inner_text()


def test_after_signing_in_people_are_where_they_wanted_to_be(console: RunningConsole, visiting: Any) -> None:
    with visiting() as visit:
        sign_in(visit, console, f"/console/responses/{RECORD.response_id}")
        visit.page.get_by_role("heading", name="Answer", exact=True).wait_for()


def test_what_others_wrote_neither_runs_nor_shows_anything_but_text(own: RunningConsole, visiting: Any) -> None:
    world: Any = own.world
    now = datetime.now(UTC) + timedelta(seconds=1)
    told = {"reason": HOSTILE, "incident": HOSTILE, "waits_for": (HOSTILE,)}
    own.looks.put(make_look(world.product, START, looked_at=now, decision=told))
    world.controller.freeze(world.product, HOSTILE, world.now, HOSTILE)
    with visiting() as visit:
        sign_in(visit, own, f"/console/products/{world.product}")
        visit.page.locator("#decision").wait_for()
        for path in (f"/console/responses/{RECORD.response_id}", "/console", f"/console/products/{world.product}"):
            visit.page.goto(own.url + path)
            assert visit.page.evaluate("window.hacked") is None
            assert visit.page.locator("main img, main svg[onload]").count() == 0
        visit.page.wait_for_timeout(3_500)  # a refresh puts what it fetched into the page
        assert visit.page.evaluate("window.hacked") is None
        assert visit.complaints == []


def test_even_what_got_into_a_page_could_not_run(console: RunningConsole, visiting: Any) -> None:
    with visiting() as visit:
        sign_in(visit, console, f"/console/products/{console.world.product}")
        visit.page.locator("#decision").wait_for()
        put_in = (
            "const s = document.createElement('script'); s.textContent = 'window.hacked = 4'; document.body.append(s)"
        )
        visit.page.evaluate(put_in)
        visit.page.evaluate("document.getElementById('live').innerHTML += '<img src=x onerror=\"window.hacked = 5\">'")
        visit.page.wait_for_timeout(200)
        assert visit.page.evaluate("window.hacked") is None
        assert any("Content Security Policy" in said for said in visit.complaints)


def test_a_page_follows_what_happens_and_leaves_alone_what_is_being_typed(own: RunningConsole, visiting: Any) -> None:
    world = own.world
    with visiting() as visit:
        sign_in(visit, own, f"/console/products/{world.product}")
        visit.page.get_by_label("Response id").fill("resp_half")
        world.controller.freeze(world.product, "a person said so", world.now, "ops")
        visit.page.get_by_text("Frozen.").wait_for()
        assert visit.page.get_by_label("Response id").input_value() == "resp_half"
        assert visit.complaints == []


def test_a_page_says_when_it_is_cut_off_and_when_it_is_not_any_more(console: RunningConsole, visiting: Any) -> None:
    with visiting() as visit:
        sign_in(visit, console, f"/console/products/{console.world.product}")
        visit.page.locator("#decision").wait_for()
        visit.page.context.set_offline(True)
        visit.page.get_by_text("Cut off.").wait_for()
        visit.page.context.set_offline(False)
        visit.page.get_by_text("Cut off.").wait_for(state="hidden")


def test_all_of_it_works_without_javascript(console: RunningConsole, visiting: Any) -> None:
    with visiting(java_script_enabled=False) as visit:
        sign_in(visit, console, f"/console/products/{console.world.product}")
        visit.page.locator("#decision .word").wait_for()
        assert visit.page.locator(".metric svg").count() == 9
        assert visit.page.locator("meta[http-equiv=refresh]").count() == 1
        visit.page.get_by_label("Response id").fill(RECORD.response_id)
        visit.page.get_by_role("button", name="Look up").click()
        visit.page.get_by_role("heading", name="Answer", exact=True).wait_for()


@pytest.mark.parametrize("width", [380, 1280, 2400])
def test_nothing_stands_out_of_the_page_however_narrow_it_is(own: RunningConsole, visiting: Any, width: int) -> None:
    world: Any = own.world
    told = {"reason": "A" * 900, "waits_for": ("B" * 400,)}
    own.looks.put(make_look(world.product, START, looked_at=datetime.now(UTC) + timedelta(seconds=1), decision=told))
    with visiting(viewport={"width": width, "height": 900}) as visit:
        sign_in(visit, own, f"/console/products/{world.product}")
        visit.page.locator("#decision").wait_for()
        for path in ("", f"/console/responses/{RECORD.response_id}", "/console"):
            if path:
                visit.page.goto(own.url + path)
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width, path
