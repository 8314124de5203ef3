"""A report speaks for a product only as long as nothing has changed that the report measured."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.products import Product, load_product
from ml_platform.errors import IntegrityError
from ml_platform.evaluation.evaluate import evaluation_code_sha256
from ml_platform.families.lora.golden import load_golden_sets
from ml_platform.families.lora.prepare import training_set_recipe
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.release import measured
from ml_platform.release.measured import require_measured

FOLDER = Path(__file__).resolve().parents[2] / "products" / "flight_assistant"


@pytest.fixture
def product(tmp_path: Path) -> Product:
    folder = tmp_path / "flight_assistant"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return load_product(folder)


Made = Callable[..., Artifact]


@pytest.fixture
def make(tmp_path: Path) -> Made:
    store = LocalArtifactStore(tmp_path / "artifacts")
    return lambda kind, recipe: store.make(kind, recipe, lambda _: {})


@pytest.fixture
def training_set(product: Product, make: Made) -> Artifact:
    golden = load_golden_sets(product)
    return make("training_set", training_set_recipe(product, make("snapshot", {}), golden, with_features=True))


def report_recipe(product: Product) -> dict[str, Any]:
    return {
        "prompt_sha256": product.prompt.sha256,
        "evaluation": product.spec.evaluation.model_dump(mode="json"),
        "code_sha256": evaluation_code_sha256(),
    }


@pytest.fixture
def report(product: Product, make: Made) -> Artifact:
    return make("eval_report", report_recipe(product))


def test_an_untouched_folder_is_what_was_measured(product: Product, training_set: Artifact, report: Artifact) -> None:
    require_measured(load_product(product.folder), training_set, report)


@pytest.mark.parametrize(
    ("file", "old", "new", "what"),
    [
        ("prompts/answer.yaml", "version: 1", "version: 2", "prompt"),
        ("product.yaml", "max_new_tokens: ", "max_new_tokens: 1", "evaluation"),
        ("golden/answers.jsonl", "flight", "plane", "golden sets"),
        ("action_policy.yaml", "version: 1", "version: 2", "action policy"),
        ("product.yaml", "\n    known_at: known_at", "", "meaning of the sources"),
        ("features.yaml", "ttl_hours: 6", "ttl_hours: 7", "features.yaml"),
        ("facts.py", "LATE_CHANCE_WEIGHTS = {", "LATE_CHANCE_WEIGHTS = {  # ", "facts.py"),
    ],
)
def test_each_change_is_named(
    product: Product, training_set: Artifact, report: Artifact, file: str, old: str, new: str, what: str
) -> None:
    text = (product.folder / file).read_text()
    assert old in text
    (product.folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(IntegrityError, match=rf"of flight_assistant was measured with another {what}.* than"):
        require_measured(load_product(product.folder), training_set, report)


def test_all_that_differs_is_named_at_once(product: Product, training_set: Artifact, report: Artifact) -> None:
    for file in ("prompts/answer.yaml", "action_policy.yaml"):
        text = (product.folder / file).read_text()
        (product.folder / file).write_text(text.replace("version: 1", "version: 2", 1))
    with pytest.raises(IntegrityError, match="another prompt, another action policy than"):
        require_measured(load_product(product.folder), training_set, report)


def test_numbers_that_other_code_of_the_evaluation_made_are_other_numbers(
    product: Product, training_set: Artifact, make: Made
) -> None:
    """A fix of a metric is deployed, and somebody materializes the verdicts alone."""
    before = make("eval_report", report_recipe(product) | {"code_sha256": "c" * 64})
    with pytest.raises(IntegrityError, match="another code of the evaluation than"):
        require_measured(product, training_set, before)


def test_features_that_other_code_computed_are_other_features(
    product: Product, training_set: Artifact, report: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "windows.py").write_text("DAYS = 8\n")
    monkeypatch.setattr(measured, "_FEATURES", tmp_path / "features")
    with pytest.raises(IntegrityError, match="another code of the features"):
        require_measured(product, training_set, report)


def test_a_recipe_that_does_not_say_what_was_measured_measured_nothing(
    product: Product, training_set: Artifact, report: Artifact, make: Made
) -> None:
    with pytest.raises(IntegrityError, match="another prompt, another evaluation, another code of the evaluation than"):
        require_measured(product, training_set, make("eval_report", {}))
    with pytest.raises(IntegrityError, match=r"another action policy, another meaning .*another facts\.py"):
        require_measured(product, make("training_set", {}), report)
