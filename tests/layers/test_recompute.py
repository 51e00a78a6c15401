import keras
import numpy as np
import pytest
from keras import ops

from bertkeras import BertBackbone, BertConfig
from bertkeras.layers.recompute import Savings, saving
from tests.checks import gradients, numpy, randomize

CONFIG = BertConfig(31, 3, 12, 2, 20, 9, dropout=0.3, attention_dropout=0.3)
RNG = np.random.default_rng(0)
INPUTS = {
    "token_ids": RNG.integers(0, 31, (4, 9)).astype("int32"),
    "padding_mask": np.arange(9) < RNG.integers(5, 10, (4, 1)),
}
POSITIONS = RNG.integers(0, 5, (4, 3)).astype("int32")
TARGET = RNG.normal(size=(4, 3, 12)).astype("float32")


def small_backbone(frozen=(), **options):
    keras.utils.set_random_seed(0)
    backbone = BertBackbone(CONFIG, with_pooler=False, **options)
    randomize(backbone)
    for block in frozen:
        backbone.encoder_blocks[block].trainable = False
    return backbone


def train_once(on, **options):
    backbone = small_backbone(**options)

    def loss():
        with saving(Savings(on)):
            outputs = backbone(INPUTS, output_positions=POSITIONS, training=True)["sequence_output"]
        return ops.sum(ops.multiply(ops.cast(outputs, "float32"), ops.convert_to_tensor(TARGET)))

    found = gradients(loss, backbone.trainable_variables)
    return found, [numpy(v) for v in backbone.non_trainable_variables if "seed" in v.path]


@pytest.mark.parametrize("options", [{}, {"frozen": (1,)}, {"dtype": "mixed_bfloat16"}])
def test_the_gradients_are_those_of_kept_activations(options):
    """With dropout, whose masks must be the same in both passes, and with one draw of each layer's seed."""
    (kept, seeds), (again, other_seeds) = train_once(False, **options), train_once(True, **options)
    assert max(np.abs(gradient).max() for gradient in kept) > 0.1
    for one, other in zip(kept, again, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=0.1 if "dtype" in options else 1e-5)
    np.testing.assert_array_equal(other_seeds, seeds)


def test_each_block_runs_again_in_the_backward_pass(monkeypatch):
    if keras.backend.backend() == "jax":
        pytest.skip("JAX repeats the program, not the call")
    calls = []
    block = BertBackbone(CONFIG).encoder_blocks[0].__class__
    plain = block.call
    monkeypatch.setattr(block, "call", lambda self, *a, **k: (calls.append(self.name), plain(self, *a, **k))[1])
    train_once(True)
    assert sorted(calls) == ["encoder_0"] * 2 + ["encoder_1"] * 2 + ["encoder_2"] * 2


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="XLA's account of memory, as JAX gives it")
def test_xla_needs_less_memory():
    import jax

    from bertkeras import BertPretrainer

    config = BertConfig(31, 6, 32, 2, 128, 64)
    inputs = {"token_ids": np.ones((16, 64), "int32"), "mask_positions": np.ones((16, 2), "int32")}

    def temporaries(on):
        model = BertPretrainer(config, next_sentence=False)

        def loss(trainable, fixed):
            with saving(Savings(on)):
                outputs, _ = model.stateless_call(trainable, fixed, inputs, training=True)
            return ops.sum(outputs["mlm_logits"])

        values = [[v.value for v in part] for part in (model.trainable_variables, model.non_trainable_variables)]
        return jax.jit(jax.grad(loss)).lower(*values).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(True) < 0.6 * temporaries(False)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX alone")
def test_jax_s_own_checkpoint_which_accelerators_take(monkeypatch):
    import jax

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    (kept, seeds), (again, other_seeds) = train_once(False), train_once(True)
    for one, other in zip(kept, again, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(other_seeds, seeds)


def test_nothing_changes_without_training():
    backbone = small_backbone()
    with saving(Savings(True)):
        inside = numpy(backbone(INPUTS, training=False)["sequence_output"])
    np.testing.assert_array_equal(inside, numpy(backbone(INPUTS, training=False)["sequence_output"]))
