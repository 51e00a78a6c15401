"""JAX's devices, of one process or of several, through `keras.distribution`."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.training.cluster import Cluster
from bertkeras.training.distribution import LAYOUT, Distribution, cpu_devices


class JaxDistribution(Distribution):
    """A mesh of devices with the axes `batch` and, for a model that is shared out, `model`.

    Attributes:
        mesh: The `jax.sharding.Mesh`.
    """

    def __init__(self, name: str, model_shards: int) -> None:
        import jax

        self.name = name
        self.process, self.processes = jax.process_index(), jax.process_count()
        devices = keras.distribution.list_devices()
        if model_shards < 1 or len(devices) % model_shards:
            raise BertKerasError(f"model_shards={model_shards} does not divide the {len(devices)} devices")
        self.replicas = len(devices) // model_shards
        mesh = keras.distribution.DeviceMesh((self.replicas, model_shards), ["batch", "model"], devices)
        layout = keras.distribution.LayoutMap(mesh)
        if model_shards > 1:
            for pattern, axes in LAYOUT.items():
                layout[pattern] = keras.distribution.TensorLayout(axes, mesh)
        self.distribution = keras.distribution.ModelParallel(
            layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False
        )
        self.mesh = mesh.backend_mesh
        self.model_shards = model_shards
        here = self.mesh.local_devices
        rows = sorted({int(np.argwhere(self.mesh.devices == device)[0][0]) for device in here})
        self.part = (rows[0] // len(rows), self.replicas // len(rows))

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self.distribution.scope()

    def over_batch(self, *, divided: bool = True) -> Any:
        """How an array lies on the devices: by rows, or whole on each."""
        from jax.sharding import NamedSharding, PartitionSpec

        return NamedSharding(self.mesh, PartitionSpec("batch") if divided else PartitionSpec())

    def total(self, values: Iterable[float]) -> np.ndarray:
        from jax.experimental import multihost_utils

        values = np.asarray(list(values), "float32")
        if self.processes == 1:
            return values.astype("float64")
        return np.asarray(multihost_utils.process_allgather(values), "float64").sum(axis=0)

    def to_host(self, value: Any) -> np.ndarray:
        import jax

        if not value.is_fully_addressable and not value.is_fully_replicated:
            value = jax.jit(lambda x: x, out_shardings=self.over_batch(divided=False))(value)
        return np.asarray(value)

    def meet(self, path: Path) -> None:
        while not self.is_chief and not path.exists():  # no collective waits so long; a chief that dies ends us all
            time.sleep(0.2)
        self.total([0.0])

    def gather(self, variables: Iterable[Any]) -> None:
        import jax

        if self.processes > 1:
            for variable in variables:
                variable._value = jax.numpy.asarray(self.to_host(variable.value))

    def check_layout(self, variables: Iterable[Any]) -> None:
        """Raises: BertKerasError: A matrix that the layout should divide lies whole on each device."""
        if self.model_shards == 1:
            return
        patterns = [re.compile(pattern) for pattern in LAYOUT]
        whole, matched = [], 0
        for variable in variables:
            if any(pattern.fullmatch(variable.path) for pattern in patterns):
                matched += 1
                if variable.value.is_fully_replicated:
                    whole.append(variable.path)
        if whole or not matched:
            raise BertKerasError(
                f"the layout did not reach {', '.join(whole[:3]) or 'any variable'}: make the model inside the "
                "scope of its distribution, and let keras.utils.clear_session alone"
            )


def jax_distribution(name: str, cluster: Cluster, model_shards: int | None) -> Distribution:
    """`"single"`, `"data_parallel"`, `"model_parallel"`, `"tpu"`, or `"auto"`, which is the one that takes all devices.

    Raises:
        BertKerasError: No TPU for `"tpu"`, or a number of shards that does not divide the devices.
    """
    import jax

    _join(name, cluster)
    if name == "tpu" and jax.default_backend() != "tpu":
        raise BertKerasError(
            f"strategy 'tpu' finds no TPU, but {jax.default_backend()} devices; install jax[tpu] and, for tf.data "
            "beside it, tensorflow-cpu, or take strategy data_parallel"
        )
    if name == "auto":
        name = "data_parallel" if jax.device_count() > 1 else "single"
    if name == "single":
        return Distribution()
    shards = (model_shards or jax.device_count()) if name == "model_parallel" else 1
    return JaxDistribution(name, shards)


def _join(name: str, cluster: Cluster) -> None:
    """Meet the other processes, once in the life of this one."""
    import jax

    if (devices := cpu_devices()) is not None:
        try:
            jax.config.update("jax_num_cpu_devices", devices)
        except RuntimeError as error:
            raise BertKerasError("BERTKERAS_CPU_DEVICES comes too late: JAX has begun already") from error
    if jax.distributed.is_initialized():
        return
    if cluster.size > 1:
        # asking a backend for its name would start it, too early; on others than the CPU the setting does nothing
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            cluster.workers[0],
            cluster.size,
            cluster.index,
            # several processes of a host have a GPU each; JAX by itself would take one under SLURM in any case
            local_device_ids=[cluster.place_on_host] if cluster.shares_host else None,
            cluster_detection_method="deactivate",
        )
    elif name == "tpu":
        with contextlib.suppress(ValueError):  # neither on a TPU nor in a slice of several hosts
            jax.distributed.initialize()
