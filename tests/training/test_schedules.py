import keras
import numpy as np
import pytest

from bertkeras.errors import BertKerasError
from bertkeras.training.schedules import WarmupLinearDecay
from tests.checks import numpy


def values(schedule, steps):
    return [float(numpy(schedule(step))) for step in steps]


def test_worked_out():
    """Up in thirds to step 2, down in fifths from step 3 to nothing at step 8."""
    schedule = WarmupLinearDecay(6.0, warmup_steps=3, total_steps=8)
    assert values(schedule, range(8)) == pytest.approx([2, 4, 6, 6, 4.8, 3.6, 2.4, 1.2], rel=1e-6)


def test_zero_after_the_end():
    assert values(WarmupLinearDecay(6.0, 3, 8), [8, 9, 100, 10**7]) == [0.0, 0.0, 0.0, 0.0]


def test_no_warmup():
    assert values(WarmupLinearDecay(6.0, 0, 3), range(5)) == pytest.approx([6, 4, 2, 0, 0], abs=1e-6)


def test_never_above_the_peak():
    for warmup in range(11):
        assert max(values(WarmupLinearDecay(0.7, warmup, 11), range(13))) == pytest.approx(0.7, rel=1e-6)


def test_a_step_as_the_optimizer_gives_it():
    step = keras.Variable(4, dtype="int64", trainable=False)
    assert float(numpy(WarmupLinearDecay(6.0, 3, 8)(step))) == pytest.approx(4.8, rel=1e-6)


def test_the_optimizer_follows_it():
    """With plain gradient descent and a gradient of 1, the weight falls by the learning rate."""
    optimizer = keras.optimizers.SGD(WarmupLinearDecay(6.0, 3, 8))
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer.build([variable])
    places = [0.0]
    for _ in range(10):
        optimizer.apply([keras.ops.ones((1,))], [variable])
        places.append(float(numpy(variable)[0]))
    assert -np.diff(places) == pytest.approx([2, 4, 6, 6, 4.8, 3.6, 2.4, 1.2, 0, 0], abs=1e-5)


def test_configuration():
    schedule = WarmupLinearDecay(6.0, 3, 8)
    assert schedule.get_config() == {"peak": 6.0, "warmup_steps": 3, "total_steps": 8}
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert values(again, range(9)) == values(schedule, range(9))


@pytest.mark.parametrize(("warmup", "total"), [(-1, 5), (5, 5), (6, 5), (0, 0)])
def test_steps_that_make_no_sense(warmup, total):
    with pytest.raises(BertKerasError, match=f"need 0 <= warmup_steps < total_steps, got {warmup} and {total}"):
        WarmupLinearDecay(1.0, warmup, total)
