"""Our canonical names beside those of another library: one table per format, read in both directions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

import numpy as np

from bertkeras.errors import BertKerasError


@dataclasses.dataclass(frozen=True)
class Rule:
    """One weight of ours and what holds it in another format.

    Args:
        ours: Canonical name; `{i}` stands for the number of an encoder block.
        theirs: Its name there. Several: ours is theirs, joined along the last axis.
        transposed: Whether theirs is a matrix `(outputs, inputs)` where ours is `(inputs, outputs)`.
    """

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False

    def at(self, block: int) -> Rule:
        return Rule(self.ours.format(i=block), tuple(name.format(i=block) for name in self.theirs), self.transposed)


class NameTable:
    """The rules of a format, written out for a number of encoder blocks.

    Args:
        rules: The rules, each with or without `{i}`.
        num_layers: Number of encoder blocks.

    Raises:
        BertKerasError: Two rules claim one weight, on either side.
    """

    def __init__(self, rules: Iterable[Rule], num_layers: int) -> None:
        self.rules = [rule.at(block) for rule in rules for block in range(num_layers if "{i}" in rule.ours else 1)]
        for names in ([rule.ours for rule in self.rules], [name for rule in self.rules for name in rule.theirs]):
            twice = sorted(name for name, count in Counter(names).items() if count > 1)
            if twice:
                raise BertKerasError(f"the name table claims {', '.join(twice)} twice; remove one of the rules")

    def to_ours(self, arrays: dict[str, np.ndarray], source: str) -> tuple[dict[str, np.ndarray], set[str]]:
        """Arrays under canonical names, and the names of theirs that no rule knows.

        A rule of which nothing is there is another head's and stays empty.

        Raises:
            BertKerasError: Only a part of a joined weight is there, the parts do not fit together, or a weight that
                is to be transposed is no matrix.
        """
        ours, unknown = {}, set(arrays)
        for rule in self.rules:
            there = [name for name in rule.theirs if name in arrays]
            unknown.difference_update(there)
            if not there:
                continue
            if missing := set(rule.theirs) - set(there):
                raise BertKerasError(f"{source}: {there[0]} is there, but {', '.join(sorted(missing))} is not")
            parts = [arrays[name] for name in rule.theirs]
            for name, part in zip(rule.theirs, parts, strict=True):
                if rule.transposed and part.ndim != 2:
                    raise BertKerasError(f"{source}: {name} has shape {part.shape}, a matrix is needed")
                if part.shape != parts[0].shape:
                    raise BertKerasError(
                        f"{source}: {rule.theirs[0]} has shape {parts[0].shape}, but {name} has {part.shape}"
                    )
                if len(parts) > 1 and not part.ndim:
                    raise BertKerasError(f"{source}: {name} is a single number, a vector or a matrix is needed")
            parts = [part.T if rule.transposed else part for part in parts]
            ours[rule.ours] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        return ours, unknown

    def to_theirs(self, arrays: dict[str, np.ndarray], target: str) -> dict[str, np.ndarray]:
        """Arrays under their names.

        Raises:
            BertKerasError: A weight that the format has no place for, or that does not fall into its parts.
        """
        theirs, homeless = {}, set(arrays)
        for rule in self.rules:
            if rule.ours not in arrays:
                continue
            homeless.discard(rule.ours)
            value, count = arrays[rule.ours], len(rule.theirs)
            divides = count == 1 or (value.ndim > 0 and value.shape[-1] % count == 0)
            if not divides or (rule.transposed and value.ndim != 2):
                raise BertKerasError(f"{target}: {rule.ours} of shape {value.shape} does not go into {rule.theirs[0]}")
            parts = np.split(value, count, axis=-1) if count > 1 else [value]
            for name, part in zip(rule.theirs, parts, strict=True):
                theirs[name] = np.asarray(part.T if rule.transposed else part, order="C")
        if homeless:
            raise BertKerasError(f"{target} has no place for {', '.join(sorted(homeless)[:3])}")
        return theirs


def dense(ours: str, theirs: str, kernel: str, transposed: bool = False) -> list[Rule]:
    """Kernel and bias of a dense layer, whose names there are `theirs` and `kernel` or `bias`."""
    return [
        Rule(f"{ours}/kernel", (f"{theirs}{kernel}",), transposed),
        Rule(f"{ours}/bias", (f"{theirs}bias",)),
    ]


def norm(ours: str, theirs: str, gamma: str, beta: str) -> list[Rule]:
    """Scale and shift of a layer norm."""
    return [Rule(f"{ours}/gamma", (f"{theirs}{gamma}",)), Rule(f"{ours}/beta", (f"{theirs}{beta}",))]
