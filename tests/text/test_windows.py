"""Long texts in rows: nothing lost at the cuts, nothing too long, every piece judged where it is seen best."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkeras.errors import BertKerasError
from bertkeras.text import WordPieceTokenizer
from bertkeras.text.windows import context_windows, word_windows

LETTERS = [*"abcde", *(f"##{letter}" for letter in "abcde")]
TOKENIZER = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, ".", "王", "八", "[", "]"])

words = st.text("abcde", min_size=1, max_size=9)  # as many pieces as letters
sentences = st.lists(st.lists(words, max_size=30), max_size=4)


def pieces(word):
    return TOKENIZER.encode_ids([word])[0]


@st.composite
def cut_options(draw):
    max_length = draw(st.integers(3, 16))
    return max_length, draw(st.integers(0, max(max_length - 3, 0)))


@settings(deadline=None)
@given(sentences, cut_options())
def test_every_word_is_kept_exactly_once(sentences, options):
    max_length, overlap = options
    windows = word_windows(TOKENIZER, sentences, max_length, overlap)
    kept = [(window.sentence, word) for window in windows for word in window.kept]
    assert kept == [(number, word) for number, sentence in enumerate(sentences) for word in range(len(sentence))]
    for window in windows:
        assert set(window.kept) <= set(window.words)


@settings(deadline=None)
@given(sentences, cut_options())
def test_a_row_is_its_words_and_no_longer_than_allowed(sentences, options):
    max_length, overlap = options
    room = max_length - 2
    for window in word_windows(TOKENIZER, sentences, max_length, overlap):
        assert len(window.ids) <= max_length
        assert (window.ids[0], window.ids[-1]) == (TOKENIZER.cls_id, TOKENIZER.sep_id)
        parts = [pieces(sentences[window.sentence][word])[:room] for word in window.words]
        assert window.ids[1:-1] == list(itertools.chain(*parts))
        assert window.positions == [1 + sum(map(len, parts[:index])) for index in range(len(parts))]
        longer = [word for word in window.kept if len(pieces(sentences[window.sentence][word])) > room]
        assert window.cut == len(longer)


@settings(deadline=None)
@given(sentences, cut_options())
def test_neighbours_share_no_more_than_the_overlap_and_no_less_than_fits(sentences, options):
    max_length, overlap = options
    room = max_length - 2
    windows = word_windows(TOKENIZER, sentences, max_length, overlap)
    for one, two in itertools.pairwise(windows):
        if one.sentence != two.sentence:
            continue
        sizes = [min(len(pieces(word)), room) for word in sentences[one.sentence]]
        shared = range(two.words.start, one.words.stop)
        assert one.words.start < two.words.start <= one.words.stop < two.words.stop
        assert sum(sizes[word] for word in shared) <= overlap
        assert sum(sizes[word] for word in one.words) + sizes[one.words.stop] > room, "one more word would have fitted"
        more = two.words.start - 1
        with_more = sum(sizes[word] for word in (more, *shared))
        assert with_more > overlap or with_more + sizes[one.words.stop] > room or more == one.words.start


@settings(deadline=None)
@given(sentences, cut_options())
def test_a_word_is_kept_where_it_has_most_context(sentences, options):
    windows = word_windows(TOKENIZER, sentences, *options)

    def context(window, word):
        """Words on the poorer side; the end of the sentence is no cut."""
        last = len(sentences[window.sentence])
        left = word - window.words.start if window.words.start else last
        right = window.words.stop - 1 - word if window.words.stop < last else last
        return min(left, right)

    for window in windows:
        rivals = [other for other in windows if other.sentence == window.sentence]
        for word in window.kept:
            assert context(window, word) == max(context(other, word) for other in rivals if word in other.words)


def test_no_sentence_an_empty_one_and_words_without_pieces():
    assert word_windows(TOKENIZER, [], 8) == []
    (empty,) = word_windows(TOKENIZER, [[]], 8)
    assert (empty.ids, empty.words, empty.kept, empty.positions) == ([2, 3], range(0), range(0), [])
    (window,) = word_windows(TOKENIZER, [["a", "\x07", "\u200b", "b"]], 8)
    a, unknown, b = TOKENIZER.token_to_id("a"), TOKENIZER.unk_id, TOKENIZER.token_to_id("b")
    assert window.ids == [2, a, unknown, unknown, b, 3]
    assert window.cut == 0


def test_words_longer_than_a_row_are_cut_and_counted_where_they_are_kept():
    windows = word_windows(TOKENIZER, [["aaaaaaa", "b", "aaaaaaa", "aaaa"]], max_length=6, overlap=3)
    assert [len(window.ids) for window in windows] == [6, 3, 6, 6]
    assert [window.cut for window in windows] == [1, 0, 1, 0]
    assert [window.kept for window in windows] == [range(0, 1), range(1, 2), range(2, 3), range(3, 4)]


@pytest.mark.parametrize(("max_length", "overlap"), [(2, 0), (0, 0), (8, -1), (8, 6), (8, 100)])
def test_word_windows_that_cannot_be(max_length, overlap):
    with pytest.raises(BertKerasError, match=f"got {max_length} and {overlap}"):
        word_windows(TOKENIZER, [["a"]], max_length, overlap)


contexts = st.text("abcde .王八", max_size=60)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("abc ", max_size=9), contexts), max_size=4), st.integers(12, 24), st.integers(0, 30))
def test_every_piece_of_every_context_is_kept_exactly_once(asked, max_length, overlap):
    windows = context_windows(
        TOKENIZER, [question for question, _ in asked], [context for _, context in asked], max_length, overlap
    )
    for number, (question, context) in enumerate(asked):
        mine = [window for window in windows if window.question == number]
        encoded = TOKENIZER.encode(context, add_special_tokens=False)
        kept = [(w.ids[place], w.offsets[place - w.context_start]) for w in mine for place in w.kept]
        assert kept == list(zip(encoded.ids, encoded.offsets, strict=True))
        asked_ids = TOKENIZER.encode(question, add_special_tokens=False).ids
        for window in mine:
            assert len(window.ids) == len(window.segment_ids) <= max_length
            part = len(window.offsets)
            head = window.ids[: window.context_start]
            assert head == [2, *asked_ids[: len(head) - 2], 3]
            assert window.question_cut == len(asked_ids) - (len(head) - 2)
            assert window.ids[window.context_start + part :] == [3]
            assert window.segment_ids == [0] * len(head) + [1] * (part + 1)
            for piece, (start, end) in zip(window.ids[window.context_start : -1], window.offsets, strict=True):
                assert context[start:end] == TOKENIZER.id_to_token(piece).removeprefix("##")


def test_neighbouring_parts_share_the_overlap():
    context = "abcde" * 20  # 100 pieces
    windows = context_windows(TOKENIZER, ["a"], [context], max_length=34, overlap=8)  # room for 30
    assert [(w.offsets[0][0], w.offsets[-1][1]) for w in windows] == [(0, 30), (22, 52), (44, 74), (66, 96), (88, 100)]
    assert [(w.kept.start - 3, w.kept.stop - 3) for w in windows] == [(0, 26), (4, 26), (4, 26), (4, 26), (4, 12)]


def test_an_overlap_of_a_row_does_not_make_a_row_for_every_piece():
    """A context of 400 pieces, 58 in a row: neighbours share a half, so that the number of rows stays sensible."""
    windows = context_windows(TOKENIZER, ["abc"], ["abcde " * 80], max_length=64, overlap=128)
    assert len(windows) == 13  # 58 + 12 * 29 >= 400 > 58 + 11 * 29
    assert len(set(windows[0].offsets) & set(windows[1].offsets)) == 29


def test_long_questions_are_cut_and_counted():
    question, context = "abcde" * 20, "edcba"
    (window,) = context_windows(TOKENIZER, [question], [context], max_length=128)
    assert (window.question_cut, window.context_start) == (36, 66)
    windows = context_windows(TOKENIZER, [question], [context], max_length=12)
    assert {(window.question_cut, window.context_start) for window in windows} == {(94, 8)}
    with pytest.raises(BertKerasError, match="max_length=5 leaves no room"):
        context_windows(TOKENIZER, [question], [context], max_length=5)


def test_a_context_without_pieces_still_has_a_row():
    (window,) = context_windows(TOKENIZER, ["a"], [" \x07 "], max_length=12)
    assert (window.ids, window.offsets, len(window.kept)) == ([2, 5, 3, 3], [], 0)
    assert context_windows(TOKENIZER, [], [], max_length=12) == []


@pytest.mark.parametrize("text", ["cade\u0301", "b\u0302\u0301e\u0301", "a\ufe0f"])
def test_marks_belong_to_the_piece_before_them(text):
    """The tokenizer takes accents off; a span that leaves them out would cut a letter in two."""
    context = f"a {text} {text}. b"
    (window,) = context_windows(TOKENIZER, ["a"], [context], max_length=40)
    ends = [end for _, end in window.offsets]
    assert {2 + len(text), 3 + 2 * len(text)} <= set(ends)
    assert sorted(window.offsets) == window.offsets
    for (_, end), (start, _) in itertools.pairwise(window.offsets):
        assert end <= start
