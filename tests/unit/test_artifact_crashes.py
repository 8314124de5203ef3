"""Real processes, killed or starved in the middle of a write: what was published before stays valid."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import StorageError
from ml_platform.lineage.artifacts import LocalArtifactStore

ROOT = Path(__file__).parents[2]
BUILDER = """
import os
import signal
import sys
from pathlib import Path
from ml_platform.lineage.artifacts import LocalArtifactStore

def build(folder):
    with (folder / "log").open("a") as log:
        log.write("x")
    (folder / "parts").mkdir()
    for number in range(3):
        (folder / "parts" / str(number)).write_bytes(bytes([number]) * 50_000)
    return {"parts": 3}

def kill_at(event, _):
    global moments
    if event == "open" or event.startswith(("os.", "shutil.", "tempfile.", "fcntl.")) and event != "os.kill":
        moments += 1
        if moments > int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

moments = 0
if len(sys.argv) > 3:
    sys.addaudithook(kill_at)
made = LocalArtifactStore(Path(sys.argv[1])).make("candidate", {"n": int(sys.argv[2])}, build)
print("reused" if made.reused else "made", made.sha256, flush=True)
"""


def start(store: Path, number: int, kill_at: int | None = None) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", BUILDER, str(store), str(number)]
    command += [] if kill_at is None else [str(kill_at)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def finish(process: "subprocess.Popen[str]") -> list[str]:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.split("\n")[-2].split()


def build(folder: Path) -> dict[str, Any]:
    (folder / "weights.bin").write_bytes(os.urandom(64))
    return {}


def test_a_kill_at_any_moment_leaves_what_was_published_and_no_half_artifact(tmp_path: Path) -> None:
    """The process kills itself at its first, second, third, ... touch of the disk, until one lives to the end."""
    store = LocalArtifactStore(tmp_path)
    before = store.make("candidate", {"n": -1}, build)
    moments = 0
    while (process := start(tmp_path, moments, kill_at=moments)).wait(60) == -signal.SIGKILL:
        process.communicate()
        assert store.open("candidate", before.sha256).sha256 == before.sha256
        for path in (tmp_path / "candidate").glob("?" * 64):
            store.open("candidate", path.name)
        assert store.make("candidate", {"n": moments}, build).path.is_dir()
        moments += 1
    assert finish(process)[0] == "made"
    assert moments > 20, "opening, writing, renaming: each must have been interrupted"
    assert not list((tmp_path / "tmp").iterdir()), "the next build cleans up after the killed ones"


def test_two_processes_with_one_recipe_build_it_once(tmp_path: Path) -> None:
    processes = [start(tmp_path, 7) for _ in range(3)]
    ends = [finish(process) for process in processes]
    assert sorted(end[0] for end in ends) == ["made", "reused", "reused"]
    assert len({end[1] for end in ends}) == 1
    assert (tmp_path / "candidate" / ends[0][1] / "log").read_text() == "x"


def test_work_in_progress_of_a_living_process_is_not_cleaned_up(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path)

    def build_another_meanwhile(folder: Path) -> dict[str, Any]:
        (folder / "early.bin").write_bytes(b"1")
        assert finish(start(tmp_path, 1))[0] == "made"
        return build(folder)

    made = store.make("candidate", {"n": 0}, build_another_meanwhile)
    assert set(made.manifest.files) == {"early.bin", "weights.bin"}


def test_a_write_beyond_the_file_size_limit_is_a_storage_error(tmp_path: Path) -> None:
    script = "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n" + BUILDER.replace(
        "make(", "make(", 1
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), "1"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert "StorageError: the candidate could not be stored" in ended.stderr
    assert "Free disk space" in ended.stderr
    assert LocalArtifactStore(tmp_path).find("candidate", {"n": 1}) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_keeps_what_was_published(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        store = LocalArtifactStore(tmp_path)
        before = store.make("candidate", {"n": 0}, build)

        def fills(folder: Path) -> dict[str, Any]:
            (folder / "huge.bin").write_bytes(bytes(5_000_000))
            return {}

        with pytest.raises(StorageError, match=r"No space left on device.*untouched"):
            store.make("candidate", {"n": 1}, fills)
        assert store.find("candidate", {"n": 1}) is None
        assert store.open("candidate", before.sha256).sha256 == before.sha256
        assert store.make("candidate", {"n": 1}, build).manifest.files.keys() == {"weights.bin"}
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="could not be stored below"):
        LocalArtifactStore(tmp_path / "store").make("candidate", {"n": 1}, build)


def test_an_error_of_the_builder_itself_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    def reads_what_is_not_there(folder: Path) -> dict[str, Any]:
        return {"text": (folder / "missing.txt").read_text()}

    with pytest.raises(FileNotFoundError):
        LocalArtifactStore(tmp_path).make("candidate", {"n": 1}, reads_what_is_not_there)
