"""Random edits of MLflow's aliases by hand, on a real MLflow: they move nothing, and each becomes one alert."""

import shutil
import tempfile
from datetime import timedelta
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from mlflow import MlflowClient

from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.events import AliasRestored, EventKind
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import RefusedError
from ml_platform.registry.mlflow_registry import MlflowRegistry
from ml_platform.release.controller import Controller
from ml_platform.release.mirroring import mirror_slots
from tests.properties.life_frame import SHARED_MEMORY
from tests.properties.life_oracle import key
from tests.samples.releases import (
    NOW,
    PRODUCT,
    inputs_of,
    make_controller,
    make_policy,
    make_release,
    make_results,
    pin,
)

KEY, POLICY = key(1), make_policy()
RELEASES = [make_release(seed=seed) for seed in (1, 2)]
HELD = make_release(seed=3)
VERSIONS = ["1", "2", "3", "4"]
"""Those of RELEASES, of HELD, and one that was made by hand for a release that nobody registered."""

SLOTS = st.sampled_from(list(SlotName))


def place() -> Path:
    return Path(tempfile.mkdtemp(prefix="aliases-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None))


def registry_in(folder: Path) -> MlflowRegistry:
    return MlflowRegistry(f"sqlite:///{folder / 'mlflow.sqlite'}", folder / "files")


@cache
def template() -> dict[str, bytes]:
    """The databases of a ledger and an MLflow with four versions, made once: MLflow's tables take two seconds."""
    folder = place()
    try:
        controller, registry = make_controller(folder, KEY), registry_in(folder)
        pin(controller)
        for release in (*RELEASES, HELD):
            controller.register_release(release, POLICY, NOW, "run")
            if release != HELD:
                controller.record_verdicts(release, make_results(POLICY), inputs_of(release), KEY, NOW, "run")
            registry.register(release, folder, "as the ledger says", controller.state(PRODUCT))
        client = MlflowClient(registry.tracking_uri, registry_uri=registry.tracking_uri)
        client.create_model_version(PRODUCT, "/anywhere", tags={"release_id": "f" * 64})
        mirror_slots(controller, registry, PRODUCT, NOW, "run")
        return {path.name: path.read_bytes() for path in folder.glob("*.sqlite")}
    finally:
        shutil.rmtree(folder)


class AliasLife(RuleBasedStateMachine):
    """The ledger decides, the aliases follow; the other way round nothing ever flows."""

    @initialize()
    def begin(self) -> None:
        self.folder = place()
        for name, content in template().items():
            (self.folder / name).write_bytes(content)
        self.controller: Controller = make_controller(self.folder, KEY)
        self.registry = registry_in(self.folder)
        self.client = MlflowClient(self.registry.tracking_uri, registry_uri=self.registry.tracking_uri)
        self.now = NOW
        self.state: DeploymentState = self.controller.state(PRODUCT)
        self.mirrored = dict(self.state.slots)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.mirror()
            shutil.rmtree(self.folder)

    @rule(slot=SLOTS, version=st.sampled_from(VERSIONS))
    def somebody_sets_an_alias(self, slot: SlotName, version: str) -> None:
        self.client.set_registered_model_alias(PRODUCT, slot, version)

    @rule(slot=SLOTS)
    def somebody_deletes_an_alias(self, slot: SlotName) -> None:
        if slot in self.aliases():
            self.client.delete_registered_model_alias(PRODUCT, slot)

    @rule(which=st.integers(0, 1), move=st.sampled_from(["open_canary", "open_canary", "promote", "open_shadow"]))
    def the_controller_moves(self, which: int, move: str) -> None:
        self.now += timedelta(seconds=1)
        try:
            why = ("to compare",) if move == "open_shadow" else ()
            getattr(self.controller, move)(PRODUCT, RELEASES[which].release_id, *why, self.now, "run")
        except RefusedError:
            return
        self.state = self.controller.state(PRODUCT)

    @rule()
    def mlflow_is_down(self) -> None:
        """The move is made, only the mirror is late."""
        (self.folder / "damaged.sqlite").write_bytes(b"no database" * 1000)
        down = MlflowRegistry(f"sqlite:///{self.folder / 'damaged.sqlite'}", self.folder / "files")
        assert "could not mirror" in mirror_slots(self.controller, down, PRODUCT, self.now, "mirror").warning

    @rule()
    def mirror(self) -> None:
        """Afterwards every alias says what its slot holds; what was neither that nor the last mirror is an alert."""
        before, wanted = self.aliases(), self.wanted(self.state.slots)
        edits = [slot for slot in SlotName if before.get(slot) not in (wanted.get(slot), self.last(slot))]
        done = mirror_slots(self.controller, self.registry, PRODUCT, self.now, "mirror")
        assert done.warning == ""
        assert self.aliases() == wanted
        events = self.controller.ledger.events(PRODUCT)[self.state.sequence :]
        assert {event.kind for event in events} <= {EventKind.ALIAS_RESTORED}
        said = [AliasRestored.model_validate(event.payload) for event in events]
        assert [one.alias for one in said] == edits
        assert [one.found for one in said] == [before.get(slot) for slot in edits]
        assert mirror_slots(self.controller, self.registry, PRODUCT, self.now, "mirror").changes == ()
        after = self.controller.state(PRODUCT)
        assert (after.slots, after.epoch) == (self.state.slots, self.state.epoch), "an alert moves nothing"
        self.state, self.mirrored = after, dict(after.slots)

    @invariant()
    def aliases_decide_nothing(self) -> None:
        if hasattr(self, "folder"):
            assert self.controller.state(PRODUCT) == self.state
            assert set(self.state.slots.values()) <= {one.release_id for one in RELEASES}

    def aliases(self) -> dict[str, str]:
        return {name: str(one) for name, one in self.client.get_registered_model(PRODUCT).aliases.items()}

    def wanted(self, slots: dict[SlotName, str]) -> dict[str, str]:
        numbers = {release.release_id: str(number) for number, release in enumerate(RELEASES, start=1)}
        return {slot: numbers[release_id] for slot, release_id in slots.items()}

    def last(self, slot: SlotName) -> str | None:
        return self.wanted(self.mirrored).get(slot)


TestAliasLife = AliasLife.TestCase
TestAliasLife.settings = settings(
    max_examples=8,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
