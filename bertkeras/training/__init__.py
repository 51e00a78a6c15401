"""Batches to weights."""

from typing import TYPE_CHECKING

from bertkeras.lazy import lazy_names

if TYPE_CHECKING:
    from bertkeras.training.distribution import choose_distribution
    from bertkeras.training.optimizers import AdamW
    from bertkeras.training.pretrain_config import PretrainConfig
    from bertkeras.training.schedules import WarmupLinearDecay
    from bertkeras.training.step import make_test_step, make_train_step

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AdamW": "optimizers",
        "PretrainConfig": "pretrain_config",
        "choose_distribution": "distribution",
        "WarmupLinearDecay": "schedules",
        "make_test_step": "step",
        "make_train_step": "step",
    },
)

__all__ = ["AdamW", "PretrainConfig", "WarmupLinearDecay", "choose_distribution", "make_test_step", "make_train_step"]
