"""Snapshots: what was known at the cutoff, nothing else, the same bytes everywhere."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_platform.contracts.canonical import bytes_sha256
from ml_platform.contracts.products import Product
from ml_platform.contracts.progress import Progress
from ml_platform.contracts.snapshot import SnapshotManifest, SnapshotOrigin
from ml_platform.errors import ArtifactCorruptError, AsOfOutsideDataError, StorageError
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.snapshots.extract import cutoff, load_table, manifest_of, take_snapshot

MakeProduct = Callable[..., Product]
Row = Callable[..., dict[str, str]]
AS_OF = date(2024, 5, 2)
NOW = datetime(2024, 6, 1, tzinfo=UTC)


def write(product: Product, rows: list[dict[str, str]], name: str = "tickets.csv") -> None:
    pd.DataFrame(rows).to_csv(product.folder / name, index=False)


def on_day(row: Row, number: int, day: int, **changes: str) -> dict[str, str]:
    return row(number, asked_at=f"2024-05-{day:02d}T08:00Z", known_at=f"2024-05-{day:02d}T09:00Z", **changes)


def test_the_cutoff_is_the_end_of_the_day_in_utc() -> None:
    assert cutoff(date(2024, 2, 29)) == datetime(2024, 3, 1, tzinfo=UTC)


def test_only_what_was_known_at_the_cutoff_is_seen(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product()
    at_cutoff = ticket_row(8, known_at="2024-05-03T02:00:00+02:00")
    moment_later = ticket_row(9, known_at="2024-05-03T00:00:00.000001Z")
    write(product, [on_day(ticket_row, 1, 1), on_day(ticket_row, 2, 5), at_cutoff, moment_later])
    origins: list[SnapshotOrigin] = []
    snapshot = take_snapshot(product, AS_OF, store, now=NOW, tell=origins.append)
    assert list(load_table(snapshot, "tickets")["ticket_id"]) == ["T0001", "T0008"]
    facts = manifest_of(snapshot).tables["tickets"]
    assert (facts.rows, facts.quarantined, origins[0].not_yet_known) == (2, 0, {"tickets": 2})
    assert facts.last_event == datetime(2024, 5, 1, 8, tzinfo=UTC)


def test_a_day_that_never_ran_live_gets_the_digest_that_a_live_run_would_have_given_it(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row, tmp_path: Path
) -> None:
    """In two stores, so that neither finds what the other made; where each came from is kept beside it."""
    product = make_product()
    origins: list[SnapshotOrigin] = []
    rows = [on_day(ticket_row, number, 1 + number % 2) for number in range(10)]
    write(product, rows)
    live = take_snapshot(product, AS_OF, store, now=NOW, tell=origins.append)
    write(product, [*rows, on_day(ticket_row, 10, 5), on_day(ticket_row, 11, 6)])
    elsewhere = LocalArtifactStore(tmp_path / "elsewhere")
    later = take_snapshot(product, AS_OF, elsewhere, now=NOW, tell=origins.append)
    assert later.sha256 == live.sha256
    assert [origin.not_yet_known["tickets"] for origin in origins] == [0, 2]
    assert origins[0].sources != origins[1].sources
    for origin, kept in zip(origins, (store, elsewhere), strict=True):
        found = kept.find("snapshot_origin", {"origin_sha256": origin.sha256})
        assert found is not None
        assert SnapshotOrigin.parse(found.facts, where="the origin") == origin


def test_a_snapshot_of_before_keeps_its_digest_and_is_read(store: LocalArtifactStore) -> None:
    old = {
        "product": "helpdesk",
        "as_of": "2024-05-02",
        "cutoff": "2024-05-03T00:00:00Z",
        "sources": {"tickets": {"tickets.csv": "a" * 64}},
        "tables": {},
        "code_sha256": "b" * 64,
    }
    assert SnapshotManifest.parse(old, where="an old snapshot").model_dump(mode="json") == old


def test_a_backfill_finds_the_snapshot_of_the_live_run(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product()
    rows = [on_day(ticket_row, number, 1 + number % 2) for number in range(10)]
    rows.append(on_day(ticket_row, 10, 2, score="broken"))
    write(product, rows)
    live = take_snapshot(product, AS_OF, store, now=datetime(2024, 5, 3, tzinfo=UTC))
    later = [on_day(ticket_row, 20, 4), on_day(ticket_row, 21, 4, score="broken"), on_day(ticket_row, 3, 5)]
    write(product, rows + later)
    backfilled = take_snapshot(product, AS_OF, store, now=NOW)
    assert backfilled.reused
    assert backfilled.sha256 == live.sha256
    (aside,) = live.file("quarantine/tickets.jsonl").read_text().splitlines()
    assert json.loads(aside)["row"] == 11


def test_a_row_whose_known_at_is_still_empty_waits_for_its_event(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    """A ticket that is open has no closing time: it is known since it was opened, and not a day before."""
    product = make_product(nullable=["score", "known_at"])
    still_open = {"asked_at": "2024-05-02T08:00Z", "known_at": ""}
    rows = [on_day(ticket_row, 1, 1), ticket_row(2, **still_open)]
    write(product, rows)
    live = take_snapshot(product, AS_OF, store, now=datetime(2024, 5, 3, tzinfo=UTC))
    assert manifest_of(live).tables["tickets"].rows == 2
    write(product, [*rows, ticket_row(3, **still_open | {"asked_at": "2024-05-09T08:00Z"})])
    assert take_snapshot(product, AS_OF, store, now=NOW).sha256 == live.sha256
    first_day = take_snapshot(product, date(2024, 5, 1), store, now=NOW)
    assert list(load_table(first_day, "tickets")["ticket_id"]) == ["T0001"]


def test_a_plan_whose_known_at_is_empty_was_always_known(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product(nullable=["score", "known_at"], known_ahead=True)
    write(product, [ticket_row(1, asked_at="2024-05-20T08:00Z", known_at="")])
    assert manifest_of(take_snapshot(product, AS_OF, store, now=NOW)).tables["tickets"].rows == 1


def test_of_a_repeated_key_an_open_row_counts_from_its_event(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product(nullable=["score", "known_at"])
    opened = ticket_row(1, asked_at="2024-05-01T08:00Z", known_at="", answer="first")
    write(product, [on_day(ticket_row, 1, 2, answer="second"), opened])
    snapshot = take_snapshot(product, AS_OF, store, now=NOW)
    assert list(load_table(snapshot, "tickets")["answer"]) == ["first"]


def test_an_event_yet_to_come_is_set_aside_under_its_own_column(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product(nullable=["score", "known_at"])
    write(product, [ticket_row(1), ticket_row(2, asked_at="2099-01-01T00:00Z", known_at="")])
    snapshot = take_snapshot(product, AS_OF, store, now=NOW)
    (aside,) = snapshot.file("quarantine/tickets.jsonl").read_text().splitlines()
    wanted = "column 'asked_at': expected a time that is not in the future, found '2099-01-01T00:00Z'"
    assert json.loads(aside)["reason"] == wanted


def test_before_the_first_event_of_open_rows_the_error_names_the_first_day_that_works(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product(nullable=["score", "known_at"])
    write(product, [ticket_row(1, asked_at="2024-05-04T08:00Z", known_at="")])
    with pytest.raises(AsOfOutsideDataError, match=r"2024-05-04 08:00Z. Choose 2024-05-04"):
        take_snapshot(product, AS_OF, store, now=NOW)


def test_a_changed_known_row_makes_another_snapshot(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product()
    write(product, [ticket_row(1)])
    first = take_snapshot(product, AS_OF, store, now=NOW)
    write(product, [ticket_row(1, answer="Lost")])
    assert take_snapshot(product, AS_OF, store, now=NOW).sha256 != first.sha256


def test_a_row_from_the_future_is_set_aside_in_words_that_do_not_tell_the_clock(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product()
    write(product, [ticket_row(1), ticket_row(2, known_at="2099-01-01T00:00Z")])
    first = take_snapshot(product, AS_OF, store, now=NOW)
    assert manifest_of(first).tables["tickets"].quarantined == 1
    assert take_snapshot(product, AS_OF, store).sha256 == first.sha256


def test_of_a_repeated_key_the_row_known_first_stays(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product()
    write(product, [on_day(ticket_row, 1, 2, answer="second"), on_day(ticket_row, 1, 1, answer="first")])
    snapshot = take_snapshot(product, AS_OF, store, now=NOW)
    assert list(load_table(snapshot, "tickets")["answer"]) == ["first"]


def test_without_known_at_a_row_is_known_when_its_event_happened_and_plans_always(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    rows = [on_day(ticket_row, 1, 1), on_day(ticket_row, 2, 9)]
    for known_ahead, expected in ((False, 1), (True, 2)):
        product = make_product(known_at=None, known_ahead=known_ahead)
        write(product, rows)
        assert manifest_of(take_snapshot(product, AS_OF, store, now=NOW)).tables["tickets"].rows == expected


def test_a_table_without_times_is_always_known(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product(known_at=None, event_time=None)
    write(product, [on_day(ticket_row, 1, 1), on_day(ticket_row, 2, 9)])
    facts = manifest_of(take_snapshot(product, AS_OF, store, now=NOW)).tables["tickets"]
    assert (facts.rows, facts.first_event, facts.last_event) == (2, None, None)


def test_before_the_first_known_row_the_error_names_the_first_day_that_works(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product()
    write(product, [on_day(ticket_row, 1, 4)])
    with pytest.raises(AsOfOutsideDataError, match=r"helpdesk as of 2024-05-03.*2024-05-04 09:00Z.*Choose 2024-05-04"):
        take_snapshot(product, date(2024, 5, 3), store, now=NOW)
    assert take_snapshot(product, date(2024, 5, 4), store, now=NOW)


def test_data_older_than_the_allowed_staleness_names_the_last_day_that_works(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product(max_staleness_days=2.5)
    write(product, [on_day(ticket_row, number, number) for number in (1, 2, 10)])
    with pytest.raises(AsOfOutsideDataError, match=r"'tickets' ends at 2024-05-10 08:00Z.*up to 2024-05-11"):
        take_snapshot(product, date(2024, 5, 12), store, now=NOW)
    assert take_snapshot(product, date(2024, 5, 11), store, now=NOW)


def test_flights_end_with_the_year(flight_product: Product, flight_store: LocalArtifactStore) -> None:
    with pytest.raises(AsOfOutsideDataError, match=r"source 'weather' ends at 2013-12-30 23:00Z.*up to 2013-12-31"):
        take_snapshot(flight_product, date(2014, 3, 1), flight_store)


def test_nullable_whole_numbers_and_truth_values_stay_what_they_are(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product(nullable=["priority", "open"])
    write(product, [ticket_row(1), ticket_row(2, priority="", open="")])
    table = load_table(take_snapshot(product, AS_OF, store, now=NOW), "tickets")
    assert [str(table[name].dtype) for name in ("priority", "open")] == ["Int64", "boolean"]
    assert table["priority"].to_list() == [1, pd.NA]


def test_progress_names_every_source_and_ends_at_one(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product()
    write(product, [ticket_row(1)])
    told: list[Progress] = []
    take_snapshot(product, AS_OF, store, told.append, now=NOW)
    assert [(step.stage, step.share) for step in told] == [("snapshot", 0.0), ("snapshot", 1.0)]
    assert told[-1].detail == "1 rows known at 2024-05-03 00:00Z, 0 set aside"


def test_a_damaged_snapshot_is_made_again_with_the_same_digest(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product()
    write(product, [ticket_row(1)])
    first = take_snapshot(product, AS_OF, store, now=NOW)
    path = first.file("tables/tickets.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactCorruptError, match=r"tickets\.parquet"):
        store.open("snapshot", first.sha256)
    assert take_snapshot(product, AS_OF, store, now=NOW).sha256 == first.sha256
    assert bytes_sha256(path.read_bytes()) == manifest_of(first).tables["tickets"].file_sha256


def test_two_runs_of_one_partition_at_once_make_one_snapshot(
    make_product: MakeProduct, store: LocalArtifactStore, ticket_row: Row
) -> None:
    product = make_product()
    write(product, [ticket_row(number) for number in range(50)])
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: take_snapshot(product, AS_OF, store, now=NOW), range(4)))
    assert len({artifact.sha256 for artifact in made}) == 1
    assert [artifact.reused for artifact in made].count(False) == 1


def test_a_disk_that_cannot_be_written_is_a_storage_error(
    make_product: MakeProduct, ticket_row: Row, tmp_path: Path
) -> None:
    product = make_product()
    write(product, [ticket_row(1)])
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="snapshot could not be stored"):
        take_snapshot(product, AS_OF, LocalArtifactStore(tmp_path / "file"), now=NOW)


def test_another_kind_of_artifact_is_no_snapshot(store: LocalArtifactStore) -> None:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "x").write_text("x")
        return {}

    with pytest.raises(ArtifactCorruptError, match=r"features .* is no snapshot"):
        manifest_of(store.make("features", {}, build))


TAKE = """
import sys
from datetime import date
from pathlib import Path
from ml_platform.contracts.products import Product
from ml_platform.contracts.product import ProductSpec
from ml_platform.lineage.artifacts import LocalArtifactStore
from ml_platform.snapshots.extract import take_snapshot
folder = Path("products/flight_assistant").resolve()
parts = dict.fromkeys(("prompt", "promotion_policy", "monitor_policy", "guardrails", "action_policy", "features"))
product = Product(folder=folder, spec=ProductSpec.read(folder / "product.yaml"), **parts)
print(take_snapshot(product, date(2013, 2, 15), LocalArtifactStore(Path(sys.argv[1]))).sha256)
"""


def test_another_process_in_another_zone_and_language_writes_the_same_bytes(
    flight_snapshot: Artifact, tmp_path: Path
) -> None:
    root = Path(__file__).parents[3]
    surroundings = {"PYTHONHASHSEED": "42", "TZ": "Asia/Kolkata", "LC_ALL": "tr_TR.UTF-8", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", TAKE, str(tmp_path)],
        env={**os.environ, **surroundings},
        capture_output=True,
        text=True,
        cwd=root,
        check=True,
    )
    assert ended.stdout.strip() == flight_snapshot.sha256
    made = LocalArtifactStore(tmp_path).open("snapshot", flight_snapshot.sha256)
    assert made.manifest == flight_snapshot.manifest


def test_the_artifact_holds_no_path_and_no_clock(flight_snapshot: Artifact) -> None:
    text = (flight_snapshot.path / "manifest.json").read_text()
    assert str(Path.cwd()) not in text
    assert str(datetime.now(UTC).year) not in {part[:4] for part in text.split('"')}
    tables = [flight_snapshot.file(name).read_bytes() for name in flight_snapshot.manifest.files if "tables" in name]
    assert all(b"pandas" not in data and b"ARROW:schema" not in data for data in tables)
