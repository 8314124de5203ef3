"""Products are folders: found, read whole, refused with a reason."""

import shutil
from pathlib import Path

import pytest
import yaml

from ml_platform.contracts.products import find_product, load_product, product_folders
from ml_platform.errors import ContractError, UnknownProductError

PRODUCTS = Path(__file__).parents[2] / "products"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the reference product."""
    copy = tmp_path / "elsewhere" / "flight_assistant"
    shutil.copytree(PRODUCTS / "flight_assistant", copy)
    return copy


def test_the_reference_product_is_found_and_read_whole() -> None:
    product = find_product("flight_assistant", PRODUCTS)
    assert product.name == "flight_assistant"
    assert product.features is not None
    assert product.action_policy is not None
    assert callable(product.hook("sources.py:schedule"))
    assert "sources.py" in product.file_digests()


def test_an_unknown_product_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownProductError, match="no product 'flight_asistant': did you mean 'flight_assistant'"):
        find_product("flight_asistant", PRODUCTS)


def test_an_unknown_product_where_there_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnknownProductError, match="known products: none"):
        find_product("anything", tmp_path)


def test_further_folders_may_hold_products_or_be_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for named in (folder.parent, folder):
        monkeypatch.setenv("ML_PLATFORM_PRODUCTS", str(named))
        assert product_folders(empty) == {"flight_assistant": folder}


def test_products_are_those_of_the_checkout_wherever_people_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(folder, checkout / "products" / folder.name)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ML_PLATFORM_CHECKOUT", raising=False)
    with pytest.raises(UnknownProductError, match="known products: none"):
        find_product(folder.name)
    monkeypatch.setenv("ML_PLATFORM_CHECKOUT", str(checkout))
    assert find_product(folder.name).folder == checkout / "products" / folder.name
    monkeypatch.setenv("ML_PLATFORM_CHECKOUT", "")
    monkeypatch.chdir(checkout)
    assert set(product_folders()) == {folder.name}, "what is set to nothing is not set"


def test_a_further_folder_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_PRODUCTS", "/nowhere/at/all")
    with pytest.raises(ContractError, match="ML_PLATFORM_PRODUCTS names /nowhere/at/all, which is no folder"):
        product_folders(PRODUCTS)


def test_two_products_of_one_name_are_refused_with_both_places(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_PRODUCTS", str(folder))
    with pytest.raises(ContractError, match=r"two products are called 'flight_assistant': .* and .*\. Rename one"):
        product_folders(PRODUCTS)


def test_the_same_folder_named_twice_is_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_PRODUCTS", str(PRODUCTS))
    assert set(product_folders(PRODUCTS)) == {"flight_assistant"}


def test_a_product_is_called_like_its_folder(folder: Path) -> None:
    renamed = folder.rename(folder.with_name("other"))
    with pytest.raises(ContractError, match="key 'name' is 'flight_assistant' but the folder is 'other'"):
        load_product(renamed)


def test_a_file_that_product_yaml_names_must_be_there(folder: Path) -> None:
    (folder / "guardrails.yaml").unlink()
    with pytest.raises(ContractError, match=r"guardrails\.yaml: there is no such file"):
        load_product(folder)


def test_what_is_wrong_in_any_file_is_told_with_that_file(folder: Path) -> None:
    (folder / "monitor_policy.yaml").write_text("version: 1.0.0\nlabel_age: 3\n")
    with pytest.raises(ContractError, match=r"monitor_policy\.yaml: unknown key 'label_age': did you mean 'label_"):
        load_product(folder)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_a_golden_set_is_not_called_as_a_split_whose_questions_it_would_replace(folder: Path, name: str) -> None:
    path = folder / "product.yaml"
    path.write_text(path.read_text().replace("    answers: {path", f"    {name}: {{path"))
    with pytest.raises(ContractError, match=rf"product\.yaml: .*golden set '{name}' is called as a split"):
        load_product(folder)


@pytest.mark.parametrize(
    ("plain", "mistaken", "told"),
    [
        (
            "entity: [flight_id]",
            "entity: [flight]",
            r"requests are to bring 'flight', .*: did you mean 'flight_id'\? Cor",
        ),
        (
            "entity: [flight_id]",
            "entity: [scheduled_departure]",
            "'scheduled_departure' is of type timestamp, expected",
        ),
        (
            "entity: [flight_id]",
            "entity: [flight_id]\ngiven: [colour]",
            "'colour', .* Correct entity or given in servi",
        ),
        ("facts: facts.py:facts_of", "facts: fact.py:facts_of", r"the hook 'fact\.py:facts_of' is in none of the prod"),
    ],
)
def test_a_product_that_no_release_could_serve_is_refused_before_it_trains(
    folder: Path, plain: str, mistaken: str, told: str
) -> None:
    serving = (folder / "serving.yaml").read_text()
    assert plain in serving
    (folder / "serving.yaml").write_text(serving.replace(plain, mistaken))
    with pytest.raises(ContractError, match=told):
        load_product(folder)


@pytest.mark.parametrize(
    ("fact", "told"),
    [
        ("colour", r"requests are to bring 'colour', .* Correct examples\.entity, examples\.facts or "),
        ("line\nbreak", r"how it serves: key 'spec\.given"),
    ],
)
def test_without_a_serving_yaml_facts_that_no_request_could_bring_are_refused(
    folder: Path, fact: str, told: str
) -> None:
    spec = yaml.safe_load((folder / "product.yaml").read_text())
    del spec["files"]["serving"]
    spec["sources"]["schedule"]["columns"]["line\nbreak"] = "string"
    spec["examples"]["facts"] = [fact]
    (folder / "product.yaml").write_text(yaml.safe_dump(spec))
    with pytest.raises(ContractError, match=told):
        load_product(folder)


def test_a_hook_of_serving_that_is_no_utf_8_is_refused_by_its_name(folder: Path) -> None:
    (folder / "facts.py").write_bytes(b"# Gr\xf6\xdfe\n")
    with pytest.raises(ContractError, match=r"facts\.py: cannot be read as UTF-8"):
        load_product(folder)


def test_a_hook_that_is_not_there_is_refused_with_the_nearest_function(folder: Path) -> None:
    product = load_product(folder)
    with pytest.raises(ContractError, match=r"has no function 'shedule'\. Did you mean 'schedule'"):
        product.hook("sources.py:shedule")
    with pytest.raises(ContractError, match=r"hook 'none\.py:schedule': there is no file"):
        product.hook("none.py:schedule")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def broken(:", "SyntaxError"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_hook_that_cannot_be_imported_is_refused_with_its_reason(folder: Path, source: str, told: str) -> None:
    (folder / "broken.py").write_text(source)
    with pytest.raises(ContractError, match=r"broken\.py: cannot be imported: ") as caught:
        load_product(folder).hook("broken.py:build")
    assert told in str(caught.value)


def test_a_hook_may_define_dataclasses_with_postponed_annotations(folder: Path) -> None:
    (folder / "shaped.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Row:\n"
        "    name: str\n"
        "def build():\n"
        "    return Row('x')\n"
    )
    assert load_product(folder).hook("shaped.py:build")().name == "x"


def test_reading_a_product_runs_none_of_its_code(folder: Path) -> None:
    (folder / "sources.py").write_text("raise SystemExit('this must not run')")
    assert load_product(folder).name == "flight_assistant"


def test_every_change_of_product_code_shows_in_the_digests(folder: Path) -> None:
    before = load_product(folder).file_digests()
    (folder / "sources.py").write_text("# changed")
    (folder / "sub").mkdir()
    (folder / "sub" / "more.py").write_text("# new")
    after = load_product(folder).file_digests()
    assert after["sources.py"] != before["sources.py"]
    assert set(after) - set(before) == {"sub/more.py"}


@pytest.mark.parametrize(
    ("plain", "mistaken", "told"),
    [
        (
            "source: schedule",
            "source: schedul",
            r"lookup 'flight': unknown source 'schedul': did you mean 'schedule'\?",
        ),
        ("dest, route, s", "destination, route, s", r"lookup 'flight': unknown column 'destination': "),
        (
            "key: [flight_id]",
            "key: [distance_miles]",
            r"key 'distance_miles' is number, expected one of string, integer",
        ),
        ("key: [flight_id]", "key: [carrier]", r"lookup 'flight': nothing brings its key 'carrier'"),
        (
            "[carrier, flight_number, origin",
            "[flight_number, origin",
            r"nothing brings 'carrier', by which features are",
        ),
    ],
)
def test_a_lookup_that_names_or_leads_to_nothing_is_refused_before_it_trains(
    folder: Path, plain: str, mistaken: str, told: str
) -> None:
    rewritten(folder / "serving.yaml", plain, mistaken)
    with pytest.raises(ContractError, match=rf"serving\.yaml: .*{told}"):
        load_product(folder)


def test_a_lookup_of_columns_that_differ_in_their_case_only_is_refused_before_it_trains(folder: Path) -> None:
    rewritten(folder / "product.yaml", "distance_miles: number\n", "distance_miles: number\n      DEST: string\n")
    with pytest.raises(ContractError, match=r"lookup 'flight': source 'schedule' has 'dest' and 'DEST': their"):
        load_product(folder)


SLIPS = [
    (
        "promotion_policy.yaml",
        "metric: late_recall",
        "metric: late_recal",
        "gate 'late_recall': 'late_recal' is not mea",
    ),
    (
        "promotion_policy.yaml",
        "[json_valid, intent",
        "[jsn_valid, intent",
        "'jsn_valid' is not measured there: did you",
    ),
    ("promotion_policy.yaml", "metrics: [json_valid", "metrics: [latency_p95_ms", "'latency_p95_ms' is not measured"),
    (
        "product.yaml",
        "field: risk, positive",
        "field: rsk, positive",
        "there is no label field 'rsk': did you mean 'ris",
    ),
    ("product.yaml", "positive: [elevated", "positive: [elevate", "'risk' never is 'elevate': did you mean 'elevated'"),
    (
        "product.yaml",
        "attack: [override_attempt]",
        "attack: [overide]",
        "evaluation.refusal: 'intent' never is 'overide'",
    ),
    ("product.yaml", "late_recall: {", "json_valid: {", "recall.json_valid: another metric is called so already"),
    ("product.yaml", "batch_size: 48}", "batch_size: 48, temperature: 0.7}", "temperature is 0.7: answers are generat"),
    ("product.yaml", "seed: 13", "seed: 202602201530", "training.seed': .* less than"),
    ("product.yaml", "seed: 13", "seed: -1", "training.seed': .* greater than or equal to 0"),
    ("product.yaml", "grounded: true", "grounded: false", "metric 'ungrounded_rate': no answer of this product"),
    ("guardrails.yaml", "safe_labels: {intent:", "safe_labels: {intnt:", "intnt: there is no label field 'intnt'"),
    ("action_policy.yaml", "field: risk", "field: rik", "action_policy.yaml: field 'rik': there is no label field"),
    ("action_policy.yaml", "otherwise: low", "otherwise: lo", "'risk' never is 'lo': did you mean 'low'"),
]


@pytest.mark.parametrize(("file", "plain", "mistaken", "told"), SLIPS)
def test_a_name_that_the_other_files_give_no_meaning_is_refused_before_it_trains(
    folder: Path, file: str, plain: str, mistaken: str, told: str
) -> None:
    rewritten(folder / file, plain, mistaken)
    with pytest.raises(ContractError, match=told):
        load_product(folder)


def test_a_label_field_whose_metric_would_have_too_long_a_name_is_refused(folder: Path) -> None:
    rewritten(folder / "product.yaml", "    reply: {kind", f"    {'x' * 55}: {{kind: label}}\n    reply: {{kind")
    with pytest.raises(ContractError, match="a label field's name has at most 54 characters"):
        load_product(folder)


def test_a_check_that_no_report_holds_is_refused(folder: Path) -> None:
    further = "gates:\n  - {kind: check, gate: more, claim: c, check: adapter_verifies}\n"
    rewritten(folder / "promotion_policy.yaml", "gates:\n", further)
    with pytest.raises(ContractError, match=r"gate 'more': there is no check 'adapter_verifies': known: schema_valid,"):
        load_product(folder)


def test_every_slip_is_told_at_once(folder: Path) -> None:
    rewritten(folder / "promotion_policy.yaml", "metric: late_recall", "metric: late_recal")
    rewritten(folder / "guardrails.yaml", "safe_labels: {intent:", "safe_labels: {intnt:")
    with pytest.raises(ContractError) as told:
        load_product(folder)
    files = [line.partition(".yaml: ")[0].rpartition("/")[2] for line in str(told.value).splitlines()]
    assert files == ["promotion_policy", "guardrails"]


def test_a_mandatory_gate_that_looks_at_something_else_is_refused_with_its_file(folder: Path) -> None:
    rewritten(folder / "promotion_policy.yaml", "check: no_leakage", "check: schema_valid")
    with pytest.raises(ContractError, match=r"promotion_policy\.yaml: mandatory gates .* 'no_leakage' must be a check"):
        load_product(folder)


def test_a_canary_that_would_get_all_users_is_refused_with_its_file(folder: Path) -> None:
    rewritten(folder / "promotion_policy.yaml", "0.5]", "0.5, 1.0]")
    with pytest.raises(ContractError, match=r"promotion_policy\.yaml: canary\.steps: the last one must be below 1\.0"):
        load_product(folder)


def rewritten(path: Path, plain: str, mistaken: str) -> None:
    text = path.read_text("utf-8")
    assert plain in text
    path.write_text(text.replace(plain, mistaken), "utf-8")
