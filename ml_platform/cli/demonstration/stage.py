"""The stage: the home, the processes and the past that a demonstration is played with; each method does one thing."""

import contextlib
import sys
import time
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.cli.addresses import LOOPBACK, url_of
from ml_platform.cli.demonstration.board import Board
from ml_platform.cli.demonstration.plan import Fault, Form
from ml_platform.cli.demonstration.processes import Processes, answers, free_port
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import OperationError

if TYPE_CHECKING:
    from ml_platform.cli.demonstration.online import Online
    from ml_platform.cli.demonstration.traffic import Travellers
    from ml_platform.contracts.deployment import DeploymentState
    from ml_platform.contracts.drift import DriftReport
    from ml_platform.contracts.products import Product
    from ml_platform.lineage.artifacts import ArtifactStore
    from ml_platform.lineage.ledger import Ledger
    from ml_platform.serving.replay.traffic import Asked, Traffic

STARTED_WITHIN_SECONDS = 180.0
ENDED_WITHIN_SECONDS = 120.0
ANSWER_SECONDS = 120.0
"""Longer than the deadline of any variant: how late an answer may be is the gateway's to say."""
CHAIN = (
    *("snapshot", "training_set", "candidate", "eval_report"),
    *("gate_verdict", "registered_release", "canary_alias", "online_features"),
)


@dataclass
class Stage:
    """What a story is played on. `ledger` is read by it alone, in the thread that plays."""

    home: Home
    checkout: Path
    form: Form
    fault: Fault
    board: Board
    processes: Processes
    product: "Product"
    store: "ArtifactStore"
    ledger: "Ledger"
    url: str = ""
    api_key: str = ""
    _online: "Online | None" = None
    _known: dict[str, Any] = field(default_factory=dict)

    def state(self) -> "DeploymentState":
        """The product's slots and releases now."""
        return self.ledger.state(self.form.product)

    def run_chain(self, as_of: date) -> str:
        """Runs the whole chain for a day through Dagster; the release that it registered.

        Raises OperationError for a run that failed, or whose release may not become a canary.
        """
        from ml_platform.cli.chain_events import ChainStory
        from ml_platform.cli.launching import launch

        story = ChainStory()
        with launch(self.home, ["run", self.form.product, "--as-of", as_of.isoformat()]) as launched:
            for event in launched.events():
                story.add(event)
                if event.progress is not None:
                    self.board.doing = f"{event.asset or ''} {event.progress.sentence()}".strip()
            if launched.exit_code:
                told = "; ".join(f"{one.asset}: {one.message}" for one in story.failures) or launched.last_words
                raise OperationError(f"the run for {as_of} failed: {told}")
        if story.release_id is None:
            raise OperationError(f"the run for {as_of} registered no release.")
        if self.state().slots.get(SlotName.CANARY) != story.release_id:
            outcome = story.materialized.get("canary_alias", {}).get("outcome", "it did not become the canary")
            raise OperationError(f"release {story.release_id[:12]} of {as_of} does not serve: {outcome}.")
        return story.release_id

    def start_serving(self) -> None:
        """Starts engine, gateway, shipper and controller, and waits until the gateway takes questions."""
        from ml_platform.serving.gateway.access import ensure_local_key

        engine, gateway = free_port(), free_port()
        self.url, engine_url = url_of(gateway), url_of(engine)
        self.api_key = ensure_local_key(self.home).read_text(encoding="utf-8").strip()
        # One thread decodes; on two cores everything else that runs here needs the other.
        base = ("--base", self.product.spec.training.base_model)
        self._start("engine", "engine", "--host", LOOPBACK, "--port", str(engine), "--threads", "1", *base)
        self._start("gateway", "gateway", "--host", LOOPBACK, "--port", str(gateway), "--engine-url", engine_url)
        self._start("ship", "ship")
        self._start("controller", "controller")
        self._wait(lambda: answers(f"{self.url}/healthz"), "the gateway answers")

    def start_daemon(self) -> None:
        """Starts Dagster's daemon, whose sensors look at the reports."""
        daemon = str(Path(sys.executable).with_name("dagster-daemon"))
        self.processes.start("daemon", [daemon, "run", "--workspace", str(self.checkout / "workspace.yaml")])
        self._note_processes()

    def end_daemon(self) -> None:
        """Ends the daemon once its run is through: reports of each day that is played would take the cores away."""
        with contextlib.suppress(OperationError):
            self.processes.wait_until(lambda: CHAIN[-1] in self._made(), "the run ends", ENDED_WITHIN_SECONDS)
        self.processes.end("daemon")
        self._note_processes()

    def open_year(self) -> None:
        """Reads the whole time that is played, once: what is known when is cut out of it later."""
        from ml_platform.cli.demonstration.online import Online
        from ml_platform.cli.replay import take_past

        last = max([self.form.last_look, *self.form.afterwards])
        past = take_past(self.form.product, self.form.as_of, last + timedelta(days=1), publish=True)
        self._online = Online(self.home, past.snapshot, past.online)

    @property
    def online(self) -> "Online":
        """The year, once it was opened."""
        if self._online is None:
            raise OperationError("the year was not opened yet.")
        return self._online

    def travellers(self) -> "Travellers":
        """Those who ask; the same all year, so that outcomes of one stretch come in the next."""
        from ml_platform.cli.demonstration.traffic import Travellers
        from ml_platform.serving.replay.travellers import GatewayClient

        client = GatewayClient(self.url, self.api_key, seconds=ANSWER_SECONDS)

        async def publish(at: datetime) -> None:
            await self.online.publish(client, at)

        entity = tuple(self.product.serving.entity)
        players = Travellers(self.board, client, self.form, entity, publish, self.traffic)
        self._known["client"] = client
        return players

    async def publish(self, at: datetime) -> None:
        """Puts online what was known at a moment; within a stretch that travellers play."""
        await self.online.publish(self._known["client"], at)

    def traffic(self, begin: datetime, end: datetime, questions: int) -> "Traffic":
        """What was asked in some days, at most so many questions, and what then happened."""
        from ml_platform.serving.replay.traffic import TrafficContext, make_traffic

        return make_traffic(TrafficContext(self.product, self.online.snapshot, begin, end, self.form.users), questions)

    def probe_question(self, at: datetime) -> "Asked":
        """The question that is asked before, during and after: the first about a risk in the hours behind a moment."""
        if "probe" not in self._known:
            found = self.traffic(at, at + timedelta(hours=24), 400).questions
            later = [one for one in found if one.at >= at + timedelta(hours=10)]
            self._known["probe"] = next((one for one in later if "late" in one.utterance.lower()), later[0])
        asked: Asked = self._known["probe"]
        return asked

    def report_drift(self, day: date) -> "DriftReport":
        """Materializes the day's drift report through Dagster, and reads it."""
        from ml_platform.monitoring.drift_reports import read_drift_report

        dagster, product = str(Path(sys.executable).with_name("dagster")), self.form.product
        assets = ",".join(f"{product}/{name}" for name in ("snapshot", "drift_report"))
        name = f"drift-{day}"
        where = ("-f", str(self.checkout / "definitions.py"), "-d", str(self.checkout))
        what = ("--select", assets, "--partition", day.isoformat())
        self.processes.run(name, [dagster, "asset", "materialize", *where, *what])
        report = read_drift_report(self.home, product, day)
        if report is None:
            raise OperationError(f"no drift report of {day} came out of the run. {self.processes.last_words(name)}")
        return report

    def ask_sensor(self) -> str:
        """Why the sensor of continuous training starts nothing now. Raises OperationError where it would start one."""
        dagster, name = str(Path(sys.executable).with_name("dagster")), f"{self.form.product}__retrain"
        where = ("-f", str(self.checkout / "definitions.py"), "-d", str(self.checkout))
        self.processes.run("sensor", [dagster, "sensor", "preview", name, *where])
        _, skips, reason = self.processes.last_words("sensor").partition("skipping: ")
        if not skips:
            said = self.processes.last_words("sensor")
            raise OperationError(f"the sensor {name} does not say why it starts nothing:\n{said}")
        return reason.strip().partition("\n")[0]  # Dagster's code server says goodbye behind it

    def wait_for_release(self, known: set[str], *, minutes: int) -> str:
        """The release that comes out of the run which the sensor starts. Raises OperationError when none comes."""
        end = time.monotonic() + 60 * minutes
        while True:
            state = self.state()
            canary = state.slots.get(SlotName.CANARY)
            news = [one for one in state.releases if one not in known]
            if canary is not None and canary in news:
                return canary
            if news and state.releases[news[0]] == "held":
                raise OperationError(f"release {news[0][:12]} of the sensor's run is held. `mlp show` says by what.")
            self.processes.require_alive()
            if time.monotonic() > end:
                said = self.processes.last_words("daemon")
                raise OperationError(f"no release came of the sensor's run within {minutes} minutes. {said}")
            self.board.doing = f"the sensor's run has made: {', '.join(self._made()) or 'nothing yet'}"
            time.sleep(1.0)

    def _made(self) -> list[str]:
        """The assets of the chain that are there for the newest day which any has."""
        folder = self.home.manifests / self.form.product
        days = {name: {path.stem for path in (folder / name).glob("*.json")} for name in CHAIN}
        newest = max((day for found in days.values() for day in found), default="")
        return [name for name in CHAIN if newest in days[name]]

    def _start(self, name: str, *arguments: str) -> None:
        mlp = str(Path(sys.executable).with_name("mlp"))
        self.processes.start(name, [mlp, *arguments])
        self._note_processes()

    def _note_processes(self) -> None:
        self.board.processes = self.processes.states()

    def _wait(self, holds: Any, what: str) -> None:
        self.processes.wait_until(holds, what, STARTED_WITHIN_SECONDS)
