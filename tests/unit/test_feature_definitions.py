"""features.yaml: what its digest covers, and which mistakes it names."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_platform.contracts.feature_spec import FeatureSpec
from ml_platform.contracts.products import Product, load_product
from ml_platform.errors import ContractError
from ml_platform.features.definitions import checked_features, definitions_sha256

PRODUCT_FOLDER = Path(__file__).parents[2] / "products" / "flight_assistant"


@pytest.fixture(scope="module")
def product() -> Product:
    return load_product(PRODUCT_FOLDER)


@pytest.fixture
def plain() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((PRODUCT_FOLDER / "features.yaml").read_text())
    return data


def with_features(product: Product, data: dict[str, Any]) -> Product:
    return replace(product, features=FeatureSpec.parse(data, where="features.yaml"))


def set_window(data: dict[str, Any]) -> None:
    data["views"]["origin_now"]["aggregates"]["origin_late_rate_3h"]["window_hours"] = 4


def set_column(data: dict[str, Any]) -> None:
    data["views"]["origin_now"]["aggregates"]["origin_late_rate_3h"]["column"] = "departure_delay_min"


def set_function(data: dict[str, Any]) -> None:
    data["views"]["carrier_week"]["aggregates"]["carrier_delay_mean_7d"]["function"] = "max"


def set_step(data: dict[str, Any]) -> None:
    data["views"]["carrier_week"]["every_hours"] = 12


def set_ttl(data: dict[str, Any]) -> None:
    data["views"]["origin_weather"]["ttl_hours"] = 7


def set_entity(data: dict[str, Any]) -> None:
    data["views"]["carrier_week"]["entity"] = ["carrier", "origin"]


def set_pass_through(data: dict[str, Any]) -> None:
    data["views"]["origin_weather"]["columns"]["wind_mph"] = "visibility_miles"


@pytest.mark.parametrize(
    "change",
    [set_window, set_column, set_function, set_step, set_ttl, set_entity, set_pass_through],
    ids=lambda change: change.__name__.removeprefix("set_"),
)
def test_every_change_of_meaning_changes_the_digest(
    product: Product, plain: dict[str, Any], change: Callable[[dict[str, Any]], None]
) -> None:
    change(plain)
    assert definitions_sha256(with_features(product, plain)) != definitions_sha256(product)


def test_the_order_of_keys_does_not_change_the_digest(product: Product, plain: dict[str, Any]) -> None:
    def reversed_keys(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: reversed_keys(value[key]) for key in reversed(value)}
        return value

    assert definitions_sha256(with_features(product, reversed_keys(plain))) == definitions_sha256(product)


def test_the_type_of_a_source_column_is_part_of_the_digest(product: Product) -> None:
    source = product.spec.sources["departures"]
    columns = {**source.columns, "late": "integer"}
    changed = product.spec.model_copy(
        update={
            "sources": {
                **product.spec.sources,
                "departures": type(source).parse({**source.model_dump(), "columns": columns}, where="x"),
            }
        }
    )
    assert definitions_sha256(replace(product, spec=changed)) != definitions_sha256(product)


def test_a_source_that_no_view_reads_is_not_part_of_the_digest(product: Product) -> None:
    sources = {name: source for name, source in product.spec.sources.items() if name != "arrivals"}
    changed = replace(product, spec=product.spec.model_copy(update={"sources": sources}))
    assert definitions_sha256(changed) == definitions_sha256(product)


def test_a_product_without_features_is_told_where_to_name_them(product: Product) -> None:
    with pytest.raises(ContractError, match=r"files\.features"):
        definitions_sha256(replace(product, features=None))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("origin_now", "source"), "departure", "unknown source 'departure': did you mean 'departures'"),
        (("origin_now", "entity"), ["origins"], "entity: unknown column 'origins': did you mean 'origin'"),
        (("origin_now", "entity"), ["late"], "column 'late' is number, expected one of string, integer"),
        (("origin_weather", "columns", "wind_mph"), "wind", "feature 'wind_mph': unknown column 'wind'"),
        (("origin_weather", "columns", "wind_mph"), "observed_at", "column 'observed_at' is timestamp"),
        (
            ("origin_now", "aggregates", "origin_delay_mean_3h", "column"),
            "carrier",
            "feature 'origin_delay_mean_3h': column 'carrier' is string, expected one of integer, number, boolean",
        ),
    ],
)
def test_a_wrong_name_or_type_is_named_with_the_nearest_known(
    product: Product, plain: dict[str, Any], path: tuple[str, ...], value: Any, message: str
) -> None:
    place = plain["views"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ContractError) as caught:
        checked_features(with_features(product, plain))
    assert message in str(caught.value)
    assert "features.yaml" in str(caught.value)


@pytest.mark.parametrize("name", ["rn", "event_timestamp", "delay_y", "a__b"])
def test_a_feature_name_that_would_vanish_in_the_join_is_refused(plain: dict[str, Any], name: str) -> None:
    plain["views"]["origin_weather"]["columns"] = {name: "wind_mph"}
    with pytest.raises(ContractError, match=f"needs? for itself: {name}"):
        FeatureSpec.parse(plain, where="features.yaml")


def test_an_entity_column_cannot_also_be_a_feature(plain: dict[str, Any]) -> None:
    plain["views"]["origin_weather"]["columns"] = {"carrier": "wind_mph"}
    with pytest.raises(ContractError, match="both an entity column and a feature"):
        FeatureSpec.parse(plain, where="features.yaml")


@pytest.mark.parametrize("column", ["Delay", "EVENT_TIMESTAMP"])
def test_an_entity_column_and_a_feature_that_differ_in_their_case_only_are_refused(
    plain: dict[str, Any], column: str
) -> None:
    plain["views"]["origin_now"]["entity"] = [column]
    plain["views"]["carrier_week"]["aggregates"]["delay"] = plain["views"]["carrier_week"]["aggregates"].pop(
        "carrier_delay_mean_7d"
    )
    with pytest.raises(ContractError, match=f"whatever their case: {column}. Rename"):
        FeatureSpec.parse(plain, where="features.yaml")


def test_entity_columns_that_differ_in_their_case_only_are_refused(plain: dict[str, Any]) -> None:
    plain["views"]["origin_now"]["entity"] = ["Origin"]
    with pytest.raises(ContractError, match="in their case only: Origin, origin"):
        FeatureSpec.parse(plain, where="features.yaml")


def test_two_views_cannot_have_one_feature_name(plain: dict[str, Any]) -> None:
    plain["views"]["origin_weather"]["columns"]["origin_late_rate_3h"] = "wind_mph"
    with pytest.raises(ContractError, match="repeated: origin_late_rate_3h"):
        FeatureSpec.parse(plain, where="features.yaml")


def test_a_ttl_shorter_than_the_step_is_refused(plain: dict[str, Any]) -> None:
    plain["views"]["carrier_week"]["ttl_hours"] = 5
    with pytest.raises(ContractError, match="ttl_hours is shorter than every_hours"):
        FeatureSpec.parse(plain, where="features.yaml")


def test_an_aggregate_needs_a_source_that_tells_its_times(product: Product, plain: dict[str, Any]) -> None:
    source = product.spec.sources["departures"]
    timeless = type(source).parse({**source.model_dump(), "known_at": None, "event_time": None}, where="x")
    spec = product.spec.model_copy(update={"sources": {**product.spec.sources, "departures": timeless}})
    with pytest.raises(ContractError, match="does not tell when its rows became known"):
        checked_features(replace(product, spec=spec))
