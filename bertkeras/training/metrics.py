"""What a run writes about itself while it trains."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bertkeras.files import write_text


def means(sums: dict[str, float]) -> dict[str, float]:
    """`mlm_loss`, `mlm_accuracy` and the same of `nsp`: sums over counts, so every masked position weighs alike."""
    return {
        f"{kind}_{what}": sums[f"{kind}_{what}"] / max(sums[f"{kind}_count"], 1.0)
        for kind in ("mlm", "nsp")
        if f"{kind}_count" in sums
        for what in ("loss", "accuracy")
    }


class MetricsLog:
    """Appends rows to `metrics.jsonl` and to TensorBoard's events.

    Args:
        folder: The run's folder; events go to `tensorboard/` in it.
        step: Where the run stands. Rows beyond it, written before a kill and after the last checkpoint, are removed.
        write: Whether to write anything; of several processes one does.
    """

    def __init__(self, folder: str | os.PathLike[str], step: int = 0, *, write: bool = True) -> None:
        import tensorflow as tf

        self.writes = write
        if not write:
            return
        self.path = Path(folder) / "metrics.jsonl"
        rows = [row for row in read_metrics(self.path) if row["step"] <= step]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed in __exit__
        self.writer = tf.summary.create_file_writer(os.fspath(Path(folder) / "tensorboard"))

    def write(self, step: int, values: dict[str, float]) -> None:
        import tensorflow as tf

        if not self.writes:
            return
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        with self.writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writes:
            self.file.close()
            self.writer.close()


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that a kill cut short is left out."""
    rows: list[dict[str, Any]] = []
    if not os.path.exists(path):
        return rows
    with open(path, encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                break
            rows.append(json.loads(line))
    return rows
