"""What steers a training run: when to evaluate and save, what was decided so far, and who is told."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ml_platform.families.lora.meter import Meter

Listener = Callable[[int, dict[str, float]], None]
"""Hears the numbers of a step: `loss`, `learning_rate`, `grad_norm` or `validation_loss`."""


@dataclass
class Course:
    """What training has decided so far; it is part of every checkpoint.

    `best_step` is the step whose adapter is kept, None before the first evaluation.
    """

    best_step: int | None = None
    best_loss: float | None = None
    without_improvement: int = 0
    stopped_early: bool = False

    def judge(self, step: int, loss: float, patience: int) -> bool:
        """Takes note of a validation loss; whether it is the best one so far."""
        if self.best_loss is None or loss < self.best_loss:
            self.best_step, self.best_loss, self.without_improvement = step, loss, 0
            return True
        self.without_improvement += 1
        self.stopped_early = self.without_improvement >= patience
        return False


@dataclass(frozen=True)
class Schedule:
    """After which steps the adapter is evaluated, and after which a checkpoint is written."""

    evaluate: frozenset[int]
    save: frozenset[int]
    patience: int


@dataclass
class Surroundings:
    """Everything around the loop: where checkpoints go, who is told, and who may ask it to stop."""

    checkpoints: Path
    meter: Meter
    listen: Listener = field(default=lambda _step, _values: None)
    should_stop: Callable[[], bool] = field(default=lambda: False)
