"""Measured: whether a report speaks for the product as its folder stands now, for that is what a release would name.

A report is of the day that it was made. Whoever edits the prompt afterwards and makes the release alone would get
verdicts for a prompt that nobody measured.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_platform
from ml_platform.contracts.canonical import digest, sources_sha256
from ml_platform.contracts.products import Product
from ml_platform.errors import IntegrityError
from ml_platform.evaluation.evaluate import evaluation_code_sha256
from ml_platform.families.lora.golden import golden_sha256, load_golden_sets
from ml_platform.lineage.artifacts import Artifact

_FEATURES = Path(ml_platform.__file__).parent / "features"


def require_measured(product: Product, training_set: Artifact, report: Artifact) -> None:
    """Raises IntegrityError, which names what differs, unless the report measured what the product would serve.

    Compared is what answers come of and the gates look at: prompt, evaluation (decoding is part of it) and its code,
    golden sets, action policy, what rows of the sources mean, features, the facts and the code that makes them, the
    longest question. What is in no recipe was not measured.
    The rest may change after the report, for the chain would measure the same again: promotion and monitor policy judge
    what was measured, and no gate looks at what guardrails block or at how questions are looked up and timed.
    """
    differing = [what for what, then, now in _measured_of(product, training_set, report) if digest(then) != digest(now)]
    if differing:
        raise IntegrityError(
            f"report {report.sha256[:12]} of {product.name} was measured with another {', another '.join(differing)} "
            "than the product's folder holds now; its verdicts would speak for what nobody measured. Run the chain "
            "for this day again, or take the change back."
        )


def _measured_of(product: Product, training_set: Artifact, report: Artifact) -> Iterator[tuple[str, Any, Any]]:
    """What is compared: its name, what the recipes hold of it, and what the product is now."""
    asked, made = report.manifest.recipe, training_set.manifest.recipe
    spec, features, policy = product.spec, product.features, product.action_policy
    yield "prompt", asked.get("prompt_sha256"), product.prompt.sha256
    yield "evaluation", asked.get("evaluation"), spec.evaluation.model_dump(mode="json")
    yield "code of the evaluation", asked.get("code_sha256"), evaluation_code_sha256()
    yield "golden sets", made.get("golden"), golden_sha256(load_golden_sets(product))
    yield "action policy", made.get("action_policy_sha256"), policy.sha256 if policy else None
    meanings = {name: source.meaning for name, source in spec.sources.items()}
    yield "meaning of the sources (columns, key, times)", made.get("sources"), meanings
    yield "features.yaml", made.get("features_sha256"), features.sha256 if features else None
    code = sources_sha256([_FEATURES], _FEATURES.parent) if features else None
    yield "code of the features", made.get("features_code_sha256"), code
    yield "list of facts", (made.get("examples") or {}).get("facts"), list(spec.examples.facts)
    longest = product.guardrails.max_utterance_characters
    yield "max_utterance_characters", made.get("max_utterance_characters"), longest
    if spec.examples.hook:
        # Only what a hook makes examples of shares its code with serving; columns are shown as they are.
        then, now = made.get("product_files") or {}, product.file_digests()
        for name in product.serving_content.sources:
            yield name, then.get(name), now.get(name)
