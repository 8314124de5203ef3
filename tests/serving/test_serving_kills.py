"""Gateways, engines and stores that are killed under load: every answer has one record, of the release that gave it."""

import asyncio
import json
import os
import random
import re
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.load import Answer, Plan, connect
from ml_platform.contracts.home import Home
from ml_platform.contracts.provenance import ProvenanceRecord
from ml_platform.contracts.routing import Cohort
from ml_platform.lineage.provenance.segments import segments_in
from ml_platform.lineage.provenance.shipping import Shipper
from ml_platform.lineage.provenance.store import ProvenanceStore
from ml_platform.serving.gateway.access import ensure_local_key
from tests.samples.postgres import make_database, running_postgres
from tests.samples.releases import PRODUCT
from tests.samples.served import Processes, TinyServed, wait_until

pytestmark = pytest.mark.early

CLIENTS = 4
THINK_S = 0.02
HEADER = r"\r\n{}: *(\S+)"


@dataclass(frozen=True)
class Left:
    """An answer that a client saw."""

    response_id: str
    release_id: str
    status: str
    text: str


@dataclass
class Clients:
    """Users who ask again and again, and come back when they are hung up on."""

    port: int
    key: str
    answers: list[Left] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """They ask while the block lasts."""
        thread = threading.Thread(target=lambda: asyncio.run(self._ask_all()), name="clients")
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def count(self, status: str) -> int:
        """How many answers came with that status."""
        return sum(one.status == status for one in list(self.answers))

    async def _ask_all(self) -> None:
        await asyncio.gather(*(self._ask(number) for number in range(CLIENTS)))

    async def _ask(self, client: int) -> None:
        users = [
            {"model": PRODUCT, "messages": [{"role": "user", "content": "late?"}], "user": f"user-{client}-{number}"}
            for number in range(50)
        ]
        headers = {"authorization": f"Bearer {self.key}"}
        requests = Plan(self.port, "/v1/chat/completions", headers, [json.dumps(one) for one in users], 0.0).requests()
        connection, number = None, 0
        while not self._ended.is_set():
            number += 1
            try:
                connection = connection or await connect(self.port)
                self._note(await connection.ask(requests[number % len(requests)]))
            except (OSError, TimeoutError) as error:
                self.errors[type(error).__name__] += 1
                if connection is not None:
                    connection.close()
                connection = None
            await asyncio.sleep(THINK_S)
        if connection is not None:
            connection.close()
        await asyncio.sleep(0)  # the transport closes in the next turn of the loop

    def _note(self, answer: Answer) -> None:
        if answer.status != 200:
            self.errors[str(answer.status)] += 1
            return
        found = [re.search(HEADER.format(name).encode(), answer.head) for name in ("x-response-id", "x-release-id")]
        said = json.loads(answer.body)
        assert all(found)
        response_id, release_id = (one[1].decode() for one in found if one is not None)
        text = said["choices"][0]["message"]["content"]
        self.answers.append(Left(response_id, release_id, said["ml_platform"]["status"], text))


def kill_for(seconds: float, processes: Processes, store: Callable[[], None]) -> dict[str, int]:
    """Kills somebody at random moments; how often each."""
    chance = random.Random(7)  # noqa: S311 - whom to kill and when, no secret
    killed: dict[str, int] = defaultdict(int)
    whom = ["worker", "store", "engine", "worker", "store", "worker", "gateway"]
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(killed) < 4:
        time.sleep(chance.uniform(0.2, 1.2))  # the moment of the kill is what is drawn
        victim = whom[sum(killed.values()) % len(whom)]
        if victim == "worker":
            with suppress(ProcessLookupError, IndexError):
                os.kill(chance.choice(processes.worker_ids()), signal.SIGKILL)
        elif victim == "store":
            store()
        else:
            processes.kill(victim)
        killed[victim] += 1
    return killed


def survive(folder: Path, seconds: float, more: dict[str, str], store: Callable[[Processes], None]) -> Clients:
    """Serves two releases under load while everybody is killed, and checks all that clients have seen."""
    home = Home(folder / "home")
    world = TinyServed(home, home.ledger_url)
    production, canary = world.serve(1), world.try_out(2)
    began = datetime.now(UTC) - timedelta(minutes=1)
    url = more.get("ML_PLATFORM_PROVENANCE_URL", home.provenance_url)
    key = ensure_local_key(home).read_text(encoding="utf-8").strip()
    with Processes(world, more=more) as processes:
        clients = Clients(processes.port, key)
        with clients.asking():
            wait_until(lambda: clients.count("answered") >= 20, f"20 answers before the first kill: {clients.errors}")
            killed = kill_for(seconds, processes, lambda: store(processes))
            so_far = clients.count("answered")
            wait_until(lambda: clients.count("answered") >= so_far + 20, f"20 answers after the last of {killed}")
    kept = ProvenanceStore(url)
    Shipper(home.provenance_log, kept).ship()
    assert segments_in(home.provenance_log) == (), "everybody has ended: nothing is left in the log"
    assert kept.conflicts() == ()
    records = list(kept.scan(PRODUCT, began, datetime.now(UTC) + timedelta(minutes=1)))
    kept.close()
    check(clients.answers, records, {Cohort.PRODUCTION: production, Cohort.CANARY: canary})
    return clients


def check(answers: list[Left], records: list[ProvenanceRecord], releases: dict[Cohort, str]) -> None:
    """One record for each answer that left; it names the release that answered, which is one that should."""
    by_id: dict[str, list[ProvenanceRecord]] = defaultdict(list)
    for record in records:
        by_id[record.response_id].append(record)
    assert [one for one in answers if len(by_id[one.response_id]) != 1] == []
    texts: dict[str, set[str]] = defaultdict(set)
    for left in answers:
        (record,) = by_id[left.response_id]
        assert (record.release_id or "none") == left.release_id
        assert record.answer == left.text
        if left.status == "answered":
            # A canary's user may have been sent back to production; nobody else ever gets the canary.
            assert left.release_id in (releases[record.cohort], releases[Cohort.PRODUCTION])
            assert record.adapter is not None
            texts[left.release_id].add(left.text)
    assert texts.keys() == set(releases.values()), "both arms were asked"
    one, other = texts.values()
    assert one & other == set(), "the two releases answer differently, so that a mixture would show"


def test_whoever_is_killed_every_answer_has_one_record_of_the_release_that_gave_it(tmp_path: Path) -> None:
    clients = survive(tmp_path, 12.0, {}, lambda processes: processes.kill("ship"))
    assert clients.errors, "somebody was hung up on, or the kills hit nobody"


@pytest.mark.long
def test_a_database_that_dies_under_load_loses_no_record(tmp_path: Path) -> None:
    with running_postgres() as server:
        url = make_database(server)
        folder = re.search(r"host=([^&]+)", url)
        assert folder is not None

        def kill_a_backend(_: Processes) -> None:
            """PostgreSQL takes this for a crash: it throws everybody out and recovers."""
            postmaster = int((Path(folder[1]) / "data" / "postmaster.pid").read_text().split()[0])
            children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
            with suppress(ProcessLookupError, IndexError):
                os.kill(int(children[-1]), signal.SIGKILL)

        survive(tmp_path, 20.0, {"ML_PLATFORM_PROVENANCE_URL": url}, kill_a_backend)
