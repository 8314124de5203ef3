"""The third asset: a trained adapter, made in a process of its own; hyperparameters can be changed in the UI."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    AssetExecutionContext,
    AssetsDefinition,
    Config,
    DataVersion,
    MaterializeResult,
    MetadataValue,
    asset_check,
)
from pydantic import Field

from assets.chain import Chain, as_of
from assets.shown import artifact_metadata, line_plot, markdown_table, picture
from assets.snapshot import check_shown
from ml_platform.contracts.evidence import CheckResult
from ml_platform.contracts.product import TrainingSpec
from ml_platform.contracts.release import Candidate
from ml_platform.errors import IntegrityError, TrainingError
from ml_platform.lineage.artifacts import Artifact, write_atomically
from resources.launcher import Messages, TrainingLauncher
from resources.manifests import Value
from resources.reporting import readable_failures
from resources.state import StoreResource

CODE = ("contracts", "lineage/artifacts.py", "families/lora")


class TrainingOverrides(Config):
    """Hyperparameters for this run only; what is left empty comes from product.yaml."""

    base_model: str | None = Field(None, description="Name of the base model, or a folder that holds one.")
    rank: int | None = Field(None, description="Rank of the LoRA matrices, 1 to 256.")
    alpha: int | None = Field(None, description="LoRA scale: the update is multiplied by alpha / rank.")
    dropout: float | None = Field(None, description="Dropout in front of the LoRA matrices, 0 to below 1.")
    upper_layers: int | None = Field(None, description="How many of the upper layers learn.")
    learning_rate: float | None = Field(None, description="Peak learning rate of AdamW.")
    warmup_share: float | None = Field(None, description="Share of the steps that warm up, 0 to 1.")
    epochs: int | None = Field(None, description="How often the training split is seen.")
    pack_tokens: int | None = Field(None, description="Tokens in one flattened pack.")
    packs_per_step: int | None = Field(None, description="Packs that one optimizer step averages over.")
    max_example_tokens: int | None = Field(None, description="Longer examples are left out, and named.")
    evaluations_per_epoch: int | None = Field(None, description="How often the validation loss is measured.")
    early_stopping_patience: int | None = Field(None, description="Evaluations without improvement before stopping.")
    seed: int | None = Field(None, description="Seed of initialisation and data order.")

    def applied_to(self, spec: TrainingSpec) -> TrainingSpec:
        """The hyperparameters of this run. Raises ContractError that names the wrong one."""
        given = self.model_dump(exclude_none=True)
        return TrainingSpec.parse({**spec.model_dump(), **given}, where="run config of the candidate")


def candidate_asset(chain: Chain) -> AssetsDefinition:
    """`candidate` of one product; one at a time, whatever starts it, through its pool."""

    @chain.asset(
        "candidate",
        kinds={"huggingface", "pytorch", chain.product.spec.family},
        code=CODE,
        settings=[chain.product.spec.training, chain.product.prompt],
        upstream=["training_set"],
        pool=f"{chain.product.name}__training",
    )
    def candidate(
        context: AssetExecutionContext,
        config: TrainingOverrides,
        training_set: Value,
        store: StoreResource,
        launcher: TrainingLauncher,
    ) -> MaterializeResult[Value]:
        """A LoRA adapter, and everything that produced it: hyperparameters, seeds, pack plan, loss.

        Trains in a process of its own, here or in a pod with GPUs, from one script. The same training set,
        hyperparameters and code give the same digest; killed and started again, training goes on.
        """
        with readable_failures():
            request = _write_request(chain, config, context.partition_key, training_set, store)
            trained = _candidate_named(launcher.launch(context, request), store)
            _require_from(trained, training_set)
        return MaterializeResult(
            value=Value.of(trained),
            metadata=_training_shown(trained) | artifact_metadata(trained),
            data_version=DataVersion(trained.sha256),
        )

    return candidate


def adapter_verifies_check(chain: Chain) -> AssetChecksDefinition:
    """`adapter_verifies`, beside the candidate; it blocks what stands downstream in the same run."""

    @asset_check(
        asset=chain.key("candidate"),
        partitions_def=chain.partitions,
        blocking=True,
    )
    def adapter_verifies(candidate: Value, store: StoreResource) -> AssetCheckResult:
        """Every file of the candidate has the digest that its manifest states, and weights are safetensors."""
        with readable_failures():
            artifacts = store.store()
        try:
            files = artifacts.open(candidate.kind, candidate.value_sha256).manifest.files
        except IntegrityError as error:
            return check_shown(_verified(0, str(error)), {})
        unsafe = [name for name in files if Path(name).suffix not in {".safetensors", ".json"}]
        problems = [f"{name} is neither safetensors nor JSON." for name in unsafe]
        rows = [(f"`{name}`", stored.size_bytes, f"`{stored.file_sha256[:12]}`") for name, stored in files.items()]
        shown = MetadataValue.md(markdown_table(("file", "bytes", "SHA-256"), rows))
        return check_shown(_verified(len(files), *problems), {"files": shown})

    return adapter_verifies


def _verified(examined: int, *problems: str) -> CheckResult:
    return CheckResult(check="adapter_verifies", passed=not problems, examined=examined, problems=problems)


def _write_request(
    chain: Chain, config: TrainingOverrides, partition: str, training_set: Value, store: StoreResource
) -> Path:
    from ml_platform.families.lora.request import TrainingRequest

    request = TrainingRequest(
        product=chain.product.name,
        as_of=as_of(partition),
        training_set_sha256=training_set.value_sha256,
        training=config.applied_to(chain.product.spec.training),
        prompt=chain.product.prompt,
    )
    path = store.home.work / "requests" / f"{request.sha256}.json"
    write_atomically(path, request.canonical_bytes())
    return path


def _candidate_named(messages: Messages, store: StoreResource) -> Artifact:
    """The candidate that the training process says it made, verified from its bytes."""
    named = [message for message in messages if "candidate_sha256" in message]
    if not named:
        raise TrainingError(
            "the training process ended well but named no candidate: it should report 'candidate_sha256'. "
            "Look at the step's output; with a pod, whether it runs this version of ml_platform."
        )
    trained = store.store().open("candidate", str(named[-1]["candidate_sha256"]))
    return replace(trained, reused=bool(named[-1].get("reused")))


def _require_from(trained: Artifact, training_set: Value) -> None:
    learned_from = Candidate.model_validate(trained.facts).training_set_sha256
    if learned_from != training_set.value_sha256:
        raise IntegrityError(
            f"candidate {trained.sha256[:12]} learned from training set {learned_from[:12]}, expected "
            f"{training_set.value_sha256[:12]}. Materialize the candidate again."
        )


def _training_shown(trained: Artifact) -> dict[str, Any]:
    made = Candidate.model_validate(trained.facts)
    settings = [(f"`{name}`", value) for name, value in sorted(made.training.items()) if not isinstance(value, dict)]
    return {
        "loss": MetadataValue.md(_loss_picture(trained)),
        "train_loss": MetadataValue.float(round(made.train_loss, 4)),
        **(
            {"validation_loss": MetadataValue.float(round(made.validation_loss, 4))}
            if made.validation_loss is not None
            else {}
        ),
        "steps": MetadataValue.int(made.steps),
        "base_model": MetadataValue.text(f"{made.base_model} ({made.base_sha256[:12]})"),
        "hyperparameters": MetadataValue.md(markdown_table(("setting", "value"), settings)),
    }


def _loss_picture(trained: Artifact) -> str:
    losses = json.loads(trained.file("loss.json").read_text(encoding="utf-8"))
    series = {
        "train": [(float(point["step"]), float(point["loss"])) for point in losses["train"]],
        "validation": [(float(point["step"]), float(point["validation_loss"])) for point in losses["validation"]],
    }
    return picture(line_plot(series, "Loss", "step"), "loss curve")
