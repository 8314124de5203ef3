"""One changed byte of what a release is made of: every byte of a manifest, many of a real adapter; named every time."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ml_platform.cli.verifying import verify_everything
from ml_platform.errors import ArtifactCorruptError
from ml_platform.lineage.artifacts import LocalArtifactStore
from tests.samples.proven import Proven, make_proven

ADAPTER = "adapter/adapter_model.safetensors"
PATTERNS = (0x01, 0x20, 0x80, 0xFF)
SAMPLES = 150


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Proven:
    return make_proven(tmp_path_factory.mktemp("tampered"))


@pytest.fixture
def candidate(proven: Proven) -> Any:
    """The candidate's folder; every file must be as it was at the end."""
    before = {path: path.read_bytes() for path in proven.candidate.path.rglob("*") if path.is_file()}
    yield proven.candidate.path
    assert {path: path.read_bytes() for path in proven.candidate.path.rglob("*") if path.is_file()} == before
    assert broken(proven) == {}


def broken(proven: Proven) -> dict[str, str]:
    """What `mlp verify` calls broken, by what it looked at."""
    found = verify_everything(proven.home, proven.release.release_id)
    return {one.what: one.found for one in found if one.state == "broken"}


def refusal(proven: Proven, path: Path, index: int, pattern: int) -> str:
    """What the store, which all that loads a candidate goes through, says of one changed byte."""
    sound = path.read_bytes()
    path.write_bytes(sound[:index] + bytes([sound[index] ^ pattern]) + sound[index + 1 :])
    try:
        with pytest.raises(ArtifactCorruptError) as caught:
            LocalArtifactStore(proven.home.artifacts).open("candidate", proven.candidate.sha256)
        if index % 97 == 0:
            assert broken(proven) == {"candidate": str(caught.value)}
    finally:
        path.write_bytes(sound)
    return str(caught.value)


def test_every_byte_of_a_candidates_manifest_is_watched(proven: Proven, candidate: Path) -> None:
    """The sentence names the file and the candidate, whether the byte leaves JSON, another value or another key."""
    path = candidate / "manifest.json"
    assert json.loads(path.read_bytes())["kind"] == "candidate"
    for index in range(path.stat().st_size):
        for pattern in PATTERNS:
            said = refusal(proven, path, index, pattern)
            assert said.startswith(f"{path}: is not the manifest of candidate {proven.candidate.sha256[:12]}")


def test_sampled_bytes_of_a_real_adapter_are_watched(proven: Proven, candidate: Path) -> None:
    """Header, first and last weights, and many between them."""
    path = candidate / ADAPTER
    size, chance = path.stat().st_size, random.Random(7)  # noqa: S311 - places to look at, no secret
    places = [*range(16), *range(size - 16, size), *(chance.randrange(size) for _ in range(SAMPLES))]
    for number, index in enumerate(places):
        said = refusal(proven, path, index, PATTERNS[number % len(PATTERNS)])
        assert said.startswith(f"{path}: SHA-256 is ")
        assert f"the manifest of candidate {proven.candidate.sha256[:12]} says " in said


@pytest.mark.parametrize("change", ["longer", "shorter", "gone", "another beside it", "a link to a copy"])
def test_an_adapter_of_another_size_or_kind_is_named(proven: Proven, change: str, tmp_path: Path) -> None:
    path = proven.candidate.path / ADAPTER
    sound, beside = path.read_bytes(), path.with_name("adapter_model.bin")
    if change in ("longer", "shorter"):
        path.write_bytes(sound + b"\0" if change == "longer" else sound[:-1])
    elif change == "another beside it":
        beside.write_bytes(b"a pickle")
    else:
        path.unlink()
        if change == "a link to a copy":
            (tmp_path / "copy").write_bytes(sound[::-1])
            path.symlink_to(tmp_path / "copy")
    try:
        assert set(broken(proven)) == {"candidate"}
        assert path.parent.name in broken(proven)["candidate"]
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(sound)
        beside.unlink(missing_ok=True)
    assert broken(proven) == {}
