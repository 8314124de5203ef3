"""One suite for every artifact store: the local folder, and object stores over two real filesystems."""

import json
import os
import resource
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ml_platform.contracts.canonical import bytes_sha256, digest
from ml_platform.contracts.home import Home
from ml_platform.errors import ArtifactCorruptError, StorageError
from ml_platform.lineage.artifacts import Artifact, ArtifactManifest, ArtifactStore, LocalArtifactStore, StoredFile
from ml_platform.lineage.object_store import URL_VARIABLE, ObjectArtifactStore, artifact_store

RECIPE = {"as_of": "2013-03-31", "code_sha256": "0" * 64}


class Place:
    """A store that can be opened again as another machine would, and whose stored bytes can be damaged."""

    def __init__(self, again: Callable[[], ArtifactStore], root: str) -> None:
        self.again = again
        self.root = root

    def damage(self, name: str, change: Callable[[bytes], bytes]) -> None:
        with fsspec.open(f"{self.root}/{name}", "rb") as file:
            data = file.read()
        with fsspec.open(f"{self.root}/{name}", "wb") as file:
            file.write(change(data))

    def names(self, folder: str) -> list[str]:
        filesystem, root = fsspec.core.url_to_fs(f"{self.root}/{folder}")
        return sorted(filesystem.find(root)) if filesystem.exists(root) else []


@pytest.fixture(params=["local", "memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place_of(request.param, tmp_path)


def place_of(kind: str, tmp_path: Path) -> Place:
    machines = iter(range(100))
    if kind == "local":
        return Place(lambda: LocalArtifactStore(tmp_path / "store"), str(tmp_path / "store"))
    url = f"memory://{uuid.uuid4().hex}" if kind == "memory" else f"file://{tmp_path / 'bucket'}"
    return Place(lambda: ObjectArtifactStore(url, tmp_path / f"machine-{next(machines)}"), url)


def build(folder: Path) -> dict[str, Any]:
    (folder / "tables").mkdir()
    (folder / "tables" / "flights.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "notes.txt").write_text("late")
    return {"rows": 3, "share": 0.25}


def never(folder: Path) -> dict[str, Any]:
    raise AssertionError(f"built again in {folder}")


def contents(artifact: Artifact) -> dict[str, bytes]:
    return {name: artifact.file(name).read_bytes() for name in artifact.manifest.files}


def flip_one_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_what_is_made_once_is_found_by_its_recipe_on_every_machine(place: Place) -> None:
    made = place.again().make("snapshot", RECIPE, build)
    found = place.again().make("snapshot", RECIPE, never)
    assert not made.reused
    assert found.reused
    assert found.sha256 == made.sha256
    assert contents(found) == contents(made)
    assert found.facts == {"rows": 3, "share": 0.25}


def test_an_artifact_opens_by_its_digest(place: Place) -> None:
    made = place.again().make("snapshot", RECIPE, build)
    assert contents(place.again().open("snapshot", made.sha256)) == contents(made)


def test_the_digest_does_not_depend_on_the_store_or_the_order_of_the_recipe(place: Place, tmp_path: Path) -> None:
    made = place.again().make("snapshot", RECIPE, build)
    other = LocalArtifactStore(tmp_path / "other").make("snapshot", dict(reversed(RECIPE.items())), build)
    assert made.sha256 == other.sha256


def test_another_recipe_is_another_artifact(place: Place) -> None:
    store = place.again()
    made = store.make("snapshot", RECIPE, build)
    other = store.make("snapshot", {**RECIPE, "as_of": "2013-04-01"}, build)
    assert other.sha256 != made.sha256
    assert store.find("snapshot", {**RECIPE, "as_of": "2013-04-02"}) is None
    assert store.find("features", RECIPE) is None


@pytest.mark.parametrize("name", ["tables/flights.bin", "notes.txt", "manifest.json"])
def test_one_flipped_bit_is_detected_set_aside_and_the_artifact_made_again(place: Place, name: str) -> None:
    made = place.again().make("snapshot", RECIPE, build)
    place.damage(f"snapshot/{made.sha256}/{name}", flip_one_bit)
    with pytest.raises(ArtifactCorruptError, match=r"(?s)manifest.*[Mm]aterialize the snapshot again"):
        place.again().open("snapshot", made.sha256)
    assert place.again().find("snapshot", RECIPE) is None
    assert place.names("corrupt")
    again = place.again().make("snapshot", RECIPE, build)
    assert again.sha256 == made.sha256
    assert contents(place.again().open("snapshot", made.sha256))["notes.txt"] == b"late"


def forge(store: str, name: str, data: bytes) -> ArtifactManifest:
    """Puts an artifact with a file of that name where only the store itself would: every digest of it is right."""
    file = StoredFile(file_sha256=bytes_sha256(data), size_bytes=len(data))
    forged = ArtifactManifest(kind="snapshot", recipe=RECIPE, files={name: file}, facts={})
    filesystem, root = fsspec.core.url_to_fs(store)
    filesystem.makedirs(f"{root}/snapshot/by_recipe", exist_ok=True)
    filesystem.makedirs(f"{root}/snapshot/{forged.sha256}", exist_ok=True)
    filesystem.pipe_file(f"{root}/snapshot/{forged.sha256}/manifest.json", forged.canonical_bytes())
    filesystem.pipe_file(f"{root}/snapshot/by_recipe/{digest(RECIPE)}", forged.sha256.encode())
    return forged


@pytest.mark.parametrize("wanted", ["../../../keys/trusted/evil.json", "{away}/keys/trusted/evil.json"])
def test_a_forged_artifact_writes_no_key_that_this_machine_would_trust(tmp_path: Path, wanted: str) -> None:
    """Whoever can write the bucket states digests of its own: only the name tells that this is no artifact."""
    url, name, key = f"memory://{uuid.uuid4().hex}", wanted.format(away=tmp_path), b"a public key"
    forged = forge(url, name, key)
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.pipe_file(f"{root}/snapshot/{forged.sha256}/{name}", key)
    store = ObjectArtifactStore(url, tmp_path / "artifacts")
    with pytest.raises(ArtifactCorruptError, match="no file of its own folder"):
        store.open("snapshot", forged.sha256)
    assert store.find("snapshot", RECIPE) is None
    assert not list(tmp_path.rglob("evil.json"))
    assert store.make("snapshot", RECIPE, build).facts["rows"] == 3


@pytest.mark.parametrize("name", ["..", "tables/../../x", "/x", "./x", "a//b", "", ".", "a\0b", "manifest.json"])
def test_a_manifest_names_files_of_its_own_folder_in_one_spelling_each(place: Place, name: str) -> None:
    forged = forge(place.root, name, b"")
    with pytest.raises(ArtifactCorruptError, match="no file of its own folder"):
        place.again().open("snapshot", forged.sha256)


@pytest.mark.parametrize("damaged", [b"", b"\xff\xfe rubbish", b"../../../etc", b"0" * 64])
def test_a_damaged_index_costs_a_rebuild_and_nothing_else(place: Place, damaged: bytes) -> None:
    store = place.again()
    made = store.make("snapshot", RECIPE, build)
    (index,) = place.names("snapshot/by_recipe")
    place.damage(f"snapshot/by_recipe/{index.rpartition('/')[2]}", lambda _: damaged)
    assert place.again().find("snapshot", RECIPE) is None
    assert place.again().make("snapshot", RECIPE, build).sha256 == made.sha256


def test_an_index_that_points_to_another_recipes_artifact_is_not_believed(place: Place) -> None:
    made = place.again().make("snapshot", RECIPE, build)
    (mine,) = place.names("snapshot/by_recipe")
    other = place.again().make("snapshot", {"as_of": "2013-04-01"}, build)
    place.damage(f"snapshot/by_recipe/{mine.rpartition('/')[2]}", lambda _: other.sha256.encode())
    assert place.again().make("snapshot", RECIPE, build).sha256 == made.sha256


def test_a_missing_artifact_is_named_with_its_digest(place: Place) -> None:
    with pytest.raises(ArtifactCorruptError, match="snapshot aaaaaaaaaaaa is missing"):
        place.again().open("snapshot", "a" * 64)


@pytest.mark.parametrize("name", ["..", "../..", "", "A" * 64])
def test_only_a_digest_opens_an_artifact(place: Place, name: str) -> None:
    with pytest.raises(ArtifactCorruptError, match="64 hexadecimal digits"):
        place.again().open("snapshot", name)


def test_a_build_that_fails_publishes_nothing_and_leaves_nothing(place: Place, tmp_path: Path) -> None:
    def fails(folder: Path) -> dict[str, Any]:
        (folder / "half.bin").write_bytes(b"half")
        raise RuntimeError("no more")

    store = place.again()
    with pytest.raises(RuntimeError, match="no more"):
        store.make("snapshot", RECIPE, fails)
    assert store.find("snapshot", RECIPE) is None
    assert not list(tmp_path.rglob("half.bin"))
    assert store.make("snapshot", RECIPE, build).facts["rows"] == 3


def test_a_name_that_the_artifact_does_not_have_is_answered_with_those_it_has(place: Place) -> None:
    made = place.again().make("snapshot", RECIPE, build)
    with pytest.raises(ArtifactCorruptError, match=r"no file 'table.bin', only notes.txt, tables/flights.bin"):
        made.file("table.bin")


def test_links_and_the_stores_own_manifest_are_refused(place: Place) -> None:
    def links(folder: Path) -> dict[str, Any]:
        (folder / "hosts").symlink_to("/etc/hosts")
        return {}

    def writes_manifest(folder: Path) -> dict[str, Any]:
        (folder / "manifest.json").write_text("{}")
        return {}

    for wrong, name in ((links, "hosts"), (writes_manifest, "manifest.json")):
        with pytest.raises(StorageError, match=f"cannot hold '{name}'"):
            place.again().make("snapshot", RECIPE, wrong)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["{sha256}/notes.txt", "{sha256}/manifest.json", "by_recipe/{recipe}"])
@pytest.mark.parametrize("kind", ["local", "file"])
def test_a_pipe_in_a_shared_folder_keeps_nobody_waiting_and_the_artifact_is_made_again(
    tmp_path: Path, kind: str, name: str
) -> None:
    """A pipe that nobody writes to has no end: who opens it for reading waits for good."""
    place = place_of(kind, tmp_path)
    made = place.again().make("snapshot", RECIPE, build)
    path = Path(place.root.removeprefix("file://"), "snapshot", name.format(sha256=made.sha256, recipe=digest(RECIPE)))
    path.unlink()
    os.mkfifo(path)
    if "by_recipe" not in name:
        with pytest.raises(ArtifactCorruptError, match="aterialize"):
            place.again().open("snapshot", made.sha256)
    assert place.again().find("snapshot", RECIPE) is None
    assert place.again().make("snapshot", RECIPE, build).sha256 == made.sha256
    assert contents(place.again().make("snapshot", RECIPE, never)) == contents(made)


@contextmanager
def no_file_can_be_opened() -> Iterator[None]:
    """As in a process that has used up its descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_store_that_cannot_be_read_is_no_fault_of_the_artifact(place: Place) -> None:
    store = place.again()
    made = store.make("snapshot", RECIPE, build)
    with no_file_can_be_opened(), pytest.raises(StorageError, match="Too many open files"):
        store.find("snapshot", RECIPE)
    with no_file_can_be_opened(), pytest.raises(StorageError, match="Too many open files"):
        store.open("snapshot", made.sha256)
    assert not place.names("corrupt")
    assert contents(store.make("snapshot", RECIPE, never)) == contents(made)


@pytest.mark.timeout(60)
def test_a_device_that_gives_bytes_without_end_is_not_hashed(tmp_path: Path) -> None:
    made = LocalArtifactStore(tmp_path).make("snapshot", RECIPE, build)
    made.file("notes.txt").unlink()
    made.file("notes.txt").symlink_to("/dev/zero")
    with pytest.raises(ArtifactCorruptError, match=r"notes.txt: is a link, a pipe or a device"):
        LocalArtifactStore(tmp_path).open("snapshot", made.sha256)


def test_an_upload_that_broke_off_is_completed_from_the_cache(tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    made = ObjectArtifactStore(url, tmp_path / "one").make("snapshot", RECIPE, build)
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.rm(f"{root}/snapshot/{made.sha256}/manifest.json")
    filesystem.rm(f"{root}/snapshot/by_recipe", recursive=True)
    assert ObjectArtifactStore(url, tmp_path / "two").find("snapshot", RECIPE) is None
    assert ObjectArtifactStore(url, tmp_path / "one").make("snapshot", RECIPE, never).sha256 == made.sha256
    assert ObjectArtifactStore(url, tmp_path / "two").open("snapshot", made.sha256).facts["rows"] == 3


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("name", ["notes.txt", "tables/flights.bin", "manifest.json"])
@pytest.mark.parametrize("change", ["flipped", "cut", "gone"])
def test_what_was_damaged_in_the_object_store_is_put_again_by_who_has_it_cached(
    tmp_path: Path, kind: str, name: str, change: str
) -> None:
    """Who looks for it without a cache sets it aside; who made it is asked to make it again, and need not."""
    place = place_of(kind, tmp_path)
    maker, other = place.again(), place.again()
    made = maker.make("snapshot", RECIPE, build)
    filesystem, root = fsspec.core.url_to_fs(place.root)
    if change == "gone":
        filesystem.rm_file(f"{root}/snapshot/{made.sha256}/{name}")
    else:
        place.damage(f"snapshot/{made.sha256}/{name}", flip_one_bit if change == "flipped" else lambda data: data[:-1])
    with pytest.raises(ArtifactCorruptError, match="aterialize"):
        other.open("snapshot", made.sha256)
    assert other.find("snapshot", RECIPE) is None
    assert maker.make("snapshot", RECIPE, never).sha256 == made.sha256
    assert contents(other.open("snapshot", made.sha256)) == contents(made)


@pytest.mark.parametrize("name", ["notes.txt", "manifest.json"])
def test_what_the_object_store_lost_is_put_again_before_anybody_misses_it(tmp_path: Path, name: str) -> None:
    place = place_of("memory", tmp_path)
    maker = place.again()
    made = maker.make("snapshot", RECIPE, build)
    place.damage(f"snapshot/{made.sha256}/{name}", lambda _: b"")
    maker.make("snapshot", RECIPE, never)
    assert contents(place.again().open("snapshot", made.sha256)) == contents(made)


def test_an_upload_that_another_machine_is_still_at_is_left_alone(tmp_path: Path) -> None:
    """What has files and no manifest yet is no damaged artifact, whatever an index says."""
    place = place_of("memory", tmp_path)
    made = place.again().make("snapshot", RECIPE, build)
    filesystem, root = fsspec.core.url_to_fs(place.root)
    manifest = f"{root}/snapshot/{made.sha256}/manifest.json"
    data = filesystem.cat_file(manifest)
    filesystem.rm_file(manifest)
    assert place.again().find("snapshot", RECIPE) is None
    assert not place.names("corrupt")
    filesystem.pipe_file(manifest, data)
    assert place.again().make("snapshot", RECIPE, never).sha256 == made.sha256


def test_a_damaged_cache_is_replaced_by_a_download(tmp_path: Path) -> None:
    store = ObjectArtifactStore(f"memory://{uuid.uuid4().hex}", tmp_path / "cache")
    made = store.make("snapshot", RECIPE, build)
    made.file("notes.txt").write_text("hate")
    assert store.make("snapshot", RECIPE, never).file("notes.txt").read_text() == "late"


def test_an_unreachable_object_store_is_a_storage_error_that_names_the_variable(tmp_path: Path) -> None:
    for url in ("nosuchprotocol://bucket", "file:///proc/nowhere"):
        with pytest.raises(StorageError, match=URL_VARIABLE):
            ObjectArtifactStore(url, tmp_path / "cache").make("snapshot", RECIPE, build)


class EndpointConnectionError(Exception):
    """As botocore raises, which s3fs does not translate: neither an OSError nor a ValueError."""


@pytest.mark.parametrize("fails", ["info", "cat_file", "get_file", "put_file", "pipe_file", "mv"])
def test_whatever_the_client_of_a_bucket_raises_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """A rollback waits for what it keeps: only errors that are known as the store's let it go on."""

    def unreachable(*_: object, **__: object) -> None:
        raise EndpointConnectionError("Could not connect to the endpoint URL")

    place = place_of("memory", tmp_path)
    made = place.again().make("snapshot", RECIPE, build)
    if fails == "mv":
        place.damage(f"snapshot/{made.sha256}/notes.txt", flip_one_bit)
    monkeypatch.setattr(MemoryFileSystem, fails, unreachable)
    recipe = {"as_of": "2013-04-01"} if fails in ("put_file", "pipe_file") else RECIPE
    with pytest.raises(StorageError, match=f"EndpointConnectionError: Could not connect.*{URL_VARIABLE}"):
        place.again().make("snapshot", recipe, build)


def test_the_environment_chooses_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    assert isinstance(artifact_store(Home(tmp_path)), LocalArtifactStore)
    monkeypatch.setenv(URL_VARIABLE, f"file://{tmp_path}/bucket")
    made = artifact_store(Home(tmp_path)).make("snapshot", RECIPE, build)
    manifest = json.loads((tmp_path / "bucket" / "snapshot" / made.sha256 / "manifest.json").read_text())
    assert manifest["facts"] == {"rows": 3, "share": 0.25}
