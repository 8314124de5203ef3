"""One training run: examples into packs, packs through the loop, the best adapter out."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.contracts.progress import Progress, Reporter, silent
from ml_platform.errors import TrainingError
from ml_platform.families.lora.adapter import adapter_config, load_trainable
from ml_platform.families.lora.base_model import BaseModel
from ml_platform.families.lora.checkpoint import Checkpoint, newest_checkpoint
from ml_platform.families.lora.course import Schedule, Surroundings
from ml_platform.families.lora.hardware import Hardware
from ml_platform.families.lora.lessons import Lessons, prepare_lessons
from ml_platform.families.lora.meter import FORWARD_COST, Meter
from ml_platform.families.lora.packs import describe_plan
from ml_platform.families.lora.processes import from_first, is_first_process
from ml_platform.families.lora.quiet import quiet_libraries
from ml_platform.families.lora.request import TrainingRequest
from ml_platform.lineage.artifacts import Artifact

SAVES = 10
"""Checkpoints a run, besides those at evaluations: a kill costs at most a tenth of the work."""


@dataclass(frozen=True)
class Run:
    """A request with everything that it refers to."""

    request: TrainingRequest
    base: BaseModel
    training_set: Artifact
    hardware: Hardware
    checkpoints: Path
    report: Reporter
    listen: Callable[[int, dict[str, float]], None]
    should_stop: Callable[[], bool]

    def forget_checkpoints(self) -> None:
        """Removes the checkpoints, once the candidate is published."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)


@dataclass(frozen=True)
class TrainedAdapter:
    """What a run gives: the adapter's weights and configuration, and how it got there."""

    tensors: dict[str, Any]
    config: dict[str, Any]
    losses: dict[str, Any]
    pack_plan: dict[str, Any]
    facts: dict[str, Any]
    steps: int
    train_loss: float
    validation_loss: float | None


def train_adapter(run: Run) -> TrainedAdapter:
    """Trains from the newest checkpoint that verifies, or from the start. Raises TrainingError.

    Does not return before the last step, unless the validation loss stopped improving.
    """
    from ml_platform.families.lora.fused import fuse_adapters

    run.hardware.pin()
    checkpoint = _agreed_checkpoint(run.checkpoints)
    run.report(Progress("train", 0.0, "loading the base model"))
    with quiet_libraries():
        lessons = prepare_lessons(run.request, run.base, run.training_set, run.hardware)
        model = load_trainable(run.base, run.request.training, run.hardware)
        fuse_adapters(model)
        trainer = make_trainer(run, lessons, model)
        config = adapter_config(model, run.base)
        _train(trainer, run, lessons, checkpoint)
    return _result(trainer, lessons, config)


def make_trainer(run: Run, lessons: Lessons, model: Any) -> Any:
    """The loop over the planned packs, ready to start or to resume."""
    from transformers import PrinterCallback

    from ml_platform.families.lora.loop import PackedTrainer

    spec, steps = run.request.training, len(lessons.plan.steps)
    evaluate = frozenset(evenly(steps, spec.evaluations_per_epoch * spec.epochs))
    schedule = Schedule(evaluate, evaluate | frozenset(evenly(steps, SAVES)), spec.early_stopping_patience)
    read = sum(len(item.tokens) for pack in lessons.validation for item in pack)
    work = lessons.tokens_until(steps) + FORWARD_COST * read * len(evaluate)
    meter = Meter(run.report if is_first_process() else silent, work)
    around = Surroundings(run.checkpoints, meter, run.listen, run.should_stop)
    arguments = training_arguments(run, lessons)
    trainer = PackedTrainer(model, arguments, lessons.packs, lessons.validation, lessons.shared, schedule, around)
    trainer.remove_callback(PrinterCallback)  # progress has its own way
    return trainer


def training_arguments(run: Run, lessons: Lessons) -> Any:
    """AdamW with warm-up and linear decay; evaluation, saving and logging are left to the loop."""
    from transformers import TrainingArguments

    spec, hardware = run.request.training, run.hardware
    return TrainingArguments(
        output_dir=str(run.checkpoints),
        num_train_epochs=1,  # the plan holds the packs of all epochs
        per_device_train_batch_size=1,
        gradient_accumulation_steps=spec.packs_per_step // (hardware.processes * lessons.at_once),
        learning_rate=spec.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(spec.warmup_share * len(lessons.plan.steps)),
        optim=hardware.optimizer,
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=spec.seed,
        bf16=hardware.dtype == "bfloat16",
        use_cpu=hardware.device == "cpu",
        train_sampling_strategy="sequential",
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_pin_memory=hardware.device == "cuda",
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if hardware.device == "cpu" and hardware.processes > 1 else None,
        disable_tqdm=True,
        report_to="none",
        log_level="error",
    )


def evenly(steps: int, times: int) -> list[int]:
    """At most `times` different steps in equal distances, of which the last is `steps`."""
    return sorted({max(1, round(steps * part / times)) for part in range(1, times + 1)})


def _agreed_checkpoint(root: Path) -> Checkpoint | None:
    """The checkpoint that the first process found, in every process; raises TrainingError if one cannot see it."""
    found: Checkpoint | None = from_first(newest_checkpoint(root) if is_first_process() else None)
    if found is not None and not found.path.is_dir():
        raise TrainingError(f"this process does not see {found.path}. All processes need the same ML_PLATFORM_HOME.")
    return found


def _train(trainer: Any, run: Run, lessons: Lessons, checkpoint: Checkpoint | None) -> None:
    from ml_platform.families.lora.loop import read_course

    steps = len(lessons.plan.steps)
    if checkpoint is not None:
        trainer.around.meter.resume_at(lessons.tokens_until(checkpoint.step))
        trainer.around.meter.tell(f"resuming after step {checkpoint.step} of {steps}")
        if read_course(checkpoint.path).stopped_early:
            trainer.restore(checkpoint.path)
            return
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint.path))
    reached = trainer.state.global_step
    if reached < steps and not trainer.course.stopped_early:
        raise TrainingError(
            f"training ended after step {reached} of {steps}, because the process was told to stop. Its work is kept "
            f"in {run.checkpoints}: run again to continue from there."
        )


def _result(trainer: Any, lessons: Lessons, config: dict[str, Any]) -> TrainedAdapter:
    from ml_platform.families.lora.state import adapter_tensors

    history = trainer.state.log_history
    train = _curve(history, ("loss", "learning_rate", "grad_norm"))
    validation = _curve(history, ("validation_loss",))
    course = trainer.course
    last = train[-max(1, len(train) // 10) :]
    return TrainedAdapter(
        tensors=trainer.best_adapter or adapter_tensors(trainer.model),
        config=config,
        losses={"train": train, "validation": validation, "kept_step": course.best_step or len(train)},
        pack_plan=describe_plan(lessons.plan, [item.example_id for item in lessons.train], lessons.left_out),
        facts={
            "examples": len(lessons.train),
            "tokens": sum(len(item.tokens) for item in lessons.train),
            "supervised_tokens": sum(item.supervised for item in lessons.train),
            "shared_tokens": lessons.shared,
            "planned_steps": len(lessons.plan.steps),
            "kept_step": course.best_step or len(train),
            "stopped_early": course.stopped_early,
        },
        steps=len(train),
        train_loss=sum(point["loss"] for point in last) / len(last),
        validation_loss=course.best_loss,
    )


def _curve(history: Sequence[dict[str, float]], names: Sequence[str]) -> list[dict[str, float]]:
    """The entries that hold the first of the names, with their step."""
    return [{name: entry[name] for name in ("step", *names)} for entry in history if names[0] in entry]
