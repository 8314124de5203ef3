"""Trains a candidate: from a training set to a LoRA adapter, the same bytes for the same inputs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.contracts.canonical import canonical_bytes, digest, file_sha256, sources_sha256
from ml_platform.contracts.home import Home
from ml_platform.contracts.progress import Progress, Reporter, silent
from ml_platform.contracts.release import Candidate
from ml_platform.families.lora.libraries import library_versions
from ml_platform.families.lora.request import TrainingRequest
from ml_platform.lineage.artifacts import Artifact, ArtifactStore

if TYPE_CHECKING:
    from ml_platform.families.lora.base_model import BaseModel
    from ml_platform.families.lora.hardware import Hardware
    from ml_platform.families.lora.run import TrainedAdapter

__all__ = ["TrainingRequest", "train_candidate"]

KIND = "candidate"
ADAPTER = "adapter/adapter_model.safetensors"
_CODE = (
    "adapter",
    "attention",
    "collate",
    "course",
    "encode",
    "fused",
    "hardware",
    "lessons",
    "loop",
    "packs",
    "prepacked",
    "prompt",
    "run",
    "state",
    "train",
)


def train_candidate(
    request: TrainingRequest,
    store: ArtifactStore,
    home: Home,
    report: Reporter = silent,
    *,
    listen: Callable[[int, dict[str, float]], None] = lambda _step, _values: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Artifact:
    """The candidate that the request describes, trained now unless it is already there.

    Files: `adapter/adapter_model.safetensors`, `adapter/adapter_config.json`, `loss.json`,
    `pack_plan.json`; facts: a Candidate. Killed at any moment and started again, it continues from its newest
    checkpoint and ends with the same bytes. Under torchrun every process calls it; one publishes.
    `listen` hears the numbers of each step; when `should_stop` turns true, a checkpoint is written
    and TrainingError raised. TrainingError also tells of a loss that is no number.
    """
    report(Progress("train", 0.0, "loading the libraries"))
    from ml_platform.families.lora.base_model import ensure_base
    from ml_platform.families.lora.hardware import detect_hardware
    from ml_platform.families.lora.processes import train_together
    from ml_platform.families.lora.run import Run, train_adapter

    hardware = detect_hardware(request.threads)
    base = ensure_base(request.training.base_model, home, report)
    training_set = store.open("training_set", request.training_set_sha256)
    recipe = training_recipe(request, base, hardware)
    checkpoints = home.work / "candidates" / digest(recipe)
    run = Run(request, base, training_set, hardware, checkpoints, report, listen, should_stop)

    def build(folder: Path) -> Mapping[str, Any]:
        return _write_candidate(folder, request, base, hardware, train_adapter(run))

    artifact = train_together(store, KIND, recipe, build, lambda: train_adapter(run))
    run.forget_checkpoints()
    return artifact


def training_recipe(request: TrainingRequest, base: "BaseModel", hardware: "Hardware") -> dict[str, Any]:
    """What decides the bytes of a candidate: inputs, configuration, code, libraries and kind of hardware."""
    here = Path(__file__).parent
    return {
        "product": request.product,
        "as_of": request.as_of.isoformat(),
        "training_set_sha256": request.training_set_sha256,
        "training": _training_facts(request, base),
        "prompt_sha256": request.prompt.sha256,
        "base_sha256": base.sha256,
        "hardware": hardware.to_json(),
        "packages": library_versions(),
        "code_sha256": sources_sha256([here / f"{name}.py" for name in _CODE], here),
    }


def _training_facts(request: TrainingRequest, base: "BaseModel") -> dict[str, Any]:
    """The hyperparameters, with the base model's name instead of a path of this machine."""
    return request.training.model_dump(mode="json") | {"base_model": base.name}


def _write_candidate(
    folder: Path, request: TrainingRequest, base: "BaseModel", hardware: "Hardware", trained: "TrainedAdapter"
) -> dict[str, Any]:
    from ml_platform.families.lora.state import save_tensors

    (folder / "adapter").mkdir()
    save_tensors(trained.tensors, folder / ADAPTER)
    (folder / "adapter" / "adapter_config.json").write_bytes(canonical_bytes(trained.config))
    (folder / "loss.json").write_bytes(canonical_bytes(trained.losses))
    (folder / "pack_plan.json").write_bytes(canonical_bytes(trained.pack_plan))
    training = _training_facts(request, base) | {"hardware": hardware.to_json(), **trained.facts}
    candidate = Candidate(
        product=request.product,
        as_of=request.as_of,
        family="lora",
        base_model=base.name,
        base_sha256=base.sha256,
        training_set_sha256=request.training_set_sha256,
        adapter_sha256=file_sha256(folder / ADAPTER),
        training=training,
        seed=request.training.seed,
        steps=trained.steps,
        train_loss=trained.train_loss,
        validation_loss=trained.validation_loss,
    )
    return candidate.model_dump(mode="json")
