import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkeras import BertKerasError
from bertkeras.analysis import swap_words
from bertkeras.analysis.counterfactual import CHINESE, ENGLISH

ONE_TO_ONE = [pair for pair in (*ENGLISH, *CHINESE) if not {"her", "his"} & {*pair}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He saw her.", "She saw him."),
        ("I gave her the book", "I gave him the book"),
        ("Her book is hers, his book is his.", "His book is his, her book is hers."),
        ("THE KING AND MR. SMITH", "THE QUEEN AND MRS. SMITH"),
        ("The theme of mankind, the hero's heroine", "The theme of mankind, the hero's heroine"),
        ("The boy's mother", "The girl's father"),
        ("他的妻子爱他", "她的丈夫爱她"),
        ("王子和公主", "公主和王子"),
        ("a man,\nwomen", "a woman,\nmen"),
        ("", ""),
        ("no such word", "no such word"),
    ],
)
def test_words_become_their_counterparts(text, expected):
    assert swap_words(text) == expected


@given(
    st.lists(st.sampled_from([*(word for pair in ONE_TO_ONE for word in pair), "the", "saw", "是", ","]), max_size=12)
)
def test_twice_is_as_before(words):
    text = " ".join(words)
    assert swap_words(swap_words(text)) == text


@given(st.text(max_size=40))
def test_all_else_stays(text):
    pieces = re.split(r"(\w+)", text)
    words = {word for pair in ENGLISH for word in pair}
    if not any(piece.lower() in words for piece in pieces) and not any(
        word in text for pair in CHINESE for word in pair
    ):
        assert swap_words(text) == text


def test_pairs_of_ones_own():
    pairs = [("black", "white"), ("黑", "白")]
    assert swap_words("He is Black, 黑白", pairs) == "He is White, 白黑"
    assert swap_words("He", []) == "He"
    for wrong in ([("a",)], [("a", "")], ["abc"]):
        with pytest.raises(BertKerasError, match="pairs must be two words"):
            swap_words("text", wrong)
