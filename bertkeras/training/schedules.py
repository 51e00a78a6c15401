"""Learning-rate schedules, in optimizer steps."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from bertkeras.errors import BertKerasError


@keras.saving.register_keras_serializable(package="bertkeras")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rise linearly to `peak` over `warmup_steps`, then fall linearly to zero at `total_steps` (BERT, appendix A.2).

    Step `s`, counted from 0, gets `peak * min((s + 1) / warmup_steps, (total_steps - s) / (total_steps -
    warmup_steps))`, so the first step already moves and the last one still does.

    Args:
        peak: Highest learning rate.
        warmup_steps: Steps of the rise; 0 for none.
        total_steps: Steps of the whole run.

    Example:

    >>> from bertkeras.training import WarmupLinearDecay
    >>> schedule = WarmupLinearDecay(1.0, warmup_steps=2, total_steps=6)
    >>> [float(schedule(step)) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int) -> None:
        if not 0 <= warmup_steps < total_steps:
            raise BertKerasError(f"need 0 <= warmup_steps < total_steps, got {warmup_steps} and {total_steps}")
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rise = (step + 1.0) / max(self.warmup_steps, 1)
        fall = (self.total_steps - step) / (self.total_steps - self.warmup_steps)
        return self.peak * ops.clip(ops.minimum(rise, fall), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}
