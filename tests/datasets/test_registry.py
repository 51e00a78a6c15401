"""What is known of the data sets, and the sets themselves where `BERTKERAS_DATA_HOME` has them."""

import collections
import gzip
import hashlib
import itertools
import json
import os
import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from bertkeras.datasets import (
    QuestionExample,
    TextExample,
    TokenExample,
    info,
    load,
    locate,
    names,
    rows,
    splits,
)
from bertkeras.datasets.adapters import READERS
from bertkeras.datasets.readers import TASKS, types_of
from bertkeras.datasets.registry import SET_TASKS
from bertkeras.errors import BertKerasError
from bertkeras.text.corpus import Corpus

HOME = os.environ.get("BERTKERAS_DATA_HOME")
CORPORA = {"enwiki-sample": 15_305, "zhwiki-sample": 12_538, "bert-sample-text": 3}  # documents
# As the data home's own lists have them; of CMRC 2018 less what its authors marked wrongly, of XCOPA two for a row
HELD = {
    "movie-reviews-v2": {"train": 1_600, "dev": 200, "test": 200},
    "uci-sentiment-sentences": {"train": 2_400, "test": 600},
    "cold": {"train": 25_726, "dev": 6_431, "test": 5_323},
    "subjectivity": {"train": 8_000, "dev": 1_000, "test": 1_000},
    "asap-sample": {"train": 100, "dev": 100, "test": 100},
    "goemotions": {"train": 43_410, "dev": 5_426, "test": 5_427},
    "sib200-en": {"train": 701, "dev": 99, "test": 204},
    "sib200-zh": {"train": 701, "dev": 99, "test": 204},
    "clinc150": {"train": 15_100, "dev": 3_100, "test": 5_500, "train-in": 15_000, "dev-in": 3_000, "test-in": 4_500},
    "uner-en-ewt": {"dev": 2_001, "test": 2_077},
    "uner-zh-gsdsimp": {"train": 3_997, "dev": 500, "test": 500},
    "wnut17": {"train": 3_394, "dev": 1_009, "test": 1_287},
    "cmrc2018": {"trial": 1_002 - 7, "dev": 3_219 - 3},
    "squad-v1.1-dev": {"dev": 10_570, "train38": 8_582, "test10": 1_988},
    "snli-dev-test": {"dev": 9_842, "test": 9_824},
    "xcopa-zh": {"dev": 2 * 100, "test": 2 * 500},
    "pararel": {"facts": 27_610, "patterns": 329},
    "blimp-13": {"test": 13_000, "wh_island": 1_000, "passive_1": 1_000},
    "crows-pairs": {"test": 1_508},
    "winobias": {"dev": 1_584, "test": 1_584},
}
FILES_ALONE = ["wikitext-2", "bert-vocabs", "bert-tf1-checkpoints"]
ELSEWHERE = """
    squad-v1.1 squad-v2.0 drcd xquad-en xquad-zh snli ocnli xnli-en xnli-zh med paws-wiki paws-x-zh sst-2
    sentence-polarity cola mrpc rte sts-b lcqmc afqmc tnews ag-news thucnews banking77 nlu-plus-plus asap chnsenticorp
    waimai_10k cluener resume-ner weibo-ner msra-ner wikigold conll-2003 stereoset winogender lama
"""


def test_the_names():
    assert names() == sorted([*CORPORA, *HELD, *FILES_ALONE, *ELSEWHERE.split()])
    assert set().union(*(names(task) for task in SET_TASKS)) == set(names())
    assert "cold" in names("classification", "zh")
    assert "cold" not in names("classification", "en") + names("entities", "zh")
    assert names(language="fr") == []
    with pytest.raises(BertKerasError, match="unknown task 'tagging'; choose one of classification,"):
        names("tagging")
    with pytest.raises(BertKerasError, match="no data set is called 'imdb'; the names are afqmc, "):
        info("imdb")


@pytest.mark.parametrize("name", names())
def test_an_entry_is_whole(name):
    found = info(name)
    for text in (found.title, found.licence, found.citation):
        assert text.strip() == text
        assert len(text) > 2
    assert found.page.startswith("http")
    assert set(found.tasks) <= set(SET_TASKS)
    assert found.tasks
    assert set(found.languages) <= {"en", "zh", "multilingual"}
    assert found.splits == splits(name) == splits(name, found.tasks[0])
    assert len(set(found.labels)) == len(found.labels)
    for task, reading in found.read.items():
        assert task not in TASKS or reading["format"] in READERS
    for split in found.splits:
        assert found.files_of(split)
    paths = [file.path for file in found.files]
    assert len(set(paths)) == len(paths)
    for file in found.files:
        assert re.fullmatch(r"[\w.+-]+(/[\w.+-]+)+", file.path)
        assert ".." not in file.path
        assert file.split or found.parts
        assert file.sha256 is None or (re.fullmatch("[0-9a-f]{64}", file.sha256) and file.bytes)
        assert bool(file.sources) != bool(found.obtain), "fetched, or how it is got otherwise"
        for source in file.sources:
            assert re.fullmatch(r"https://[\w.-]+/[\w.%/+-]+", source.url)
            is_archive = re.search(r"\.(zip|tar\.gz)$", source.url)
            assert source.compression == ("" if not is_archive else "zip" if source.url.endswith("zip") else "tar")
    with pytest.raises(BertKerasError, match=f"{name} has no split 'all'; its splits are {found.splits[0]}"):
        locate(name, "all")


def test_a_path_means_one_content():
    files = collections.defaultdict(set)
    for name in names():
        for file in info(name).files:
            files[file.path].add((file.sha256, file.bytes, file.sources))
    assert {path for path, contents in files.items() if len(contents) > 1} == set()


def test_every_archive_is_of_use():
    table = resources.files("bertkeras.datasets") / "sets" / "archives.toml"
    known = tomllib.loads(table.read_text(encoding="utf-8"))
    sources = {source for name in names() for file in info(name).files for source in file.sources if source.member}
    assert set(known) <= {source.url for source in sources}
    for source in sources:
        assert (source.sha256, source.bytes) == tuple(known.get(source.url, {}).get(key) for key in ("sha256", "bytes"))


def test_questions_that_make_no_sense():
    for call, said in [
        (lambda: splits("cold", "regression"), "cold is for classification, not for 'regression'"),
        (lambda: load("asap-sample", "dev", "entities"), "for multi-label and regression, not for 'entities'"),
        (lambda: load("crows-pairs", "test"), "its rows are rows\\('crows-pairs', 'test'\\)"),
        (lambda: rows("cold"), "cold is no probe; its examples are load\\('cold', 'test'\\)"),
        (lambda: load("xcopa-zh"), "xcopa-zh has no split 'train'; its splits are dev, test"),
    ]:
        with pytest.raises(BertKerasError, match=said):
            call()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lcqmc", "give it to researchers who apply at http://icrc.hitsz.edu.cn/"),
        ("msra-ner", "no open address is known"),
        ("conll-2003", "order the Reuters Corpus, Volume 1, from NIST"),
    ],
)
def test_sets_that_must_be_asked_for(name, said, tmp_path, monkeypatch):
    path = tmp_path / "home" / info(name).files[0].path
    monkeypatch.setenv("BERTKERAS_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BERTKERAS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BertKerasError, match=said) as caught:
        load(name)
    assert str(caught.value).startswith(f"{name} is not here (no {path}, no {tmp_path / 'cache'}")
    assert str(caught.value).endswith(f"; put the file at {path}")
    assert "\n" not in str(caught.value)


# The sets of the data home


@pytest.fixture
def held(tmp_path, monkeypatch):
    """Only what the data home has is there."""

    def check(name):
        folder = info(name).files[0].path.partition("/")[0]
        if HOME is None or not Path(HOME, folder).is_dir():
            pytest.skip(f"{name} is not in BERTKERAS_DATA_HOME")

    monkeypatch.setenv("BERTKERAS_OFFLINE", "1")
    monkeypatch.setenv("BERTKERAS_CACHE", str(tmp_path))
    return check


@pytest.mark.parametrize("name", [*CORPORA, *FILES_ALONE])
def test_held_files(held, name):
    held(name)
    for file in info(name).files:
        path = locate(name, file.split)
        assert path.is_file()
        assert name in FILES_ALONE or file.is_extra or load(name) == path
    if name in CORPORA:
        assert sum(1 for _ in Corpus(load(name))) == CORPORA[name]


@pytest.mark.parametrize("name", HELD)
def test_held_examples(held, name):
    held(name)
    found = info(name)
    for split, count in HELD[name].items():
        for task in found.tasks:
            if task == "probe":
                assert len(rows(name, split)) == count
                continue
            examples = load(name, split, task)
            assert len(examples) == count
            if name not in ("cmrc2018", "xcopa-zh"):
                assert found.rows[split] == count
            kind = {"entities": TokenExample, "question-answering": QuestionExample}.get(task, TextExample)
            assert {type(example) for example in examples} == {kind}
            if found.labels and task != "regression":
                labels = {label for example in examples for label in labels_of(example)}
                assert labels == set(found.labels) or name == "asap-sample"
                assert labels <= set(found.labels)
    for file in found.files:
        if file.is_extra:
            assert locate(name, file.split).is_file()
            with pytest.raises(BertKerasError, match=f"'{file.split}' of {name} holds no examples|its rows are"):
                load(name, file.split)


def unpacked(path):
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def labels_of(example):
    if isinstance(example, TokenExample):
        return types_of([example])
    return example.label if isinstance(example.label, tuple) else [example.label]


@pytest.mark.parametrize("name", ["movie-reviews-v2", "uci-sentiment-sentences", "subjectivity"])
def test_folds_take_everything_once(held, name):
    held(name)
    folds = [load(name, split) for split in info(name).splits if split.startswith("fold")]
    parts = [load(name, split) for split in HELD[name]]
    everything = collections.Counter(itertools.chain(*folds))
    assert sum(everything.values()) == sum(HELD[name].values())
    assert everything == collections.Counter(itertools.chain(*parts))
    assert len({len(fold) for fold in folds}) == 1
    assert all(len({example.label for example in fold}) == 2 for fold in folds)


def test_folds_are_those_of_the_authors(held):
    held("movie-reviews-v2")
    records = [json.loads(line) for line in unpacked(locate("movie-reviews-v2", "dev")).splitlines()]
    expected = [record["text"] for record in records if record["fold"] == 7]
    assert [example.text for example in load("movie-reviews-v2", "fold7")] == expected


def test_every_fifth_line_is_for_the_test(held):
    held("uci-sentiment-sentences")
    lines = Path(HOME, "uci-sentiment-sentences", "amazon_cells_labelled.txt").read_text(encoding="utf-8").split("\n")
    test = load("uci-sentiment-sentences", "test")
    assert [example.text for example in test[:200]] == [line.rpartition("\t")[0] for line in lines[4::5]]


def test_articles_of_squad_stay_together(held):
    held("squad-v1.1-dev")
    train, test, whole = (load("squad-v1.1-dev", split) for split in ("train38", "test10", "dev"))
    assert train + test == whole == load("squad-v1.1", "dev")
    assert not {example.context for example in train} & {example.context for example in test}


def test_what_cmrc_lost_is_told(held, caplog):
    held("cmrc2018")
    assert len(load("cmrc2018", "trial")) == 995
    assert caplog.messages == [
        f"{locate('cmrc2018', 'trial')}: left out 5 answers that are not where they say, and 7 questions that are blank"
        " or have no other"
    ]
    examples = load("cmrc2018", "dev")
    assert sum(len(example.answers) for example in examples) == 9_657 - 200
    assert all(example.answers for example in examples)


def test_languages_of_sib200_are_parallel(held):
    held("sib200-en")
    for split in splits("sib200-en"):
        english, chinese = load("sib200-en", split), load("sib200-zh", split)
        assert [example.label for example in english] == [example.label for example in chinese]
        assert english != chinese


def test_labels_are_those_of_the_files_beside(held):
    held("goemotions")
    assert info("goemotions").labels == tuple(locate("goemotions", "labels").read_text().split())
    held("sib200-en")
    assert set(info("sib200-en").labels) == set(locate("sib200-en", "labels").read_text().split())
    held("clinc150")
    domains = json.loads(locate("clinc150", "domains").read_text())
    intents = {example.label for example in load("clinc150", "test")}
    assert intents == {"oos", *itertools.chain(*domains.values())}
    assert len(intents) == 151


def test_some_examples(held):
    for name in ("cold", "snli-dev-test", "xcopa-zh", "asap-sample", "winobias"):
        held(name)
    assert load("cold", "test")[0] == TextExample("只要不来中国的外国人就是好外国人[机智]", label="offensive")
    first = load("snli-dev-test", "dev")[0]
    assert (first.text[:9], first.pair[:11], first.label) == ("Two women", "The sisters", "neutral")
    package, fragile = "该物品用气泡包装纸包着。", "它很易碎。"  # the bubbles are there since it breaks easily
    assert load("xcopa-zh", "test")[0] == TextExample(fragile, package, "plausible")
    assert {len(example.label) > 0 for example in load("asap-sample", "dev")} == {True}
    assert {example.label for example in load("asap-sample", "dev", "regression")} <= {1.0, 2.0, 3.0, 4.0, 5.0}
    row = rows("winobias", "dev")[0]
    assert (row["number"], row["stereotype"], row["type"]) == (1, "pro", 1)
    assert row["text"] == "[The developer] argued with the designer because [he] did not like the design."


def test_every_hash_of_the_data_home(held):
    if HOME is None:
        pytest.skip("BERTKERAS_DATA_HOME is not set")
    checked = 0
    for name in [*HELD, *CORPORA, *FILES_ALONE]:
        for file in info(name).files:
            for path in (Path(HOME, file.path), Path(HOME, f"{file.path}.gz")):
                if path.is_file():
                    raw = unpacked(path)
                    assert (hashlib.sha256(raw).hexdigest(), len(raw)) == (file.sha256, file.bytes), path
                    checked += 1
    assert checked
