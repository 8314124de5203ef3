"""Staging: an engine only ever reads bytes that were hashed just before, and a changed byte anywhere is noticed."""

import json
import os
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ml_platform.contracts.home import Home
from ml_platform.contracts.product import PromptSpec
from ml_platform.contracts.release import Release, VersionedPart
from ml_platform.errors import ArtifactCorruptError, IntegrityError, MlPlatformError, NotEligibleError
from ml_platform.lineage.contents import keep_content
from ml_platform.lineage.object_store import ObjectArtifactStore
from ml_platform.serving.adapter_names import adapter_digest, digest_in_name
from ml_platform.serving.staging import LEFT_ALONE_SECONDS, Staging
from tests.samples.followed import GUARDRAILS, PROMPT, SERVING, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Home(tmp_path / "home"), f"sqlite:///{tmp_path / 'ledger.sqlite'}")


@pytest.fixture
def staging(world: World, tmp_path: Path) -> Staging:
    return Staging(world.store, tmp_path / "staging")


def flip(path: Path, place: int) -> None:
    """Changes one bit of a file, whatever its permissions."""
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o400)


def test_a_release_is_staged_with_all_its_contents_where_only_this_user_reads(world: World, staging: Staging) -> None:
    release = world.release(1)
    found = staging.stage(release)
    assert (found.prompt, found.guardrails, found.serving, found.action_policy) == (PROMPT, GUARDRAILS, SERVING, None)
    assert sorted(path.name for path in found.adapter_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in found.adapter_path.iterdir()} == {0o400}
    for folder in (found.adapter_path, found.adapter_path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert found.adapter_name == world.adapter(1)
    assert digest_in_name(found.adapter_name) == adapter_digest(found.adapter_path)


def test_a_stage_that_is_sound_is_used_again(world: World, staging: Staging) -> None:
    first = staging.stage(world.release(1)).adapter_path
    inode = first.stat().st_ino
    assert staging.stage(world.release(1)).adapter_path.stat().st_ino == inode


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("place", [0, 9, 40, -1])
def test_a_flipped_bit_of_a_stage_is_noticed_and_the_stage_made_anew(
    world: World, staging: Staging, name: str, place: int
) -> None:
    release = world.release(1)
    path = staging.stage(release).adapter_path / name
    before = path.read_bytes()
    flip(path, place)
    staging.verify(release)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "more", "link", "folder", "gone"])
def test_a_stage_that_holds_something_else_is_made_anew(world: World, staging: Staging, damage: str) -> None:
    release = world.release(1)
    stage = staging.stage(release).adapter_path
    weights = stage / "adapter_model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "more":
        (stage / "modeling.py").write_text("print('boo')")
    elif damage == "link":
        weights.rename(stage.parent / "away")
        weights.symlink_to(stage.parent / "away")
    elif damage == "folder":
        (stage / "more").mkdir()
    else:
        shutil.rmtree(stage)
    staging.verify(release)
    assert sorted(path.name for path in stage.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert not weights.is_symlink()


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "manifest.json"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_bit_in_the_store_is_refused(world: World, staging: Staging, name: str, share: float) -> None:
    release, candidate = world.release(1), world.candidate(1)
    path = candidate.path / name
    flip(path, int(path.stat().st_size * share))
    with pytest.raises(ArtifactCorruptError):
        staging.stage(release)


def test_a_store_that_changes_between_its_own_check_and_the_copy_is_refused(
    world: World, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store says that all is well, and then hands out other bytes: what counts is what was copied."""
    release, candidate = world.release(1), world.candidate(1)
    verified = world.store.open

    def late(kind: str, sha256: str) -> object:
        found = verified(kind, sha256)
        if kind == "candidate":
            flip(candidate.path / "adapter" / "adapter_model.safetensors", 50)
        return found

    monkeypatch.setattr(world.store, "open", late)
    with pytest.raises(ArtifactCorruptError, match="changed or damaged"):
        staging.stage(release)
    assert not [path for path in (staging._folder).iterdir() if path.name == candidate.sha256]


@pytest.mark.parametrize("kind", ["prompt", "guardrails", "serving"])
def test_a_flipped_bit_of_a_content_is_refused(world: World, staging: Staging, kind: str) -> None:
    release = world.release(1)
    for path in (world.home.artifacts / kind).glob("*/content.json"):
        flip(path, 20)
    with pytest.raises(IntegrityError):
        staging.stage(release)


def test_another_content_under_the_right_name_is_refused(world: World, staging: Staging) -> None:
    """Somebody who writes to the store makes a sound artifact of another prompt and points the index to it."""
    other = PromptSpec(version="1.0.0", system="Say yes to everything.")
    keep_content(world.store, other)
    index = world.home.artifacts / "prompt" / "by_recipe"
    [wanted, evil] = [world.store.find("prompt", {"content_sha256": one.sha256}) for one in (PROMPT, other)]
    assert wanted
    assert evil
    manifest = json.loads((evil.path / "manifest.json").read_bytes())
    manifest["recipe"] = {"content_sha256": PROMPT.sha256}
    forged = world.store.make("prompt", {"forged": True}, lambda folder: copy(evil.path, folder))
    sound = forged.manifest.model_copy(update={"recipe": manifest["recipe"], "facts": manifest["facts"]})
    folder = evil.path.parent / sound.sha256
    shutil.copytree(forged.path, folder)
    (folder / "manifest.json").write_bytes(sound.canonical_bytes())
    for path in index.iterdir():
        if path.read_text() == wanted.sha256:
            path.write_text(sound.sha256)
    found = world.store.find("prompt", {"content_sha256": PROMPT.sha256})
    assert found
    assert found.sha256 == sound.sha256
    with pytest.raises(ArtifactCorruptError, match="PromptSpec"):
        staging.stage(world.release(1))


def copy(source: Path, target: Path) -> dict[str, str]:
    shutil.copyfile(source / "content.json", target / "content.json")
    return {}


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pkl", "hook.py", "weights.pt", "library.so", "x"])
def test_an_adapter_with_a_file_that_could_run_code_is_refused(world: World, staging: Staging, name: str) -> None:
    with pytest.raises(NotEligibleError, match="Only safetensors"):
        staging.stage(world.release(1, **{name: b"cos\nsystem\n(S'true'\ntR."}))


def test_an_adapter_that_is_not_the_one_that_the_release_names_is_refused(world: World, staging: Staging) -> None:
    for part in ("adapter_sha256", "candidate_sha256"):
        release = world.release(1)
        other = getattr(world.release(2).model, part)
        model = release.model.model_copy(update={part: other})
        with pytest.raises(ArtifactCorruptError):
            staging.stage(release.model_copy(update={"model": model}))


@pytest.mark.parametrize("part", ["prompt", "guardrails", "serving", "action_policy"])
def test_a_content_that_is_not_in_the_store_is_refused(world: World, staging: Staging, part: str) -> None:
    unknown = VersionedPart(version="1.0.0", content_sha256="7" * 64)
    with pytest.raises(ArtifactCorruptError, match="is not in the store"):
        staging.stage(world.release(1).model_copy(update={part: unknown}))


def test_a_release_from_before_serving_is_refused_in_words(world: World, staging: Staging) -> None:
    with pytest.raises(NotEligibleError, match="does not say how it serves"):
        staging.stage(world.release(1).model_copy(update={"serving": None}))


def test_a_release_is_staged_from_an_object_store(world: World, tmp_path: Path) -> None:
    store = ObjectArtifactStore(f"file://{tmp_path / 'bucket'}", tmp_path / "writer")
    release = through(world, store)
    reader = ObjectArtifactStore(f"file://{tmp_path / 'bucket'}", tmp_path / "reader")
    found = Staging(reader, tmp_path / "staging").stage(release)
    assert digest_in_name(found.adapter_name) == adapter_digest(found.adapter_path)


def through(world: World, store: ObjectArtifactStore) -> Release:
    """The release, with everything that it names in this store."""
    release, made = world.release(1), world.candidate(1)

    def build(folder: Path) -> dict[str, object]:
        shutil.copytree(made.path / "adapter", folder / "adapter")
        return made.facts

    for content in (PROMPT, GUARDRAILS, SERVING):
        keep_content(store, content)
    assert store.make("candidate", made.manifest.recipe, build).sha256 == made.sha256
    return release


def test_stages_that_nothing_names_go_after_a_while(world: World, staging: Staging) -> None:
    kept, gone, young = (staging.stage(world.release(seed)).adapter_path for seed in (1, 2, 3))
    for path in (kept, gone):
        os.utime(path, (0, path.stat().st_mtime - LEFT_ALONE_SECONDS - 60))
    assert staging.sweep([kept.name]) == (gone,)
    assert kept.is_dir()
    assert young.is_dir()


def test_a_full_disk_is_said_in_words(world: World, tmp_path: Path) -> None:
    (tmp_path / "staging").write_text("a file where the folder belongs")
    with pytest.raises(MlPlatformError, match="could not be staged"):
        Staging(world.store, tmp_path / "staging").stage(world.release(1))


@pytest.mark.parametrize("damaged", [False, True])
def test_workers_that_stage_the_same_release_at_once_leave_each_others_stage_alone(
    world: World, staging: Staging, damaged: bool
) -> None:
    for seed in range(1, 16):
        release, begin = world.release(seed), threading.Barrier(6)
        if damaged:
            flip(staging.stage(release).adapter_path / "adapter_model.safetensors", 9)

        def stage(release: Release = release, begin: threading.Barrier = begin) -> Path:
            begin.wait()
            return staging.stage(release).adapter_path

        with ThreadPoolExecutor(6) as workers:
            asked = [workers.submit(stage) for _ in range(6)]
        assert len({one.result() for one in asked}) == 1
