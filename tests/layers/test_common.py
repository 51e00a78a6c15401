import keras
import pytest

from bertkeras.layers.common import runs_operation_by_operation


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="asks where TensorFlow runs")
def test_whether_xla_compiles():
    import tensorflow as tf

    found = []

    def note(x):
        found.append(runs_operation_by_operation())
        return x + 1

    def repeated(x):
        return tf.while_loop(lambda x: x < 2, lambda x: [note(x)], [x])

    note(tf.constant(0))
    for function in (note, repeated):
        tf.function(function, jit_compile=True)(tf.constant(0))
        tf.function(function)(tf.constant(0))
    assert found == [True, False, True, False, True]


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="what other backends do")
def test_other_backends_derive_for_themselves():
    assert not runs_operation_by_operation()
