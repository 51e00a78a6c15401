import logging

import numpy as np
import pytest
from keras import ops

from bertkeras import BertKerasError, BertMaskedLM, BertTextClassifier, BertTokenClassifier
from bertkeras.analysis import Explainer
from tests.analysis.small import TOKENIZER, drawn
from tests.checks import numpy

TEXT = "the cat sat on the mat, he ran."


def classifier(task="single_label", scale=0.3, **options):
    return drawn(BertTextClassifier, 3, labels=["a", "b", "c"], task=task, scale=scale, **options)


@pytest.mark.parametrize("text", [TEXT, "dog", "他是医生"])
@pytest.mark.parametrize("baseline", ["[MASK]", "[PAD]"])
def test_integrated_gradients_sum_to_what_the_text_does(text, baseline):
    explainer = Explainer(classifier(scale=0.15), text, target="b")
    found = explainer.integrated_gradients(baseline=baseline)
    assert found.completeness_error < 0.01
    logits = explainer.model.logits_of(text)[0].astype("float64")
    assert found.value == pytest.approx(logits[1] - np.logaddexp(logits[0], logits[2]), abs=1e-4)
    assert found.scores.sum() == pytest.approx(found.value - found.baseline_value, rel=0.011)
    assert found.scores[0] == found.scores[-1] == 0  # [CLS] and [SEP] are in the baseline too
    assert found.tokens[0] == "[CLS]"


def test_more_steps_where_few_do_not_do(caplog):
    explainer = Explainer(classifier(scale=1.0), TEXT, target=0)
    exact = explainer.integrated_gradients(tolerance=1e-3, max_steps=4096)
    assert exact.completeness_error <= 1e-3
    with caplog.at_level(logging.WARNING, "bertkeras"):
        rough = explainer.integrated_gradients(steps=1, tolerance=1e-9, max_steps=1)
    assert "raise max_steps" in caplog.text
    assert rough.completeness_error > exact.completeness_error


def test_the_gradient_is_that_of_the_log_odds():
    """Against differences: each vector a little longer and shorter along itself."""
    explainer = Explainer(classifier(scale=0.15), "the cat sat", target="c")
    found = explainer.gradient_times_input()
    vectors = explainer.vectors_of(explainer.ids)
    for place in range(len(vectors)):
        values = []
        for sign in (1, -1):
            moved = vectors.copy()
            moved[place] *= 1 + 0.01 * sign
            inputs = {**explainer._inputs(explainer.ids[None]), "token_vectors": moved[None]}
            values.append(float(numpy(explainer.objective(explainer.model(inputs)))[0]))
        assert found.scores[place] == pytest.approx((values[0] - values[1]) / 0.02, abs=2e-3)
    with pytest.raises(BertKerasError, match="sum to nothing"):
        found.completeness_error  # noqa: B018


def test_vectors_of_the_table_change_nothing():
    explainer = Explainer(classifier(), TEXT)
    inputs = explainer._inputs(explainer.ids[None])
    with_vectors = {**inputs, "token_vectors": explainer.vectors_of(explainer.ids)[None]}
    np.testing.assert_array_equal(numpy(explainer.model(with_vectors)), numpy(explainer.model(inputs)))


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_a_logit_alone_is_explained_where_labels_do_not_compete(task):
    explainer = Explainer(classifier(task), TEXT, target="b")
    assert explainer.values(explainer.ids[None])[0] == pytest.approx(explainer.model.logits_of(TEXT)[0][1], abs=1e-5)


def test_pairs_and_the_likeliest_label():
    model = classifier()
    explainer = Explainer(model, "the cat sat", "he ran")
    assert explainer.target == model.classify("the cat sat", "he ran")[0].labels[0]
    logits = model.logits_of("the cat sat", "he ran")[0]
    assert explainer.values(explainer.ids[None])[0] == pytest.approx(
        logits.max() - np.log(np.exp(np.delete(logits, logits.argmax())).sum()), abs=1e-4
    )


def test_a_blank_is_explained():
    model = drawn(BertMaskedLM, scale=0.15)
    text = "the [MASK] sat on the mat"
    explainer = Explainer(model, text)
    best = model.fill_mask(text, top_k=1)[0][0][0]
    assert explainer.target == best.token
    value = explainer.values(explainer.ids[None])[0]
    assert 1 / (1 + np.exp(-value)) == pytest.approx(best.probability, abs=1e-5)
    found = explainer.integrated_gradients(tolerance=0.005)
    assert found.completeness_error < 0.005
    assert found.scores[explainer.blank] == 0
    assert explainer.attention().scores.sum() == pytest.approx(1, abs=1e-5)
    assert Explainer(model, text, target="dog").target == "dog"


def test_any_model_with_an_objective():
    model = drawn(BertTokenClassifier, 5, ["O", "B-a", "I-a", "B-b", "I-b"])
    explainer = Explainer(
        model, TEXT, target="B-a at 2", objective=lambda outputs: ops.cast(outputs[:, 2, 1], "float32")
    )
    assert explainer.integrated_gradients().completeness_error < 0.01
    assert explainer.target == "B-a at 2"


def test_deletion_follows_the_scores():
    explainer = Explainer(classifier(), "the cat sat", target="a")
    scores = np.array([9.0, 1.0, 3.0, 2.0, 9.0])  # [CLS] the cat sat [SEP]
    curve = explainer.deletion_curve(scores)
    rows = ["the cat sat", "the [MASK] sat", "the [MASK] [MASK]", "[MASK] [MASK] [MASK]"]
    ids = [TOKENIZER.encode(row, special_tokens_in_text=True).ids for row in rows]
    np.testing.assert_array_equal(curve, explainer.values(np.array(ids)))
    assert curve[0] == pytest.approx(explainer.integrated_gradients().value, abs=1e-4)
    with pytest.raises(BertKerasError, match="scores must be \\(5,\\)"):
        explainer.deletion_curve(scores[1:])


def test_attention_of_the_first_position():
    explainer = Explainer(classifier(), TEXT)
    for found in (explainer.attention(), explainer.attention(layer=1), explainer.attention_rollout()):
        assert found.scores.shape == (len(explainer.ids),)
        assert found.scores.sum() == pytest.approx(1, abs=1e-5)


def test_shows_itself_with_the_text_escaped():
    found = Explainer(classifier(), "the <b>", target="a").integrated_gradients()
    shown = found._repr_html_()
    assert shown.count("<span") == len(found.tokens)
    assert "[UNK]" in shown
    assert "integrated gradients for <b>a</b>" in shown


def test_bad_questions_get_a_clear_answer():
    model = classifier()
    with pytest.raises(BertKerasError, match="no 'x'; it has a, b, c"):
        Explainer(model, TEXT, target="x")
    with pytest.raises(BertKerasError, match="between 0 and 2, got 3"):
        Explainer(model, TEXT, target=3)
    with pytest.raises(BertKerasError, match="one \\[MASK\\] in the text, got 0"):
        Explainer(drawn(BertMaskedLM), TEXT)
    with pytest.raises(BertKerasError, match="no layer 2"):
        Explainer(model, TEXT).attention(layer=2)
    with pytest.raises(BertKerasError, match="needs objective="):
        Explainer(drawn(BertTokenClassifier, 2), TEXT)
    with pytest.raises(BertKerasError, match="reads at most 32"):
        Explainer(model, "the " * 40)
    with pytest.raises(BertKerasError, match="no piece|not a piece|unknown"):
        Explainer(model, TEXT).integrated_gradients(baseline="[NOTHING]")
