"""What must be set before Keras is imported, and the same random numbers for every test."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if os.environ["KERAS_BACKEND"] == "torch":
    # the tensors of a test are small: threads that wait for one another take ten times as long on a busy machine
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if os.environ["KERAS_BACKEND"] == "jax":
    # what XLA makes of a test is run once or twice: most of the time would go into making it fast
    os.environ["XLA_FLAGS"] = (
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true " + os.environ.get("XLA_FLAGS", "")
    )

import pytest


@pytest.fixture(autouse=True)
def seeds():
    """Every test starts from the same state, whichever ran before it."""
    import keras

    keras.utils.set_random_seed(1009)
    yield
    keras.config.set_dtype_policy("float32")
