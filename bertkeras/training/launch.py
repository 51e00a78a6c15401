"""Several processes of one command on this machine, started again together when one is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from bertkeras.errors import BertKerasError
from bertkeras.training.cluster import WORKER, WORKERS

PROGRAM = (sys.executable, "-m", "bertkeras.cli")
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # on request, all saved
BAD_INPUT = 2
PATIENCE = 60.0  # seconds for the others to stop, once one has


def launch(
    arguments: Sequence[str],
    processes: int,
    *,
    restarts: int = 0,
    say: Callable[[str], None] = lambda text: None,
    program: Sequence[str] = PROGRAM,
) -> int:
    """Run `bertkeras pretrain` in several processes that know each other, as the hosts of a cluster would.

    When one is killed or breaks, the others cannot go on: all are ended and started again, and the run goes on from
    its last checkpoint. Bad input, and a stop on request, are not tried again. SIGINT and SIGTERM are passed on. On a
    machine with GPUs each process takes one.

    Args:
        arguments: Of the command, whose name `pretrain` comes first.
        processes: How many.
        restarts: How often to start again.
        say: Called with a line for every restart.
        program: What takes the arguments.

    Returns:
        The exit code: 0, or that of the process that failed first.

    Raises:
        BertKerasError: Another command, or less than one process.
    """
    if list(arguments[:1]) != ["pretrain"] or processes < 1 or restarts < 0:
        raise BertKerasError(
            "need the command pretrain, at least 1 process and at least 0 restarts; see bertkeras launch --help"
        )
    again = list(arguments)
    if not {"--resume", "--auto-resume"} & {argument.split("=")[0] for argument in arguments}:
        again.append("--auto-resume")
    stopped: list[int] = []
    for attempt in range(restarts + 1):
        number, code = _once([*program, *(arguments if attempt == 0 else again)], processes, stopped)
        if stopped and code:  # also one that died of the signal, before it could answer
            return 128 + stopped[0]
        if code in (0, BAD_INPUT, *STOPPED):
            return code
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        more = f"starting all again ({attempt + 1} of {restarts})" if attempt < restarts else "giving up"
        say(f"process {number} {how}; {more}")
    return code if code > 0 else 128 - code


def _once(command: Sequence[str], processes: int, stopped: list[int]) -> tuple[int, int]:
    """The process that failed first, or 0, and its exit code; a negative one is a signal's.

    Signals that came to this process, and were passed on, are added to `stopped`.
    """
    workers = ",".join(f"localhost:{port}" for port in free_ports(processes))
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: object) -> None:
        stopped.append(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in range(processes):
            environment = {**os.environ, WORKERS: workers, WORKER: str(number)}
            # a session of its own: a terminal's Ctrl-C reaches a child once, from here
            children.append(subprocess.Popen(command, env=environment, start_new_session=True))
            if stopped:
                children[-1].send_signal(stopped[0])
        return _first_failure(children)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for child in children:
            child.kill()
            child.wait()


def _first_failure(children: Sequence[subprocess.Popen[bytes]]) -> tuple[int, int]:
    waited = 0.0
    while True:
        codes = [child.poll() for child in children]
        failed = [(number, code) for number, code in enumerate(codes) if code]
        # a signal, or bad input, explains the failures of those that lost a peer by it
        failed.sort(key=lambda item: (item[1] >= 0, item[1] != BAD_INPUT))
        if failed and failed[0][1] in STOPPED and None in codes and waited < PATIENCE:
            time.sleep(0.1)  # the others have been asked too
            waited += 0.1
            continue
        if failed:
            return failed[0]
        if None not in codes:
            return 0, 0
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
