import gc
import weakref

import numpy as np

from bertkeras import BertConfig
from bertkeras.models.running import outputs_of
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


def test_a_model_is_not_kept_alive_by_its_graph():
    model = BertTokenClassifier(BertConfig(50, 1, 8, 2, 16, 12), 3)
    outputs_of(model, [([5, 6], None)] * 3, pad_id=0, batch_size=2)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None
