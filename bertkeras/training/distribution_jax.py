"""JAX's devices, of one process or of several, through `keras.distribution`."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.training.cluster import Cluster
from bertkeras.training.distribution import LAYOUT, Distribution, cpu_devices, wait_for


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
        self.part = self._part()
        self._meetings = 0
        self._gathered = jax.jit(lambda x: x, out_shardings=self.over_batch(divided=False))

    def _part(self) -> tuple[int, int]:
        """Which rows of the mesh lie in this process: part `k` of `n` equal ones.

        Raises:
            BertKerasError: The processes do not have equally many.
        """
        rows: list[set[int]] = [set() for _ in range(self.processes)]
        for place, device in np.ndenumerate(self.mesh.devices):
            rows[device.process_index].add(place[0])
        mine, size = rows[self.process], len(rows[self.process])
        first = min(mine, default=0)
        if any(len(other) != size for other in rows) or mine != set(range(first, first + size)) or first % size:
            counts = [sum(d.process_index == p for d in self.mesh.devices.flat) for p in range(self.processes)]
            raise BertKerasError(
                f"the processes have {', '.join(map(str, counts))} devices, which models on {self.model_shards} "
                "each do not divide evenly; give every process equally many, and a number of shards that divides them"
            )
        return first // size, self.replicas // size

    @property
    def local_devices(self) -> list[Any]:
        """Devices of this process, in the order of the mesh."""
        return [device for device in self.mesh.devices.flat if device.process_index == self.process]

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
        if not value.is_fully_addressable and not value.is_fully_replicated:
            value = self._gathered(value)
        return np.asarray(value)

    def meet(self, *paths: Path) -> None:
        if self.processes == 1:
            return
        from jax._src import distributed

        # by the coordinator, because no collective waits for hours; where the chief is gone it raises
        client: Any = distributed.global_state.client
        key = f"bertkeras/{self._meetings}"
        self._meetings += 1
        if self.is_chief:
            client.key_value_set(key, "here")
        while not self.is_chief:
            try:
                client.blocking_key_value_get(key, 10_000)
                break
            except RuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
        wait_for(paths)
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


def leave(code: int) -> None:
    """End this process at once if it failed among others: JAX would wait for them for minutes first."""
    jax = sys.modules.get("jax")
    if code and jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1:
        if error := sys.exc_info()[1]:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
