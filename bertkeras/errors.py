"""The ways in which a command ends before its work is done."""

from __future__ import annotations

import os
import signal


class BertKerasError(ValueError):
    """Bad input: the message says in one line what is wrong, where, and what to do; of a file it may list problems.

    The command line prints it without a traceback and exits with code 2.
    """


class Interrupted(Exception):
    """A run stopped on request, with everything saved.

    Attributes:
        signal_name: `SIGINT` or `SIGTERM`.
        exit_code: What a shell expects of a program stopped by that signal.
    """

    def __init__(self, signal_name: str, step: int, folder: str | os.PathLike[str], command: str = "pretrain") -> None:
        super().__init__(
            f"stopped by {signal_name} at step {step}, all saved; go on with: bertkeras {command} --resume {folder}"
        )
        self.signal_name = signal_name
        self.exit_code = 128 + signal.Signals[signal_name].value


class PeerLost(Exception):
    """Another process of the run is gone; the run can go on from its last checkpoint once all are started again.

    On JAX the runtime may notice first, and abort the process with SIGABRT.

    Attributes:
        exit_code: 75, by which `sysexits.h` says that trying again may help.
    """

    exit_code = 75

    def __init__(self, folder: str | os.PathLike[str], reason: str) -> None:
        super().__init__(
            f"another process of this run is gone ({reason[:120]}); start all of them again, with --resume {folder}"
        )


def first_line(error: BaseException) -> str:
    """What another library says of an error, short enough to be part of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
