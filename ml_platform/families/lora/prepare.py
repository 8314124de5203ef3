"""The training set: sound examples from a snapshot, split in time, beside the golden sets that judge them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_platform
from ml_platform.contracts.canonical import canonical_bytes, file_sha256, sources_sha256
from ml_platform.contracts.evidence import CheckResult
from ml_platform.contracts.example import Example
from ml_platform.contracts.products import Product
from ml_platform.contracts.progress import Progress, Reporter, silent
from ml_platform.errors import SourceDataError
from ml_platform.families.lora.examples import BEYOND_MAXIMUM, Drawn, ExamplesContext, Join, draw_examples
from ml_platform.families.lora.golden import Golden, as_shown, golden_sha256, load_golden_sets, parse_examples
from ml_platform.families.lora.soundness import require_known_facts, require_known_kinds, sound_examples
from ml_platform.families.lora.taught import is_taught, set_aside_rows, with_taught
from ml_platform.lineage.artifacts import Artifact, ArtifactStore
from ml_platform.snapshots.leakage import check_leakage
from ml_platform.snapshots.splits import question_sha256, split_examples

KIND = "training_set"
STAGE = "training set"
BEFORE_ITS_SPLIT = "older than its entity's split"
"""Why an example is left out whose entity stands in a later split: it may neither be learnt nor measured by."""
_CODE = ("prepare.py", "examples.py", "declared.py", "golden.py", "soundness.py", "taught.py", "templates.py")


def make_training_set(
    product: Product, snapshot: Artifact, join: Join | None, store: ArtifactStore, report: Reporter = silent
) -> Artifact:
    """The `training_set` of a snapshot: train, validation and test.jsonl, and golden/<name>.jsonl.

    One example a line; facts: `counts`, `left_out` by reason, `snapshot_sha256`, `leakage` (the CheckResult
    `no_leakage`) and `golden` (the digest of each file). Whatever a golden set is about never becomes an
    example, and no utterance is longer than the guardrails let through. `join` adds features as known at a
    moment; None for a product without. Raises SourceDataError or ContractError that names the example.
    """
    report(Progress(STAGE, 0.0, "reading golden sets"))
    golden = load_golden_sets(product)
    recipe = training_set_recipe(product, snapshot, golden, with_features=join is not None)
    spec = product.spec
    context = ExamplesContext(product, snapshot, spec.examples.max_examples, spec.training.seed, join)

    def build(folder: Path) -> dict[str, Any]:
        report(Progress(STAGE, 0.1, "making examples"))
        found = draw_examples(context)
        drawn = _admitted(context, Drawn(as_shown(product, found.examples), found.left_out), golden)
        report(Progress(STAGE, 0.6, f"checking {len(drawn.examples)} examples"))
        sound = sound_examples(drawn.examples, spec.evaluation, product.name)
        asked = [one for one in sound if one.origin is None]
        require_known_kinds(golden, asked, spec.evaluation)
        require_known_facts(golden, asked)
        splits = split_examples(asked, spec.examples.splits)
        left_out = drawn.left_out + Counter({BEFORE_ITS_SPLIT: len(asked) - sum(map(len, splits.values()))})
        everything = [one for name in golden for one in golden[name]]
        splits = with_taught(context, splits, [one for one in sound if one.origin], everything)
        report(Progress(STAGE, 0.8, "looking for leakage"))
        leakage = check_leakage(product, snapshot, splits, everything)
        return _write(folder, snapshot, splits, golden, left_out, leakage) | _set_aside(folder, context)

    artifact = store.make(KIND, recipe, build)
    report(Progress(STAGE, 1.0, _summary(artifact)))
    return artifact


def load_examples(artifact: Artifact, name: str) -> list[Example]:
    """The examples of `train`, `validation`, `test` or `golden/<name>`, in the order of the file."""
    return parse_examples(artifact.text(f"{name}.jsonl"), str(artifact.file(f"{name}.jsonl")))


def leakage_of(artifact: Artifact) -> CheckResult:
    """What the leakage check found when the training set was made."""
    return CheckResult.parse(artifact.facts.get("leakage"), where=f"training set {artifact.sha256[:12]}: leakage")


def training_set_recipe(product: Product, snapshot: Artifact, golden: Golden, *, with_features: bool) -> dict[str, Any]:
    """Everything that decides the examples; hyperparameters and policies other than the action policy do not."""
    package = Path(ml_platform.__file__).parent
    spec = product.spec
    code = [package / "families" / "lora" / name for name in _CODE]
    code += [package / "snapshots" / f"{name}.py" for name in ("splits", "leakage", "suspicion", "spelling")]
    code += [package / "evaluation" / "groundedness.py"]  # by which hooks judge what they were taught
    return {
        "product": product.name,
        "snapshot_sha256": snapshot.sha256,
        # The same rows, known at other times, are other features and another verdict on leakage.
        "sources": {name: source.meaning for name, source in spec.sources.items()},
        "examples": spec.examples.model_dump(mode="json"),
        "brought": [*product.serving.entity, *product.serving.given],
        "evaluation_fields": spec.evaluation.model_dump(mode="json", include={"answer_format", "fields"}),
        "seed": spec.training.seed,
        "max_utterance_characters": product.guardrails.max_utterance_characters,
        "action_policy_sha256": product.action_policy.sha256 if product.action_policy else None,
        "features_sha256": product.features.sha256 if product.features and with_features else None,
        "features_code_sha256": sources_sha256([package / "features"], package) if with_features else None,
        "golden": golden_sha256(golden),
        "product_files": _hook_files(product) if spec.examples.hook else {},
        "code_sha256": sources_sha256(code, package),
    }


def _hook_files(product: Product) -> dict[str, str]:
    """The digests of what a hook may read beside tables: the folder's code and data, without what YAML names."""
    spec = product.spec
    named = {"product.yaml", *spec.files.model_dump(exclude_none=True).values()}
    named |= {one.path for one in spec.sources.values() if one.path}
    named |= {one.path for one in spec.evaluation.golden_sets.values() if one.path}
    found = {path.relative_to(product.folder).as_posix(): path for path in product.folder.rglob("*") if path.is_file()}
    return {
        name: file_sha256(path)
        for name, path in sorted(found.items())
        if name not in named and not any(part.startswith((".", "__pycache__")) for part in Path(name).parts)
    }


def _admitted(context: ExamplesContext, drawn: Drawn, golden: Golden) -> Drawn:
    """The examples in time order, without those that golden sets reserve, that no guardrail would let through,
    or that ask again what an earlier one asked.
    """
    limit = context.product.guardrails.max_utterance_characters
    reserved = {one.entity for examples in golden.values() for one in examples}
    left_out, kept = Counter(drawn.left_out), []
    asked: set[str] = set()
    for example in sorted(drawn.examples, key=lambda one: (one.prediction_time or context.cutoff, one.example_id)):
        question = question_sha256(example)
        reason = ""
        if question in asked and example.origin is None:
            reason = "repeated question"
        elif example.entity in reserved:
            reason = "reserved for golden sets"
        elif len(example.utterance) > limit:
            reason = f"longer than {limit} characters"
        if reason and example.origin:
            context.set_aside(example.example_id, reason)
        elif reason:
            left_out[reason] += 1
        else:
            kept.append(example)
            if example.origin is None:
                asked.add(question)
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())) or "no rows at all"
        raise SourceDataError(f"{context.product.name} as of {context.as_of}: no row became an example: {reasons}.")
    return Drawn(kept, left_out)


def _write(
    folder: Path,
    snapshot: Artifact,
    splits: Mapping[str, Sequence[Example]],
    golden: Golden,
    left_out: Counter[str],
    leakage: CheckResult,
) -> dict[str, Any]:
    (folder / "golden").mkdir()
    for name, examples in [*splits.items(), *((f"golden/{name}", golden[name]) for name in golden)]:
        (folder / f"{name}.jsonl").write_bytes(b"".join(example_line(example) for example in examples))
    return {
        "counts": {name: len(examples) for name, examples in splits.items()},
        **_taught(splits),
        "golden_counts": {name: len(examples) for name, examples in golden.items()},
        "left_out": dict(sorted(left_out.items())),
        "snapshot_sha256": snapshot.sha256,
        "leakage": leakage.model_dump(mode="json"),
        "golden": {name: file_sha256(folder / "golden" / f"{name}.jsonl") for name in golden},
    }


def _taught(splits: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
    counts = Counter(one.origin.value for one in splits["train"] if one.origin)
    return {"taught": dict(sorted(counts.items()))} if counts else {}


def _set_aside(folder: Path, context: ExamplesContext) -> dict[str, Any]:
    """Writes what people said and nobody learns from, with the reason; nothing for a product that is taught nothing."""
    if not is_taught(context.product):
        return {}
    rows = set_aside_rows(context)
    (folder / "quarantine").mkdir()
    (folder / "quarantine" / "taught.jsonl").write_bytes(b"".join(canonical_bytes(row) + b"\n" for row in rows))
    counts = Counter(row["reason"].partition(":")[0] for row in rows)
    return {"set_aside": dict(sorted(counts.items()))}


def example_line(example: Example) -> bytes:
    """One line of JSON. Facts and answers keep their order, because the model reads and writes them in it."""
    plain = example.model_dump(mode="json")
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _summary(artifact: Artifact) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in artifact.facts["counts"].items())
    problems = len(artifact.facts["leakage"]["problems"])
    leakage = "no leakage found" if not problems else f"{problems} problems of leakage"
    reasons = {reason: count for reason, count in artifact.facts["left_out"].items() if reason != BEYOND_MAXIMUM}
    dropped = f", left out: {', '.join(f'{count} {reason}' for reason, count in reasons.items())}" if reasons else ""
    return f"{counts}{dropped}, {leakage}" + (", reused" if artifact.reused else "")
