import gc
import weakref

import keras
import numpy as np
import pytest

from bertkeras import BertConfig
from bertkeras.models.running import graph_of, outputs_of
from bertkeras.models.token_classifier import BertTokenClassifier
from tests.checks import numpy


def alone(model, ids):
    row = np.array([ids], "int32")
    inputs = {"token_ids": row, "segment_ids": np.zeros_like(row), "padding_mask": row > 0}
    return numpy(model(inputs, training=False))[0]


def test_many_rows_are_those_of_one_and_follow_the_weights():
    """Several batches of several lengths, which TensorFlow computes as a graph that it keeps."""
    model = BertTokenClassifier(BertConfig(50, 1, 8, 2, 16, 12), 3)
    random = np.random.default_rng(0)
    rows = [random.integers(5, 50, size).tolist() for size in (3, 9, 5, 12, 7, 4, 9)]
    table = model.backbone.embeddings.token_table
    for _ in range(2):
        found = outputs_of(model, [(row, None) for row in rows], pad_id=0, batch_size=2)
        for output, row in zip(found, rows, strict=True):
            np.testing.assert_allclose(output, alone(model, row), atol=1e-5)
        table.assign(numpy(table)[::-1].copy())  # the second time with other weights


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the graph is TensorFlow's")
def test_the_graph_is_in_the_forms_that_tensorflow_merges():
    """Products of matrices with biases by that name, and no derivative by hand around a GELU."""
    model = BertTokenClassifier(BertConfig(50, 2, 8, 2, 16, 12), 3)
    names = [operation.type for operation in graph_of(model).get_concrete_function().graph.get_operations()]
    assert names.count("BiasAdd") == 2 * 4 + 1  # queries with keys and values, output, expand and contract; the head
    assert names.count("Erf") == 2
    layer_norms = 2 * 2 + 1
    assert names.count("IdentityN") == layer_norms  # theirs alone is still derived by hand


def test_a_model_is_not_kept_alive_by_its_graph():
    model = BertTokenClassifier(BertConfig(50, 1, 8, 2, 16, 12), 3)
    outputs_of(model, [([5, 6], None)] * 3, pad_id=0, batch_size=2)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None
