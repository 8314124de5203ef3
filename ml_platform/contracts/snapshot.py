"""A snapshot's manifest: what was known at the cutoff, where it came from, and what was set aside."""

from datetime import date
from typing import Annotated

from pydantic import AwareDatetime, Field

from ml_platform.contracts.base import Contract, Name, Sha256
from ml_platform.contracts.product import ColumnType


class TableFacts(Contract):
    """One table of a snapshot: its Parquet file, its schema and its counts."""

    file: str
    file_sha256: Sha256
    columns: dict[str, ColumnType]
    rows: Annotated[int, Field(ge=0)]
    not_yet_known: Annotated[int, Field(ge=0)]
    quarantined: Annotated[int, Field(ge=0)]
    first_event: AwareDatetime | None
    last_event: AwareDatetime | None


class SnapshotManifest(Contract):
    """An immutable extract of the sources up to a cutoff; it holds no clock reading of its making."""

    product: Name
    as_of: date
    cutoff: AwareDatetime
    sources: dict[str, dict[str, Sha256]]
    tables: dict[str, TableFacts]
    code_sha256: Sha256
