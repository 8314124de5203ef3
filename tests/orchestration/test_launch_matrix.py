"""The launch matrix: every way to start a run, times everything that can be wrong with the proof of a release.

Each path is walked once for the five products of launch_columns.py, on a home where both days of every product wait
for their canary. A cell asks what became of one product on one path. There are two kinds of paths. Where only the
canary runs, the evidence that is there decides (`kept`); where the gates run again, what they measure decides
(`renewed`), and the accident is what it would be in life:

| column        | only the canary runs                       | the gates run again                                 |
| ------------- | ------------------------------------------ | --------------------------------------------------- |
| passes        | all gates passed                           | all gates pass again                                |
| fails         | a gate's evidence says FAIL                | the gate says FAIL again                            |
| missing       | a gate has no evidence                     | the gate says that nothing was measured             |
| stale         | all evidence has expired                   | it expires between the gates and the canary         |
| other_release | the gate's only evidence is another's      | the gate says FAIL, the other's PASS does not count |

No cell is left out.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dagster import DagsterInstance

from ml_platform.contracts.deployment import DeploymentState
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.errors import LedgerCorruptError
from ml_platform.lineage.keys import trusted_keys
from ml_platform.lineage.ledger import Ledger
from ml_platform.lineage.statements import read_evidence
from ml_platform.lineage.verification import assess_evidence
from resources.manifests import ManifestIOManager
from resources.runs import open_instance
from tests.e2e.conftest import deployed
from tests.orchestration import launch_paths, launch_web
from tests.orchestration.launch_columns import (
    CANARY,
    COLUMNS,
    DAY,
    DAYS,
    Column,
    Prepared,
    prepare,
    run_assets,
)
from tests.samples.trained_here import definitions_training_here

# Dagster 1.13 warns of what its own tester of automation conditions uses.
pytestmark = [pytest.mark.early, pytest.mark.filterwarnings("ignore:.*is currently in beta")]


@dataclass(frozen=True)
class Way:
    """A path; `renews` when the gates are measured again on it, `days` are those whose canary it asks for."""

    here: Callable[[launch_paths.Here], None] | None = None
    web: Callable[[launch_web.Web], None] | None = None
    renews: bool = False
    days: tuple[str, ...] = (DAY,)

    @property
    def name(self) -> str:
        """As the function that walks it."""
        walks = self.here or self.web
        return walks.__name__ if walks else ""


WAYS = (
    Way(launch_paths.full_job, renews=True),
    Way(launch_paths.command_line),
    Way(launch_paths.checks_deselected, renews=True),
    Way(launch_paths.automation_condition),
    Way(launch_paths.sensor_run_request),
    Way(launch_paths.schedule_tick, renews=True),
    Way(launch_paths.execute_in_process),
    Way(web=launch_web.single_asset),
    Way(web=launch_web.reexecution_of_steps),
    Way(web=launch_web.reexecution_from_failure),
    Way(web=launch_web.backfill, days=DAYS),
    Way(web=launch_web.forged_events),
)
ALWAYS = ("full_job", "command_line")
"""The others are walked by `make check`."""


@dataclass(frozen=True)
class Cell:
    """What became of a product: its slots, what the canary said of each day, and why each gate holds the release."""

    release_id: str
    state: DeploymentState
    outcomes: Mapping[str, str]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Walked:
    """A path that was walked, with a cell a product; `verified` are the products whose chain is whole."""

    way: Way
    cells: Mapping[str, Cell]
    verified: frozenset[str]


def is_chosen(way: Way, request: pytest.FixtureRequest) -> bool:
    """Whether this session walks the path: `-k` and `-m` leave others out."""
    return any(f"[{way.name}-" in item.name for item in request.session.items)


@pytest.fixture(scope="module")
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Made once, with the days that the chosen paths ask for."""
    days = {DAY} | {day for way in WAYS if is_chosen(way, request) for day in way.days}
    return prepare(tmp_path_factory.mktemp("matrix"), sorted(days))


@pytest.fixture(scope="module")
def through_the_web(
    request: pytest.FixtureRequest, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, "Future[Walked]"]]:
    """The paths through one webserver and daemon, walked beside the others, for they mostly wait.

    Only those that somebody asked for: `-k` leaves the others out.
    """
    wanted = [way for way in WAYS if way.web and is_chosen(way, request)]
    root = tmp_path_factory.mktemp("web")
    (root / "logs").mkdir()
    if not wanted:
        yield {}
        return
    with deployed(prepared.products, "", prepared.copy(root / "home"), root / "logs") as running:
        web, pool = launch_web.Web(prepared, running), ThreadPoolExecutor(1)
        yield {way.name: pool.submit(walk_the_web, way, web) for way in wanted}
        pool.shutdown(cancel_futures=True)


def walk_the_web(way: Way, web: launch_web.Web) -> Walked:
    """Walks one path from where all begin."""
    assert way.web is not None
    web.prepared.rewind(web.deployment.home)
    way.web(web)
    return look(way, web.deployment.home)


@pytest.fixture(
    scope="module",
    params=[pytest.param(way, marks=() if way.name in ALWAYS else pytest.mark.full_size) for way in WAYS],
    ids=lambda way: way.name,
)
def walked(
    request: pytest.FixtureRequest,
    prepared: Prepared,
    through_the_web: Mapping[str, "Future[Walked]"],
    tmp_path_factory: pytest.TempPathFactory,
) -> Walked:
    """Walks one path and looks at what became of every product."""
    way: Way = request.param
    if way.here is None:
        return through_the_web[way.name].result()
    home = prepared.copy(tmp_path_factory.mktemp(way.name) / "home")
    with pytest.MonkeyPatch.context() as patch, open_instance(home) as instance:
        patch.setenv("ML_PLATFORM_HOME", str(home.root))
        way.here(launch_paths.Here(prepared, home, instance))
    return look(way, home)


def look(way: Way, home: Home) -> Walked:
    """What the ledger and the canaries say now."""
    verified = Ledger(home.ledger_url).verify(trusted_keys(home))
    cells = {column.product: cell(home, column.product, way.days) for column in COLUMNS}
    return Walked(way, cells, frozenset(chain.product for chain in verified))


def cell(home: Home, product: str, days: tuple[str, ...]) -> Cell:
    """See `look`."""
    manager, ledger = ManifestIOManager(home_path=str(home.root)), Ledger(home.ledger_url)
    replay, release_id = ledger.replay(product), manager.read(f"{product}/registered_release", DAY).value_sha256
    release = replay.releases[release_id]
    policy, envelopes = replay.policies[release.promotion_policy.content_sha256], ledger.envelopes(product, release_id)
    found = assess_evidence(envelopes, trusted_keys(home), policy, release, datetime.now(UTC))
    said = {day: str(manager.read(f"{product}/{CANARY}", day).facts["outcome"]) for day in days}
    return Cell(release_id, replay.state(), said, found.reasons)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.product)
def test_the_canary_moves_only_for_a_release_whose_every_gate_passes(walked: Walked, column: Column) -> None:
    seen = walked.cells[column.product]
    assert column.product in walked.verified
    if not column.gates:
        assert seen.state.slots == {SlotName.CANARY: seen.release_id}
        assert seen.outcomes[DAY].startswith("canary open at 5")
        return
    assert (seen.state.slots, seen.state.epoch) == ({}, 0)
    assert set(seen.outcomes.values()) == {f"held: {', '.join(column.gates)}"}
    begins = column.renewed if walked.way.renews else column.kept
    assert {gate: reason[: len(begins)] for gate, reason in seen.reasons.items()} == dict.fromkeys(column.gates, begins)


def test_evidence_that_is_copied_from_another_release_neither_counts_nor_goes_unnoticed(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who can write to the ledger's database records the other release's PASS under this one's name."""
    home, product = prepared.copy(tmp_path / "home"), "other_release"
    ledger = Ledger(home.ledger_url)
    release_id = cell(home, product, ()).release_id
    passed = [
        (evidence, envelope)
        for other in ledger.replay(product).releases
        for envelope in ledger.envelopes(product, other)
        if (evidence := read_evidence(envelope)).result.gate == "cost_within_budget"
    ]
    with ledger.write(product, datetime.now(UTC), "somebody") as transaction:
        for evidence, envelope in passed:
            assert evidence.release_id != release_id
            transaction.append_evidence(evidence.model_copy(update={"release_id": release_id}), envelope)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home.root))
    with DagsterInstance.ephemeral() as instance:
        run_assets(definitions_training_here(prepared.folders), instance, [product], [CANARY])
    seen = cell(home, product, (DAY,))
    assert (seen.state.slots, seen.outcomes[DAY]) == ({}, "held: cost_within_budget")
    assert "There is some of release" in seen.reasons["cost_within_budget"]
    with pytest.raises(LedgerCorruptError, match=f"of {product} .*says something else than its envelope"):
        ledger.verify(trusted_keys(home))


def test_no_path_and_no_column_is_left_out() -> None:
    """The table is the issue's: twelve paths, five columns."""
    assert len({way.name for way in WAYS}) == len(WAYS) == 12
    assert [column.product for column in COLUMNS] == ["passes", "fails", "missing", "stale", "other_release"]
