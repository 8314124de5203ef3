"""What a training process is asked to do, as one file that launches it anywhere."""

from datetime import date

from ml_platform.contracts.base import Contract, Name, Sha256
from ml_platform.contracts.product import PromptSpec, TrainingSpec


class TrainingRequest(Contract):
    """Everything that a training run depends on, so that one file launches it anywhere.

    `threads` pins the CPU threads; None takes the physical cores. Where artifacts and MLflow are is no part of it:
    the environment of the process says so.
    """

    product: Name
    as_of: date
    training_set_sha256: Sha256
    training: TrainingSpec
    prompt: PromptSpec
    threads: int | None = None
