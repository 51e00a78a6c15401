import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkeras.errors import BertKerasError
from bertkeras.text.tags import SCHEMES, Span, forbidden_pairs, is_tag, spans_of, tag_names, tags_of

TYPES = ["place", "creative-work", "人名"]


@st.composite
def sentences(draw):
    """A number of words, and entities in them: each piece is so many words, of a type or of none."""
    pieces = draw(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([None, *TYPES]))))
    ends = list(itertools.accumulate(length for length, _ in pieces))
    spans = [Span(end - length, end, type) for end, (length, type) in zip(ends, pieces, strict=True) if type]
    return spans, ends[-1] if ends else 0


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("io", ["O", "I-a", "I-b"]),
        ("bio", ["O", "B-a", "I-a", "B-b", "I-b"]),
        ("bioes", ["O", "B-a", "I-a", "E-a", "S-a", "B-b", "I-b", "E-b", "S-b"]),
    ],
)
def test_names(scheme, expected):
    assert tag_names(["a", "b"], scheme) == expected
    assert all(map(is_tag, expected))


@pytest.mark.parametrize("tag", ["", "o", "B", "B-", "-a", "b-a", "M-a", "BI-a", "a-B", "O-a", "I_a"])
def test_no_tags(tag):
    assert not is_tag(tag)


@given(sentences(), st.sampled_from(["bio", "bioes"]))
def test_spans_to_tags_and_back(sentence, scheme):
    spans, length = sentence
    tags = tags_of(random.Random(7).sample(spans, len(spans)), length, scheme)  # in any order
    assert len(tags) == length
    assert set(tags) <= set(tag_names(TYPES, scheme))
    assert spans_of(tags) == spans


@given(sentences())
def test_io_makes_one_of_neighbours(sentence):
    spans, length = sentence
    merged = []
    for span in spans:
        if merged and merged[-1].end == span.start and merged[-1].type == span.type:
            span = Span(merged.pop().start, *span[1:])
        merged.append(span)
    assert spans_of(tags_of(spans, length, "io")) == merged


@given(st.lists(st.sampled_from(tag_names(["place", "creative-work"], "bioes"))))
def test_tags_that_no_scheme_allows_are_read_as_seqeval_does(tags):
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="seqeval is not installed")
    theirs = [Span(start, end + 1, type) for type, start, end in labeling.get_entities(tags)]
    assert spans_of(tags) == theirs


@pytest.mark.parametrize("scheme", SCHEMES)
def test_10000_random_sentences_are_read_as_seqeval_does(scheme):
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="seqeval is not installed")
    draw = random.Random(11)
    names = tag_names(TYPES, scheme)
    for _ in range(10_000):
        tags = draw.choices(names, k=draw.randrange(13))
        theirs = [Span(start, end + 1, type) for type, start, end in labeling.get_entities(tags)]
        assert spans_of(tags) == theirs, tags


@given(st.lists(st.sampled_from(tag_names(TYPES, "bioes"))))
def test_what_was_read_can_be_written(tags):
    spans = spans_of(tags)
    assert spans_of(tags_of(spans, len(tags))) == spans


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([(0, 0, "a")], "0..0"),
        ([(2, 1, "a")], "2..1"),
        ([(-1, 1, "a")], "-1..1"),
        ([(1, 4, "a")], "1..4 .* 3 words"),
        ([(0, 2, "a"), (1, 3, "b")], "1..3 \\(b\\) overlaps"),
        ([(0, 3, "a"), (1, 2, "a")], "1..2"),
    ],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_that_do_not_fit(spans, said, scheme):
    with pytest.raises(BertKerasError, match=said):
        tags_of(spans, 3, scheme)


def test_unknown_scheme():
    for call in (lambda: tag_names([], "iob"), lambda: tags_of([], 0, "iob")):
        with pytest.raises(BertKerasError, match="scheme must be one of io, bio, bioes, got 'iob'"):
            call()


def legal_sentences(types, scheme, length):
    """Every sentence of tags that some set of spans gives, by trying all of them."""
    if length == 0:
        return {()}
    whole = {("O", *rest) for rest in legal_sentences(types, scheme, length - 1)}
    for size in range(1, length + 1):
        for type in types:
            first = tags_of([(0, size, type)], size, scheme)
            whole |= {(*first, *rest) for rest in legal_sentences(types, scheme, length - size)}
    return whole


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("order", [1, -1])
def test_a_sentence_is_forbidden_if_no_spans_give_it(scheme, order):
    names = tag_names(["a", "b"], scheme)[::order]
    forbidden = set(forbidden_pairs(names))
    for length in range(1, 5):
        legal = legal_sentences(["a", "b"], scheme, length)
        for numbers in itertools.product(range(len(names)), repeat=length):
            allowed = not forbidden & set(itertools.pairwise([-1, *numbers, -1]))
            assert allowed == (tuple(names[number] for number in numbers) in legal)


def test_the_empty_sentence_is_never_forbidden():
    for scheme in SCHEMES:
        assert (-1, -1) not in forbidden_pairs(tag_names(["a"], scheme))
