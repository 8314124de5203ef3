"""What gates look at is found again by its recipe only where a trusted key signed that it was made."""

import stat
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.home import Home
from ml_platform.contracts.product import PromptSpec
from ml_platform.errors import ArtifactCorruptError, EvidenceError
from ml_platform.lineage import artifacts
from ml_platform.lineage.artifact_files import ArtifactManifest, describe
from ml_platform.lineage.artifacts import ArtifactStore, LocalArtifactStore
from ml_platform.lineage.attested import ENVELOPE, STATEMENT, AttestedStore
from ml_platform.lineage.contents import find_content, keep_content
from ml_platform.lineage.keys import SIGNING, new_key, signing_key, trust
from ml_platform.lineage.object_store import ObjectArtifactStore

RECIPE = {"candidate": "c" * 64}
Open = Callable[[], ArtifactStore]


def saying(text: str) -> Callable[[Path], dict[str, Any]]:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "report.json").write_text(text)
        return {"says": text}

    return build


def never(folder: Path) -> dict[str, Any]:
    raise AssertionError(f"made again in {folder}")


def nobody(_found: object) -> bool:
    return False


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture(params=["local", "memory"])
def plain(request: pytest.FixtureRequest, home: Home) -> Open:
    """The store below, as whoever may write to it opens it."""
    url = f"memory://{uuid.uuid4().hex}"
    if request.param == "local":
        return lambda: LocalArtifactStore(home.artifacts)
    return lambda: ObjectArtifactStore(url, home.root / uuid.uuid4().hex)


@pytest.fixture
def ours(plain: Open, home: Home) -> AttestedStore:
    return AttestedStore(plain(), home)


def test_what_was_made_here_is_found_again_under_the_digest_that_it_would_have_without_a_signature(
    plain: Open, ours: AttestedStore, home: Home, tmp_path: Path
) -> None:
    made = ours.make("eval_report", RECIPE, saying("FAIL"))
    again = AttestedStore(plain(), home)
    assert again.make("eval_report", RECIPE, never).reused
    found = again.find("eval_report", RECIPE)
    assert found is not None
    again.require_attested(found)
    unsigned = LocalArtifactStore(tmp_path / "elsewhere").make("eval_report", RECIPE, saying("FAIL"))
    assert made.sha256 == found.sha256 == unsigned.sha256


def test_what_others_put_below_a_recipe_is_made_anew_and_the_index_names_what_was_made(
    plain: Open, ours: AttestedStore, home: Home
) -> None:
    honest = ours.make("eval_report", RECIPE, saying("FAIL"))
    forged = plain().make("eval_report", RECIPE, saying("PASS"), nobody)
    found = plain().find("eval_report", RECIPE)
    assert found is not None
    assert found.sha256 == forged.sha256

    again = AttestedStore(plain(), home)
    assert again.find("eval_report", RECIPE) is None
    with pytest.raises(EvidenceError, match=f"eval_report {forged.sha256[:12]}.*no trusted key signed"):
        again.require_attested(again.open("eval_report", forged.sha256))
    assert again.make("eval_report", RECIPE, saying("FAIL")).sha256 == honest.sha256
    found = plain().find("eval_report", RECIPE)
    assert found is not None
    assert found.sha256 == honest.sha256


def test_a_statement_about_another_artifact_proves_nothing(plain: Open, ours: AttestedStore) -> None:
    ours.make("eval_report", RECIPE, saying("FAIL"))
    other = ours.make("eval_report", {"candidate": "d" * 64}, saying("PASS"))
    statement = plain().find(STATEMENT, {"kind": "eval_report", "artifact_sha256": other.sha256})
    assert statement is not None
    forged = plain().make("eval_report", RECIPE, saying("PASS"), nobody)

    def copied(folder: Path) -> dict[str, Any]:
        (folder / ENVELOPE).write_bytes(statement.file(ENVELOPE).read_bytes())
        return statement.facts

    plain().make(STATEMENT, {"kind": "eval_report", "artifact_sha256": forged.sha256}, copied)
    assert not ours.is_attested(forged)
    assert ours.make("eval_report", RECIPE, saying("FAIL")).facts == {"says": "FAIL"}


@pytest.mark.parametrize("damage", ["no envelope", "no JSON", "a key that nobody trusts"])
def test_a_statement_that_does_not_verify_is_replaced(
    plain: Open, ours: AttestedStore, home: Home, tmp_path: Path, damage: str
) -> None:
    made = ours.make("eval_report", RECIPE, saying("FAIL"))
    about = {"kind": "eval_report", "artifact_sha256": made.sha256}
    elsewhere = AttestedStore(LocalArtifactStore(tmp_path / "elsewhere"), Home(tmp_path / "stranger"))
    elsewhere.make("eval_report", RECIPE, saying("FAIL"))
    theirs = LocalArtifactStore(tmp_path / "elsewhere").find(STATEMENT, about)
    assert theirs is not None

    def damaged(folder: Path) -> dict[str, Any]:
        if damage != "no envelope":
            strange = theirs.file(ENVELOPE).read_bytes() if damage.startswith("a key") else b"{"
            (folder / ENVELOPE).write_bytes(strange)
        return {}

    plain().make(STATEMENT, about, damaged, nobody)
    again = AttestedStore(plain(), home)
    assert not again.is_attested(made)
    assert not again.make("eval_report", RECIPE, saying("FAIL")).reused
    assert AttestedStore(plain(), home).make("eval_report", RECIPE, never).reused


def test_a_retired_key_counts_and_a_revoked_one_does_not(plain: Open, ours: AttestedStore, home: Home) -> None:
    made = ours.make("eval_report", RECIPE, saying("FAIL"))
    first = signing_key(home)
    new_key(home, SIGNING, "the next one")
    assert ours.make("eval_report", RECIPE, never).reused

    trust(home, first.public.model_copy(update={"revoked": True, "revoked_because": "it was lost"}))
    assert not ours.is_attested(made)
    again = ours.make("eval_report", RECIPE, saying("FAIL"))
    assert not again.reused
    assert again.sha256 == made.sha256
    assert ours.make("eval_report", RECIPE, never).reused


@pytest.mark.parametrize("state", ["revoked", "not trusted"])
def test_a_key_that_would_not_count_is_told_before_anything_is_built(
    ours: AttestedStore, home: Home, state: str
) -> None:
    key = signing_key(home).public
    if state == "revoked":
        trust(home, key.model_copy(update={"revoked": True, "revoked_because": "it was lost"}))
    else:
        (home.keys / "trusted" / f"{key.key_id}.json").unlink()
    with pytest.raises(
        EvidenceError, match=f"key {key.key_id[:12]} that signs here is {state}.*ML_PLATFORM_SIGNING_KEY"
    ):
        ours.make("training_set", RECIPE, never)


def test_it_is_built_where_nobody_else_writes(ours: AttestedStore, home: Home) -> None:
    seen: list[Path] = []

    def build(folder: Path) -> dict[str, Any]:
        seen.append(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        return saying("FAIL")(folder)

    made = ours.make("eval_report", RECIPE, build)
    assert seen[0].is_relative_to(home.work)
    assert not seen[0].exists()
    assert made.text("report.json") == "FAIL"


def test_what_somebody_else_changes_on_its_way_to_the_store_is_not_signed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that may write below `artifacts/` waits for the folder and replaces the file before it is hashed."""
    store = AttestedStore(LocalArtifactStore(home.artifacts), home)

    def changed(kind: str, recipe: Mapping[str, Any], folder: Path, facts: dict[str, Any]) -> ArtifactManifest:
        if kind == "eval_report":
            (folder / "report.json").write_text("PASS")
        return describe(kind, recipe, folder, facts)

    with monkeypatch.context() as attacked:
        attacked.setattr(artifacts, "describe", changed)
        with pytest.raises(ArtifactCorruptError, match=r"somebody else changed it below .*eval_report"):
            store.make("eval_report", RECIPE, saying("FAIL"))
    assert store.find("eval_report", RECIPE) is None
    assert store.make("eval_report", RECIPE, saying("FAIL")).text("report.json") == "FAIL"


def test_what_an_older_version_made_is_made_anew_once(plain: Open, ours: AttestedStore) -> None:
    old = plain().make("training_set", RECIPE, saying("examples"))
    assert not ours.make("training_set", RECIPE, saying("examples")).reused
    assert ours.make("training_set", RECIPE, never).sha256 == old.sha256


def test_contents_of_releases_need_no_signature_for_their_own_digest_names_them(
    plain: Open, ours: AttestedStore, home: Home
) -> None:
    prompt = PromptSpec(version="1.0.0", system="{facts}\nAnswer in JSON.")
    keep_content(plain(), prompt)
    assert find_content(ours, PromptSpec, prompt.sha256) == prompt
    assert not home.keys.exists()


def test_who_waits_for_another_to_make_the_same_finds_it_signed(ours: AttestedStore) -> None:
    made: list[Path] = []

    def build(folder: Path) -> dict[str, Any]:
        made.append(folder)
        return saying("FAIL")(folder)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ours.make("eval_report", RECIPE, build), range(4)))
    assert len(made) == 1
    assert sorted(one.reused for one in found) == [False, True, True, True]
