"""On which devices a run trains, and how they share a batch."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.training.cluster import STRATEGIES, Cluster, cluster_from_environment

WORKS_ON = {  # every pair of strategy and backend that is tested; the others do not work in Keras 3.15
    "tensorflow": ("single", "mirrored", "multi_worker"),
    "jax": ("single", "data_parallel", "model_parallel", "tpu"),
    "torch": ("single",),
}
# The matrices of a BERT over the devices of the "model" axis: the first of two products by columns, the second by
# rows, so that one sum per block joins them (Shoeybi et al. 2019, section 3); tables by columns, because a vocabulary
# seldom divides.
LAYOUT = {
    r".*/(token_table|position_table|segment_table|output_table)": (None, "model"),
    r".*/attention/qkv/kernel": (None, "model"),
    r".*/attention/qkv/bias": ("model",),
    r".*/attention/output/kernel": ("model", None),
    r".*/feed_forward/expand/kernel": (None, "model"),
    r".*/feed_forward/expand/bias": ("model",),
    r".*/feed_forward/contract/kernel": ("model", None),
    r".*/(pooler|transform)/kernel": (None, "model"),
}


class Distribution:
    """One device; the base of the others.

    Attributes:
        name: One of `STRATEGIES`, never `"auto"`.
        process, processes: This process among those of the run.
        replicas: Parts that a batch is divided into, over all processes.
        part: `(k, n)`: this process reads part `k` of `n` of each batch.
    """

    name = "single"
    process, processes, replicas = 0, 1, 1
    part = (0, 1)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files and speaks."""
        return self.process == 0

    def __str__(self) -> str:
        devices = f"{self.replicas} device" + "s" * (self.replicas > 1)
        hosts = f" in {self.processes} processes" if self.processes > 1 else ""
        return f"{self.name} on {keras.backend.backend()}: {devices}{hosts}"

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where models and optimizers are to be made."""
        return contextlib.nullcontext()

    def total(self, values: Iterable[float]) -> np.ndarray:
        """The sum of `values` over the processes, float64; every process must call it."""
        return np.asarray(list(values), "float64")

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process; every process must call it."""
        return [bool(count) for count in self.total(map(float, flags))] if self.processes > 1 else list(flags)

    def meet(self, *paths: Path) -> None:
        """Wait until all processes are here, and see what the chief has written.

        Raises:
            BertKerasError: A path is not to be seen from this process.
        """

    def to_host(self, value: Any) -> np.ndarray:
        """All of a variable's value in this process's memory; every process must call it."""
        return np.asarray(keras.ops.convert_to_numpy(value))

    def gather(self, variables: Iterable[Any]) -> None:
        """Give every process the whole of variables that processes share, so that each can save them alone."""

    def check_batch(self, batch_size: int, accumulation: int) -> None:
        """Raises: BertKerasError: Not every micro-batch can be shared out evenly."""
        if batch_size % (self.replicas * accumulation):
            raise BertKerasError(
                f"{self.replicas} devices and accumulation={accumulation} do not divide batch_size={batch_size}; "
                f"make it a multiple of {self.replicas * accumulation}"
            )


def choose_distribution(
    strategy: str = "auto", *, model_shards: int | None = None, cluster: Cluster | None = None
) -> Distribution:
    """The distribution of a name on the backend in use; call it before anything else touches the devices.

    `"single"` is one device, on every backend. On TensorFlow `"mirrored"` takes the devices of this host, and
    `"multi_worker"` those of several processes. On JAX `"data_parallel"` takes the devices of one or several processes
    with the whole model on each, `"model_parallel"` lets `model_shards` of them share a model, and `"tpu"` is
    `"data_parallel"` on TPUs.

    Args:
        strategy: One of `STRATEGIES`. `"auto"` takes every device there is, with the whole model on each.
        model_shards: Devices that share one model, for `model_parallel`; by default all of them.
        cluster: The processes; by default `cluster_from_environment()`.

    Raises:
        BertKerasError: The backend cannot do it, the devices are not there, or the processes do not fit it.
    """
    backend = keras.backend.backend()
    if strategy not in STRATEGIES:
        raise BertKerasError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    if strategy != "auto" and strategy not in WORKS_ON[backend]:
        others = [name for name, strategies in WORKS_ON.items() if strategy in strategies]
        raise BertKerasError(
            f"strategy {strategy!r} does not work on {backend}, which has {', '.join(WORKS_ON[backend])}; "
            f"set KERAS_BACKEND={others[0]} for it"
        )
    if model_shards is not None and strategy != "model_parallel":
        raise BertKerasError(f"model_shards is for strategy model_parallel, not for {strategy}")
    cluster = cluster or cluster_from_environment()
    if cluster.size > 1 and (strategy in ("single", "mirrored") or backend == "torch"):
        what = f"strategy {strategy!r}" if backend != "torch" else "PyTorch"
        raise BertKerasError(f"{what} is one process, and the environment names {cluster.size}: {cluster.workers}")
    if backend == "tensorflow":
        from bertkeras.training.distribution_tensorflow import tensorflow_distribution

        return tensorflow_distribution(strategy, cluster)
    if backend == "jax":
        from bertkeras.training.distribution_jax import jax_distribution

        return jax_distribution(strategy, cluster, model_shards)
    return Distribution()


def is_lost_peer(error: BaseException) -> bool:
    """Whether a step failed because another process of the run is gone."""
    words = ("UNAVAILABLE", "Connection reset", "Connection refused", "Connection closed", "Socket closed")
    more = ("peer", "Broken pipe", "heartbeat", "DEADLINE_EXCEEDED", "Gloo", "aborted", "collective", "Collective")
    if type(error).__name__ in ("UnavailableError", "AbortedError", "DeadlineExceededError", "CancelledError"):
        return True
    return type(error).__name__ in ("XlaRuntimeError", "JaxRuntimeError", "InternalError") and any(
        word in str(error) for word in (*words, *more)
    )


def cpu_devices() -> int | None:
    """Into how many devices `BERTKERAS_CPU_DEVICES` wants this machine's CPU divided, to try things out.

    Raises:
        BertKerasError: It is no number.
    """
    text = os.environ.get("BERTKERAS_CPU_DEVICES")
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        raise BertKerasError(f"BERTKERAS_CPU_DEVICES must be a number of devices, got {text!r}")
    return int(text)


def wait_for(paths: Iterable[Path], seconds: float = 60.0) -> None:
    """Wait for files that are there, but that a network's folder may show late.

    Raises:
        BertKerasError: One does not appear.
    """
    end = time.monotonic() + seconds
    for path in paths:
        while not path.exists():
            if time.monotonic() > end:
                raise BertKerasError(
                    f"the chief has written {path}, but this process does not see it; the processes of a run need one "
                    "shared folder, under the same path"
                )
            time.sleep(0.1)
