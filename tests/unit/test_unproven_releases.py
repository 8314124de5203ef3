"""Registered but unproven: seven ways to pass a release off as proven, and the sentence that each is refused with."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from ml_platform.cli.app import run
from ml_platform.contracts.events import EventKind, EvidenceRecorded
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.contracts.policy import SlotName
from ml_platform.contracts.release import Release
from ml_platform.errors import ArtifactCorruptError, LedgerCorruptError, NotEligibleError, RefusedError
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.lineage.statements import sign_evidence
from ml_platform.registry.mlflow_registry import MlflowRegistry
from ml_platform.release.controller import Held, Move
from ml_platform.release.mirroring import mirror_slots
from tests.samples.proven import POLICY, Proven, make_proven, write_adapter
from tests.samples.releases import PRODUCT, inputs_of, make_evidence, make_release, make_results

UNPROVEN = make_release(seed=2)
NO_EVIDENCE = "There is no evidence."


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Proven:
    return make_proven(tmp_path_factory.mktemp("proven"))


@pytest.fixture
def proven(template: Proven, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proven:
    """A copy of the home for every test, with the environment that names it."""
    home = Home(shutil.copytree(template.home.root, tmp_path / "home"))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(home.root))
    monkeypatch.chdir(tmp_path)
    return replace(template, home=home)


@pytest.fixture
def verified(capsys: pytest.CaptureFixture[str], proven: Proven) -> Any:
    """What `mlp verify` finds wrong with the release, by what it looked at; and its exit code."""

    def verify() -> dict[str, str]:
        code = run(["verify", proven.release.release_id, "--json"])
        told = json.loads(capsys.readouterr().out)
        broken = {one["what"]: one["found"] for one in told["findings"] if one["state"] == "broken"}
        assert (code, told["verified"]) == ((1, False) if broken else (0, True))
        return broken

    return verify


@pytest.fixture
def database(proven: Proven) -> Iterator[sqlite3.Connection]:
    """The ledger in the hands of its owner, the triggers dropped."""
    with closing(sqlite3.connect(proven.home.root / "ledger.sqlite", isolation_level=None)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        yield connection


def open_canary(proven: Proven, release: Release | None = None, minutes: int = 1) -> Move | Held:
    name = (release or proven.release).release_id
    return proven.controller.open_canary(PRODUCT, name, proven.now + timedelta(minutes=minutes), "a test")


def registered(proven: Proven, release: Release = UNPROVEN) -> Release:
    """A release that is in the ledger with its policy, and nothing more."""
    proven.controller.register_release(release, POLICY, proven.now, "a test")
    return release


def test_the_honest_way_opens_the_canary_and_verifies(proven: Proven, verified: Any) -> None:
    """Without this one, every refusal below might have another reason."""
    assert verified() == {}
    assert open_canary(proven).sentence == "canary open at 5%"


def test_a_version_registered_by_hand_in_mlflow_with_its_alias_set_by_hand_serves_nothing(proven: Proven) -> None:
    registry = MlflowRegistry(f"sqlite:///{proven.home.root / 'mlflow.sqlite'}", proven.home.root / "mlflow")
    registry.register(proven.release, proven.candidate.path, "eligible", proven.controller.state(PRODUCT))
    client = MlflowClient(registry.tracking_uri, registry_uri=registry.tracking_uri)
    tags = {"release_id": UNPROVEN.release_id, "verdict": "eligible"}
    version = client.create_model_version(PRODUCT, "/anywhere", tags=tags)
    client.set_registered_model_alias(PRODUCT, "production", version.version)
    client.set_registered_model_alias(PRODUCT, "canary", version.version)

    assert proven.controller.state(PRODUCT).slots == {}, "nobody reads an alias to decide what serves"
    with pytest.raises(NotEligibleError, match=f"release {UNPROVEN.release_id[:12]} of {PRODUCT} is not in the ledger"):
        open_canary(proven, UNPROVEN)
    assert isinstance(open_canary(proven), Move)
    done = mirror_slots(proven.controller, registry, PRODUCT, proven.now, "the reconciler")
    assert done.changes == ("production is empty (was version 2)", "canary is version 1 (was 2)")
    alerts = [one.payload for one in proven.controller.ledger.events(PRODUCT) if one.kind is EventKind.ALIAS_RESTORED]
    assert [(one["alias"], one["found_release"]) for one in alerts] == [
        ("production", UNPROVEN.release_id),
        ("canary", UNPROVEN.release_id),
    ]


def test_a_release_that_is_only_registered_is_held_by_every_gate(proven: Proven) -> None:
    held = open_canary(proven, registered(proven))
    assert isinstance(held, Held)
    assert held.reasons == dict.fromkeys(POLICY.gate_names, NO_EVIDENCE)


def test_evidence_copied_from_another_release_is_about_that_release(proven: Proven) -> None:
    release, ledger = registered(proven), proven.controller.ledger
    with ledger.write(PRODUCT, proven.now, "forger") as transaction:
        for envelope, gate in zip(transaction.envelopes(proven.release.release_id), POLICY.gate_names, strict=True):
            transaction.append_evidence(make_evidence(release, POLICY, gate, at=proven.now), envelope)
    held = open_canary(proven, release)
    assert isinstance(held, Held)
    sentence = f"{NO_EVIDENCE} There is some of release {proven.release.release_id[:12]}."
    assert held.reasons == dict.fromkeys(POLICY.gate_names, sentence)
    with pytest.raises(LedgerCorruptError, match=r"evidence_recorded\): says something else than its envelope"):
        ledger.verify(proven.controller.trusted)


def test_old_evidence_recorded_again_neither_undoes_a_newer_fail_nor_outlives_its_expiry(proven: Proven) -> None:
    controller, release = proven.controller, proven.release
    later = proven.now + timedelta(minutes=1)
    results = make_results(POLICY, late_recall=Verdict.FAIL)
    controller.record_verdicts(release, results, inputs_of(release), proven.key, later, "a test")
    with controller.ledger.write(PRODUCT, later, "forger") as transaction:
        old = transaction.replay.evidence[release.release_id][2]
        assert (old.gate, old.verdict) == ("late_recall", Verdict.PASS)
        with pytest.raises(RefusedError, match=f"envelope {old.envelope_sha256[:12]} is recorded twice"):
            transaction.append(EvidenceRecorded.model_validate(old.model_dump()))
    held = open_canary(proven, minutes=2)
    assert isinstance(held, Held)
    assert held.reasons == {"late_recall": "FAIL: late_recall was looked at."}

    expired = open_canary(proven, minutes=60 * 24 * 31)
    assert isinstance(expired, Held)
    assert expired.reasons["no_leakage"].startswith("Its evidence expired at ")
    assert expired.reasons["no_leakage"].endswith("Evaluate the release again.")


def test_old_evidence_signed_anew_by_a_stranger_holds_the_release_and_is_named(proven: Proven) -> None:
    from ml_platform.lineage.keys import SigningKey

    release, stranger = registered(proven), SigningKey.generate()
    with proven.controller.ledger.write(PRODUCT, proven.now, "forger") as transaction:
        for gate in POLICY.gate_names:
            evidence = make_evidence(release, POLICY, gate, at=proven.now)
            transaction.append_evidence(evidence, sign_evidence(evidence, stranger))
    held = open_canary(proven, release)
    assert isinstance(held, Held)
    assert f"is signed by key {stranger.key_id[:12]}, which is not trusted" in held.reasons["evidence"]


@pytest.mark.parametrize(
    ("statements", "sentence"),
    [
        (["DELETE FROM events WHERE sequence = 5"], "its sequence is 6, expected 5"),
        (
            [
                "UPDATE events SET sequence = -1 WHERE sequence = 5",
                "UPDATE events SET sequence = 5 WHERE sequence = 6",
                "UPDATE events SET sequence = 6 WHERE sequence = -1",
            ],
            "event 5 of assistant (evidence_recorded): does not fit its digest",
        ),
    ],
    ids=["dropped", "reordered"],
)
def test_rows_of_the_ledger_that_are_dropped_or_reordered_stop_everything(
    proven: Proven, database: sqlite3.Connection, verified: Any, statements: list[str], sentence: str
) -> None:
    """So does a FAIL that somebody takes out to bring an older PASS back."""
    for statement in statements:
        database.execute(statement)
    for ask in (lambda: open_canary(proven), lambda: proven.controller.state(PRODUCT), proven.controller.ledger.verify):
        with pytest.raises(LedgerCorruptError) as caught:
            ask()
        assert sentence in str(caught.value)
    assert run(["verify", proven.release.release_id]) == 1


def test_adapter_bytes_swapped_after_evaluation_are_named_wherever_they_are_opened(
    proven: Proven, verified: Any, tmp_path: Path
) -> None:
    """The thief's adapter is a sound one; it just is not the one that was measured."""
    base = next((proven.home.base_models / "base_model").glob("?" * 64))
    write_adapter(tmp_path, base, seed=2)
    name = "adapter/adapter_model.safetensors"
    adapter = proven.home.artifacts / "candidate" / proven.candidate.sha256 / name
    assert adapter.stat().st_size == (tmp_path / name).stat().st_size
    shutil.copyfile(tmp_path / name, adapter)
    assert verified()["candidate"].startswith(f"{adapter}: SHA-256 is ")
    with pytest.raises(ArtifactCorruptError, match="The file was changed or damaged; materialize the candidate again"):
        LocalArtifactStore(proven.home.artifacts).open("candidate", proven.candidate.sha256)


@pytest.mark.parametrize("kind", ["prompt", "guardrails", "monitor_policy"])
@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_release_whose_content_cannot_be_loaded_does_not_verify(
    proven: Proven, verified: Any, kind: str, harm: str
) -> None:
    """No gateway would let it in, whatever its gates say."""
    assert verified() == {}
    folder = proven.home.artifacts / kind
    if harm == "gone":
        shutil.rmtree(folder)
    else:
        [kept] = folder.glob("*/content.json")
        kept.write_bytes(kept.read_bytes().replace(b"1.0.0", b"1.0.1"))
    part = getattr(proven.release, kind)
    [(what, found)] = verified().items()
    assert what == kind
    assert f"{part.content_sha256[:12]} (version {part.version}) is not in the store" in found


def test_a_manifest_rewritten_for_the_swapped_bytes_is_another_candidate(
    proven: Proven, verified: Any, tmp_path: Path
) -> None:
    """Whoever makes manifest and bytes agree again has another digest, which no release of the ledger names."""
    base = next((proven.home.base_models / "base_model").glob("?" * 64))
    store = LocalArtifactStore(proven.home.artifacts)
    other = store.make("candidate", {"seed": 2}, lambda folder: write_adapter(folder, base, 2))
    mine = proven.home.artifacts / "candidate" / proven.candidate.sha256
    shutil.rmtree(mine)
    shutil.copytree(other.path, mine)
    sentence = f"is not the manifest of candidate {proven.candidate.sha256[:12]}: its digest differs"
    assert sentence in verified()["candidate"]


def test_verdicts_on_another_candidate_are_not_recorded_for_this_release(proven: Proven) -> None:
    other = registered(proven)
    with pytest.raises(RefusedError, match=f"these verdicts are about candidate {proven.candidate.sha256[:12]}"):
        proven.controller.record_verdicts(
            other, make_results(POLICY), inputs_of(proven.release), proven.key, proven.now, "a test"
        )
    assert SlotName.CANARY not in proven.controller.state(PRODUCT).slots
