import keras
import numpy as np
import pytest
from keras import ops

from bertkeras import BertConfig, BertPretrainer
from bertkeras.layers.recompute import Savings, saving
from bertkeras.models.pretrainer import pretraining_loss, pretraining_sums, training_inputs
from tests.checks import gradients, numpy, randomize

RNG = np.random.default_rng(0)
INPUTS = {
    "token_ids": RNG.integers(0, 31, (4, 9)).astype("int32"),
    "mask_positions": RNG.integers(0, 9, (4, 5)).astype("int32"),
}
LABELS = {
    "mlm_labels": RNG.integers(0, 31, (4, 5)).astype("int32"),
    "mlm_weights": (np.arange(5) < RNG.integers(1, 6, (4, 1))).astype("float32"),
    "nsp_labels": RNG.integers(0, 2, 4).astype("int32"),
}


def one_step(chunks, dtype, tied=True):
    keras.utils.set_random_seed(0)
    model = BertPretrainer(BertConfig(31, 2, 12, 2, 20, 9, tie_embeddings=tied), dtype=dtype)
    randomize(model)
    inputs, labels = (
        {name: ops.convert_to_tensor(value) for name, value in arrays.items()} for arrays in (INPUTS, LABELS)
    )
    with saving(Savings(head_chunks=chunks)):
        asked = training_inputs(inputs, labels)
        outputs = model(asked)
        sums = {name: float(value) for name, value in pretraining_sums(outputs, labels).items()}

        def loss():
            found = pretraining_sums(model(asked), labels)
            return pretraining_loss(found, found)

        return outputs, sums, gradients(loss, model.trainable_variables)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("chunks", [2, 5, 9])  # of unequal size, of one prediction, and more than there are
def test_chunks_change_no_number(chunks, dtype, tied):
    outputs, sums, slopes = one_step(1, dtype, tied)
    assert "mlm_logits" in outputs
    other_outputs, other_sums, other_slopes = one_step(chunks, dtype, tied)
    assert "mlm_logits" not in other_outputs
    assert sums.keys() == other_sums.keys()
    tolerance = {"float32": 2e-6, "mixed_bfloat16": 2e-2}[dtype]
    for name in sums:
        assert sums[name] == pytest.approx(other_sums[name], rel=tolerance)
    for one, other in zip(slopes, other_slopes, strict=True):
        assert np.linalg.norm(numpy(one) - numpy(other)) <= tolerance * max(np.linalg.norm(numpy(one)), 0.1)
