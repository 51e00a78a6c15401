import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkeras.text.words import word_spans

# Words are written with a bar between them where no blank stands.
WORDS = [
    "Ghana|'s president , James|’s dogs and the boys|' cats|.",
    "The U.N|. won't meet the U.S|.|-|based AT&T and/or Co|.",
    "It|'s five o'clock|; it|'S rock'n'roll|!",
    "an e-mail|, a well-known well|-|-|done thing|-",
    "3,000.50 $|3.5 100|% -|1 24/7 10|:|30 №|5",
    "x.org/a-b @|user #|tag C|+|+ snake_case .|NET",
    "他|在|2024|年|3|月|买|了|iPhone|手|机|，|真|的|。",
    "NBA|球|星|：|A-B|中|-|文|（|CBA|）",
    "㐀|𠀀|豈 ひらがな 한국어 カタカナ",
    "cafe\u0301 na\u0308ive|, Ångström E\u0302tre 中\u0301|文",
    "हिन्दी भाषा|। ไทย العَرَبِيَّة",
    "👍|🏽 ❤\ufe0f|👨\u200d|👩\u200d|👧|🇬|🇧|!",
    "co\u00adop\u00aderate",
    "“|Why|?|” — |she|…",
]


@pytest.mark.parametrize("marked", WORDS)
def test_words(marked):
    text = marked.replace("|", "")
    assert [text[start:end] for start, end in word_spans(text)] == marked.replace("|", " ").split()


def test_places_are_characters_of_the_text():
    text = " 👍 Müller\u3000in\tGhana's\n元 "
    spans = word_spans(text)
    assert spans == [(1, 2), (3, 9), (10, 12), (13, 18), (18, 20), (21, 22)]
    assert word_spans("") == word_spans(" \n\t\u3000") == []


def test_signs_without_width_are_no_words():
    assert word_spans("\u200eab\u200b\u200bc\ufeff") == [(1, 3), (5, 7)]


@given(st.text() | st.text(st.sampled_from("aZé9_.,&/'’s- \n中文😀\u0301\u200d\u200b\u00ad")))
def test_nothing_is_lost(text):
    end = 0
    for start, next_end in word_spans(text):
        skipped, word = text[end:start], text[start:next_end]
        assert all(sign.isspace() or unicodedata.category(sign) == "Cf" for sign in skipped)
        assert word
        assert not any(sign.isspace() for sign in word)
        assert unicodedata.category(word[0]) != "Cf"
        end = next_end
    assert all(sign.isspace() or unicodedata.category(sign) == "Cf" for sign in text[end:])


@given(st.text(), st.text())
def test_a_blank_ends_a_word(before, after):
    offset = len(before) + 1
    expected = [*word_spans(before), *((start + offset, end + offset) for start, end in word_spans(after))]
    assert word_spans(f"{before} {after}") == expected


def test_long_runs_take_linear_time():
    for run in ("a.", "'", "a'", "a-", "'s", "中", "\u0301", "a\u0301'"):
        begin = time.perf_counter()
        word_spans(run * 100_000 + "!")
        assert time.perf_counter() - begin < 10  # quadratic time would be hours
