"""The training loop: transformers' Trainer over planned packs, with checkpoints that survive a kill.

Imports torch and transformers at its top: only the training process and tests import it.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from ml_platform.errors import TrainingError
from ml_platform.families.lora.attention import NAME as WITHIN_EXAMPLES
from ml_platform.families.lora.checkpoint import write_checkpoint
from ml_platform.families.lora.collate import IGNORED, collate_pack
from ml_platform.families.lora.course import Course, Schedule, Surroundings
from ml_platform.families.lora.encode import Encoded
from ml_platform.families.lora.fused import summed_cross_entropy
from ml_platform.families.lora.state import (
    Tensors,
    adapter_tensors,
    load_adapter_tensors,
    load_optimizer,
    read_json,
    save_optimizer,
    save_tensors,
    write_json,
)

_COURSE = "course.json"
_TOLD = ("loss", "learning_rate", "grad_norm", "validation_loss")


class PackedTrainer(Trainer):  # type: ignore[misc]
    """Trainer over a list of packs that is already in its final order.

    The loss is the mean over all supervised tokens of an optimiser step, whatever pack or process they are
    in. The random state of a step is a function of seed, step and process, so that resuming restores it.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        packs: Sequence[Sequence[Encoded]],
        validation: Sequence[Sequence[Encoded]],
        shared: int,
        schedule: Schedule,
        around: Surroundings,
    ) -> None:
        self.course = Course()
        self.best_adapter: Tensors | None = None
        self.validation_packs = validation
        self.shared = shared
        self.schedule = schedule
        self.around = around
        super().__init__(
            model,
            args,
            data_collator=lambda packs: collate_pack(packs[0], shared),
            train_dataset=list(packs),
            callbacks=[_Steering(self)],
        )
        self.loss_is_scaled_for_ga = True

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The packs of one step, and the number of supervised tokens in them over all processes."""
        batches = list(islice(epoch_iterator, num_batches))
        supervised = torch.stack([batch["labels"].ne(IGNORED).sum() for batch in batches]).sum().to(device)
        if self.args.world_size > 1:
            supervised = self.accelerator.gather(supervised.reshape(1)).sum()
        return batches, supervised

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """A pack's share of the step's mean loss. Raises TrainingError as soon as it is not a number."""
        loss = summed_loss(model, inputs) / num_items_in_batch
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the training loss is {loss.item()} in step {self.state.global_step + 1} of {self.state.max_steps}: "
                "the weights have diverged. Lower training.learning_rate in product.yaml or raise warmup_share."
            )
        scaled = loss * self.args.world_size  # the gradients of all processes are averaged
        return (scaled, None) if return_outputs else scaled

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """One pack forward and backward."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.around.meter.learnt(count_tokens(inputs) * self.args.world_size)
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The mean loss over all supervised tokens of the validation split; keeps the adapter if it is the best."""
        loss = self._validation_loss()
        step = self.state.global_step
        if not math.isfinite(loss):
            raise TrainingError(f"the validation loss is {loss} after step {step}. Lower training.learning_rate.")
        if self.course.judge(step, loss, self.schedule.patience):
            self.best_adapter = {name: tensor.clone() for name, tensor in adapter_tensors(self.model).items()}
        self.control.should_training_stop |= self.course.stopped_early
        self.control.should_evaluate = False
        self.log({"validation_loss": loss})
        return {"validation_loss": loss}

    def _validation_loss(self) -> float:
        rank, processes = self.args.process_index, self.args.world_size
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        self.model.eval()
        with torch.inference_mode(), self.compute_loss_context_manager():
            for pack in self.validation_packs[rank::processes]:
                inputs = self._prepare_inputs(collate_pack(pack, self.shared))
                count = inputs["labels"].numel()
                sums += torch.stack([summed_loss(self.model, inputs).double(), sums.new_tensor(count)])
                self.around.meter.read(count_tokens(inputs) * processes)
        self.model.train()
        if processes > 1:
            torch.distributed.all_reduce(sums)
        return float(sums[0] / sums[1])

    def _save_checkpoint(self, model: Any, trial: Any) -> None:  # noqa: ARG002 - Trainer's signature
        if self.args.should_save:
            write_checkpoint(self.around.checkpoints, self.state.global_step, self._write_state)

    def _write_state(self, folder: Path) -> None:
        save_tensors(adapter_tensors(self.model), folder / "adapter.safetensors")
        if self.best_adapter is not None:
            save_tensors(self.best_adapter, folder / "best.safetensors")
        save_optimizer(self.optimizer, folder)
        write_json(folder / "scheduler.json", self.lr_scheduler.state_dict())
        write_json(folder / _COURSE, asdict(self.course))
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))

    def restore(self, folder: Path) -> None:
        """Takes over a finished course: what was decided, the best adapter and the logged numbers."""
        self.state = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME))
        self.course, self.best_adapter = read_course(folder), read_best_adapter(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        load_adapter_tensors(model or self.model, folder / "adapter.safetensors")
        self.course = read_course(folder)
        self.best_adapter = read_best_adapter(folder)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(self.optimizer, Path(checkpoint))
            self.lr_scheduler.load_state_dict(read_json(Path(checkpoint) / "scheduler.json"))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load: `_Steering.on_step_begin` sets the random state of every step."""


class _Steering(TrainerCallback):  # type: ignore[misc]
    """Tells Trainer after each step what comes next, and passes on what it logs."""

    def __init__(self, trainer: PackedTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        torch.manual_seed(step_seed(args.seed, state.global_step, args.process_index))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:  # noqa: ARG002 - Trainer's signature
        schedule, asked = self.trainer.schedule, self.trainer.around.should_stop()
        control.should_log = True
        control.should_evaluate = state.global_step in schedule.evaluate and bool(self.trainer.validation_packs)
        control.should_save = asked or state.global_step in schedule.save
        control.should_training_stop |= asked
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        around = self.trainer.around
        around.meter.loss = logs.get("loss", around.meter.loss)
        kept = {name: value for name, value in logs.items() if name in _TOLD}
        if kept and state.is_world_process_zero:
            around.listen(state.global_step, kept)


def summed_loss(model: Any, inputs: dict[str, Any]) -> Any:
    """The cross entropy of a collated pack, summed over its supervised tokens, as a scalar tensor."""
    given = {name: inputs[name] for name in ("input_ids", "position_ids", "logits_to_keep")}
    if _attention_of(model) == WITHIN_EXAMPLES:
        given["segments"] = inputs["segments"]
    # Without a cache transformers tells the examples of a pack apart by their positions; with one it does not.
    logits = model(**given, use_cache=False).logits.flatten(0, 1)
    return summed_cross_entropy(logits.float(), inputs["labels"], IGNORED)


def count_tokens(inputs: dict[str, Any]) -> int:
    """The tokens of the examples in a collated pack, the shared beginning counted for each."""
    segments: list[int] = inputs["segments"]
    shared, *own = segments
    return shared * len(own) + sum(own)


def step_seed(seed: int, step: int, process: int) -> int:
    """The random seed of one step in one process."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{process}".encode()).digest()[:7], "big")


def read_course(folder: Path) -> Course:
    """What training had decided when a checkpoint was written."""
    return Course(**read_json(folder / _COURSE))


def read_best_adapter(folder: Path) -> Tensors | None:
    """The best adapter of a checkpoint, None when nothing was evaluated before it."""
    from safetensors.torch import load_file

    path = folder / "best.safetensors"
    return load_file(path) if path.is_file() else None


def _attention_of(model: Any) -> str:
    unwrapped = getattr(model, "module", model)
    return str(getattr(unwrapped.config, "_attn_implementation", ""))
