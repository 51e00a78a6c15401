"""Labelled examples to rows: every label at its place, nothing lost without being counted, batches by step."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkeras.datasets.examples import Answer, QuestionExample, TextExample, TokenExample
from bertkeras.errors import BertKerasError
from bertkeras.pipelines.tasks import (
    TaskRows,
    generation_rows,
    order_of,
    question_rows,
    similarity_rows,
    steps_per_epoch,
    task_batches,
    text_rows,
    token_rows,
)
from bertkeras.text import WordPieceTokenizer
from bertkeras.text.tags import forbidden_pairs, tag_names, tags_of

LETTERS = [*"abcdef", *(f"##{letter}" for letter in "abcdef")]
TOKENIZER = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, ".", "王", "八"])
TYPES = ["place", "who"]


def ids(text):
    return TOKENIZER.encode_ids([text])[0]


def rows_of(lengths, labels=None):
    return TaskRows([[7] * n for n in lengths], [[0] * n for n in lengths], labels or [0] * len(lengths), 0)


# Texts.


def test_classes_of_texts():
    examples = [TextExample("ab c", label="y", line=2), TextExample("d", label="x", line=3)]
    rows = text_rows(TOKENIZER, examples, 5, ["x", "y"])
    assert rows.ids == [[2, *ids("ab c"), 3], [2, *ids("d"), 3]]
    assert rows.labels == [1, 0]
    assert rows.counts["texts cut"] == 0
    inputs, labels = rows.batch([1, 0])
    np.testing.assert_array_equal(inputs["token_ids"], [[2, *ids("d"), 3, 0, 0], [2, *ids("ab c"), 3]])
    np.testing.assert_array_equal(inputs["padding_mask"], [[True] * 3 + [False] * 2, [True] * 5])
    assert (labels.dtype, labels.tolist()) == (np.int32, [0, 1])


def test_the_longer_text_of_a_pair_is_cut_and_counted():
    pairs = [("aaaaaa", "bb"), ("a", "bbbbbb"), ("aaaa", "bbbb"), ("aa", "bbb")]
    rows = text_rows(TOKENIZER, [TextExample(one, two, label="x") for one, two in pairs], 8, ["x"])
    assert [(row.count(ids("a")[0]) + row.count(ids("aa")[1]), len(row)) for row in rows.ids] == [
        *[(3, 8), (1, 8), (2, 8), (2, 8)]
    ]
    assert rows.segment_ids[0] == [0] * 5 + [1] * 3
    assert rows.segment_ids[1] == [0] * 3 + [1] * 5
    assert rows.counts["texts cut"] == 3
    inputs, _ = rows.batch([0, 1])
    np.testing.assert_array_equal(inputs["segment_ids"], rows.segment_ids[:2])


def test_several_labels_and_numbers():
    some = [TextExample("a", label=("y", "x")), TextExample("b", label=()), TextExample("c", label=("z",))]
    _, labels = text_rows(TOKENIZER, some, 9, ["x", "y", "z"]).batch([0, 1, 2])
    assert (labels.dtype, labels.tolist()) == (np.float32, [[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    _, labels = text_rows(TOKENIZER, [TextExample("a", label=2.5), TextExample("b", label=-1.0)], 9).batch([1, 0])
    assert (labels.dtype, labels.tolist()) == (np.float32, [-1, 2.5])


def test_what_text_rows_refuse():
    mixed = [TextExample("a", "b", "x"), TextExample("c", None, "x")]
    with pytest.raises(BertKerasError, match="1 of 2 examples have a pair; all or none"):
        text_rows(TOKENIZER, mixed, 9, ["x"])
    for label in ("w", ("x", "w")):
        with pytest.raises(BertKerasError, match="line 7: unknown label 'w'; known are x, y"):
            text_rows(TOKENIZER, [TextExample("a", label=label, line=7)], 9, ["x", "y"])


def test_pairs_of_similar_texts_follow_each_other():
    examples = [TextExample("a", "bb", 0.25), TextExample("ccc", "d", 1.0)]
    rows = similarity_rows(TOKENIZER, examples, 9)
    assert [row[1:-1] for row in rows.ids] == [ids("a"), ids("bb"), ids("ccc"), ids("d")]
    assert rows.labels == [0.25, 0.25, 1.0, 1.0]
    assert rows.segment_ids == [[0] * len(row) for row in rows.ids]


def test_a_target_is_labelled_with_what_comes_next():
    rows = generation_rows(TOKENIZER, [TextExample("ab", "cd e"), TextExample("a", "bbbbbb")], 8)
    cls, sep = TOKENIZER.cls_id, TOKENIZER.sep_id
    (a, b), (c, d, e) = ids("ab"), ids("cd e")
    assert rows.ids[0] == [cls, a, b, sep, c, d, e, sep]
    assert rows.segment_ids[0] == [0] * 4 + [1] * 4
    assert (rows.output_positions[0], rows.labels[0]) == ([3, 4, 5, 6], [c, d, e, sep])
    assert rows.ids[1] == [cls, a, sep, *ids("bbbb"), sep]
    assert (rows.output_positions[1], rows.labels[1]) == (
        [2, 3, 4, 5],
        ids("bbbb"),
    )  # the end of a cut text is not learnt
    assert rows.counts["rows cut"] == 1


# Words.


def test_labels_stand_at_first_pieces_only():
    tags = tag_names(TYPES)
    example = TokenExample(("ab", "cde", "f", "王", "."), ("O", "B-who", "I-who", "B-place", "O"))
    rows = token_rows(TOKENIZER, [example, TokenExample(("a",), ("B-who",))], 20, tags)
    expected = [-1, 0, -1, 3, -1, -1, 4, 1, 0, -1]
    assert rows.labels[0] == expected
    assert [TOKENIZER.id_to_token(index) for index in rows.ids[0]] == [
        *["[CLS]", "a", "##b", "c", "##d", "##e", "f", "王", ".", "[SEP]"]
    ]
    _, labels = rows.batch([0, 1])
    np.testing.assert_array_equal(labels, [expected, [-1, 3, -1] + [-1] * 7])


word = st.text("abcdef", min_size=1, max_size=5)


@st.composite
def tagged_sentences(draw):
    lengths = draw(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([None, *TYPES])), max_size=8))
    ends = list(itertools.accumulate(length for length, _ in lengths))
    spans = [(end - length, end, type) for end, (length, type) in zip(ends, lengths, strict=True) if type]
    tokens = [draw(word) for _ in range(ends[-1] if ends else 0)]
    return tuple(tokens), spans


@settings(deadline=None)
@given(
    st.lists(tagged_sentences(), min_size=1, max_size=4),
    st.sampled_from(["io", "bio", "bioes"]),
    st.sampled_from(["bio", "bioes"]),
    st.integers(4, 16),
)
def test_entities_are_legal_in_every_row_and_those_divided_are_counted(sentences, scheme, written, max_length):
    tags = tag_names(TYPES, scheme)
    examples = [TokenExample(tokens, tuple(tags_of(spans, len(tokens), written))) for tokens, spans in sentences]
    rows = token_rows(TOKENIZER, examples, max_length, tags, scheme)
    forbidden = set(forbidden_pairs(tags))
    said = [[label for label in labels if label >= 0] for labels in rows.labels]
    for numbers, labels, row in zip(said, rows.labels, rows.ids, strict=True):
        assert len(labels) == len(row) <= max_length
        assert not forbidden & set(itertools.pairwise([-1, *numbers, -1])) or not numbers
        for label, piece in zip(labels, row, strict=True):
            token = TOKENIZER.id_to_token(piece)
            assert (label == -1) == (token.startswith("##") or token in ("[CLS]", "[SEP]"))

    # every word has its type, in the order of the words
    types = [tags[number].partition("-")[2] for numbers in said for number in numbers]
    expected = [tag.partition("-")[2] for example in examples for tag in example.tags]
    assert types == expected

    # cuts by hand: a row takes words as long as they fit
    divided = sentences_divided = words_cut = 0
    for tokens, spans in sentences:
        cuts, total = [], 0
        for index, token in enumerate(tokens):
            size = min(len(token), max_length - 2)
            words_cut += size < len(token)
            if total + size > max_length - 2:
                cuts.append(index)
                total = 0
            total += size
        sentences_divided += bool(cuts)
        divided += sum(any(start < cut < end for cut in cuts) for start, end, _ in spans)
    assert rows.counts["entities divided"] == divided
    assert rows.counts["sentences divided"] == sentences_divided
    assert rows.counts["words cut"] == words_cut


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("io", "O I-who I-who I-who O"),
        ("bio", "O B-who B-who I-who O"),
        ("bioes", "O S-who B-who E-who O"),
    ],
)
def test_schemes(scheme, expected):
    example = TokenExample(tuple("abcde"), ("O", "B-who", "B-who", "I-who", "O"))
    tags = tag_names(["who"], scheme)
    (labels,) = token_rows(TOKENIZER, [example], 9, tags, scheme).labels
    assert [tags[number] for number in labels[1:-1]] == expected.split()


def test_an_entity_over_three_rows_is_one_entity_divided():
    example = TokenExample(tuple("abcdef"), ("B-who", *["I-who"] * 5))
    rows = token_rows(TOKENIZER, [example], 4, tag_names(["who"], "bioes"), "bioes")
    assert [labels[1:-1] for labels in rows.labels] == [[1, 3]] * 3
    assert dict(rows.counts) == {"entities divided": 1, "sentences divided": 1, "words cut": 0}


def test_tags_that_are_unknown():
    example = TokenExample(("a",), ("B-where",), line=11)
    with pytest.raises(BertKerasError, match="line 11: unknown label 'B-where'; known are O, B-who, I-who"):
        token_rows(TOKENIZER, [example], 9, tag_names(["who"]))
    with pytest.raises(BertKerasError, match="line 11: unknown label 'S-where'"):
        token_rows(TOKENIZER, [example], 9, tag_names(["where"]), "bioes")


# Questions.


def labelled(rows, number, context):
    """The text that a row's label covers."""
    start, end = rows.labels[number]
    if start == end == 0:
        return None
    first = rows.segment_ids[number].index(1)
    offsets = TOKENIZER.encode(context, add_special_tokens=False).offsets
    row, whole = rows.ids[number][first:-1], ids(context)
    at = next(at for at in range(len(whole)) if whole[at : at + len(row)] == row)
    return context[offsets[at + start - first][0] : offsets[at + end - first][1]]


def asked(context, *answers, question="a b"):
    return QuestionExample("1", question, context, tuple(Answer(text, context.index(text)) for text in answers))


@pytest.mark.parametrize("answer", ["ab", "cde f", "王八", "王", ".", "f", "ab cde f. 王八. e"])
def test_the_pieces_of_an_answer_cover_its_characters(answer):
    context = "ab cde f. 王八. e"
    rows = question_rows(TOKENIZER, [asked(context, answer)], 40)
    assert labelled(rows, 0, context) == answer
    assert not +rows.counts


@settings(deadline=None)
@given(st.data())
def test_every_row_that_holds_an_answer_says_so(data):
    words = data.draw(st.lists(word, min_size=1, max_size=40))
    context = " ".join(f"{word}." if index % 5 == 0 else word for index, word in enumerate(words))
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(len(words) - 1, first + 9)))
    ends = list(itertools.accumulate(len(part) + 1 for part in context.split(" ")))
    begin, end = (ends[first - 1] if first else 0), ends[last] - 1
    example = QuestionExample("1", "a b", context, (Answer(context[begin:end], begin),))
    overlap = data.draw(st.integers(0, 30))
    rows = question_rows(TOKENIZER, [example], 24, overlap)
    answer = ids(context[begin:end])
    found = 0
    for row, segments, (start, stop) in zip(rows.ids, rows.segment_ids, rows.labels, strict=True):
        if (start, stop) != (0, 0):
            found += 1
            assert row[start : stop + 1] == answer
            assert segments[start] == segments[stop] == 1
    assert rows.counts["answers that no row holds"] == (found == 0)
    shared = min(overlap, (24 - 5) // 2)  # [CLS] a b [SEP] ... [SEP]
    assert found or len(answer) > shared + 1, "an answer that reaches over a cut is whole behind or before it"


def test_answers_are_labelled_in_all_rows_that_hold_them_and_counted_once():
    context = " ".join(["b"] * 10 + ["abcdefg"] + ["b"] * 10)  # the word is not known whole: g is no piece
    example = QuestionExample("1", "a", context, (Answer("cd", context.index("cd")),))
    rows = question_rows(TOKENIZER, [example] * 2, 16, overlap=5)
    labels = [row[label[0]] for row, label in zip(rows.ids, rows.labels, strict=True) if label != (0, 0)]
    assert len(labels) > 2
    assert set(labels) == {TOKENIZER.unk_id}
    assert rows.counts["answers inside a piece"] == 2
    assert rows.counts["answers that no row holds"] == 0


def test_questions_without_answers_and_what_is_counted():
    long = " ".join("abcdef" * 4)
    examples = [
        asked("ab cd ef"),
        asked(long, long[:-1]),
        asked(long, "b c", question="a" * 50),
        asked("ab ef", " ef", "ab"),  # the first answer, without the blank
    ]
    rows = question_rows(TOKENIZER, examples, 20, overlap=4)
    assert rows.labels[0] == (0, 0)
    assert labelled(rows, len(rows) - 1, "ab ef") == "ef"
    assert dict(rows.counts) == {
        "questions cut": 1,
        "answers that no row holds": 1,
        "answers inside a piece": 0,
    }
    _, labels = rows.batch([0, len(rows) - 1])
    assert labels["start_positions"].tolist() == [0, rows.labels[-1][0]]
    assert labels["end_positions"].dtype == np.int32


@pytest.mark.parametrize("answer", ["cade\u0301", "\u200ecade\u0301", "cade\u0301 \u200f", "\ufeffcade\u0301\ufffd"])
def test_what_the_tokenizer_takes_off_does_not_lose_an_answer(answer):
    context = f"ab {answer} ef"
    rows = question_rows(TOKENIZER, [asked(context, answer)], 40)
    start, end = rows.labels[0]
    assert rows.ids[0][start : end + 1] == ids("cade")
    assert not +rows.counts


# Batches.


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(3, 30), min_size=2, max_size=300),
    st.integers(1, 9),
    st.integers(0, 3),
    st.sampled_from([1, 2]),
)
def test_every_row_once_an_epoch(lengths, batch_size, seed, together):
    lengths = lengths[: len(lengths) // together * together]
    rows = rows_of(lengths)
    batches = order_of(rows, batch_size, seed, epoch=1, together=together)
    assert sorted(itertools.chain(*batches)) == list(range(len(rows)))
    assert len(batches) == steps_per_epoch(rows, batch_size, together)
    assert max(map(len, batches)) <= max(batch_size, together)
    for batch in batches:
        assert batch[::together] == [row // together * together for row in batch[::together]]
        assert batch[together - 1 :: together] == [row + together - 1 for row in batch[::together]]
    assert batches == order_of(rows, batch_size, seed, epoch=1, together=together)


def test_orders_differ_by_epoch_and_seed():
    rows = rows_of([5] * 40)
    orders = [order_of(rows, 4, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for one, two in itertools.combinations(orders, 2):
        assert one != two
        assert Counter(map(frozenset, one)) != Counter(map(frozenset, two)), "other batches, not only another order"


def test_rows_of_like_length_share_a_batch():
    """1,000 rows of 3 to 100 pieces: in shuffled batches of 10 a fourth to a half would be padding."""
    lengths = np.random.default_rng(0).integers(3, 101, 1000).tolist()
    batches = order_of(rows_of(lengths), 10, 0, 0)
    cells = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    assert sum(lengths) / cells > 0.95
    means = [np.mean([lengths[row] for row in batch]) for batch in batches[:32]]
    # 32 numbers in a random order correlate with their places by less than 0.7: 4 standard deviations of 1 / sqrt(31)
    assert abs(np.corrcoef(means, range(32))[0, 1]) < 0.7, "short and long batches come mixed"


@pytest.mark.parametrize("together", [1, 2])
def test_batches_go_on_from_any_step(together):
    rows = rows_of(np.random.default_rng(1).integers(3, 20, 26).tolist(), [float(number) for number in range(26)])
    per_epoch = steps_per_epoch(rows, 4, together)
    assert per_epoch == 7
    whole = list(task_batches(rows, 4, 3, seed=5, together=together))
    assert len(whole) == 3 * per_epoch
    assert [batch for *_, batch in whole[:per_epoch]] == order_of(rows, 4, 5, 0, together)
    for start in range(3 * per_epoch + 1):
        rest = list(task_batches(rows, 4, 3, seed=5, start_step=start, together=together))
        assert [batch for *_, batch in rest] == [batch for *_, batch in whole[start:]]
        for (inputs, labels, batch), (others, _, _) in zip(rest, whole[start:], strict=True):
            assert labels.tolist() == batch
            for name in inputs:
                np.testing.assert_array_equal(inputs[name], others[name])
