"""Checks that every layer and every model must pass."""

import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.text import WordPieceTokenizer

# `jit_compile` where either will do: TensorFlow starts sooner without XLA, JAX with it, because it compiles either way
JIT = keras.backend.backend() == "jax"


def numpy(value):
    """A tensor of any dtype as NumPy, bfloat16 as float32."""
    value = ops.convert_to_tensor(value)
    if keras.backend.standardize_dtype(value.dtype) == "bfloat16":
        value = ops.cast(value, "float32")
    return ops.convert_to_numpy(value)


def flat(outputs):
    return [numpy(output) for output in keras.tree.flatten(outputs)]


def randomize(layer, seed=11, scale=0.3):
    """Draw every weight, so that no bias is 0 and no gamma is 1."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        centre = 1.0 if weight.path.endswith("gamma") else 0.0
        weight.assign(centre + scale * rng.normal(size=weight.shape))


def gradients(loss_of, variables):
    """The derivatives of `loss_of()`, dense NumPy arrays, on every backend; zeros where nothing arrives."""
    values = [variable.value for variable in variables]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = loss_of()
        found = tape.gradient(loss, values, unconnected_gradients="zero")
        return [numpy(tf.convert_to_tensor(gradient)) for gradient in found]
    if keras.backend.backend() == "torch":
        import torch

        found = torch.autograd.grad(loss_of(), values, allow_unused=True)
        return [
            np.zeros(value.shape, "float32") if gradient is None else numpy(gradient)
            for gradient, value in zip(found, values, strict=True)
        ]
    import jax

    def stateless(values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return loss_of()

    return [numpy(gradient) for gradient in jax.jit(jax.grad(stateless))(values)]


def compiled(function):
    """On JAX, which would compile each operation for each shape, the function under `jax.jit`; else as it is."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function)


def check_constructor(cls, arguments):
    """`get_config` and `from_config` keep every argument of the constructor, and JSON can write them."""
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD
    }
    assert set(arguments) == set(parameters), "give every constructor argument"
    for name, parameter in parameters.items():
        assert arguments[name] != parameter.default, f"give {name} another value than its default"
    layer = cls(**arguments, name="another_name", trainable=False, dtype="mixed_bfloat16")
    config = layer.get_config()
    assert {name: config[name] for name in arguments} == arguments
    again = cls.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert (again.name, again.trainable, again.dtype_policy.name) == ("another_name", False, "mixed_bfloat16")


def functional(layer, inputs, **options):
    """The layer as a functional model, with every size unknown but the widths of float inputs."""
    symbols = {
        name: keras.Input(
            batch_shape=(*[None] * (value.ndim - 1), value.shape[-1] if value.dtype.kind == "f" else None),
            dtype=value.dtype.name,
            name=name,
        )
        for name, value in inputs.items()
    }
    first, *others = symbols
    outputs = layer(symbols[first], **{name: symbols[name] for name in others}, **options)
    return keras.Model(symbols, outputs)


def check_files(model, inputs, folder):
    """`.keras` and `.weights.h5` keep every bit of the outputs."""
    expected = flat(model(inputs))
    model.save(folder / "model.keras")
    again = keras.models.load_model(folder / "model.keras")
    for output, value in zip(flat(again(inputs)), expected, strict=True):
        np.testing.assert_array_equal(output, value)
    model.save_weights(folder / "model.weights.h5")
    fresh = model.__class__.from_config(model.get_config())
    assert any(not np.array_equal(a, b) for a, b in zip(flat(fresh(inputs)), expected, strict=True))
    fresh.load_weights(folder / "model.weights.h5")
    for output, value in zip(flat(fresh(inputs)), expected, strict=True):
        np.testing.assert_array_equal(output, value)


def check_modes(model, symbolic, inputs, jit=True):
    """Symbolic, eager and compiled calls agree in shape, dtype and value."""
    eager = model(inputs)
    for symbol, tensor in zip(keras.tree.flatten(symbolic), keras.tree.flatten(eager), strict=True):
        assert len(symbol.shape) == len(tensor.shape)
        for known, size in zip(symbol.shape, tensor.shape, strict=True):
            assert known in (None, size), (symbol.shape, tensor.shape)
        assert keras.backend.standardize_dtype(tensor.dtype) == symbol.dtype
    if keras.backend.backend() == "torch":
        return  # torch.compile takes minutes for what the eager call already shows
    for jit_compile in {False, jit}:
        model.compile(jit_compile=jit_compile)
        for output, value in zip(flat(model.predict_on_batch(inputs)), flat(eager), strict=True):
            np.testing.assert_allclose(output, value, rtol=1e-5, atol=1e-5)


def check_layer(cls, arguments, inputs, folder):
    """All that holds for every layer.

    Args:
        cls: The layer's class.
        arguments: Every constructor argument, none with its default value.
        inputs: Call arguments by name, NumPy arrays, the first one first.
        folder: Where files may be written.
    """
    check_constructor(cls, arguments)

    layer = cls(**arguments)
    model = functional(layer, inputs)
    randomize(layer)
    check_files(model, inputs, folder)
    check_modes(model, model.outputs[0], inputs)

    expected = flat(model(inputs))
    if all(value.dtype.kind != "f" or value.ndim < 3 for value in inputs.values()) or len(inputs) == 1:
        shape = layer.compute_output_shape(next(iter(inputs.values())).shape)
        assert tuple(shape) == expected[0].shape

    half = cls(**arguments, dtype="mixed_bfloat16")
    half_model = functional(half, inputs)
    assert {part.dtype_policy.name for part in half._flatten_layers()} == {"mixed_bfloat16"}
    assert {weight.dtype for weight in half.weights} == {"float32"}
    half.set_weights(layer.get_weights())
    assert keras.backend.standardize_dtype(half_model(inputs).dtype) == "bfloat16" == half_model.outputs[0].dtype
    for output, value in zip(flat(half_model(inputs)), expected, strict=True):
        assert np.isfinite(output).all()
        np.testing.assert_allclose(output, value, rtol=0.05, atol=0.05 * np.abs(value).max())

    before = layer.get_weights()
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    model.train_on_batch(inputs, np.random.default_rng(13).normal(size=expected[0].shape).astype("float32"))
    for weight, old in zip(layer.weights, before, strict=True):
        new = numpy(weight)
        assert np.isfinite(new).all(), f"{weight.path} is not finite after a step"
        assert not np.array_equal(new, old), f"a training step left {weight.path} as it was"


def check_dropout(make, inputs, options=None):
    """No dropout in inference; in training it differs from call to call, and the same seed gives the same.

    Args:
        make: Builds the layer with dropout, given a seed.
        inputs: Call arguments by name, the first one first.
    """
    first, *others = inputs
    call = {name: inputs[name] for name in others}

    def run(layer, training):
        return flat(layer(inputs[first], **call, training=training))[0]

    layer = make(seed=0)
    calm = run(layer, False)
    np.testing.assert_array_equal(run(layer, False), calm)
    weights = layer.get_weights()
    states = [numpy(variable) for variable in layer.non_trainable_variables]
    one, two = run(layer, True), run(layer, True)
    assert not np.array_equal(one, calm)
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(run(layer, False), calm)

    again = make(seed=0)
    run(again, False)
    again.set_weights(weights)
    for variable, state in zip(again.non_trainable_variables, states, strict=True):
        np.testing.assert_array_equal(numpy(variable), state)
    np.testing.assert_array_equal(run(again, True), one)
    np.testing.assert_array_equal(run(again, True), two)

    other = make(seed=1)
    run(other, False)
    other.set_weights(weights)
    assert not np.array_equal(run(other, True), one)


def check_attention_masks(make, hidden_dim, num_heads):
    """Masks of rank 2, 3 and 4 hide what they say, wrong ones are errors, and empty rows are zeros, never NaN.

    Args:
        make: Builds the layer, given a dtype.
        hidden_dim: Width of the input.
        num_heads: Heads, for the mask of rank 4.
    """
    batch, length = 2, 5
    rng = np.random.default_rng(17)
    x = rng.normal(size=(batch, length, hidden_dim)).astype("float32")
    padding = np.array([[1, 1, 1, 0, 1], [1, 0, 1, 1, 1]], bool)
    square = np.broadcast_to(padding[:, None, :], (batch, length, length))
    layer = make("float32")
    layer(x)
    randomize(layer)

    whole = numpy(layer(x, attention_mask=padding))
    hidden = x.copy()
    hidden[~padding] += 100.0
    np.testing.assert_allclose(
        numpy(layer(hidden, attention_mask=padding))[padding], whole[padding], rtol=1e-5, atol=1e-5
    )
    assert not np.allclose(numpy(layer(x))[padding], whole[padding], rtol=1e-3, atol=1e-3)

    for same in (square, square[:, None], np.broadcast_to(square[:, None], (batch, num_heads, length, length))):
        np.testing.assert_allclose(numpy(layer(x, attention_mask=np.array(same))), whole, rtol=1e-5, atol=1e-5)

    causal = np.broadcast_to(np.tril(np.ones((length, length), bool)), (batch, length, length)).copy()
    seen = numpy(layer(x, attention_mask=causal))
    changed = x.copy()
    changed[:, 3:] += 100.0
    again = numpy(layer(changed, attention_mask=causal))
    np.testing.assert_allclose(again[:, :3], seen[:, :3], rtol=1e-5, atol=1e-5)
    assert not np.allclose(again[:, 3:], seen[:, 3:], atol=1e-2)

    one_head = np.ones((batch, num_heads, length, length), bool)
    one_head[:, 1] = causal
    assert not np.allclose(numpy(layer(x, attention_mask=one_head)), numpy(layer(x)), atol=1e-3)
    assert not np.allclose(numpy(layer(x, attention_mask=one_head)), seen, atol=1e-3)

    for wrong, message in (
        (padding.astype("int32"), r"int32 of shape \(2, 5\)"),
        (padding.astype("float32"), r"float32 of shape \(2, 5\)"),
        (padding[0], r"bool of shape \(5,\)"),
        (square[:, None, None], r"bool of shape \(2, 1, 1, 5, 5\)"),
    ):
        with pytest.raises(BertKerasError, match=message):
            layer(x, attention_mask=ops.convert_to_tensor(np.array(wrong)))

    empty = padding.copy()
    empty[1] = False
    some = square.copy()
    some[0, 2] = False
    per_head = np.ones((batch, num_heads, length, length), bool)
    per_head[1, 2, 3] = False
    for dtype in ("float32", "mixed_bfloat16", "bfloat16"):
        part = make(dtype)
        part(x)
        randomize(part)
        for mask in (empty, some, per_head):
            assert np.isfinite(numpy(part(x, attention_mask=mask))).all()

            def loss_of(part=part, mask=mask):
                return ops.mean(ops.square(ops.cast(part(x, attention_mask=mask, training=True), "float32")))

            for gradient in gradients(loss_of, part.trainable_variables):
                assert np.isfinite(gradient).all()


def small_config(**changes):
    """A BERT whose every size is another prime, or 3 times one."""
    sizes = {
        "vocabulary_size": 37,
        "num_layers": 2,
        "hidden_dim": 21,
        "num_heads": 3,
        "intermediate_dim": 13,
        "max_sequence_length": 11,
        "num_segments": 2,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation": "gelu_tanh",
        "layer_norm_epsilon": 0.001,
    }
    return BertConfig(**{**sizes, **changes})


def small_batch(config, batch=5, length=7, predictions=3, seed=0):
    """Rows of different lengths with two segments, and labels with different counts: inputs and labels."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(predictions, length + 1, batch)
    lengths[0], lengths[1] = length, predictions
    positions = np.stack([rng.permutation(size)[:predictions] for size in lengths])
    counts = np.arange(batch) % (predictions + 1)
    inputs = {
        "token_ids": rng.integers(0, config.vocabulary_size, (batch, length)),
        "segment_ids": (np.arange(length) >= lengths[:, None] // 2).astype("int32"),
        "padding_mask": np.arange(length) < lengths[:, None],
        "mask_positions": positions,
    }
    labels = {
        "mlm_labels": rng.integers(0, config.vocabulary_size, (batch, predictions)),
        "mlm_weights": (np.arange(predictions) < counts[:, None]).astype("float32"),
        "nsp_labels": rng.integers(0, 2, batch),
    }
    return (
        {name: value if value.dtype == bool else value.astype("int32") for name, value in inputs.items()},
        {name: value if value.dtype.kind == "f" else value.astype("int32") for name, value in labels.items()},
    )


def small_tokenizer():
    words = ["the", "cat", "dog", "sat", "ran", "on", "mat", "##s", "##ning", "."]
    return WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])


def check_model(cls, options, inputs, folder):
    """What holds for every model: configuration, files, symbolic = eager = compiled, and mixed bfloat16."""
    config = small_config(dropout=0.11, norm_first=True)
    model = cls(config, **options, tokenizer=small_tokenizer(), name="mine")
    randomize(model)
    saved = json.loads(json.dumps(model.get_config()))
    again = cls.from_config(saved)
    assert (again.name, again.config, again.tokenizer) == ("mine", config, small_tokenizer())
    for name, value in options.items():
        assert getattr(again, name) == value
    assert again.get_config() == model.get_config()
    check_files(model, inputs, folder)
    loaded = keras.models.load_model(folder / "model.keras")
    assert (loaded.config, loaded.tokenizer) == (config, small_tokenizer())

    symbols = {
        name: keras.Input((*[None] * (value.ndim - 1),), dtype=value.dtype.name) for name, value in inputs.items()
    }
    check_modes(model, keras.tree.flatten(model(symbols)), inputs)
    shapes = model.compute_output_shape({name: value.shape for name, value in inputs.items()})
    outputs = model(inputs)
    assert keras.tree.map_structure(lambda value: tuple(value.shape), outputs) == shapes

    half = cls(config, **options, dtype="mixed_bfloat16")
    assert {part.dtype_policy.name for part in half._flatten_layers()} == {"mixed_bfloat16"}
    assert {weight.dtype for weight in half.weights} == {"float32"}
    half.set_weights(model.get_weights())
    for output, value in zip(flat(half(inputs)), flat(outputs), strict=True):
        assert np.isfinite(output).all()
        np.testing.assert_allclose(output, value, atol=0.08 * np.abs(value).max())
    assert cls.from_config(half.get_config()).dtype_policy.name == "mixed_bfloat16"
