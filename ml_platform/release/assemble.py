"""Assemble a release: the digests of everything that produced a candidate and everything that moves with it."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

import ml_platform
from ml_platform.contracts.canonical import digest, sources_sha256
from ml_platform.contracts.evidence import Producer
from ml_platform.contracts.products import Product
from ml_platform.contracts.release import (
    Candidate,
    CodePart,
    DataPart,
    EnvironmentPart,
    FeaturesPart,
    ModelPart,
    Release,
    VersionedPart,
)
from ml_platform.contracts.report import EvaluationReport
from ml_platform.contracts.triggers import Trigger
from ml_platform.errors import IntegrityError
from ml_platform.features.definitions import definitions_sha256
from ml_platform.lineage.artifacts import Artifact

PACKAGE = Path(ml_platform.__file__).parent

PACKAGES = (
    "accelerate",
    "duckdb",
    "feast",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
)
"""Libraries whose version can change a candidate or its measurements."""


def build_release(
    product: Product,
    snapshot: Artifact,
    training_set: Artifact,
    candidate: Artifact,
    environment: EnvironmentPart | None = None,
    trigger: Trigger | None = None,
) -> Release:
    """The release of a candidate; the same inputs give the same release id on the same kind of machine.

    `environment` defaults to this process's; `trigger` is why the run started by itself, None for people's. Policies,
    prompt and guardrails are named by the digests of their values, so that a comment in a file changes nothing.
    Raises IntegrityError when the three artifacts do not belong together.
    """
    made = Candidate.parse(candidate.facts, where=f"candidate {candidate.sha256[:12]}")
    _check_chain(product, snapshot, training_set, made)
    return Release(
        product=product.name,
        data=DataPart(as_of=made.as_of, snapshot_sha256=snapshot.sha256, training_set_sha256=training_set.sha256),
        features=_features_part(product),
        model=ModelPart(
            family=made.family,
            base_model=made.base_model,
            base_sha256=made.base_sha256,
            candidate_sha256=candidate.sha256,
            adapter_sha256=made.adapter_sha256,
            training=made.training,
            seed=made.seed,
        ),
        prompt=_versioned(product.prompt.version, product.prompt.sha256),
        guardrails=_versioned(product.guardrails.version, product.guardrails.sha256),
        action_policy=(
            _versioned(product.action_policy.version, product.action_policy.sha256) if product.action_policy else None
        ),
        promotion_policy=_versioned(product.promotion_policy.version, product.promotion_policy.sha256),
        monitor_policy=_versioned(product.monitor_policy.version, product.monitor_policy.sha256),
        serving=_versioned(product.serving.version, product.serving_content.sha256),
        code=code_part(product),
        environment=environment or environment_part(made),
        trigger=trigger,
    )


def code_part(product: Product) -> CodePart:
    """The library and the product's hooks: version, digest of their sources, and the last commit that touched them.

    The commit is None outside git; what is not committed yet shows in the digest alone.
    """
    sources = {"ml_platform": sources_sha256([PACKAGE], PACKAGE.parent), "product": product.file_digests()}
    return CodePart(
        version=ml_platform.__version__,
        source_sha256=digest(sources),
        git_commit=last_commit((PACKAGE, product.folder)),
    )


def environment_part(candidate: Candidate) -> EnvironmentPart:
    """Python and the libraries of this process, and the kind of device that the candidate was trained on."""
    hardware = candidate.training.get("hardware")
    device = hardware.get("device") if isinstance(hardware, dict) else None
    return EnvironmentPart(
        python=platform.python_version(),
        accelerator=str(device or "cpu"),
        packages={name: version for name in PACKAGES if (version := _version(name))},
    )


def evidence_inputs(report: EvaluationReport, artifact: Artifact) -> dict[str, str]:
    """What the evidence names as its inputs: the report, its reference and the digests of all that went in."""
    return {**report.inputs, "eval_report": artifact.sha256, "reference": report.reference}


def gate_producer() -> Producer:
    """Who decides the gates: this library, with the digest of the sources that measure and decide."""
    folders = [PACKAGE / name for name in ("contracts", "evaluation", "gates")]
    return Producer(
        component="ml_platform.gates",
        version=ml_platform.__version__,
        source_sha256=sources_sha256(folders, PACKAGE),
    )


def last_commit(paths: Iterable[Path]) -> str | None:
    """The newest commit that touched any of the paths which lie in the package's git repository, or None."""
    try:
        top = _git("rev-parse", "--show-toplevel")
        inside = [str(path) for path in paths if path.resolve().is_relative_to(Path(top).resolve())]
        return _git("log", "-1", "--format=%H", "--", *inside) or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def _check_chain(product: Product, snapshot: Artifact, training_set: Artifact, made: Candidate) -> None:
    links = (
        ("the candidate's product", made.product, product.name),
        ("the candidate's training set", made.training_set_sha256, training_set.sha256),
        ("the training set's snapshot", training_set.facts.get("snapshot_sha256"), snapshot.sha256),
        ("the snapshot's product", snapshot.facts.get("product"), product.name),
        ("the snapshot's as_of", snapshot.facts.get("as_of"), made.as_of.isoformat()),
    )
    for what, found, expected in links:
        if found != expected:
            raise IntegrityError(f"release: {what} is {found}, expected {expected}. Materialize the chain again.")


def _features_part(product: Product) -> FeaturesPart | None:
    if product.features is None:
        return None
    return FeaturesPart(service=product.features.service, definitions_sha256=definitions_sha256(product))


def _versioned(version: str, sha256: str) -> VersionedPart:
    return VersionedPart(version=version, content_sha256=sha256)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
