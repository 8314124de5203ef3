"""A snapshot's manifest: what was known at the cutoff, where it came from, and what was set aside."""

from datetime import date
from typing import Annotated, ClassVar

from pydantic import AwareDatetime, Field

from ml_platform.contracts.base import Contract, GrowingContract, Name, Sha256
from ml_platform.contracts.source import ColumnType

Count = Annotated[int, Field(ge=0)]


class TableFacts(GrowingContract):
    """One table of a snapshot: its Parquet file, its schema and its counts.

    `not_yet_known` stands in old snapshots only: it tells of what came after the cutoff. SnapshotOrigin has it now.
    """

    came_later: ClassVar[tuple[str, ...]] = ("not_yet_known",)

    file: str
    file_sha256: Sha256
    columns: dict[str, ColumnType]
    rows: Count
    not_yet_known: Count | None = None
    quarantined: Count
    first_event: AwareDatetime | None
    last_event: AwareDatetime | None


class SnapshotManifest(GrowingContract):
    """An immutable extract of the sources up to a cutoff; it holds no clock reading of its making.

    Nothing in it depends on what the sources were told after the cutoff, so that a day that is filled in later has the
    digest that a live run gave it, or would have given it. `sources` stands in old snapshots only.
    """

    came_later: ClassVar[tuple[str, ...]] = ("sources",)

    product: Name
    as_of: date
    cutoff: AwareDatetime
    sources: dict[str, dict[str, Sha256]] | None = None
    tables: dict[str, TableFacts]
    code_sha256: Sha256


class SnapshotOrigin(Contract):
    """What a snapshot was taken from at one time: the digests of the sources' files, and how many rows came too late.

    Kept beside the snapshot, whose identity it is no part of: taken again from longer files it is the same snapshot.
    """

    snapshot_sha256: Sha256
    sources: dict[str, dict[str, Sha256]]
    not_yet_known: dict[str, Count]
