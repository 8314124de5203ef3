"""The second asset: features joined as they were known, examples made and split, and the check for leakage."""

from functools import partial
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    AssetExecutionContext,
    AssetsDefinition,
    DataVersion,
    MaterializeResult,
    MetadataValue,
    asset_check,
)

from assets.chain import Chain
from assets.shown import artifact_metadata, markdown_table
from assets.snapshot import check_shown
from ml_platform.contracts.products import Product
from ml_platform.contracts.progress import Reporter
from ml_platform.lineage.artifacts import Artifact
from resources.manifests import Value
from resources.reporting import readable_failures, report_to
from resources.state import StoreResource

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

CODE = ("contracts", "lineage/artifacts.py", "evaluation/groundedness.py", "features", "families/lora", "snapshots")


def training_set_asset(chain: Chain) -> AssetsDefinition:
    """`training_set` of one product."""
    product = chain.product
    settings = [product.spec.examples, product.features, product.action_policy, product.prompt]

    @chain.asset(
        "training_set", kinds={"python", "duckdb", "json"}, code=CODE, settings=settings, upstream=["snapshot"]
    )
    def training_set(context: AssetExecutionContext, snapshot: Value, store: StoreResource) -> MaterializeResult[Value]:
        """Examples to learn from and to be measured by: facts, utterance and the answer that is right.

        Features are joined as they were known at each prediction time. Examples are split in time order,
        the newest for test; golden sets are resolved here, so that evaluation reads only artifacts.
        """
        from ml_platform.families.lora.prepare import make_training_set

        report = report_to(context.log)
        with readable_failures():
            taken = store.store().open(snapshot.kind, snapshot.value_sha256)
            features = _features(product, taken, store, report)
            join = _join(product, features, store)
            made = make_training_set(product, taken, join, store.store(), report)
        return MaterializeResult(
            value=Value.of(made),
            metadata=_examples_shown(product, made) | _features_shown(features) | artifact_metadata(made),
            data_version=DataVersion(made.sha256),
        )

    return training_set


def no_leakage_check(chain: Chain) -> AssetChecksDefinition:
    """`no_leakage`, beside the training set; it blocks what stands downstream in the same run."""

    @asset_check(
        asset=chain.key("training_set"),
        partitions_def=chain.partitions,
        blocking=True,
    )
    def no_leakage(training_set: Value, store: StoreResource) -> AssetCheckResult:
        """Predictions see nothing of their future, and no example stands on two sides of a split."""
        from ml_platform.families.lora.prepare import leakage_of

        with readable_failures():
            made = store.store().open(training_set.kind, training_set.value_sha256)
        return check_shown(leakage_of(made), {"counts": MetadataValue.json(made.facts["counts"])})

    return no_leakage


def _features(product: Product, snapshot: Artifact, store: StoreResource, report: Reporter) -> Artifact | None:
    if product.features is None:
        return None
    from ml_platform.features.build import build_features

    return build_features(product, snapshot, store.store(), report)


def _join(
    product: Product, features: Artifact | None, store: StoreResource
) -> "Callable[[pd.DataFrame], pd.DataFrame] | None":
    if features is None:
        return None
    from ml_platform.features.join import join_features

    return partial(join_features, product, features, home=store.home)


def _examples_shown(product: Product, training_set: Artifact) -> dict[str, Any]:
    from ml_platform.families.lora.prepare import load_examples
    from ml_platform.families.lora.prompt import messages

    counts = {name: int(count) for name, count in training_set.facts["counts"].items()}
    shown: dict[str, Any] = {
        "counts": MetadataValue.md(markdown_table(("set", "examples"), [(f"`{n}`", c) for n, c in counts.items()])),
        "dagster/row_count": MetadataValue.int(sum(counts.values())),
    }
    for name, what in (("left_out", "reason"), ("taught", "learnt from"), ("set_aside", "reason")):
        if found := training_set.facts.get(name):
            shown[name] = MetadataValue.md(markdown_table((what, "count"), list(found.items())))
    examples = load_examples(training_set, "train")
    if examples:
        turns = messages(product.prompt, examples[0], with_answer=True)
        shown["first_example"] = MetadataValue.md(
            "\n\n".join(f"**{turn['role']}**\n```\n{turn['content']}\n```" for turn in turns)
        )
    return shown


def _features_shown(features: Artifact | None) -> dict[str, Any]:
    if features is None:
        return {"features": MetadataValue.text("This product has none.")}
    return {
        "features": MetadataValue.json(features.facts),
        "features_artifact": MetadataValue.path(str(features.path)),
    }
