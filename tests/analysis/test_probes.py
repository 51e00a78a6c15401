import numpy as np
import pytest

from bertkeras import BertBackbone, BertKerasError
from bertkeras.analysis import head_targets, layer_probes, trace
from bertkeras.analysis.probes import word_positions
from bertkeras.datasets import TextExample, TokenExample
from tests.analysis.small import TOKENIZER, drawn

NOUNS, VERBS = ["cat", "dog", "mat", "nurse", "doctor"], ["sat", "ran"]


def sentences(count, seed):
    rng = np.random.default_rng(seed)
    return [
        TokenExample(("the", noun := str(rng.choice(NOUNS)), str(rng.choice(VERBS))), ("O", "B-person" if noun in (
            "nurse", "doctor") else "B-thing", "O"))
        for _ in range(count)
    ]  # fmt: skip


def test_what_hangs_on_the_word_is_read_from_every_layer():
    found = layer_probes(drawn(BertBackbone), sentences(60, 0), sentences(30, 1))
    assert found.accuracy.shape == (3,)
    assert (found.accuracy > 0.99).all()
    assert (found.control > 0.9).all()  # each word has one label there as well: it is learnt by heart
    np.testing.assert_allclose(found.selectivity, found.accuracy - found.control)
    assert found.majority == pytest.approx(2 / 3, abs=0.01)


def test_of_texts_by_the_mean_of_their_vectors():
    def texts(seed):
        rng = np.random.default_rng(seed)
        return [TextExample(f"the {rng.choice(NOUNS)} {verb}", label=verb) for verb in rng.choice(VERBS, 40)]

    found = layer_probes(drawn(BertBackbone), texts(0), texts(1))
    assert (found.accuracy > 0.9).all()
    assert found.control is None
    with pytest.raises(BertKerasError, match="no control task"):
        found.selectivity  # noqa: B018


def test_of_pairs_of_texts():
    def pairs(seed):
        rng = np.random.default_rng(seed)
        return [TextExample("the cat", str(verb), label=str(verb)) for verb in rng.choice(VERBS, 20)]

    assert (layer_probes(drawn(BertBackbone), pairs(0), pairs(1)).accuracy == 1).all()


def test_words_are_found_by_their_first_piece():
    words = ["The", "dogs", "​", "sat", "她", "."]
    encoding = TOKENIZER.encode(" ".join(words))
    assert encoding.tokens == ["[CLS]", "the", "dog", "##s", "sat", "她", ".", "[SEP]"]
    assert word_positions(encoding, words) == [1, 2, None, 4, 5, 6]


def test_bad_examples_get_a_clear_answer():
    model = drawn(BertBackbone)
    some = [TextExample("the cat", label="a")]
    with pytest.raises(BertKerasError, match="examples to learn from"):
        layer_probes(model, [], some)
    with pytest.raises(BertKerasError, match="labels of two kinds"):
        layer_probes(model, some, some)
    with pytest.raises(BertKerasError, match="one label each"):
        layer_probes(model, [TextExample("the cat", label=("a", "b"))], some)


def test_heads_that_look_where_they_should():
    (found,) = trace(drawn(BertBackbone), "the cat sat on the mat")
    found.attention[:] = 0.01
    found.attention[:, :, :, 0] = 0.9  # [CLS], which does not count
    found.attention[1, 2, 3, 1] = found.attention[1, 2, 6, 5] = 0.5
    found.attention[0, 0, 3, 3] = 0.8  # itself, which does not count
    found.attention[0, 0, 3, 1] = 0.5
    shares, by_distance = head_targets([found], [[(3, 1), (6, 5)]])
    assert shares.shape == (2, 3)
    assert (shares[1, 2], shares[0, 0], by_distance) == (1, 0.5, 0.5)
    with pytest.raises(BertKerasError, match="a list of pairs for each trace"):
        head_targets([found], [])
