"""A release names everything that produced it, and nothing else."""

import shutil
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ml_platform.contracts.products import Product, load_product
from ml_platform.contracts.release import Candidate, EnvironmentPart, Release
from ml_platform.errors import IntegrityError
from ml_platform.lineage.artifacts import Artifact, LocalArtifactStore
from ml_platform.release import assemble
from ml_platform.release.assemble import build_release, code_part, environment_part, gate_producer, last_commit

PRODUCTS = Path(__file__).resolve().parents[2] / "products"
ENVIRONMENT = EnvironmentPart(python="3.11.9", accelerator="cpu", packages={"torch": "2.13.0"})


@pytest.fixture
def product(tmp_path: Path) -> Product:
    folder = tmp_path / "flight_assistant"
    shutil.copytree(PRODUCTS / "flight_assistant", folder, ignore=shutil.ignore_patterns("__pycache__"))
    return load_product(folder)


class Chain:
    """The artifacts of a chain, made of their facts alone."""

    def __init__(self, folder: Path) -> None:
        self.store = LocalArtifactStore(folder / "artifacts")
        self.snapshot = self.make("snapshot", product="flight_assistant", as_of="2013-03-31")
        self.training_set = self.make("training_set", snapshot_sha256=self.snapshot.sha256)
        self.candidate = self.make_candidate()

    def make(self, kind: str, **facts: Any) -> Artifact:
        return self.store.make(kind, {"facts": facts}, lambda _: facts)

    def make_candidate(self, **changes: Any) -> Artifact:
        values: dict[str, Any] = {
            "product": "flight_assistant",
            "as_of": date(2013, 3, 31),
            "family": "lora",
            "base_model": "smollm2-135m-instruct",
            "base_sha256": "3" * 64,
            "training_set_sha256": self.training_set.sha256,
            "adapter_sha256": "5" * 64,
            "training": {"rank": 16, "hardware": {"device": "cuda"}},
            "seed": 13,
            "steps": 10,
            "train_loss": 0.4,
            "validation_loss": None,
        }
        return self.make("candidate", **Candidate.model_validate(values | changes).model_dump(mode="json"))


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def build(product: Product, chain: Chain) -> Release:
    return build_release(product, chain.snapshot, chain.training_set, chain.candidate, ENVIRONMENT)


def test_a_release_names_every_part_by_its_digest(product: Product, chain: Chain) -> None:
    release = build(product, chain)
    assert release.data.as_of == date(2013, 3, 31)
    assert release.data.snapshot_sha256 == chain.snapshot.sha256
    assert release.data.training_set_sha256 == chain.training_set.sha256
    assert release.model.candidate_sha256 == chain.candidate.sha256
    assert release.model.training["rank"] == 16
    assert release.prompt.content_sha256 == product.prompt.sha256
    assert release.promotion_policy.content_sha256 == product.promotion_policy.sha256
    assert release.action_policy is not None
    assert release.features is not None
    assert release == build(product, chain)
    assert Release.model_validate_json(release.canonical_bytes()).release_id == release.release_id


def test_a_comment_changes_nothing_and_a_threshold_changes_the_release(product: Product, chain: Chain) -> None:
    release = build(product, chain)
    path = product.folder / "promotion_policy.yaml"
    text = path.read_text()
    path.write_text(f"# a remark\n{text}")
    assert build(load_product(product.folder), chain) == release
    path.write_text(text.replace("at_least: 0.97", "at_least: 0.96"))
    changed = build(load_product(product.folder), chain)
    assert changed.promotion_policy != release.promotion_policy
    assert changed.release_id != release.release_id


@pytest.mark.parametrize(
    ("file", "old", "new", "parts"),
    [
        ("prompts/answer.yaml", "version: 1", "version: 2", {"prompt"}),
        ("guardrails.yaml", "version: 1", "version: 2", {"guardrails"}),
        ("monitor_policy.yaml", "version: 2", "version: 3", {"monitor_policy"}),
        ("action_policy.yaml", "version: 1", "version: 2", {"action_policy"}),
        ("serving.yaml", "version: 1", "version: 2", {"serving"}),
        ("facts.py", '"""', '"""Other. ', {"serving", "code"}),
        ("sources.py", '"""', '"""Other. ', {"code"}),
    ],
)
def test_every_part_that_changes_changes_the_release(
    product: Product, chain: Chain, file: str, old: str, new: str, parts: set[str]
) -> None:
    release = build(product, chain)
    path = product.folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    changed = build(load_product(product.folder), chain)
    differing = {name for name in Release.model_fields if getattr(changed, name) != getattr(release, name)}
    assert differing == parts


def test_artifacts_that_do_not_belong_together_are_refused(product: Product, chain: Chain) -> None:
    other = chain.make("training_set", snapshot_sha256="0" * 64)
    with pytest.raises(IntegrityError, match="the candidate's training set is"):
        build_release(product, chain.snapshot, other, chain.candidate, ENVIRONMENT)
    of_other = chain.make_candidate(training_set_sha256=other.sha256)
    with pytest.raises(IntegrityError, match="the training set's snapshot is"):
        build_release(product, chain.snapshot, other, of_other, ENVIRONMENT)
    later = chain.make_candidate(as_of=date(2013, 4, 1))
    with pytest.raises(IntegrityError, match="the snapshot's as_of is 2013-03-31, expected 2013-04-01"):
        build_release(product, chain.snapshot, chain.training_set, later, ENVIRONMENT)
    foreign = chain.make_candidate(product="other")
    with pytest.raises(IntegrityError, match="the candidate's product is other"):
        build_release(product, chain.snapshot, chain.training_set, foreign, ENVIRONMENT)


def test_the_environment_tells_the_device_of_training_and_the_libraries(chain: Chain) -> None:
    part = environment_part(Candidate.model_validate(chain.candidate.facts))
    assert part.accelerator == "cuda"
    assert {"torch", "transformers", "numpy"} <= set(part.packages)
    plain = Candidate.model_validate(chain.make_candidate(training={}).facts)
    assert environment_part(plain).accelerator == "cpu"


def test_outside_git_there_is_no_commit(product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "PACKAGE", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert last_commit((tmp_path, product.folder)) is None


def test_the_commit_is_the_last_that_touched_the_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    for name in ("package", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "code.py").write_text("pass\n")
        git("add", "-A")
        git("commit", "-q", "-m", name)
    monkeypatch.setattr(assemble, "PACKAGE", tmp_path / "package")
    assert last_commit((tmp_path / "package", Path("/outside"))) == git("rev-parse", "HEAD~1")


def test_code_and_producer_are_named_by_the_digest_of_their_sources(product: Product) -> None:
    before = code_part(product)
    (product.folder / "more.py").write_text("pass\n")
    assert code_part(product).source_sha256 != before.source_sha256
    assert gate_producer() == gate_producer()
