"""What people get wrong in YAML and JSON files, and what they are told."""

from pathlib import Path

import pytest

from ml_platform.contracts.base import Contract, read_mapping
from ml_platform.contracts.policy import PromotionPolicy
from ml_platform.contracts.product import ProductSpec
from ml_platform.errors import ContractError

PRODUCT = Path(__file__).parents[2] / "products" / "flight_assistant"


def refusal(model: type[Contract], path: Path) -> str:
    with pytest.raises(ContractError) as caught:
        model.read(path)
    return str(caught.value)


def changed(tmp_path: Path, name: str, old: str, new: str) -> Path:
    """A copy of a real file of the reference product with one place changed."""
    text = (PRODUCT / name).read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / name
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_an_unknown_key_is_refused_with_file_key_and_nearest_name(tmp_path: Path) -> None:
    path = changed(tmp_path, "product.yaml", "learning_rate:", "learning_rat:")
    told = refusal(ProductSpec, path)
    assert f"{path}: unknown key 'training.learning_rat': did you mean 'learning_rate'?" in told
    assert "key 'training.learning_rate' is missing" in told


def test_an_unknown_key_unlike_any_other_is_refused_with_all_known_keys(tmp_path: Path) -> None:
    path = changed(tmp_path, "product.yaml", "epochs: 1", "epochs: 1\n  zzzzzzzz: 1")
    assert "unknown key 'training.zzzzzzzz': known keys: alpha, base_model, dropout," in refusal(ProductSpec, path)


def test_a_misspelled_key_in_a_gate_names_the_gate_and_the_nearest_key_of_its_kind(tmp_path: Path) -> None:
    path = changed(tmp_path, "promotion_policy.yaml", "dimensions:", "dimension:")
    told = refusal(PromotionPolicy, path)
    assert "(critical_slices_pass).dimension': did you mean 'dimensions'?" in told


def test_an_unknown_kind_of_gate_is_refused_with_the_nearest_kind(tmp_path: Path) -> None:
    path = changed(tmp_path, "promotion_policy.yaml", "kind: threshold", "kind: treshold")
    assert ".kind': unknown value 'treshold': did you mean 'threshold'?" in refusal(PromotionPolicy, path)


def test_a_gate_without_a_kind_is_told_the_kinds(tmp_path: Path) -> None:
    path = changed(tmp_path, "promotion_policy.yaml", "kind: check", "sort: check")
    assert "has no 'kind'. Add one of: check, threshold, slices, paired, budget." in refusal(PromotionPolicy, path)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_a_threshold_that_is_no_number_is_refused(tmp_path: Path, value: str) -> None:
    path = changed(tmp_path, "promotion_policy.yaml", "at_least: ", f"at_least: {value} #")
    told = refusal(PromotionPolicy, path)
    assert "at_least': expected a finite number, found" in told


@pytest.mark.parametrize(("value", "shown"), [("yes", "True"), ("'0.9'", "'0.9'"), ("[0.9]", "")])
def test_neither_a_truth_value_nor_a_text_nor_a_list_is_a_number(tmp_path: Path, value: str, shown: str) -> None:
    path = changed(tmp_path, "promotion_policy.yaml", "at_least: ", f"at_least: {value} #")
    told = refusal(PromotionPolicy, path)
    assert "at_least': expected a valid number" in told
    assert shown in told


def test_a_fraction_is_no_count(tmp_path: Path) -> None:
    path = changed(tmp_path, "promotion_policy.yaml", "min_n: ", "min_n: 2.5 #")
    assert "min_n': expected a valid integer, found 2.5" in refusal(PromotionPolicy, path)


def test_a_version_that_yaml_reads_as_a_number_is_to_be_quoted(tmp_path: Path) -> None:
    path = changed(tmp_path, "promotion_policy.yaml", "version: ", "version: 1.0 #")
    assert "key 'version': expected a valid string, found 1.0. Put it in quotes." in refusal(PromotionPolicy, path)


@pytest.mark.parametrize("value", ["20130201", "2013-02-30", "2013-02-01T10:00:00", "yesterday"])
def test_what_is_no_day_is_refused_as_a_day(tmp_path: Path, value: str) -> None:
    path = changed(tmp_path, "product.yaml", "first_as_of: 2013-02-01", f"first_as_of: {value}")
    assert "key 'first_as_of': expected a valid date" in refusal(ProductSpec, path)


def test_an_unknown_column_type_is_refused_with_the_nearest_type(tmp_path: Path) -> None:
    path = changed(tmp_path, "product.yaml", "flight_id: string", "flight_id: strng")
    assert "columns.flight_id': unknown value 'strng': did you mean 'string'?" in refusal(ProductSpec, path)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    path = changed(tmp_path, "promotion_policy.yaml", "min_n: ", "min_n: none #")
    path.write_text(path.read_text().replace("confidence:", "confidense:"), encoding="utf-8")
    told = refusal(PromotionPolicy, path).splitlines()
    assert len(told) == 3
    assert all(line.startswith(f"{path}: ") for line in told)


def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1.0.0\nnested:\n  at_least: 0.9\n  min_n: 5\n  at_least: 0.1\n")
    with pytest.raises(ContractError, match=r"key 'at_least' stands in line 3 and again in line 5\. Keep one"):
        read_mapping(path)


def test_a_key_that_stands_twice_is_refused_in_json_too(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"a": {"at_least": 0.9, "at_least": 0.1}}')
    with pytest.raises(ContractError, match="key 'at_least' stands there more than once"):
        read_mapping(path)


def test_yaml_may_still_merge_and_override(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text("base: &base {a: 1, b: 2}\nother:\n  <<: *base\n  b: 3\n")
    assert read_mapping(path)["other"] == {"a": 1, "b": 3}


@pytest.mark.parametrize(("key", "kind"), [("1", "int"), ("yes", "bool"), ("2013-01-01", "date"), ("~", "NoneType")])
def test_a_key_that_yaml_does_not_read_as_text_is_to_be_quoted(tmp_path: Path, key: str, kind: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"nested:\n  {key}: 1\n")
    with pytest.raises(ContractError, match=rf"line 2: key .* is no text but {kind}\. Put it in quotes"):
        read_mapping(path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds nothing, expected a mapping"),
        (b"- a\n- b\n", "holds list, expected a mapping"),
        (b"just text", "holds str, expected a mapping"),
        (b"a: [1, 2", "cannot be parsed"),
        (b"a: 1\n b: 2\n", "cannot be parsed"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"a: !!python/object/apply:os.system [ls]", "cannot be parsed"),
        (b"? [a, b]\n: 1\n", "cannot be parsed"),
        (b"[" * 5000, "nested too deeply"),
    ],
)
def test_a_file_that_holds_no_mapping_is_refused_with_its_name(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ContractError) as caught:
        read_mapping(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert told in str(caught.value)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_json_numbers_that_json_does_not_know_are_refused(tmp_path: Path, constant: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(f'{{"value": {constant}}}')
    with pytest.raises(ContractError, match=f"{constant} is no JSON number"):
        read_mapping(path)


def test_a_missing_file_and_a_folder_are_refused_with_their_names(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="there is no such file"):
        read_mapping(tmp_path / "none.yaml")
    with pytest.raises(ContractError, match="cannot be read: Is a directory"):
        read_mapping(tmp_path)


def test_what_json_cannot_express_is_refused_by_parse() -> None:
    with pytest.raises(ContractError, match="a test: holds what JSON cannot express"):
        PromotionPolicy.parse({"version": {1, 2}}, where="a test")
    circle: dict[str, object] = {}
    circle["self"] = circle
    with pytest.raises(ContractError, match="a test: holds what JSON cannot express"):
        PromotionPolicy.parse(circle, where="a test")


@pytest.mark.parametrize("data", [None, "text", 5])
def test_what_is_no_mapping_is_refused_by_parse(data: object) -> None:
    with pytest.raises(ContractError, match=r"^a test: .*expected an object"):
        PromotionPolicy.parse(data, where="a test")
