"""What makers publish of the devices that a BERT is trained on, and what a matrix product measures of a CPU."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable

from bertkeras.errors import BertKerasError

BFLOAT16 = "mixed_bfloat16"


@dataclasses.dataclass(frozen=True)
class Device:
    """One GPU, one TPU chip, or the processor of this machine.

    Attributes:
        name: As on the command line.
        float32: Floating-point operations in a second, of dense matrix products with float32 operands.
        bfloat16: The same with bfloat16 operands and float32 sums.
        memory: Bytes.
        bandwidth: Bytes in a second between the memory and the arithmetic.
        link: Bytes in a second that it sends to its neighbours, one way; 0 where there are none.
        joined: How many devices that link joins.
    """

    name: str
    float32: float
    bfloat16: float
    memory: float
    bandwidth: float
    link: float = 0.0
    joined: int = 1

    def rate(self, precision: str) -> float:
        """The peak for a precision of `PretrainConfig`."""
        return self.bfloat16 if precision == BFLOAT16 else self.float32


def _published(
    name: str, float32: float, bfloat16: float, memory: float, bandwidth: float, link: float, joined: int
) -> Device:
    """In the units of data sheets: TFLOP/s, GB and GB/s; `link` is both ways together, as they print it."""
    return Device(name, float32 * 1e12, bfloat16 * 1e12, memory * 1e9, bandwidth * 1e9, link * 1e9 / 2, joined)


# Dense rates: NVIDIA prints those of Ada and Hopper "with sparsity", which is twice as much. float32 is TF32 where the
# device has it, as TensorFlow multiplies there. Volta and Turing have no bfloat16: the 125 and 65 TFLOP/s of their
# tensor cores are of float16, in which this package does not train. A TPU multiplies float32 as bfloat16 by default
# (Cloud TPU documentation, "Improve your model's performance with bfloat16"). A link joins the GPUs of one server, of
# up to eight, and the chips of a TPU pod.
PUBLISHED = {
    device.name: device
    for device in (
        # NVIDIA T4 Tensor Core GPU data sheet, 2019: 8.1 TFLOPS FP32, 16 GB, 300 GB/s, PCIe 3.0 x16 32 GB/s
        _published("t4", 8.1, 8.1, 16, 300, 32, 8),
        # NVIDIA V100 Tensor Core GPU data sheet, January 2020, SXM2: 15.7 TFLOPS FP32, 900 GB/s, NVLink 300 GB/s
        _published("v100", 15.7, 15.7, 16, 900, 300, 8),
        _published("v100-32", 15.7, 15.7, 32, 900, 300, 8),
        # NVIDIA A100 Tensor Core GPU data sheet, 2021, SXM: TF32 156, BF16 312, NVLink 600 GB/s
        _published("a100-40", 156, 312, 40, 1555, 600, 8),
        _published("a100-80", 156, 312, 80, 2039, 600, 8),
        # NVIDIA L4 Tensor Core GPU data sheet, 2023: TF32 120, BF16 242, both with sparsity; PCIe 4.0 x16 64 GB/s
        _published("l4", 60, 121, 24, 300, 64, 8),
        # NVIDIA H100 Tensor Core GPU data sheet, 2023, SXM: TF32 989, BF16 1,979, both with sparsity; NVLink 900 GB/s
        _published("h100", 494.5, 989.5, 80, 3350, 900, 8),
        # NVIDIA H200 Tensor Core GPU data sheet, 2024, SXM: the rates of the H100, 141 GB at 4.8 TB/s
        _published("h200", 494.5, 989.5, 141, 4800, 900, 8),
        # docs.cloud.google.com/tpu/docs/v4; links: Jouppi et al. 2023, arXiv:2304.01433, six of 50 GB/s each way
        _published("tpu-v4", 275, 275, 32 * 1.073741824, 1200, 600, 4096),
        # docs.cloud.google.com/tpu/docs/v5e, /v5p and /v6e; inter-chip interconnect of all the ports of a chip
        _published("tpu-v5e", 197, 197, 16, 819, 400, 256),
        _published("tpu-v5p", 459, 459, 95, 2765, 1200, 8960),
        _published("tpu-v6e", 918, 918, 32, 1600, 800, 256),
    )
}


def find_device(text: str, precision: str) -> tuple[Device, int]:
    """The device and how many of them, of `NAME` or `NAME:COUNT`; `cpu` is measured.

    Raises:
        BertKerasError: No such device, or a count that is none.
    """
    name, colon, number = text.lower().partition(":")
    name = f"tpu-{name}" if f"tpu-{name}" in PUBLISHED else name
    if name not in PUBLISHED and name != "cpu":
        raise BertKerasError(f"unknown device {name!r}; known are cpu, {', '.join(PUBLISHED)}")
    if colon and not (number.isdecimal() and int(number) > 0):
        raise BertKerasError(f"the number of devices must be 1 or more, got {text!r}; write NAME:COUNT, as in h200:8")
    return PUBLISHED[name] if name in PUBLISHED else measure_cpu(precision), int(number) if colon else 1


def measure_cpu(precision: str = "float32", seconds: float = 1.0, side: int = 2048) -> Device:
    """This machine's processor: the median rate of a large matrix product, and of a copy in memory.

    A processor's published peak says little, since few programs reach its widest instructions at its highest clock, and
    fewer on a machine that is shared.
    """
    import numpy as np
    import tensorflow as tf

    kind = "bfloat16" if precision == BFLOAT16 else "float32"
    a, b = (tf.cast(tf.random.stateless_normal((side, side), (0, seed)), kind) for seed in (1, 2))
    source = np.ones(2**24, "float32")
    target = np.empty_like(source)

    def product() -> None:
        tf.matmul(a, b)[0, 0].numpy()

    def copy() -> None:
        np.copyto(target, source)

    rate = 2 * side**3 / _median_seconds(product, 0.8 * seconds)
    bandwidth = 2 * source.nbytes / _median_seconds(copy, 0.2 * seconds)
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return Device("cpu", rate, rate, memory, bandwidth)


def _median_seconds(work: Callable[[], None], limit: float) -> float:
    """Of one call, over `limit` seconds of them; the first is not counted."""
    work()
    found: list[float] = []
    end = time.perf_counter() + limit
    while len(found) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)
