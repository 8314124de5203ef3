"""What is learnt, and in which order: encoded examples and the plan of their packs."""

from dataclasses import dataclass

from ml_platform.contracts.product import TrainingSpec
from ml_platform.errors import ContractError
from ml_platform.families.lora.attention import NAME
from ml_platform.families.lora.base_model import BaseModel
from ml_platform.families.lora.collate import shared_beginning
from ml_platform.families.lora.encode import Encoded, encode_examples
from ml_platform.families.lora.hardware import Hardware
from ml_platform.families.lora.packs import PackPlan, fill_packs, plan_packs
from ml_platform.families.lora.request import TrainingRequest
from ml_platform.lineage.artifacts import Artifact


@dataclass(frozen=True)
class Lessons:
    """The encoded examples, and the order in which they are learnt.

    `shared` is how many tokens all of them begin with; `at_once` divides the packs of a step.
    """

    train: list[Encoded]
    validation: list[list[Encoded]]
    shared: int
    plan: PackPlan
    at_once: int
    left_out: dict[str, list[str]]

    @property
    def packs(self) -> list[list[Encoded]]:
        """What is learnt in one go, in order: `at_once` packs of a step end to end."""
        planned = self.plan.packs
        return [
            [self.train[index] for pack in planned[start : start + self.at_once] for index in pack]
            for start in range(0, len(planned), self.at_once)
        ]

    def tokens_until(self, step: int) -> int:
        """How many tokens the first steps learn."""
        return sum(
            len(self.train[index].tokens) for packs in self.plan.steps[:step] for pack in packs for index in pack
        )


def prepare_lessons(request: TrainingRequest, base: BaseModel, training_set: Artifact, hardware: Hardware) -> Lessons:
    """Encodes the training set and plans its packs."""
    from transformers import AutoTokenizer

    from ml_platform.families.lora.prepare import load_examples

    spec = request.training
    tokenizer = AutoTokenizer.from_pretrained(str(base.path))
    encoded: dict[str, list[Encoded]] = {}
    left_out: dict[str, list[str]] = {}
    for split in ("train", "validation"):
        examples = load_examples(training_set, split)
        encoded[split], left_out[split] = encode_examples(
            tokenizer, request.prompt, examples, spec.max_example_tokens, split
        )
    at_once = packs_at_once(spec, hardware)
    lengths = [len(item.tokens) for item in encoded["train"]]
    held_out = encoded["validation"]
    order = fill_packs(range(len(held_out)), [len(item.tokens) for item in held_out], spec.pack_tokens * at_once)
    return Lessons(
        train=encoded["train"],
        validation=[[held_out[index] for index in pack] for pack in order],
        shared=shared_beginning([*encoded["train"], *held_out]) if hardware.attention == NAME else 0,
        plan=plan_packs(lengths, spec.pack_tokens, spec.packs_per_step, spec.epochs, spec.seed),
        at_once=at_once,
        left_out=left_out,
    )


def packs_at_once(spec: TrainingSpec, hardware: Hardware) -> int:
    """How many packs of a step this hardware learns end to end as one; the step stays the same whatever it is.

    Raises ContractError when the packs of a step cannot be shared evenly by the processes.
    """
    if spec.packs_per_step % hardware.processes:
        raise ContractError(
            f"training.packs_per_step is {spec.packs_per_step}, which {hardware.processes} processes cannot share "
            f"evenly. Make it a multiple of {hardware.processes}, or start fewer processes."
        )
    each = spec.packs_per_step // hardware.processes
    fitting = (count for count in range(2, each + 1) if count * spec.pack_tokens <= hardware.longest_pack)
    return max((count for count in fitting if each % count == 0), default=1)
