"""The end of the chain: signed verdicts, the registered release, and the canary."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetExecutionContext,
    AssetIn,
    AssetOut,
    AssetsDefinition,
    DataVersion,
    MaterializeResult,
    MetadataValue,
    multi_asset,
)

from assets.ancestry import trace_ancestry
from assets.chain import Chain
from assets.eval_report import gates_shown
from assets.shown import markdown_table
from ml_platform.contracts.canonical import digest
from ml_platform.contracts.evidence import GateResult
from ml_platform.contracts.home import Home
from ml_platform.contracts.products import Product
from ml_platform.contracts.release import Release
from resources.automatic_runs import trigger_of
from resources.backfills import backfilled_to
from resources.manifests import Value
from resources.reporting import readable_failures
from resources.state import StoreResource

if TYPE_CHECKING:
    from ml_platform.lineage.verification import Eligibility
    from ml_platform.registry.mlflow_registry import MlflowRegistry, Registration
    from ml_platform.release.controller import Controller

CODE = ("contracts", "gates", "lineage", "registry", "release")


def release_assets(chain: Chain) -> AssetsDefinition:
    """`gate_verdict` and `registered_release` of one product: one step, so that neither comes without the other."""
    product = chain.product
    settings = [product.promotion_policy, product.monitor_policy, product.guardrails, product.action_policy]
    verdict = chain.described("gate_verdict", kinds={"python", "intoto"}, code=CODE, settings=settings)
    registered = chain.described("registered_release", kinds={"mlflow", "sqlite"}, code=CODE, settings=settings)

    @multi_asset(
        name=f"{product.name}__gates_and_release",
        ins={"eval_report": AssetIn(chain.key("eval_report"))},
        outs={
            "gate_verdict": AssetOut(
                **verdict,
                dagster_type=Value,
                description="Accepted or held, and why: one signed verdict for each gate of the promotion policy.\n\n"
                "Every candidate gets one. The evidence is appended to the ledger, which alone decides what may serve.",
            ),
            "registered_release": AssetOut(
                **registered,
                dagster_type=Value,
                description="The tuple that moves as one: data, features, model, prompt, guardrails, policies, code, "
                "environment.\n\nHeld candidates are registered too, so that history explains itself.",
            ),
        },
        internal_asset_deps={
            "gate_verdict": {chain.key("eval_report")},
            "registered_release": {chain.key("gate_verdict")},
        },
        partitions_def=chain.partitions,
        can_subset=False,
    )
    def gates_and_release(
        context: AssetExecutionContext, eval_report: Value, store: StoreResource
    ) -> Iterator[MaterializeResult[Value]]:
        from ml_platform.evaluation.evaluate import load_report
        from ml_platform.gates.assess import assess_release
        from ml_platform.lineage.contents import keep_contents
        from ml_platform.lineage.keys import signing_key
        from ml_platform.lineage.pins import why_not_pinned
        from ml_platform.release.assemble import build_release, evidence_inputs
        from ml_platform.release.measured import require_measured

        with readable_failures():
            artifacts = store.store()
            report_artifact = artifacts.open(eval_report.kind, eval_report.value_sha256)
            artifacts.require_attested(report_artifact)
            report = load_report(report_artifact)
            traced = trace_ancestry(artifacts, report.candidate_sha256)
            require_measured(product, traced.training_set, report_artifact)
            results = assess_release(product.promotion_policy, report)
            trigger = trigger_of(context.run.tags)
            release = build_release(product, traced.snapshot, traced.training_set, traced.candidate, trigger=trigger)
            keep_contents(artifacts, product)
            now, key, actor = datetime.now(UTC), signing_key(store.home), f"dagster run {context.run.run_id}"
            _pin_first(store.home, product, now, actor)
            controller = _controller(store.home)
            news = controller.register_release(release, product.promotion_policy, now, actor)
            inputs = evidence_inputs(report, report_artifact)
            found = controller.record_verdicts(release, results, inputs, key, now, actor)
            unpinned = why_not_pinned(product.name, product.promotion_policy.sha256, controller.pinned(product.name))
            said = "eligible" if found.eligible else f"held: {', '.join(found.reasons)}"
            version = _mlflow(store.home).register(
                release,
                traced.candidate.path,
                said,
                controller.state(product.name),
                [report_artifact.file("report.html"), report_artifact.file("summary.md")],
            )
        yield _verdict_materialized(chain, release, results, found, unpinned)
        yield _release_materialized(chain, release, version, news=news)

    return gates_and_release


def canary_asset(chain: Chain) -> AssetsDefinition:
    """`canary_alias` of one product."""

    @chain.asset(
        "canary_alias",
        kinds={"mlflow", "sqlite"},
        code=CODE,
        settings=[chain.product.promotion_policy.canary],
        upstream=["registered_release"],
    )
    def canary_alias(
        context: AssetExecutionContext, registered_release: Value, store: StoreResource
    ) -> MaterializeResult[Value]:
        """An accepted release begins to serve a small share of the users; a held one moves nothing.

        The controller checks evidence, expiry and policy again in the ledger's transaction. A release that is older
        than what serves never moves anything, nor do the days of a backfill but the newest that there is.
        """
        from ml_platform.release.mirroring import mirror_slots
        from ml_platform.release.moves import Held

        now, release_id = datetime.now(UTC), registered_release.value_sha256
        with readable_failures():
            name, actor, controller = chain.product.name, f"dagster run {context.run.run_id}", _controller(store.home)
            last_day = backfilled_to(context.instance, context.run.tags)
            moved = controller.open_canary(name, release_id, now, actor, backfilled_to=last_day)
            state = controller.state(name)
            mirrored = mirror_slots(controller, _mlflow(store.home), name, now, actor)
        context.log.info(f"{chain.product.name} {release_id[:12]}: {moved.sentence}")
        slots = {str(slot): sha256 for slot, sha256 in state.slots.items()}
        rows = [(f"`{slot}`", f"`{sha256[:12]}`") for slot, sha256 in slots.items()]
        facts = {"release_id": release_id, "outcome": moved.sentence, "epoch": state.epoch, "slots": slots}
        held_by = _held_by(moved.reasons) if isinstance(moved, Held) else {}
        return MaterializeResult(
            value=Value(kind="canary_move", value_sha256=digest(facts), facts=facts),
            metadata={
                "outcome": MetadataValue.text(moved.sentence),
                **held_by,
                "release_id": MetadataValue.text(release_id),
                "slots": MetadataValue.md(markdown_table(("slot", "release"), rows)),
                "epoch": MetadataValue.int(state.epoch),
                "exposure": MetadataValue.float(state.exposure),
                "mlflow": MetadataValue.text(mirrored.warning or "; ".join(mirrored.changes) or "unchanged"),
                "next": MetadataValue.md(f"`mlp show {release_id[:12]}` · `mlp status {chain.product.name}`"),
            },
            data_version=DataVersion(digest(facts)),
        )

    return canary_alias


def _controller(home: Home) -> "Controller":
    from ml_platform.lineage.keys import trusted_keys, trusted_operators
    from ml_platform.lineage.ledger import Ledger
    from ml_platform.release.assemble import gate_producer
    from ml_platform.release.controller import Controller

    return Controller(Ledger(home.ledger_url), trusted_keys(home), gate_producer(), trusted_operators(home))


def _pin_first(home: Home, product: Product, now: datetime, actor: str) -> None:
    """A product that never had a pin gets its first one here, where an operator's key is at hand: on a laptop.

    From then on only `mlp policy pin` changes which policy counts. Elsewhere the canary is held until an operator pins.
    """
    from ml_platform.lineage.keys import operator_key

    if key := operator_key(home):
        reason = "the first policy of the product"
        _controller(home).pin_policy(product.name, product.promotion_policy, key, reason, now, actor, only_first=True)


def _mlflow(home: Home) -> "MlflowRegistry":
    from ml_platform.registry.mlflow_registry import MlflowRegistry

    return MlflowRegistry(home.mlflow_url, home.mlflow_artifacts)


def _held_by(reasons: Mapping[str, str]) -> dict[str, MetadataValue[Any]]:
    """Which gates hold a release and why, as metadata; nothing where none does."""
    lines = [f"- **`{gate}`** {reason}" for gate, reason in reasons.items()]
    return {"held_by": MetadataValue.md("\n".join(lines))} if lines else {}


def _verdict_materialized(
    chain: Chain, release: Release, results: tuple[GateResult, ...], found: "Eligibility", unpinned: str
) -> MaterializeResult[Value]:
    said = "accepted" if found.eligible else f"held: {', '.join(found.reasons)}"
    facts: dict[str, Any] = {
        "release_id": release.release_id,
        "verdict": said,
        "gates": [{"gate": r.gate, "verdict": str(r.verdict), "claim": r.claim, "reason": r.reason} for r in results],
    }
    shown: dict[str, Any] = {
        "verdict": MetadataValue.text(said),
        **gates_shown(results),
        "release_id": MetadataValue.text(release.release_id),
        "promotion_policy": MetadataValue.text(unpinned or f"{chain.product.promotion_policy.version}, pinned"),
    }
    shown |= _held_by(found.reasons)
    if found.expires_at is not None:
        shown["evidence_expires_at"] = MetadataValue.text(found.expires_at.isoformat(timespec="minutes"))
    return MaterializeResult(
        asset_key=chain.key("gate_verdict"),
        value=Value(kind="gate_verdict", value_sha256=digest(facts), facts=facts),
        metadata=shown,
        data_version=DataVersion(digest(facts)),
    )


def _release_materialized(
    chain: Chain, release: Release, version: "Registration", *, news: bool
) -> MaterializeResult[Value]:
    parts = release.model_dump(mode="json")
    lines = [f"- **{name}** {_part(part)}" for name, part in parts.items() if part not in (None, [], ())]
    return MaterializeResult(
        asset_key=chain.key("registered_release"),
        value=Value(kind="release", value_sha256=release.release_id, facts=parts),
        metadata={
            "release_id": MetadataValue.text(release.release_id),
            "parts": MetadataValue.md("\n".join(lines)),
            "mlflow_version": MetadataValue.text(version.version or version.warning),
            "mlflow_run": MetadataValue.text(version.run_id or "none"),
            "release": MetadataValue.json(parts),
            "registered_before": MetadataValue.bool(not news),
        },
        data_version=DataVersion(release.release_id),
    )


def _part(part: Any) -> str:
    """One line for a part of the tuple: short values whole, digests by their first 12 digits."""
    if not isinstance(part, dict):
        return str(part)
    shown = {name: value for name, value in part.items() if isinstance(value, str | int | float) and value != ""}
    return ", ".join(f"{name} {str(value)[:12] if name.endswith('sha256') else value}" for name, value in shown.items())
