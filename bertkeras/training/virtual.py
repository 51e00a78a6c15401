"""Virtual devices: how a batch is cut and summed so that no number hangs on how many real devices there are.

A batch is cut into `parts`, a power of two. One compiled program computes the gradient of any of them, wherever it
runs, and the gradients are added in pairs: the sum of the parts with even numbers, plus that of the odd ones, each in
turn added in the same way. Whatever power of two of devices shares the parts out, every addition is then of the same
two numbers. The cut is that of virtual nodes (Or et al. 2022); the fixed order makes the runs equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bertkeras.errors import BertKerasError

if TYPE_CHECKING:
    from bertkeras.training.distribution import Distribution


class Shares:
    """Which parts of a batch lie on which devices.

    Row `i` of a batch belongs to part `i % parts`, and part `k` to replica `k % replicas`, so that the process that
    reads every `n`-th row has its parts whole.

    Args:
        parts: Virtual devices.
        distribution: The real ones.
    """

    def __init__(self, parts: int, distribution: Distribution) -> None:
        self.parts = parts
        self.replicas = distribution.replicas
        self.host, self.hosts = distribution.part
        self.local_replicas = self.replicas // self.hosts

    def check_rows(self, rows_here: int | None) -> None:
        """Raises: BertKerasError: The parts of a batch, of which each process has so many rows, are not equal."""
        if rows_here is None or rows_here * self.hosts % self.parts:
            rows = "unknown" if rows_here is None else rows_here * self.hosts
            raise BertKerasError(f"{self.parts} virtual devices do not divide a batch of {rows} rows")

    def numbers(self, replica: Any) -> list[Any]:
        """The parts of a replica; `replica` is one of `range(replicas)`, or a scalar tensor."""
        return [replica + first for first in range(0, self.parts, self.replicas)]

    def replica(self, local: Any) -> Any:
        """The number of this process's `local`-th device among the replicas."""
        return self.host + local * self.hosts

    def place(self, replica: int) -> int:
        """Where a replica stands if devices are counted process by process."""
        return replica % self.hosts * self.local_replicas + replica // self.hosts

    def among_rows_here(self, number: Any) -> tuple[Any, int]:
        """`(first, step)` of a part's rows among those of this process."""
        return (number - self.host) // self.hosts, self.parts // self.hosts


def check_virtual_devices(
    parts: int, accumulation: int = 1, flash_dropout: bool = False, distribution: Distribution | None = None
) -> None:
    """Raises: BertKerasError: No power of two, or an option or real devices that they do not go with."""
    if parts < 1 or parts & (parts - 1):
        raise BertKerasError(f"virtual_devices={parts} is not a power of two")
    if accumulation > 1:
        raise BertKerasError("virtual_devices already cuts the batch into parts; leave accumulation at 1")
    if flash_dropout:
        raise BertKerasError("virtual_devices make a run repeatable, which flash_dropout is not; leave one of them out")
    if distribution is None:
        return
    if distribution.name == "model_parallel":
        raise BertKerasError(
            "virtual_devices does not go with strategy model_parallel, whose devices share each product; "
            "take data_parallel"
        )
    if parts % distribution.replicas:
        raise BertKerasError(
            f"{distribution.replicas} devices cannot share out virtual_devices={parts}; "
            "take a power of two of devices, at most as many"
        )


def sum_in_pairs(parts: Sequence[Any], of_part: Callable[[Any], Any], add: Callable[[Any, Any], Any]) -> Any:
    """The sum of `of_part(part)`, in the one order; at most `log2(len(parts)) + 1` terms are held at a time."""
    if len(parts) == 1:
        return of_part(parts[0])
    return add(sum_in_pairs(parts[::2], of_part, add), sum_in_pairs(parts[1::2], of_part, add))
