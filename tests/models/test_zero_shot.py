"""Zero-shot classification, against numbers worked out with NumPy from what small models say of single rows."""

import functools

import numpy as np
import pytest

from bertkeras import Knowledge, WordPieceTokenizer, find_entities, zero_shot
from bertkeras.checkpoints.hub import locate
from bertkeras.errors import BertKerasError
from bertkeras.models import BertBackbone, BertMaskedLM, BertTextClassifier, BertTextEmbedder
from bertkeras.models.cloze import Cloze
from tests.checks import numpy, randomize, small_config

WORDS = "it was about this text is the foot ##ball hand game court law judge ada ran in won by a n / . : ,"
CHINESE = "这是关于体育法律的他跑步。："
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), *CHINESE]
TOKENIZER = WordPieceTokenizer(PIECES)
CONFIG = small_config(vocabulary_size=len(PIECES) + 2, max_sequence_length=23)  # two rows that are no piece
TEXTS = ["Ada ran in the game", "the judge won", "", "it is the law, a judge ran by it."]
LABELS = {"sport": ["football", "game"], "law": "court", "others": ["foot", "handball", "football game"]}
KNOWLEDGE = Knowledge([("Ada", "judge"), ("Ada", "won in", "court"), ("football", "game")])
CONTENT_FREE = ("N/A", "[MASK]", "")
NAMES = ["masked_lm", "classifier", "classifier, several labels", "embedder"]


def random_model(cls, seed=11, **options):
    model = cls(CONFIG, tokenizer=TOKENIZER, **options)
    randomize(model, seed)
    return model


@pytest.fixture(scope="module")
def masked_lm():
    return random_model(BertMaskedLM)


@pytest.fixture(scope="module")
def classifier():
    labels = ["neutral", "entailment", "contradiction"]
    return random_model(BertTextClassifier, num_classes=3, labels=labels, temperature=1.3)


@pytest.fixture(scope="module")
def embedder():
    return random_model(BertTextEmbedder, normalize=False)


@pytest.fixture(params=NAMES)
def any_model(request):
    """Each model with the options that make it one of the methods."""
    name, _, several = request.param.partition(", ")
    return request.getfixturevalue(name), {"multi_label": True} if several else {}


def softmax(scores):
    exponentials = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def check(found, expected, labels, rtol=1e-4):
    """The probabilities are these, and the label is the likeliest."""
    for one, row in zip(found, expected, strict=True):
        assert list(one.probabilities) == list(labels)
        np.testing.assert_allclose(list(one.probabilities.values()), row, rtol=rtol)
        assert one.labels == (list(labels)[int(np.argmax(row))],)
        assert sum(one.probabilities.values()) == pytest.approx(1)


def difference(one, other):
    """The largest between probabilities of two lists, whatever the order of the labels."""
    assert [set(a.probabilities) for a in one] == [set(b.probabilities) for b in other]
    return max(abs(p - b.probabilities[k]) for a, b in zip(one, other, strict=True) for k, p in a.probabilities.items())


# Cloze


@functools.cache
def word_probability(model, text, word, template):
    """The geometric mean over the pieces of a word behind the text, from left to right."""
    pieces, shares = word.split(), []
    for i, piece in enumerate(pieces):
        shown, blanks = " ".join(pieces[:i]).replace(" ##", ""), len(pieces) - i
        row = template.format(text=text, blank=shown + " [MASK]" * blanks)
        ids = np.array([TOKENIZER.encode(row, special_tokens_in_text=True).ids], "int32")
        place = np.flatnonzero(ids[0] == TOKENIZER.mask_id)[-blanks]
        logits = numpy(model({"token_ids": ids, "mask_positions": np.array([[place]], "int32")}))[0, 0]
        shares.append(softmax(logits[: len(PIECES)].astype("float64"))[TOKENIZER.token_to_id(piece)])
    return np.exp(np.mean(np.log(shares)))


def label_probabilities(model, text, labels, calibrate, template="{text} It was about {blank}."):
    shares = []
    for words in labels:
        found = [word_probability(model, text, word, template) for word in words]
        if calibrate:
            nothing = [[word_probability(model, t, word, template) for t in CONTENT_FREE] for word in words]
            found = np.array(found) / np.mean(nothing, axis=1)
        shares.append(np.mean(found))
    return np.array(shares) / np.sum(shares)


IN_PIECES = [["foot ##ball", "game"], ["court"], ["foot", "hand ##ball", "foot ##ball game"]]


@pytest.mark.parametrize("calibrate", [False, True])
def test_cloze(masked_lm, calibrate):
    expected = [label_probabilities(masked_lm, text, IN_PIECES, calibrate) for text in TEXTS]
    found = zero_shot(masked_lm, TEXTS, list(LABELS), verbalizers=LABELS, calibrate=calibrate)
    check(found, expected, LABELS)
    assert found == zero_shot(masked_lm, TEXTS, LABELS, method="cloze", calibrate=calibrate)


def test_cloze_in_chinese(masked_lm):
    labels, texts = ["体育", "法律"], ["他跑步。", "他的法律"]
    expected = [
        label_probabilities(masked_lm, text, [["体 育"], ["法 律"]], True, "{text} 这 是 关 于 {blank} 的 。")
        for text in texts
    ]
    check(zero_shot(masked_lm, texts, labels, template="{text}这是关于[MASK]的。"), expected, labels)


def test_the_rows_of_a_word_of_two_pieces():
    cloze = Cloze(TOKENIZER, "About [MASK]: {text}.", ["football", "law"])
    ada, ran, foot = map(TOKENIZER.token_to_id, ("ada", "ran", "foot"))
    for shown, place in ([], 2), ([foot], 3):
        row, blank = cloze.row([ada, ran], 2, shown)
        tokens = ["[CLS]", "about", "[MASK]", "[MASK]", ":", "ada", "ran", ".", "[SEP]"]
        tokens[2 : 2 + len(shown)] = ["foot"] * len(shown)
        assert ([TOKENIZER.id_to_token(piece) for piece in row], blank) == (tokens, place)
    assert cloze.size == 7, "all but ada ran"


def test_words_of_one_piece_share_a_row(masked_lm):
    rows = []

    class Counted:
        def __call__(self, inputs, training):
            rows.extend(inputs["token_ids"])
            return masked_lm(inputs, training=training)

    for words, count in (["law", "court", "game"], 1), (["law", "football", "handball"], 4):
        rows.clear()
        Cloze(TOKENIZER, "{text} [MASK]", words).log_probs(Counted(), [[7, 8], [9]])
        assert len(rows) == 2 * count  # [MASK]; and [MASK] [MASK], foot [MASK], hand [MASK]


def test_calibration_makes_a_model_that_is_blind_to_the_text_uniform():
    model = random_model(BertMaskedLM)
    model.mlm_head.layer_norm.gamma.assign(np.zeros(CONFIG.hidden_dim))
    for one in zero_shot(model, TEXTS, LABELS):
        assert list(one.probabilities.values()) == pytest.approx([1 / 3] * 3, abs=1e-6)
    plain = zero_shot(model, TEXTS, LABELS, calibrate=False)
    assert difference(plain, plain[:1] * len(TEXTS)) < 1e-6
    assert max(plain[0].probabilities.values()) > 0.36


def test_calibration_takes_away_what_a_frequent_word_gains():
    """The bias of one piece decides without calibration, and nothing with it."""
    model, labels = random_model(BertMaskedLM), ["game", "law", "court"]
    before = zero_shot(model, TEXTS, labels)
    bias = numpy(model.mlm_head.output_bias).copy()
    bias[TOKENIZER.token_to_id("law")] += 5
    model.mlm_head.output_bias.assign(bias)
    assert {one.labels for one in zero_shot(model, TEXTS, labels, calibrate=False)} == {("law",)}
    assert len({one.labels for one in before}) > 1
    after = zero_shot(model, TEXTS, labels)
    assert sum(a.labels == b.labels for a, b in zip(before, after, strict=True)) >= 3


# Entailment


def nli_probabilities(model, text, hypothesis):
    encoding = TOKENIZER.encode(text, hypothesis)
    inputs = {"token_ids": encoding.ids, "segment_ids": encoding.segment_ids}
    logits = numpy(model({name: np.array([value], "int32") for name, value in inputs.items()}))[0]
    return softmax(logits.astype("float64") / model.temperature)


def test_entailment(classifier):
    labels, texts = ["game", "law", "court"], TEXTS[:3]
    expected = np.array(
        [[nli_probabilities(classifier, text, f"it was {label}.")[1] for label in labels] for text in texts]
    )
    found = zero_shot(classifier, texts, labels, template="it was {label}.", method="entailment")
    check(found, expected / expected.sum(axis=1, keepdims=True), labels)


def test_several_labels_at_once(classifier):
    labels, texts = {"sport": ["game", "football"], "law": ["law"]}, TEXTS[:3]
    found = zero_shot(classifier, texts, labels, multi_label=True)
    for text, one in zip(texts, found, strict=True):
        for label, words in labels.items():
            rows = [nli_probabilities(classifier, text, f"This text is about {word}.") for word in words]
            expected = np.mean([row[1] / (row[1] + row[2]) for row in rows])
            assert one.probabilities[label] == pytest.approx(expected, rel=1e-4)
            assert (label in one.labels) == (expected >= 0.5)
    alone = zero_shot(classifier, texts, ["law"], multi_label=True)
    np.testing.assert_allclose(
        *[[one.probabilities["law"] for one in several] for several in (alone, found)], rtol=1e-5
    )


def test_entailment_or_not():
    model = random_model(BertTextClassifier, num_classes=2, labels=["not_entailment", "ENTAILMENT"])
    (found,) = zero_shot(model, TEXTS[1], ["law"], multi_label=True)
    expected = nli_probabilities(model, TEXTS[1], "This text is about law.")[1]
    assert found.probabilities["law"] == pytest.approx(expected, rel=1e-4)


# Similarity


@pytest.mark.parametrize("temperature", [None, 0.3])
def test_similarity(embedder, temperature):
    labels = {"sport": ["game", "football won by hand"], "law": "court"}
    found = zero_shot(embedder, TEXTS, labels, template="about {label}", temperature=temperature, method="similarity")
    sides = [embedder.embed(side) for side in (TEXTS, ["about game", "about football won by hand", "about court"])]
    one, other = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
    shares = np.exp(one @ other.T / (temperature or 1 / 20))
    shares = np.stack([shares[:, :2].mean(axis=1), shares[:, 2]], axis=1)
    check(found, shares / shares.sum(axis=1, keepdims=True), labels, rtol=1e-3)


# Every method


def test_order_and_batches_do_not_matter(any_model):
    model, options = any_model
    options = {**options, "evidence": KNOWLEDGE, "supports": {"judge": "others"}}
    whole = zero_shot(model, TEXTS, LABELS, **options)
    turned = {label: LABELS[label] for label in reversed(LABELS)}
    assert difference(whole, zero_shot(model, TEXTS, turned, batch_size=3, **options)) < 1e-6
    assert difference(whole[::-1], zero_shot(model, TEXTS[::-1], LABELS, batch_size=1, **options)) < 1e-6
    assert difference(whole[:1], zero_shot(model, TEXTS[0], LABELS, batch_size=1, **options)) < 1e-6
    assert zero_shot(model, [], LABELS, **options) == []


ROOM = dict(zip(NAMES, [23 - 2 - 4 - 2, 23 - 3 - 7, 23 - 3 - 7, 23 - 2], strict=True))  # beside template and football


@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_cut_and_never_the_template(name, request):
    model = request.getfixturevalue(name.partition(",")[0])
    options = {"multi_label": True} if "," in name else {}
    words, labels = ["ada", "ran", *["a", "game", "won"] * 20], ["law", "football"]

    def of(count):
        return zero_shot(model, " ".join(words[:count]), labels, **options)

    assert difference(of(len(words)), of(ROOM[name])) < 1e-6
    assert difference(of(len(words)), of(ROOM[name] - 1)) > 1e-5, "all room was used"


def test_max_length_counts():
    model = random_model(BertTextEmbedder, max_length=9)
    texts, labels = (
        ("a judge ran by the court in the game", "a judge ran by the court in"),
        {"one": "law", "two": "game"},
    )
    assert difference(*[zero_shot(model, text, labels) for text in texts]) < 1e-6


# Evidence


def test_facts_are_put_behind_the_text(any_model):
    model, options = any_model
    without = zero_shot(model, "ada ran.", LABELS, **options)
    found = zero_shot(model, "ada ran.", LABELS, evidence=KNOWLEDGE, **options)
    assert difference(found, zero_shot(model, "ada ran. ada: judge. ada won in court.", LABELS, **options)) < 1e-6
    assert difference(found, without) > 1e-5
    assert zero_shot(model, "ada ran.", LABELS, evidence=KNOWLEDGE, append_facts=False, **options) == without
    nobody = zero_shot(model, "the judge", LABELS, **options)
    assert zero_shot(model, "the judge", LABELS, evidence=KNOWLEDGE, **options) == nobody


def test_facts_take_half_the_room_of_a_long_text_and_come_whole(masked_lm):
    """Of 15 pieces 7 are for facts: `ada : judge .` fits, `ada won in court .` and `football : game .` do not."""
    text = "ada by football ran in the game by the court by the law by a judge"
    options = {"labels": ["football", "law"]}
    found = zero_shot(masked_lm, text, evidence=KNOWLEDGE, **options)
    same = zero_shot(masked_lm, "ada by football ran in the game by the court ada: judge.", **options)
    assert difference(found, same) < 1e-6


def test_types_vote(any_model):
    model, options = any_model
    options = {**options, "labels": LABELS, "append_facts": False}
    texts = ["Ada ran", "ada, ada: ADA", "ada in the football", "the judge ran"]
    before = zero_shot(model, texts, **options)
    supports = {"judge": "law", "game": "sport"}
    after = zero_shot(model, texts, evidence=KNOWLEDGE, supports=supports, weight=1.7, **options)
    votes = [[0, 1.7, 0], [0, 1.7, 0], [1.7, 1.7, 0], [0, 0, 0]]  # sport, law, others
    for one, other, vote in zip(before, after, votes, strict=True):
        odds = np.array(list(one.probabilities.values()))
        odds = odds / (1 - odds) if options.get("multi_label") else odds
        odds = odds * np.exp(vote)
        expected = odds / (1 + odds) if options.get("multi_label") else odds / odds.sum()
        np.testing.assert_allclose(list(other.probabilities.values()), expected, rtol=1e-9)


def test_evidence_decides_where_the_model_cannot():
    """A model blind to the text finds all labels equal: the one that a name in the text supports wins, by e^2 : 1."""
    model = random_model(BertMaskedLM)
    model.mlm_head.layer_norm.gamma.assign(np.zeros(CONFIG.hidden_dim))
    options = {"evidence": KNOWLEDGE, "weight": 2.0}
    for label in "sport", "law":
        (one,) = zero_shot(model, "Ada ran", {"sport": "game", "law": "law"}, supports={"judge": label}, **options)
        assert one.labels == (label,)
        assert one.probabilities[label] == pytest.approx(np.exp(2) / (1 + np.exp(2)), abs=1e-6)


def test_find_entities():
    knowledge = Knowledge([("Ada", "judge"), ("Ada", "ship"), ("Ada", "sails to", "Rome"), ("Rome", "alias", "Roma")])
    found = find_entities(knowledge, "In Roma the ADA lay.")
    assert [(one.text, one.type, one.start, one.end, one.probability) for one in found] == [
        ("ADA", "judge", 12, 15, 0.5),
        ("ADA", "ship", 12, 15, 0.5),
    ]


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["law"]}, r"labels must be 2 or more different names, got \['law'\]"),
        ({"labels": "law"}, "labels must be 2 or more"),
        ({"labels": ["law", "law"]}, "different names"),
        ({"labels": ["law", " "]}, "different names"),
        ({"labels": LABELS, "verbalizers": LABELS}, "leave out verbalizers"),
        ({"verbalizers": {"law": "law"}}, "'game' is a label without words"),
        ({"verbalizers": {"law": "law", "game": "game", "x": "x"}}, "'x' is no label"),
        ({"verbalizers": {"law": "law", "game": []}}, r"verbalizers for 'game' must be one or more words, got \[\]"),
        ({"verbalizers": {"law": "law", "game": "chess"}}, "cannot write 'chess'; choose another word in verbalizers"),
        ({"template": "{text} is [MASK] [MASK]"}, r"has \{text\} once and \[MASK\] once"),
        ({"template": ""}, r"has \{text\} once"),
        ({"template": "It was about [MASK]."}, r"has \{text\} once"),
        ({"template": "{text}" + " the" * 20 + " [MASK]"}, "take 23 of the model's 23 pieces and leave no room"),
        ({"method": "entailment"}, "a BertMaskedLM is for method='cloze'; got 'entailment'"),
        ({"multi_label": True}, "multi_label needs a BertTextClassifier"),
        ({"temperature": 0}, "temperature must be a positive number, got 0"),
        ({"supports": {"judge": "law"}}, "supports needs evidence"),
        (
            {"evidence": KNOWLEDGE, "supports": {"judge": "chess"}},
            "'judge' speak for 'chess'; the labels are law, game",
        ),
        ({"evidence": KNOWLEDGE, "supports": {"juge": "law"}}, "the type 'juge', which nothing in the evidence has"),
        ({"evidence": KNOWLEDGE, "weight": float("nan")}, "weight must be a finite number"),
        ({"texts": [None]}, "text must be a str"),
        ({"texts": [None], "evidence": KNOWLEDGE, "supports": {"judge": "law"}}, "text must be a str"),
    ],
)
def test_errors(masked_lm, options, message):
    with pytest.raises(BertKerasError, match=message) as caught:
        zero_shot(masked_lm, **{"texts": "ada", "labels": ["law", "game"], **options})
    assert "\n" not in str(caught.value)


def test_errors_of_other_models(classifier, embedder):
    labels = ["law", "game"]
    for model in classifier, embedder:
        with pytest.raises(BertKerasError, match=r"has \{label\} once, such as 'This text is about \{label\}\.'"):
            zero_shot(model, "ada", labels, template="{text} is [MASK]")
        with pytest.raises(BertKerasError, match="26 pieces for 'a a a.* in the template; the model reads 21"):
            zero_shot(model, "ada", ["law", "a " * 21])
    with pytest.raises(BertKerasError, match="take 23 of the model's 23 pieces and leave no room"):
        zero_shot(classifier, "ada", ["law", "a " * 15])
    two = random_model(BertTextClassifier, num_classes=2, labels=["yes", "no"])
    with pytest.raises(BertKerasError, match="the label 'entailment'; got task='single_label' with yes, no"):
        zero_shot(two, "ada", labels)
    with pytest.raises(BertKerasError, match="zero_shot needs a tokenizer"):
        zero_shot(BertMaskedLM(CONFIG), "ada", labels)
    with pytest.raises(BertKerasError, match="one of BertMaskedLM, .*; got BertBackbone"):
        zero_shot(BertBackbone(CONFIG), "ada", labels)


# A model that has learned English

TOPICS = {
    "sports": "sports, athletes, teams and matches",
    "health": "health, medicine, doctors and diseases",
    "food": "food, cooking, recipes and restaurants",
    "space": "space, planets, rockets and astronomy",
    "money": "money, banks, prices and the economy",
}
SENTENCES = [
    ("The goalkeeper saved two penalties in extra time.", "sports"),
    ("She took silver in the hurdles, a tenth behind the winner.", "sports"),
    ("The nurse changed the bandage and checked for fever.", "health"),
    ("Vaccination keeps most children from catching measles.", "health"),
    ("Simmer the onions in butter until they turn golden.", "food"),
    ("The bakery sells sourdough and almond croissants.", "food"),
    ("The probe sent its first pictures of Saturn's rings.", "space"),
    ("A comet will pass close to the sun in October.", "space"),
    ("Inflation fell as the central bank raised its rates.", "money"),
    ("He paid off the loan three years early.", "money"),
]


@pytest.fixture(scope="module")
def minilm():
    try:
        locate("all-MiniLM-L6-v2")
    except BertKerasError as error:
        pytest.skip(str(error))
    return BertTextEmbedder.from_preset("all-MiniLM-L6-v2")


def test_topics_by_their_descriptions(minilm):
    """By chance 2 of 10 are right, and 8 or more with probability 8e-5."""
    found = zero_shot(minilm, [text for text, _ in SENTENCES], TOPICS)
    right = [one.labels == (topic,) for one, (_, topic) in zip(found, SENTENCES, strict=True)]
    assert sum(right) >= 8, [text for (text, _), is_right in zip(SENTENCES, right, strict=True) if not is_right]


def test_evidence_tells_what_a_name_stands_for(minilm):
    """Of a name that nobody knows the text says nothing; the fact behind it decides, whichever it is."""
    text = "Everybody talked about Kelvarra Ostrin yesterday."
    facts = {"sports": "plays football for", "health": "is a doctor and treats patients of", "space": "is a moon of"}
    for topic, relation in facts.items():
        knowledge = Knowledge([("Kelvarra Ostrin", relation, "Ostervale")])
        before, after = (zero_shot(minilm, text, TOPICS, evidence=evidence)[0] for evidence in (None, knowledge))
        assert after.labels == (topic,)
        assert after.probabilities[topic] > before.probabilities[topic] + 0.1
