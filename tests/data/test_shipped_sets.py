"""The sets that ship with the course are what their cards say: whole, varied, and labelled with care."""

import os
import re
import unicodedata
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

from bertkeras.checkpoints.hub import COURSE_BERT
from bertkeras.datasets.shipped import SPLITS, TASKS, shipped_names, shipped_path
from bertkeras.text.tags import spans_of
from tests.data.cards import Figure, card_path, card_table, headings, measured, names_per_100_words
from tests.data.labels import contradicted_shares, listing
from tests.data.language import commonest_opening, diversity, exact_duplicates, near_duplicates, words
from tests.data.real_sets import REAL, real_sentences, real_texts
from tests.data.sets import KINDS, examples, label_names, language, texts

FILES = [(name, split) for name in shipped_names() for split in SPLITS]
TEXTS = [(name, kind) for name in shipped_names() for kind in KINDS[name]]

LESS_VARIED, MORE_VARIED = 0.95, 1.15  # than real texts
# The share of labels that a linear model may contradict with confidence, by kind of decision, of words by type; and a
# share of wrong labels with which it would contradict more. The bounds lie between both measurements.
CONTRADICTED = {
    "english-reviews": ({"all": 0.025}, 0.05),
    "chinese-reviews": ({"all": 0.142}, 0.05),
    "support-tickets": (
        {
            "account": 0.013,
            "billing": 0.022,
            "bug": 0.046,
            "delivery": 0.026,
            "feature_request": 0.024,
            "performance": 0.024,
            "refund": 0.015,
            "security": 0.027,
        },
        0.05,
    ),
    "english-entities": (
        {"outside": 0.004, "date": 0.03, "organisation": 0.13, "person": 0.18, "place": 0.175},
        0.05,
    ),
    "chinese-entities": (
        {"outside": 0.0137, "date": 0.06, "organisation": 0.163, "person": 0.178, "place": 0.163},
        0.1,
    ),
}

ADDRESS = re.compile(
    r"\S@\w+\.\w|https?:|www\.|\b[\w-]+\.(com|org|net|edu|gov|info|io|uk|de|fr|eu|cn)\b", re.IGNORECASE
)
PHONE_NUMBER = re.compile(r"(?<!\d)\+?\d(?:[ ()./-]{0,2}\d){8,}(?!\d)")  # nine digits or more in one go


@pytest.fixture
def home():
    """The folder of the real sets."""
    if "BERTKERAS_DATA_HOME" not in os.environ:
        pytest.skip("BERTKERAS_DATA_HOME is not set")
    return Path(os.environ["BERTKERAS_DATA_HOME"])


def pieces(name):
    """Every text of a set with everything else that stands in it, such as the titles of passages and their answers."""
    found = [text for kind in KINDS[name] for text in texts(name, kind)]
    if TASKS[name] == "question-answering":
        found += [answer.text for example in examples(name) for answer in example.answers]
    return found


def test_every_set_is_here():
    assert set(KINDS) == set(shipped_names())
    folders = {path.name for path in shipped_path("passages", "dev").parents[1].iterdir() if path.is_dir()}
    assert folders == {*shipped_names(), COURSE_BERT}


@pytest.mark.parametrize(("name", "split"), FILES)
def test_files_are_clean_text(name, split):
    raw = shipped_path(name, split).read_bytes()
    text = raw.decode("utf-8")
    assert unicodedata.is_normalized("NFC", text)
    assert re.search(r"[^\n]\n\Z", text), "one newline at the end"
    odd = {sign for sign in text if unicodedata.category(sign)[0] in "C" or unicodedata.category(sign) in ("Zl", "Zp")}
    assert odd <= ({"\n"} if TASKS[name] == "question-answering" else {"\n", "\t"})
    assert set(re.findall(r"[^\S \n\t]", text)) == set(), "only the plain space"


@pytest.mark.parametrize("name", shipped_names())
def test_texts_are_clean(name):
    for text in pieces(name):
        assert text == text.strip()
        assert "  " not in text
        assert not ADDRESS.search(text), text
        assert not PHONE_NUMBER.search(text), text


@pytest.mark.parametrize("name", shipped_names())
def test_the_card_has_what_is_measured(name):
    card = card_path(name).read_text(encoding="utf-8")
    for heading in headings(name):
        table, expected = card_table(card, heading), measured(name, heading)
        assert len(table) == len(expected), heading
        for row, figures in zip(table, expected, strict=True):
            assert len(row) == len(figures), heading
            for cell, figure in zip(row, figures, strict=True):
                fits = figure.fits(cell) if isinstance(figure, Figure) else cell == str(figure)
                assert fits, f"{heading}: the card has {cell!r} where {figure} was measured, in the row of {row[0]!r}"


@pytest.mark.parametrize("name", shipped_names())
def test_the_overview_has_the_sizes_of_the_card(name):
    overview = (card_path(name).parents[1] / "README.md").read_text(encoding="utf-8")
    row = next(line for line in overview.splitlines() if line.startswith(f"| [{name}]({name}/README.md) |"))
    assert f"| {' / '.join(str(len(examples(name, split))) for split in SPLITS)} |" in row
    assert f"| {TASKS[name]} |" in row


@pytest.mark.parametrize("name", shipped_names())
def test_every_split_has_every_label_in_proportion(name):
    if TASKS[name] == "question-answering":
        whole, *parts = [
            sum(not example.answers for example in examples(name, split)) / len(examples(name, split))
            for split in (None, *SPLITS)
        ]
        assert all(abs(part - whole) < 0.05 for part in parts)
        return
    for label in label_names(name):
        shares = []
        for split in (None, *SPLITS):
            if TASKS[name] == "entities":
                types = [span.type for example in examples(name, split) for span in spans_of(example.tags)]
            else:
                types = [given for example in examples(name, split) for given in labels_of(example)]
            shares.append(types.count(label) / len(types))
        # entities were not dealt out by type; the dev set of the Chinese ones has 97 of them
        assert max(abs(share - shares[0]) for share in shares) < (0.1 if TASKS[name] == "entities" else 0.03), label


def labels_of(example):
    return example.label if isinstance(example.label, tuple) else (example.label,)


@pytest.mark.parametrize(("name", "kind"), TEXTS)
def test_nothing_is_there_twice(name, kind):
    found = texts(name, kind)
    assert exact_duplicates(found) == []
    assert near_duplicates(found, 5 if language(name) == "zh" else 3, above=0.5) == []


@pytest.mark.parametrize(("name", "field"), [("entailment", "text"), ("passages", "context")])
def test_what_belongs_together_stands_in_one_split(name, field):
    seen = [{tuple(words(getattr(example, field))) for example in examples(name, split)} for split in SPLITS]
    assert sum(map(len, seen)) == len(set.union(*seen))


@pytest.mark.parametrize(("name", "kind"), TEXTS)
def test_language_is_as_varied_as_that_of_real_texts(name, kind):
    real = REAL[KINDS[name][kind]]
    same_language = [each.diversity for each in REAL.values() if each.language == real.language]
    for share, of_task, *of_language in zip(diversity(texts(name, kind)), real.diversity, *same_language, strict=True):
        assert LESS_VARIED * of_task <= share <= MORE_VARIED * max(of_language)
    assert commonest_opening(texts(name, kind)) <= real.opening


def test_the_measures_notice_templates():
    """Of 40 templates with 500 words to fill in, what a set of 600 texts would be."""
    fillers = [f"word{number}" for number in range(500)]
    made = [
        f"{' '.join(f'{template}of{place}' for place in range(10))} {fillers[(7 * template + 3 * copy) % 500]} end"
        for copy in range(15)
        for template in range(40)
    ]
    least = min(REAL.values(), key=lambda real: real.diversity.distinct_3).diversity
    assert diversity(made).distinct_3 < 0.5 * least.distinct_3
    assert len(near_duplicates(made, 3, above=0.5)) == 40 * 15 * 14 / 2


@pytest.mark.parametrize("key", REAL)
def test_real_sets_have_the_figures_recorded(key, home):
    real = REAL[key]
    missing = [file for file in real.files if not (home / file).is_file()]
    if missing:
        pytest.skip(f"{missing[0]} is not in BERTKERAS_DATA_HOME")
    found = real_texts(key, home)
    assert list(diversity(found)) == pytest.approx(list(real.diversity), abs=0.0005001)
    assert commonest_opening(found) == pytest.approx(real.opening, abs=0.0005001)
    if real.names is not None:
        assert names_per_100_words(real_sentences(key, home), real.language) == pytest.approx(real.names, abs=0.05001)


@pytest.mark.parametrize("name", CONTRADICTED)
def test_few_labels_are_contradicted(name):
    bounds, _ = CONTRADICTED[name]
    shares = contradicted_shares(name)
    assert set(shares) == set(bounds)
    above = {kind: share for kind, share in shares.items() if share > bounds[kind]}
    assert not above, "\n".join(["read these again:", *listing(name)])


@pytest.mark.parametrize("name", CONTRADICTED)
def test_wrong_labels_would_be_noticed(name):
    bounds, wrong = CONTRADICTED[name]
    assert all(share > bounds[kind] for kind, share in contradicted_shares(name, wrong).items())


def test_the_hypotheses_do_not_give_the_labels_away():
    card = card_table(card_path("entailment").read_text(encoding="utf-8"), "Difficulty")
    alone = next(float(figure) for row, figure in card if row.endswith("hypothesis alone"))
    # 2 SD of a share of one third in 500 pairs are 0.042; of SNLI's hypotheses about two thirds give their label away
    # (Gururangan et al. 2018, "Annotation Artifacts in Natural Language Inference Data")
    assert alone < 0.45
