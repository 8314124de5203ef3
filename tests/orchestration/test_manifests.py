"""Manifests: the values of assets, and what is refused in their place."""

import json
from pathlib import Path

import pytest
from dagster import AssetKey, build_input_context, build_output_context

from ml_platform.errors import ArtifactCorruptError, InvalidInputError
from resources.manifests import ManifestIOManager, Value

KEY = AssetKey(["parcel_desk", "snapshot"])
VALUE = Value(kind="snapshot", value_sha256="a" * 64, facts={"rows": 3})


@pytest.fixture
def manager(tmp_path: Path) -> ManifestIOManager:
    return ManifestIOManager(home_path=str(tmp_path))


def stored(manager: ManifestIOManager, day: str = "2024-01-30", value: Value = VALUE) -> Path:
    manager.handle_output(build_output_context(asset_key=KEY, partition_key=day), value)
    return Path(manager.home_path) / "manifests" / "parcel_desk" / "snapshot" / f"{day}.json"


def test_what_was_stored_is_read_back(manager: ManifestIOManager) -> None:
    stored(manager)
    context = build_input_context(asset_key=KEY, partition_key="2024-01-30")
    assert manager.load_input(context) == VALUE


def test_the_file_is_plain_json_for_people_and_machines(manager: ManifestIOManager) -> None:
    assert json.loads(stored(manager).read_text()) == {
        "asset": "parcel_desk/snapshot",
        "partition": "2024-01-30",
        "value": {"kind": "snapshot", "value_sha256": "a" * 64, "facts": {"rows": 3}},
    }


def test_a_missing_day_is_named_with_what_to_materialize(manager: ManifestIOManager) -> None:
    stored(manager)
    with pytest.raises(InvalidInputError, match=r"Materialize parcel_desk/snapshot for 2024-01-29 first"):
        manager.read("parcel_desk/snapshot", "2024-01-29")


def test_a_manifest_copied_from_another_day_is_refused(manager: ManifestIOManager) -> None:
    path = stored(manager)
    path.with_name("2024-01-29.json").write_bytes(path.read_bytes())
    with pytest.raises(ArtifactCorruptError, match=r"is the manifest of parcel_desk/snapshot for 2024-01-30, expected"):
        manager.read("parcel_desk/snapshot", "2024-01-29")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"asset": "parcel_desk/snapshot"}', "\x80\x04pickle"])
def test_anything_but_a_manifest_is_refused(manager: ManifestIOManager, content: str) -> None:
    stored(manager).write_text(content)
    with pytest.raises(ArtifactCorruptError, match="is not a manifest"):
        manager.read("parcel_desk/snapshot", "2024-01-30")


def test_storing_again_replaces_the_value_whole_and_leaves_nothing_beside_it(manager: ManifestIOManager) -> None:
    stored(manager)
    path = stored(manager, value=VALUE.model_copy(update={"value_sha256": "b" * 64}))
    assert manager.read("parcel_desk/snapshot", "2024-01-30").value_sha256 == "b" * 64
    assert [found.name for found in path.parent.iterdir()] == ["2024-01-30.json"]
