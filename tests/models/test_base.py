import numpy as np
import pytest

from bertkeras.errors import BertKerasError
from bertkeras.models import BertBackbone, BertMaskedLM, BertPretrainer, BertSeq2Seq
from tests.checks import numpy, randomize, small_config, small_tokenizer

MODELS = [BertBackbone, BertMaskedLM, BertPretrainer, BertSeq2Seq]


@pytest.mark.parametrize("cls", MODELS)
def test_the_configuration_may_be_a_dictionary(cls):
    config = small_config()
    assert cls(config.to_dict()).config == config
    with pytest.raises(BertKerasError, match="unknown BertConfig option width"):
        cls({**config.to_dict(), "width": 3})


@pytest.mark.parametrize("cls", MODELS)
def test_a_tokenizer_with_more_pieces_than_the_table(cls):
    with pytest.raises(BertKerasError, match="the tokenizer has 15 pieces but the model only 14"):
        cls(small_config(vocabulary_size=14), tokenizer=small_tokenizer())
    assert cls(small_config(vocabulary_size=15), tokenizer=small_tokenizer()).tokenizer == small_tokenizer()


def test_canonical_names():
    names = BertPretrainer(small_config(num_layers=1)).canonical_weights()
    layers = {
        "backbone/embeddings/": ["token_table", "position_table", "segment_table"],
        "backbone/encoder_0/attention/qkv/": ["kernel", "bias"],
        "backbone/encoder_0/attention/output/": ["kernel", "bias"],
        "backbone/encoder_0/feed_forward/expand/": ["kernel", "bias"],
        "backbone/encoder_0/feed_forward/contract/": ["kernel", "bias"],
        "backbone/pooler/": ["kernel", "bias"],
        "mlm_head/": ["output_bias"],
        "mlm_head/transform/": ["kernel", "bias"],
        "nsp_head/scores/": ["kernel", "bias"],
    }
    norms = ["backbone/embeddings/layer_norm/", "mlm_head/layer_norm/"]
    norms += ["backbone/encoder_0/attention_norm/", "backbone/encoder_0/feed_forward_norm/"]
    expected = {prefix + name for prefix, names in layers.items() for name in names}
    assert set(names) == expected | {prefix + name for prefix in norms for name in ("gamma", "beta")}


@pytest.mark.parametrize("name", [None, "my_backbone", "mlm_head", "embeddings", "encoder_0", "my_pooler"])
@pytest.mark.parametrize("cls", MODELS)
def test_canonical_names_do_not_depend_on_the_model_s_name(cls, name):
    usual, named = cls(small_config(norm_first=True)), cls(small_config(norm_first=True), name=name)
    assert list(named.canonical_weights()) == list(usual.canonical_weights())
    assert len(usual.canonical_weights()) == len(usual.weights)


def test_the_backbone_has_the_same_names_alone_and_inside():
    alone, inside = BertBackbone(small_config()).canonical_weights(), BertPretrainer(small_config()).canonical_weights()
    assert set(alone) == {name for name in inside if name.startswith("backbone/")}


def test_assign_weights_says_what_is_missing_and_changes_nothing_then():
    model = BertMaskedLM(small_config())
    arrays = {name: np.full(value.shape, 3.0, "float32") for name, value in model.canonical_weights().items()}
    kept = model.get_weights()
    wrong = {**arrays, "mlm_head/output_bias": np.zeros(38, "float32")}
    with pytest.raises(BertKerasError, match=r"^here: mlm_head/output_bias has shape \(38,\), the model needs \(37,\)"):
        model.assign_weights(wrong, "here")
    missing = {name: value for name, value in arrays.items() if "mlm_head" not in name}
    with pytest.raises(BertKerasError, match=r"^here: no weights for mlm_head/.* and others; .*make a BertMaskedLM"):
        model.assign_weights(missing, "here")
    for weight, value in zip(model.weights, kept, strict=True):
        np.testing.assert_array_equal(numpy(weight), value)
    model.assign_weights({**arrays, "nsp_head/scores/kernel": np.zeros(3)}, "here")
    assert all((numpy(weight) == 3).all() for weight in model.weights)


def test_a_student_has_copies_of_the_blocks_it_was_given():
    deep = BertMaskedLM(small_config(num_layers=3), tokenizer=small_tokenizer())
    randomize(deep)
    shallow = deep.with_layers([2, 0])
    theirs, ours = deep.canonical_weights(), shallow.canonical_weights()
    assert shallow.config.num_layers == 2
    assert shallow.tokenizer == deep.tokenizer
    assert {name.split("/")[1] for name in ours if "encoder_" in name} == {"encoder_0", "encoder_1"}
    for name, weight in ours.items():
        source = (
            name.replace("encoder_0/", "encoder_2/")
            if "encoder_0/" in name
            else name.replace("encoder_1/", "encoder_0/")
        )
        np.testing.assert_array_equal(numpy(weight), numpy(theirs[source]))
        assert weight is not theirs[source]
    for layers in ([], [3], [-1]):
        with pytest.raises(BertKerasError, match="layers must be some of 0 to 2"):
            deep.with_layers(layers)
