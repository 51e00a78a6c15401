import os
import signal
import threading

import pytest

from bertkeras.errors import Interrupted
from bertkeras.training.interrupt import StopSignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request(number):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.name is None
        os.kill(os.getpid(), number)
        assert stop.name == number.name
        assert signal.getsignal(number) == before  # a second one acts as usual
    assert signal.getsignal(number) == before


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_nothing_happens():
    names = []

    def enter():
        with StopSignal() as stop:
            names.append(stop.name)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert names == [None]


def test_the_message_says_how_to_go_on():
    error = Interrupted("SIGTERM", 812, "runs/demo")
    assert "step 812" in str(error)
    assert "bertkeras pretrain --resume runs/demo" in str(error)
    assert error.exit_code == 143
