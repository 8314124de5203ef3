"""The drift report of a day: what it finds, what it refuses to find, and that it says so."""

import shutil
import sqlite3
from datetime import date
from pathlib import Path

import pytest
import yaml

from ml_platform.contracts.drift import DriftPart, DriftReport, Moved, PartDrift
from ml_platform.contracts.evidence import Verdict
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import load_product
from ml_platform.errors import ArtifactCorruptError
from ml_platform.monitoring.drift.reference import find_reference
from ml_platform.monitoring.drift.report import load_drift_report, make_drift_report
from ml_platform.monitoring.drift_reports import drift_report_days, latest_drift_report, read_drift_report
from resources.manifests import AssetManifest, Value
from tests.samples.drifting import LATER, LEARNT, PARCELS_A_DAY, Desk, write_drifting_product

USUAL = [f"Where is my parcel P{number:05d} to {city}?" for number in range(60) for city in ("Oslo", "Lima")]
STRANGE = [f"Can you recommend a good recipe for {number} pancakes with blueberries?" for number in range(120)]


def part(report: DriftReport, name: DriftPart) -> PartDrift:
    return next(one for one in report.parts if one.part is name)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = Desk.make(tmp_path_factory.mktemp("quiet"))
    desk.serve()
    return desk


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = Desk.make(tmp_path_factory.mktemp("changed"), changes_on=date(2024, 2, 20))
    desk.serve()
    return desk


def test_days_like_those_that_a_release_learnt_from_have_not_drifted(quiet: Desk) -> None:
    found = quiet.report()
    assert part(found, DriftPart.TABLES).verdict is Verdict.PASS
    # Three cities with one value a day: what chance makes of so few looks moved, and is not proven.
    assert part(found, DriftPart.FEATURES).verdict is Verdict.INCONCLUSIVE
    assert "which so few independent rows cannot prove" in part(found, DriftPart.FEATURES).reason
    assert found.moved == ()
    assert found.slices == ()


def test_days_that_changed_have_drifted_and_the_report_names_what_moved(changed: Desk) -> None:
    found = changed.report()
    assert found.verdict is Verdict.FAIL
    assert found.drifted
    assert found.effect >= 1
    assert {"parcels.days_underway", "parcels.city", "city_now.city_days_3d"} <= set(found.moved)
    assert "parcels.state" not in found.moved
    assert "city_now.city_days_3d" in found.reason
    city = next(one for one in found.columns if one.name == "parcels.city")
    assert city.new_values == ("Quito",)
    assert city.new_share == pytest.approx(0.25, abs=0.03)
    assert any(one.slice == {"city": "Lima"} and one.column == "days_underway" for one in found.slices)


def test_a_day_without_traffic_says_nothing_of_prompts_and_outputs_and_so_is_never_steady(quiet: Desk) -> None:
    found = quiet.report()
    assert part(found, DriftPart.PROMPTS).verdict is Verdict.INCONCLUSIVE
    assert "0 questions now" in part(found, DriftPart.PROMPTS).reason
    assert part(found, DriftPart.OUTPUTS).verdict is Verdict.INCONCLUSIVE
    assert found.verdict is Verdict.INCONCLUSIVE
    assert not (quiet.home.root / "provenance.sqlite").exists()


def test_nothing_in_production_is_nothing_to_compare_with(tmp_path: Path) -> None:
    found = Desk.make(tmp_path).report()
    assert (found.verdict, found.release_id, found.parts) == (Verdict.INCONCLUSIVE, None, ())
    assert found.reason == "nothing is in production, so there is nothing to compare with"


def test_a_window_that_no_row_falls_into_proves_nothing(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path, window_days=7)
    desk.serve()
    found = desk.report(date(2024, 6, 1))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "0 rows now" in part(found, DriftPart.TABLES).reason
    assert all(one.moved is Moved.NOT_TESTED for one in found.columns)


def test_what_a_release_learnt_from_that_is_gone_is_an_error_and_no_drift(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    release = desk.serve()
    (desk.home.artifacts / "snapshot" / release.data.snapshot_sha256 / "tables" / "parcels.parquet").write_bytes(b"?")
    found = desk.report()
    assert (found.verdict, found.effect) == (Verdict.ERROR, 0.0)
    assert "cannot be read" in found.reason


def test_rows_that_do_not_say_when_they_became_known_are_seen_when_they_happen(tmp_path: Path) -> None:
    folder = write_drifting_product(tmp_path / "products")
    product, features = (yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in ("product", "features"))
    source = product["sources"]["parcels"]
    source |= {
        "columns": source["columns"] | {"known_at": "timestamp"},
        "nullable": ["known_at"],
        "known_at": "known_at",
    }
    passing = {"source": "parcels", "entity": ["city"], "columns": {"last_days": "days_underway"}, "ttl_hours": None}
    features["views"]["city_last"] = passing
    for name, content in (("product", product), ("features", features)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    header, *rows = (folder / "parcels.csv").read_text().splitlines()
    times = [row.rsplit(",", 1)[1] if number % 2 else "" for number, row in enumerate(rows)]
    filled = [f"{row},{known}" for row, known in zip(rows, times, strict=True)]
    (folder / "parcels.csv").write_text("\n".join([f"{header},known_at", *filled]) + "\n")
    desk = Desk(Home(tmp_path / "home"), load_product(folder))
    desk.serve()
    (last_days,) = [one for one in desk.report().columns if one.name == "city_last.last_days"]
    assert (last_days.moved, last_days.current_rows) == (Moved.STEADY, 28 * PARCELS_A_DAY)


def test_a_training_set_that_is_gone_is_an_error_of_the_prompts_alone(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    release = desk.serve()
    (desk.home.artifacts / "training_set" / release.data.training_set_sha256 / "train.jsonl").unlink()
    found = desk.report()
    assert part(found, DriftPart.PROMPTS).verdict is Verdict.ERROR
    assert part(found, DriftPart.TABLES).verdict is Verdict.PASS
    assert found.verdict is Verdict.ERROR


def test_the_same_day_gives_the_same_artifact_and_another_home_the_same_bytes(tmp_path: Path, changed: Desk) -> None:
    first = make_drift_report(changed.product, changed.snapshot(LATER), changed.store, changed.home)
    again = make_drift_report(changed.product, changed.snapshot(LATER), changed.store, changed.home)
    assert (again.sha256, again.reused) == (first.sha256, True)
    other = Desk.make(tmp_path, changes_on=date(2024, 2, 20))
    other.serve()
    made = make_drift_report(other.product, other.snapshot(LATER), other.store, other.home)
    assert not made.reused
    names = ["evidently.html", "evidently.json", "report.html", "report.json", "summary.md"]
    assert sorted(first.manifest.files) == names
    assert [made.file(name).read_bytes() == first.file(name).read_bytes() for name in names] == [True] * 5


def test_the_page_needs_nothing_from_outside_and_runs_no_script(changed: Desk) -> None:
    made = make_drift_report(changed.product, changed.snapshot(LATER), changed.store, changed.home)
    page = made.file("report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    for name in load_drift_report(made).moved:
        assert name in page


def test_users_who_ask_about_something_else_are_drift_and_the_usual_questions_are_none(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    release = desk.serve()
    desk.answer(release, date(2024, 3, 15), USUAL)
    usual = part(desk.report(), DriftPart.PROMPTS)
    assert usual.verdict is Verdict.PASS, usual.reason
    (health,) = desk.report().golden
    assert (health.coverage, health.age_days, health.warning) == (1.0, 61, None)

    desk.answer(release, date(2024, 3, 16), STRANGE)
    found = desk.report()
    prompts = part(found, DriftPart.PROMPTS)
    assert prompts.verdict is Verdict.FAIL, prompts.reason
    novelty = next(one for one in found.columns if one.column == "unlike_anything_learnt")
    assert novelty.effect == pytest.approx(0.5, abs=0.02)
    assert all("pancakes" in text for text in novelty.new_values)
    (health,) = found.golden
    assert health.coverage == pytest.approx(0.5, abs=0.02)
    assert health.warning is not None
    assert "only 50% of what users ask" in health.warning


def test_records_that_were_changed_are_an_error_of_what_rests_on_them_alone(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    release = desk.serve()
    desk.answer(release, date(2024, 3, 15), USUAL)
    with sqlite3.connect(desk.home.root / "provenance.sqlite") as connection:
        connection.execute("update responses set content = replace(content, 'Oslo', 'Rome')")
    connection.close()
    found = desk.report()
    verdicts = {one.part: one.verdict for one in found.parts}
    assert (verdicts[DriftPart.PROMPTS], verdicts[DriftPart.OUTPUTS]) == (Verdict.ERROR, Verdict.ERROR)
    assert verdicts[DriftPart.TABLES] is Verdict.PASS
    assert "was changed in the store" in part(found, DriftPart.PROMPTS).reason


def test_where_the_releases_own_policy_was_not_kept_the_products_counts_and_the_report_says_so(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    desk.serve()
    kept = desk.home.artifacts / "monitor_policy"
    shutil.rmtree(kept)
    found = find_reference(desk.product, desk.home, desk.store)
    assert found.policy == desk.product.monitor_policy
    assert "was not kept" in found.notes[0]


def test_a_release_that_answers_otherwise_than_before_has_drifted_outputs(tmp_path: Path) -> None:
    desk = Desk.make(tmp_path)
    release = desk.serve()
    desk.answer(release, date(2024, 2, 15), USUAL)
    desk.answer(release, date(2024, 3, 15), USUAL)
    same = part(desk.report(), DriftPart.OUTPUTS)
    assert same.verdict is Verdict.PASS, same.reason
    desk.answer(release, date(2024, 3, 16), USUAL, state="lost")
    found = desk.report()
    assert "answers.state" in found.moved


def test_reports_are_found_where_the_asset_leaves_them_and_a_moved_file_is_refused(tmp_path: Path, quiet: Desk) -> None:
    made = make_drift_report(quiet.product, quiet.snapshot(LATER), quiet.store, quiet.home)
    assert latest_drift_report(quiet.home, "parcel_desk") is None
    folder = quiet.home.manifests / "parcel_desk" / "drift_report"
    folder.mkdir(parents=True)
    manifest = AssetManifest(asset="parcel_desk/drift_report", partition=LATER.isoformat(), value=Value.of(made))
    (folder / f"{LATER}.json").write_bytes(manifest.canonical_bytes())
    (folder / "notes.json").write_text("{}")
    assert latest_drift_report(quiet.home, "parcel_desk") == load_drift_report(made)
    assert drift_report_days(quiet.home, "parcel_desk") == (LATER,)
    assert read_drift_report(quiet.home, "parcel_desk", LEARNT) is None
    (folder / f"{LATER}.json").rename(folder / "2024-03-21.json")
    with pytest.raises(ArtifactCorruptError, match="Somebody moved it"):
        latest_drift_report(quiet.home, "parcel_desk")
    (folder / "2024-03-21.json").write_text('{"value": 3}')
    with pytest.raises(ArtifactCorruptError, match="no manifest of a drift report"):
        latest_drift_report(quiet.home, "parcel_desk")
