"""What learns, how fast and as what: by hand, and by looking at every weight after a step."""

import keras
import numpy as np
import pytest

from bertkeras.errors import BertKerasError
from bertkeras.models import BertTextClassifier, BertTextEmbedder, BertTokenClassifier
from bertkeras.text.tags import tag_names
from bertkeras.training.finetune_config import FinetuneConfig
from bertkeras.training.fitting import add_lora, freeze, layer_factors, merged
from bertkeras.training.optimizers import AdamW
from tests.checks import numpy, randomize, small_batch, small_config, small_tokenizer

needs_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the step is one of TensorFlow")


def tagger(**changes):
    model = BertTokenClassifier(small_config(**changes), 3, tag_names(["a"]), decoder="crf")
    randomize(model, scale=0.15)
    return model


def classifier(**changes):
    model = BertTextClassifier(small_config(vocabulary_size=15, **changes), 3, tokenizer=small_tokenizer())
    randomize(model, scale=0.15)
    return model


def batch_of(model):
    inputs, _ = small_batch(model.config)
    del inputs["mask_positions"]
    shape = inputs["token_ids"].shape if isinstance(model, BertTokenClassifier) else (5,)
    return inputs, np.random.default_rng(4).integers(0, 3, shape).astype("int32")


def values_of(model):
    return {name: numpy(value).copy() for name, value in model.canonical_weights().items()}


def stepped(model, optimizer, steps=2, **options):
    """The names of the weights that some steps change."""
    import tensorflow as tf

    from bertkeras.training.task_step import make_task_step

    before = values_of(model)
    step = make_task_step(model, optimizer, **options)
    for _ in range(steps):
        step(*tf.nest.map_structure(tf.convert_to_tensor, batch_of(model)))
    return {name for name, value in values_of(model).items() if not np.array_equal(value, before[name])}


def test_factors_by_hand():
    model = tagger()
    found = layer_factors(model, decay=0.5, head_factor=3.0, crf_factor=70.0)
    paths = {variable.path: name for name, variable in model.canonical_weights().items()}
    assert len(paths) == len(model.canonical_weights()), "every variable has a path of its own"
    by_name = {paths[path]: factor for path, factor in found.items()}
    for name in model.canonical_weights():
        if name.startswith("backbone/embeddings/"):
            expected = 0.25
        elif name.startswith("backbone/encoder_0/"):
            expected = 0.5
        elif name.startswith("backbone/encoder_1/"):
            expected = None  # 1: not named
        else:
            expected = 70.0 if name.startswith("crf/") else 3.0
        assert by_name.get(name) == expected, name
    assert layer_factors(model) == {}
    names = {paths[path] for path in layer_factors(model, crf_factor=100.0)}
    assert names == {"crf/transitions"}


def test_the_pooler_and_the_last_norm_learn_as_the_top_block():
    found = layer_factors(classifier(norm_first=True), decay=0.5)
    assert not [path for path in found if "pooler" in path or "final_norm" in path]


@needs_tensorflow
def test_layers_learn_at_their_rates():
    """Adam's first step has the length of the rate for every weight with a gradient far above epsilon."""
    model = tagger()
    before = values_of(model)
    factors = layer_factors(model, decay=0.5, head_factor=3.0, crf_factor=70.0)
    stepped(model, AdamW(1e-4, weight_decay=0.0, epsilon=1e-12, factors=factors), steps=1)
    for name, expected in {
        "backbone/embeddings/segment_table": 0.25,
        "backbone/encoder_0/attention/qkv/kernel": 0.5,
        "backbone/encoder_1/attention/qkv/kernel": 1.0,
        "classifier/kernel": 3.0,
        "crf/transitions": 70.0,
    }.items():
        moved = np.abs(values_of(model)[name] - before[name])
        assert np.median(moved[moved > 0]) == pytest.approx(1e-4 * expected, rel=0.01), name


@needs_tensorflow
def test_what_is_frozen_stays_bit_for_bit():
    model = tagger()
    freeze(model, layers=1, embeddings=True)
    changed = stepped(model, AdamW(1e-2, weight_decay=0.1))
    resting = ("backbone/embeddings/", "backbone/encoder_0/")
    assert changed == {name for name in model.canonical_weights() if not name.startswith(resting)}


def test_there_are_only_so_many_blocks_to_freeze():
    freeze(tagger(), layers=2)
    with pytest.raises(BertKerasError, match="freeze_layers=3, but the model has 2 encoder blocks"):
        freeze(tagger(), layers=3)


@needs_tensorflow
def test_only_low_rank_additions_pooler_and_head_learn():
    model = classifier(norm_first=True)
    add_lora(model, 2)
    changed = stepped(model, AdamW(1e-2, weight_decay=0.1))
    for name in model.canonical_weights():
        assert (name in changed) == ("lora_kernel" in name or not name.startswith(("backbone/e", "backbone/final")))
    kernels = [name for name in changed if name.endswith("lora_kernel_a")]
    assert len(kernels) == 2 * 4  # queries, keys and values; attention's output; twice feed-forward


@needs_tensorflow
def test_frozen_blocks_have_no_additions_that_learn():
    model = classifier()
    add_lora(model, 2)
    freeze(model, layers=1)
    changed = stepped(model, AdamW(1e-2, weight_decay=0.1))
    assert {name.split("/")[1] for name in changed if name.startswith("backbone/")} == {"encoder_1", "pooler"}


def test_additions_begin_at_nothing_and_come_into_the_kernels(tmp_path):
    model = classifier()
    inputs, _ = batch_of(model)
    before = numpy(model(inputs))
    add_lora(model, 2)
    np.testing.assert_array_equal(numpy(model(inputs)), before)
    for name, variable in model.canonical_weights().items():
        if "lora_kernel" in name:
            variable.assign(0.3 * np.random.default_rng(5).normal(size=variable.shape))
    model.temperature, model.model_card = 1.7, {"command": "make it"}
    expected = numpy(model(inputs))
    assert np.abs(expected - before).max() > 0.01

    plain = merged(model)
    np.testing.assert_allclose(numpy(plain(inputs)), expected, rtol=1e-5, atol=1e-5)
    assert set(plain.canonical_weights()) == set(classifier().canonical_weights())
    assert (plain.temperature, plain.model_card) == (1.7, {"command": "make it"})
    plain.save_to_preset(tmp_path)
    again = BertTextClassifier.from_preset(tmp_path)
    assert set(again.canonical_weights()) == set(plain.canonical_weights())
    np.testing.assert_array_equal(numpy(again(inputs)), numpy(plain(inputs)))


def gradient_by_tape(model, inputs, labels, of):
    """Of the loss in inference, which without dropout is that of training."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch([variable.value for variable in of])
        loss = model.compute_loss(inputs, labels, model(inputs), None)
    found = tape.gradient(loss, [variable.value for variable in of], unconnected_gradients="zero")
    return [np.array(tf.convert_to_tensor(gradient), "float64") for gradient in found]


@pytest.mark.parametrize("frozen", [False, True])
@needs_tensorflow
def test_the_adversarial_gradient(frozen):
    """Gradients at the text and at the text disturbed by a step of length 0.7, added; the table as it was, bit for
    bit."""
    import tensorflow as tf

    from bertkeras.training.task_step import make_task_step

    model = classifier()
    freeze(model, embeddings=frozen)
    table, learning = model.backbone.embeddings.token_table, model.trainable_variables
    inputs, labels = tf.nest.map_structure(tf.convert_to_tensor, batch_of(model))
    start, undisturbed = [numpy(variable).copy() for variable in learning], numpy(table).copy()
    first = gradient_by_tape(model, inputs, labels, learning)
    (slope,) = gradient_by_tape(model, inputs, labels, [table])
    table.assign(undisturbed + 0.7 * slope / np.linalg.norm(slope))
    second = gradient_by_tape(model, inputs, labels, learning)
    table.assign(undisturbed)
    assert max(np.abs(one - two).max() for one, two in zip(first, second, strict=True)) > 0.01

    make_task_step(model, keras.optimizers.SGD(1.0), adversarial=0.7)(inputs, labels)
    for variable, value, one, two in zip(learning, start, first, second, strict=True):
        np.testing.assert_allclose(value - numpy(variable), one + two, rtol=1e-4, atol=1e-5, err_msg=variable.path)
    if frozen:
        np.testing.assert_array_equal(numpy(table), undisturbed)


@needs_tensorflow
def test_a_step_returns_the_loss_under_weights():
    import tensorflow as tf

    from bertkeras.training.task_step import make_task_step

    model = classifier()
    inputs, labels = tf.nest.map_structure(tf.convert_to_tensor, batch_of(model))
    weights = np.array([1, 0, 3, 0.5, 0], "float32")
    logits = numpy(model(inputs)).astype("float64")
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(5), labels]
    step = make_task_step(model, keras.optimizers.SGD(0.0))
    assert float(step(inputs, labels)) == pytest.approx(losses.mean(), rel=1e-5)
    assert float(step(inputs, labels, tf.constant(weights))) == pytest.approx((losses * weights).sum() / 4.5, rel=1e-5)


def test_a_model_without_a_head_has_factors_too():
    model = BertTextEmbedder(small_config())
    assert set(layer_factors(model, 0.5).values()) == {0.25, 0.5}


@pytest.mark.parametrize(
    ("task", "given", "rate"),
    [("classification", None, 1.0), ("entities", None, 10.0), ("multi-label", None, 10.0), ("entities", 2.5, 2.5)],
)
def test_a_head_that_mostly_says_no_learns_faster(task, given, rate):
    assert FinetuneConfig(train="a.tsv", task=task, head_factor=given).head_rate() == rate


def test_learning_rate_goes_by_the_width():
    config = FinetuneConfig(train="a.tsv")
    assert [config.peak(width) for width in (768, 384, 128)] == pytest.approx([5e-5, 2e-4, 5e-4])
    assert FinetuneConfig(train="a.tsv", learning_rate=3e-5).peak(384) == 3e-5
