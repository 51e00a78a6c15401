"""Everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bertkeras.checkpoints.tensor_files import write_safetensors
from bertkeras.errors import BertKerasError, first_line
from bertkeras.training.distribution import Distribution

logger = logging.getLogger(__name__)
FILE = re.compile(r"step-(\d{9})\.safetensors")


@dataclasses.dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: Optimizer steps done; with it the place in the data, since batches are addressed by step.
        sums: Sums since the last line of the log.
        seconds: Time spent training, over all sittings.
    """

    step: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


class Checkpoints:
    """Checkpoints of a run: weights, optimizer, *states of the dropout seeds* and progress, one file each.

    No Keras format keeps the seed states, so a run resumed from one repeats old dropout masks. Files are safetensors
    with a checksum, written atomically and in the background; the newest `keep` stay. They hold whole arrays, however
    the devices share them, so a run goes on with another number of devices than it was stopped on.

    Args:
        folder: Where they lie; of several processes the chief writes, and all read.
        model: All its variables are kept, seed states among them.
        optimizer: Built; all its variables are kept, the step counter and moving averages among them.
        keep: How many.
        distribution: Of the run; by default one device.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        keep: int = 2,
        distribution: Distribution | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.keep = keep
        self.distribution = distribution or Distribution()
        owners = (("model", model.variables), ("optimizer", optimizer.variables))
        # Numbered, not named: Keras counts the models of a process in the names of their variables.
        self.variables = {
            f"{owner}/{number:04d}": variable
            for owner, variables in owners
            for number, variable in enumerate(variables)
        }
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def files(self) -> list[Path]:
        """All checkpoints, the oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if FILE.fullmatch(path.name))

    def save(self, progress: Progress, *, background: bool = False) -> Path:
        """Write a checkpoint and remove the ones too many; every process must call this.

        With `background` the state is copied, and written while the run goes on: `wait` tells whether that went well,
        and so does the next `save`.

        Raises:
            BertKerasError: This checkpoint, or the one before it, cannot be written.
        """
        self.wait()
        path = self.folder / f"step-{progress.step:09d}.safetensors"
        # a copy: on a CPU the array may be the variable itself, which the next step changes
        arrays = {
            name: np.array(self.distribution.to_host(variable.value)) for name, variable in self.variables.items()
        }
        if self.distribution.is_chief:
            state = json.dumps(dataclasses.asdict(progress))
            self._writing = self._writer.submit(self._write, path, arrays, state)
        if not background:
            self.wait()
        return path

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            BertKerasError: It could not be.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, path: Path, arrays: dict[str, np.ndarray], progress: str) -> None:
        for left_by_a_kill in self.folder.glob(".step-*"):
            left_by_a_kill.unlink()
        write_safetensors(path, arrays, {"progress": progress, "checksum": checksum(arrays, progress)})
        for old in self.files()[: -self.keep]:
            old.unlink()

    def restore(self) -> Progress:
        """Set every variable from the newest checkpoint that is whole; without any checkpoint, nothing happens.

        A damaged one is named in a warning, and the one before it is used.

        Raises:
            BertKerasError: All checkpoints are damaged, they belong to another model, or the processes of the run do
                not see the same ones.
        """
        from safetensors import SafetensorError

        self.wait()
        progress, problems = Progress(), []
        for path in reversed(self.files()):
            try:
                arrays, state = read_checkpoint_file(path)
                progress = Progress(**json.loads(state))
            except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
                problems.append(f"{path} is damaged ({first_line(error)})")
                logger.warning("%s; going on from the one before it", problems[-1])
                continue
            self._check_shapes(path, arrays)
            for name, variable in self.variables.items():
                variable.assign(arrays[name])
            break
        else:
            if problems:
                raise BertKerasError(
                    f"{'; '.join(problems)}: no whole checkpoint is left in {self.folder}; "
                    "remove that folder to begin anew"
                )
        steps = self.distribution.total([progress.step])[0]
        if self.distribution.any(steps != progress.step * self.distribution.processes)[0]:
            raise BertKerasError(
                f"process {self.distribution.process} finds step {progress.step} in {self.folder} and others another; "
                "all processes of a run need one shared folder"
            )
        return progress

    def _check_shapes(self, path: Path, arrays: dict[str, np.ndarray]) -> None:
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != {name: tuple(variable.shape) for name, variable in self.variables.items()}:
            raise BertKerasError(f"{path} belongs to a model or optimizer with other options; see config.toml")

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Let the last one come to its end; an error on the way out does not hide the one that led here."""
        with contextlib.suppress(BertKerasError) if error else contextlib.nullcontext():
            self.wait()
        self._writer.shutdown()


def read_checkpoint_file(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Arrays and progress of a file.

    Raises:
        ValueError, KeyError, OSError, SafetensorError: It is not what was written.
    """
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state = metadata["progress"]
    if checksum(arrays, state) != metadata["checksum"]:
        raise ValueError("its checksum is wrong")
    return arrays, state


def checksum(arrays: dict[str, np.ndarray], progress: str) -> str:
    """SHA-256 over names, types, shapes, bytes and progress."""
    digest = hashlib.sha256(progress.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
