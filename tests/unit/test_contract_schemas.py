"""The exported JSON Schemas say what the contracts say."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ml_platform.contracts.base import read_mapping
from ml_platform.contracts.products import load_product
from ml_platform.contracts.schema_export import EXPORTED, FOLDER, export_schemas, outdated_schemas

PRODUCT = Path(__file__).parents[2] / "products" / "flight_assistant"
FILES = {
    "product": "product.yaml",
    "prompt": "prompts/answer.yaml",
    "features": "features.yaml",
    "guardrails": "guardrails.yaml",
    "promotion_policy": "promotion_policy.yaml",
    "monitor_policy": "monitor_policy.yaml",
    "action_policy": "action_policy.yaml",
    "serving": "serving.yaml",
}


def plain(path: Path) -> Any:
    return json.loads(json.dumps(read_mapping(path), default=str))


def schema(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))


def test_the_exported_schemas_are_current() -> None:
    assert outdated_schemas() == [], "run `mlp schemas` and commit what it writes"


def test_a_missing_a_changed_and_a_needless_schema_are_noticed_and_put_right(tmp_path: Path) -> None:
    export_schemas(tmp_path)
    (tmp_path / "release.schema.json").unlink()
    (tmp_path / "product.schema.json").write_text("{}")
    (tmp_path / "needless.schema.json").write_text("{}")
    assert outdated_schemas(tmp_path) == ["needless.schema.json", "product.schema.json", "release.schema.json"]
    export_schemas(tmp_path)
    assert outdated_schemas(tmp_path) == []


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_every_schema_is_a_schema_that_is_closed_to_unknown_keys(name: str) -> None:
    found = schema(name)
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["additionalProperties"] is False


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_files_of_the_reference_product_fit_their_schemas(name: str) -> None:
    jsonschema.validate(plain(PRODUCT / FILES[name]), schema(name))


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_unknown_key_does_not_fit_any_schema(name: str) -> None:
    data = {**plain(PRODUCT / FILES[name]), "unheard_of": 1}
    with pytest.raises(jsonschema.ValidationError, match="unheard_of"):
        jsonschema.validate(data, schema(name))


def test_what_a_contract_writes_fits_its_schema() -> None:
    product = load_product(PRODUCT)
    for name, value in (("product", product.spec), ("promotion_policy", product.promotion_policy)):
        jsonschema.validate(value.model_dump(mode="json"), schema(name))
