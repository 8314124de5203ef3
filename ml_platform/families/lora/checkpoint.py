"""Checkpoints that are whole or not there: hashed, synced and renamed, so that a kill at any moment costs only time."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.contracts.canonical import canonical_bytes, digest, file_sha256

MANIFEST = "manifest.json"
KEPT = 2
"""How many checkpoints stay: the newest, and the one before in case the disk damages it."""

_NAME = re.compile(r"^step-(\d{9})$")
_UNFINISHED = "unfinished-"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: the step after which it was taken, and its folder."""

    step: int
    path: Path


def write_checkpoint(root: Path, step: int, write: Callable[[Path], None]) -> Checkpoint:
    """Publishes what `write` puts into a folder as the checkpoint of `step`, then removes the oldest ones.

    Readers see the whole checkpoint or none. Raises OSError when the disk is full.
    """
    root.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root))
    try:
        write(work)
        _seal(work, step)
        target = root / f"step-{step:09d}"
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
        _sync(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for old in sorted(_folders(root), reverse=True)[KEPT:]:
        shutil.rmtree(root / f"step-{old:09d}", ignore_errors=True)
    return Checkpoint(step, target)


def newest_checkpoint(root: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None; unfinished and damaged ones are removed.

    Only the process that trains may call it: it takes every unfinished folder for abandoned.
    """
    for leftover in root.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for step in sorted(_folders(root), reverse=True):
        path = root / f"step-{step:09d}"
        if verifies(path, step):
            return Checkpoint(step, path)
        shutil.rmtree(path, ignore_errors=True)
    return None


def verifies(path: Path, step: int) -> bool:
    """Whether the folder holds exactly the files of its manifest, byte for byte, and belongs to `step`."""
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
        seal = manifest.pop("seal")
        if seal != digest(manifest) or manifest["step"] != step:
            return False
        return bool(manifest["files"] == _hashes(path))
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _seal(folder: Path, step: int) -> None:
    manifest: dict[str, Any] = {"step": step, "files": _hashes(folder)}
    (folder / MANIFEST).write_bytes(canonical_bytes(manifest | {"seal": digest(manifest)}))
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


def _folders(root: Path) -> list[int]:
    return [int(match[1]) for path in root.glob("step-*") if (match := _NAME.match(path.name))]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
