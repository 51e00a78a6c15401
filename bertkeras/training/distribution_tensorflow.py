"""TensorFlow's strategies: the devices of this host, or of several processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.training.cluster import Cluster
from bertkeras.training.distribution import Distribution, cpu_devices, wait_for


class TensorFlowDistribution(Distribution):
    """A `tf.distribute` strategy.

    Attributes:
        strategy: What TensorFlow calls it.
    """

    def __init__(self, name: str, strategy: Any, cluster: Cluster) -> None:
        self.name = name
        self.strategy = strategy
        self.process, self.processes = cluster.index, cluster.size
        self.part = (cluster.index, cluster.size)
        self.replicas = strategy.num_replicas_in_sync

    @property
    def local_replicas(self) -> int:
        """Devices of this process."""
        return self.replicas // self.processes

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self.strategy.scope()

    def meet(self, *paths: Path) -> None:
        self.total([0.0])
        wait_for(paths)

    def total(self, values: Iterable[float]) -> np.ndarray:
        import tensorflow as tf

        values = np.asarray(list(values), "float64")
        if self.processes == 1:
            return values

        def sum_over_replicas(mine: Any) -> Any:
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group % self.local_replicas == 0
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine if first else tf.zeros_like(mine))

        if not hasattr(self, "_sum"):
            self._sum = tf.function(lambda mine: self.strategy.run(sum_over_replicas, (mine,)))
        return self.strategy.experimental_local_results(self._sum(tf.constant(values)))[0].numpy()


def tensorflow_distribution(name: str, cluster: Cluster) -> Distribution:
    """`"single"`, `"mirrored"`, `"multi_worker"`, or `"auto"`, which is the one that takes all devices.

    Raises:
        BertKerasError: One process for `"multi_worker"`.
    """
    import tensorflow as tf

    if cluster.size > 1 and name in ("auto", "multi_worker"):
        _divide_cpu()
        if cluster.shares_host and (gpus := tf.config.list_physical_devices("GPU")):
            if cluster.place_on_host >= len(gpus):
                raise BertKerasError(f"more processes on this host than its {len(gpus)} GPUs; each takes one")
            tf.config.set_visible_devices(gpus[cluster.place_on_host], "GPU")
        os.environ["TF_CONFIG"] = cluster.tf_config()
        return TensorFlowDistribution("multi_worker", tf.distribute.MultiWorkerMirroredStrategy(), cluster)
    if name == "single":
        return Distribution()
    if name == "multi_worker":
        raise BertKerasError(
            "strategy 'multi_worker' needs several processes; name them in BERTKERAS_WORKERS, TF_CONFIG or a job step "
            "of SLURM, or start them here with bertkeras launch"
        )
    _divide_cpu()
    devices, together = tf.config.list_logical_devices("GPU"), None
    if not devices:
        devices, together = tf.config.list_logical_devices("CPU"), tf.distribute.ReductionToOneDevice()
    if len(devices) == 1:
        if name == "auto":
            return Distribution()
        raise BertKerasError(
            f"strategy 'mirrored' finds one device, {devices[0].name}; take strategy single, or set "
            "BERTKERAS_CPU_DEVICES=2 to try it on a CPU"
        )
    names = [device.name for device in devices]
    return TensorFlowDistribution("mirrored", tf.distribute.MirroredStrategy(names, together), cluster)


def _divide_cpu() -> None:
    import tensorflow as tf

    count = cpu_devices()
    if count is None or len(tf.config.list_physical_devices("GPU")):
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise BertKerasError("BERTKERAS_CPU_DEVICES comes too late: TensorFlow has begun already") from error
