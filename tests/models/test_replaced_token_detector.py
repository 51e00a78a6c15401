import keras
import numpy as np
import pytest

from bertkeras import BertBackbone, BertKerasError, BertReplacedTokenDetector
from tests.checks import numpy, randomize, small_config

ROWS, LENGTH = 4, 9


def some_rows(seed=0):
    """Masked rows, their labels among the inputs; the last row has padding and fewer blanks."""
    rng = np.random.default_rng(seed)
    config = small_config()
    original = rng.integers(5, config.vocabulary_size, (ROWS, LENGTH), dtype="int32")
    positions = np.stack([rng.permutation(7)[:3] for _ in range(ROWS)]).astype("int32")
    weights = np.ones((ROWS, 3), "float32")
    weights[-1, 2] = 0
    positions[-1, 2] = 0
    labels = np.take_along_axis(original, positions, axis=1)
    ids = original.copy()
    for row, place in np.ndindex(ROWS, 3):
        if weights[row, place]:
            ids[row, positions[row, place]] = 4
    mask = np.ones((ROWS, LENGTH), bool)
    mask[-1, 7:] = False
    return original, {
        "token_ids": ids,
        "segment_ids": np.zeros_like(ids),
        "padding_mask": mask,
        "mask_positions": positions,
        "mlm_labels": labels,
        "mlm_weights": weights,
    }


def test_only_blanks_are_filled_and_only_other_pieces_count_as_replaced():
    model = BertReplacedTokenDetector(small_config(), seed=3)
    randomize(model)
    original, inputs = some_rows()
    seen = {}
    call = model.backbone.call
    model.backbone.call = lambda inputs, **options: seen.update(inputs) or call(inputs, **options)
    outputs = model(inputs)
    filled, is_blank = numpy(seen["token_ids"]), inputs["token_ids"] == 4
    np.testing.assert_array_equal(filled[~is_blank], original[~is_blank])
    np.testing.assert_array_equal(numpy(outputs["is_replaced"]), filled != original)
    assert tuple(outputs["detection_logits"].shape) == (ROWS, LENGTH)
    assert tuple(outputs["mlm_logits"].shape) == (ROWS, 3, small_config().vocabulary_size)


def test_fillings_are_drawn_by_their_probabilities():
    model = BertReplacedTokenDetector(small_config(), seed=3)
    logits = np.log(np.array([0.5, 0.3, 0.2], "float32"))
    drawn = numpy(model._drawn(np.tile(logits, (3000, 1, 1))))
    shares = np.bincount(drawn.ravel(), minlength=3) / 3000
    # 3 standard deviations of a share of 3,000 draws are 0.027
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.03)


def test_the_loss_is_that_of_both():
    model = BertReplacedTokenDetector(small_config(), detection_weight=7.0, seed=3)
    randomize(model)
    _, inputs = some_rows()
    outputs = model(inputs)
    found = float(numpy(model.compute_loss(inputs, None, outputs)))
    logits = numpy(outputs["mlm_logits"]).astype("float64")
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_probs, inputs["mlm_labels"][..., None], axis=-1)[..., 0]
    mlm = -(picked * inputs["mlm_weights"]).sum() / 11
    scores, replaced, mask = numpy(outputs["detection_logits"]), numpy(outputs["is_replaced"]), inputs["padding_mask"]
    detection = np.log1p(np.exp(np.where(replaced, -scores, scores)))[mask].mean()
    assert found == pytest.approx(mlm + 7 * detection, rel=1e-4)
    assert [float(numpy(tracker.result())) for tracker in model.trackers] == pytest.approx(
        [mlm, detection, ((scores > 0) == replaced)[mask].mean()], rel=1e-4
    )


def test_it_learns():
    keras.utils.set_random_seed(0)
    model = BertReplacedTokenDetector(small_config(), generator_layers=1)
    model.compile(keras.optimizers.Adam(0.01), jit_compile=keras.backend.backend() == "jax")
    _, inputs = some_rows()
    history = model.fit(inputs, inputs["mlm_labels"], batch_size=ROWS, epochs=80, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert np.mean(history["detection_accuracy"][-5:]) > 0.9


def test_files(tmp_path):
    model = BertReplacedTokenDetector(small_config(), generator_layers=2, detection_weight=3.0)
    randomize(model)
    model.save_to_preset(tmp_path / "preset")
    again = BertReplacedTokenDetector.from_preset(tmp_path / "preset")
    assert (again.generator_layers, again.detection_weight) == (2, 3.0)
    names = {*model.canonical_weights()}
    assert {"generator_1/attention/qkv/kernel", "detector/kernel", "backbone/embeddings/token_table"} <= names
    for name, weight in again.canonical_weights().items():
        np.testing.assert_array_equal(numpy(weight), numpy(model.canonical_weights()[name]))
    backbone = BertBackbone.from_preset(tmp_path / "preset", with_pooler=False)
    np.testing.assert_array_equal(numpy(backbone.token_table), numpy(model.backbone.token_table))


def test_bad_options():
    for options in ({"generator_layers": 0}, {"detection_weight": 0.0}):
        with pytest.raises(BertKerasError, match="must be positive"):
            BertReplacedTokenDetector(small_config(), **options)
