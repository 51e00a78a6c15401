"""Everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bertkeras.errors import BertKerasError
from bertkeras.files import atomic_path

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
    and written atomically; the newest `keep` stay.

    Args:
        folder: Where they lie.
        model: All its variables are kept, seed states among them.
        optimizer: Built; all its variables are kept, the step counter and moving averages among them.
        keep: How many.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        keep: int = 2,
    ) -> None:
        self.folder = Path(folder)
        self.keep = keep
        owners = (("model", model.variables), ("optimizer", optimizer.variables))
        # Numbered, not named: Keras counts the models of a process in the names of their variables.
        self.variables = {
            f"{owner}/{number:04d}": variable
            for owner, variables in owners
            for number, variable in enumerate(variables)
        }

    def files(self) -> list[Path]:
        """All checkpoints, the oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if FILE.fullmatch(path.name))

    def save(self, progress: Progress) -> Path:
        """Write a checkpoint and remove the ones too many."""
        from safetensors.numpy import save_file

        path = self.folder / f"step-{progress.step:09d}.safetensors"
        arrays = {name: np.asarray(variable.value) for name, variable in self.variables.items()}
        metadata = {"progress": json.dumps(dataclasses.asdict(progress))}
        with atomic_path(path) as temporary:
            save_file(arrays, temporary, metadata=metadata)
        for old in self.files()[: -self.keep]:
            old.unlink()
        return path

    def restore(self) -> Progress:
        """Set every variable from the newest checkpoint; without one, nothing happens.

        Raises:
            BertKerasError: The newest checkpoint is damaged or belongs to another model.
        """
        from safetensors import SafetensorError, safe_open

        files = self.files()
        if not files:
            return Progress()
        path = files[-1]
        try:
            with safe_open(path, framework="numpy") as file:
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
                if shapes != {name: tuple(variable.shape) for name, variable in self.variables.items()}:
                    raise BertKerasError(f"{path} belongs to a model or optimizer with other options; see config.toml")
                for name, variable in self.variables.items():
                    variable.assign(file.get_tensor(name))
                progress: dict[str, Any] = json.loads(file.metadata()["progress"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, BertKerasError):
                raise
            raise BertKerasError(
                f"{path} is damaged ({error}); remove it to go on from the checkpoint before it"
            ) from error
        return Progress(**progress)
