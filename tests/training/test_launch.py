import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from bertkeras import BertKerasError
from bertkeras.training.launch import free_ports, launch


def program(tmp_path, code):
    """A program that writes down each of its starts, with the arguments and the variables it got."""
    path = tmp_path / "program.py"
    path.write_text(
        "import json, os, pathlib, signal, sys, time\n"
        f"folder = pathlib.Path({os.fspath(tmp_path)!r})\n"
        "me, workers = int(os.environ['BERTKERAS_WORKER']), os.environ['BERTKERAS_WORKERS'].split(',')\n"
        "attempt = len(list(folder.glob(f'{me}-*.json')))\n"
        "(folder / f'{me}-{attempt}.json').write_text(json.dumps([sys.argv[1:], workers]))\n" + textwrap.dedent(code)
    )
    return (sys.executable, os.fspath(path))


def starts(tmp_path):
    return {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}


def starts_begun(tmp_path):
    return [path for path in tmp_path.glob("*.json") if path.read_text()]


def test_all_know_each_other_and_end_well(tmp_path):
    assert launch(["pretrain", "--output", "x"], 3, program=program(tmp_path, "")) == 0
    found = starts(tmp_path)
    assert set(found) == {"0-0", "1-0", "2-0"}
    assert len({tuple(workers) for _, workers in found.values()}) == 1
    assert len(set(found["0-0"][1])) == 3
    assert found["0-0"][0] == ["pretrain", "--output", "x"]


def test_a_run_that_is_resumed_is_resumed_again(tmp_path):
    code = "sys.exit(75 if attempt == 0 else 0)"
    assert launch(["pretrain", "--resume=x"], 1, restarts=1, program=program(tmp_path, code)) == 0
    assert starts(tmp_path)["0-1"][0] == ["pretrain", "--resume=x"]


def test_one_that_is_killed_starts_all_again_and_the_run_goes_on(tmp_path):
    code = "if me == 1 and attempt < 2: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(0.5 if attempt == 2 else 60)"
    said = []
    assert launch(["pretrain", "--output", "x"], 2, restarts=5, say=said.append, program=program(tmp_path, code)) == 0
    assert said == [f"process 1 was killed by SIGKILL; starting all again ({n} of 5)" for n in (1, 2)]
    found = starts(tmp_path)
    assert {"0-2", "1-2"} < set(found)
    assert found["0-1"][0] == ["pretrain", "--output", "x", "--auto-resume"]


def test_it_gives_up_when_the_restarts_are_used_up(tmp_path):
    said = []
    code = "sys.exit(75 if me == 0 else 0)"
    assert launch(["pretrain"], 2, restarts=1, say=said.append, program=program(tmp_path, code)) == 75
    assert said[-1] == "process 0 ended with code 75; giving up"


def test_bad_input_is_not_tried_again_and_ends_the_others(tmp_path):
    begin = time.monotonic()
    code = "if me == 0: sys.exit(2)\ntime.sleep(60)"
    assert launch(["pretrain"], 2, restarts=5, program=program(tmp_path, code)) == 2
    assert time.monotonic() - begin < 30
    assert set(starts(tmp_path)) <= {"0-0", "1-0"}


def test_a_stop_on_request_reaches_all_and_is_not_tried_again(tmp_path):
    code = """
        def stop(number, frame):
            (folder / f"stopped-{me}").touch()
            sys.exit(143)
        signal.signal(signal.SIGTERM, stop)
        (folder / f"ready-{me}").touch()
        time.sleep(60)
    """
    command = program(tmp_path, code)
    outer = (
        "import sys; from bertkeras.training.launch import launch\n"
        f"sys.exit(launch(['pretrain'], 2, restarts=3, program={command!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", outer])
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("ready-*"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert len(list(tmp_path.glob("stopped-*"))) == 2
    assert set(starts(tmp_path)) == {"0-0", "1-0"}


def test_a_stop_during_the_start_is_a_stop_too(tmp_path):
    command = program(tmp_path, "time.sleep(60)")  # has no handler yet, and dies of the signal
    outer = (
        "import sys; from bertkeras.training.launch import launch\n"
        f"sys.exit(launch(['pretrain'], 2, restarts=3, program={command!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", outer])
    end = time.monotonic() + 60
    while len(starts_begun(tmp_path)) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert set(starts(tmp_path)) == {"0-0", "1-0"}


@pytest.mark.parametrize(
    ("arguments", "processes", "restarts"),
    [([], 2, 0), (["finetune"], 2, 0), (["pretrain"], 0, 0), (["pretrain"], 1, -1)],
)
def test_what_cannot_be_launched(arguments, processes, restarts):
    with pytest.raises(BertKerasError, match="bertkeras launch --help"):
        launch(arguments, processes, restarts=restarts)


def test_ports_are_free_and_different():
    assert len(set(free_ports(5))) == 5
