"""From what a file says to a label."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from bertkeras.datasets.examples import Label
from bertkeras.datasets.problems import shown

LabelChecker = Callable[[Any], tuple[Label | None, str]]

LONGEST_LABEL = 200  # characters; what is longer is a text in the wrong column
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def label_checker(task: str, known: Sequence[str] | None) -> LabelChecker:
    """A function from what a file says to a label and, if it is none, what is wrong with it.

    Args:
        task: A task of `read_examples`; for entities the label is a type.
        known: The names that a label may have, if they are known.
    """

    def name(value: Any) -> tuple[str | None, str]:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            value = str(value)
        if not isinstance(value, str):
            return None, "the label is empty" if value is None else f"the label must be a name, got {shown(value)}"
        value = value.strip()
        if not value:
            return None, "the label is empty"
        if len(value) > LONGEST_LABEL or not value.isprintable():
            return None, f"the label must be a short name on one line, got {shown(value)}"
        if known is not None and value not in known:
            names = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            return None, f"unknown label {shown(value)}; the labels are {names}"
        return value, ""

    def names(value: Any) -> tuple[tuple[str, ...] | None, str]:
        if isinstance(value, str):
            value = value.split(",") if value.strip() else []
        if not isinstance(value, list):
            return None, f"the labels must be names, got {shown(value)}"
        found = []
        for part in value:
            label, problem = name(part)
            if label is None:
                return None, problem
            if label in found:
                return None, f"the label {shown(label)} stands twice"
            found.append(label)
        return tuple(found), ""

    def number(value: Any) -> tuple[float | None, str]:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number or (isinstance(value, str) and NUMBER.fullmatch(value.strip())):
            try:
                result = float(value)
            except OverflowError:
                result = math.inf
            if math.isfinite(result):
                return result, ""
        what = "is empty" if value is None or value == "" else f"must be a number such as 3.5, got {shown(value)}"
        return None, f"the label {what}"

    if task == "multi-label":
        return names
    return number if task in ("regression", "similarity") else name
