import numpy as np
import pytest
from keras import ops

from bertkeras import BertBackbone, BertConfig

BATCH, LENGTH, WANTED = 3, 13, 5
MASKS = {
    "no mask": {},
    "padding": {"padding_mask": np.arange(LENGTH)[None] < np.array([13, 7, 1])[:, None]},
    "packed rows": {"sequence_ids": np.repeat([[1, 2, 0]], [5, 6, 2], axis=1).repeat(BATCH, axis=0).astype("int32")},
    "a mask of one's own": {"attention_mask": np.random.default_rng(1).random((BATCH, LENGTH, LENGTH)) < 0.5},
}


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
def test_the_wanted_positions_alone_are_the_same_vectors(norm_first, masks):
    random = np.random.default_rng(0)
    backbone = BertBackbone(BertConfig(97, 2, 22, 11, 29, max_sequence_length=17, norm_first=norm_first))
    inputs = {"token_ids": random.integers(0, 97, (BATCH, LENGTH)).astype("int32"), **masks}
    positions = random.integers(0, LENGTH, (BATCH, WANTED)).astype("int32")  # some of them twice
    everywhere, wanted = backbone(inputs), backbone(inputs, output_positions=positions)
    expected = np.take_along_axis(ops.convert_to_numpy(everywhere["sequence_output"]), positions[..., None], axis=1)
    np.testing.assert_allclose(ops.convert_to_numpy(wanted["sequence_output"]), expected, atol=1e-6)
    np.testing.assert_allclose(
        ops.convert_to_numpy(wanted["pooled_output"]), ops.convert_to_numpy(everywhere["pooled_output"]), atol=1e-6
    )
