"""What must be set before Keras is imported, and the same random numbers for every test."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest


@pytest.fixture(autouse=True)
def seeds():
    """Every test starts from the same state, whichever ran before it."""
    import keras

    keras.utils.set_random_seed(1009)
    yield
    keras.config.set_dtype_policy("float32")
