"""A publication: what is online for one product by one set of definitions, whole in a folder of its own."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime

from ml_platform.contracts.base import Contract, Name, Sha256
from ml_platform.contracts.canonical import digest, file_sha256
from ml_platform.contracts.home import Home
from ml_platform.contracts.serving import LookupSpec
from ml_platform.contracts.source import ColumnType
from ml_platform.errors import ContractError, StorageError
from ml_platform.lineage.exclusive import exclusively

CURRENT = "current.json"
KEPT_PUBLICATIONS = 3
_UNFINISHED = ".unfinished-"
_DIGITS = 12


class Publication(Contract):
    """Which features and lookups are online, as known at which moment; `current.json` holds one.

    `entities` are the entity columns with their types, `rows` how many entities each view has, `lookup_rows` how many
    rows each lookup has, `files` the digests of what readers open.
    """

    format: Literal[1] = 1
    product: Name
    definitions_sha256: Sha256 | None
    features_sha256: Sha256 | None
    snapshot_sha256: Sha256 | None
    lookups: dict[Name, LookupSpec]
    at: AwareDatetime
    entities: dict[str, ColumnType]
    rows: dict[Name, int]
    lookup_rows: dict[Name, int]
    files: dict[str, Sha256]
    folder: str

    def damaged_files(self, shelf: Path) -> list[str]:
        """Those of its files that are missing or hold something else."""

        def is_sound(name: str, sha256: str) -> bool:
            try:
                return file_sha256(shelf / self.folder / name) == sha256
            except OSError:
                return False

        return [name for name, sha256 in self.files.items() if not is_sound(name, sha256)]


def shelf_of(home: Home, product: str, definitions_sha256: str | None, lookups: Mapping[str, LookupSpec]) -> Path:
    """The folder where publications by these definitions and lookups lie, one after the other.

    Releases with different definitions read different shelves, so that a canary never changes what production reads.
    """
    parts = [definitions_sha256[:_DIGITS]] if definitions_sha256 else []
    if lookups:
        parts.append("lookups")
        parts.append(digest({name: spec.model_dump(mode="json") for name, spec in lookups.items()})[:_DIGITS])
    return home.features / product / ("-".join(parts) or "nothing")


def current_publication(shelf: Path) -> Publication | None:
    """What is online on a shelf, or None before the first publication.

    Raises StorageError for a file that is damaged, or of another version of this code.
    """
    path = shelf / CURRENT
    try:
        return Publication.read(path) if path.is_file() else None
    except (ContractError, OSError) as error:
        raise StorageError(f"{path}: {error} Publish again: run the asset online_features, or `mlp run`.") from None


def sound_publication(shelf: Path) -> Publication | None:
    """What is online and sound; None where a publication must be made, whatever lies there."""
    try:
        found = current_publication(shelf)
    except StorageError:
        return None
    return found if found is not None and not found.damaged_files(shelf) else None


@contextmanager
def locked(shelf: Path) -> Iterator[None]:
    """One publisher of a shelf at a time."""
    shelf.mkdir(parents=True, exist_ok=True)
    with exclusively(shelf / ".lock"):
        yield


def new_folder(shelf: Path) -> Path:
    """An empty folder to write in; what a killed publisher left behind goes. The shelf must be locked."""
    for folder in shelf.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=shelf))


def finished_name(work: Path, prefix: str) -> str:
    """The name that a finished folder gets; no other ever had it."""
    return f"{prefix}-{work.name.removeprefix(_UNFINISHED)}"


def remove_old(shelf: Path, current: Publication) -> None:
    """Keeps the newest publications: a reader may still be in the one before."""
    folders = sorted((path for path in shelf.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime_ns)
    for folder in folders[:-KEPT_PUBLICATIONS]:
        if folder.name != current.folder:
            shutil.rmtree(folder, ignore_errors=True)
