"""The steps of the pipeline without Beam: in whatever order the elements come, they make the files of `prepare`."""

import itertools
import json
import pickle

import numpy as np
import pytest

from bertkeras.pipelines import beam_steps
from bertkeras.pipelines.beam_steps import Steps
from bertkeras.pipelines.documents import NamedSegmenter, joined, make_encoder, tokenised
from bertkeras.pipelines.layout import Layout
from bertkeras.pipelines.prepare import prepare
from bertkeras.pipelines.sentence_pairs import RowOptions
from bertkeras.text.corpus import Corpus
from tests.pipelines.test_beam import PIECES, TOKENIZER, documents, files_of

OPTIONS = RowOptions(24)
SIZES = {"held_out_share": 0.2, "passes": 2, "block_tokens": 300, "rows_per_shard": 20}


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    texts = list(documents())
    for number in range(6):
        (folder / f"{number}.txt").write_text("\n\n".join(texts[10 * number : 10 * number + 10]), encoding="utf-8")
    return Corpus(folder)


def run(steps, random):
    """The pipeline on lists, shuffled before every step and in every group."""

    def shuffled(elements):
        elements = list(elements)
        return [elements[i] for i in random.permutation(len(elements))]

    def each(step, elements, *side):
        return shuffled(itertools.chain.from_iterable(step(element, *side) for element in elements))

    def grouped(pairs):
        groups = {}
        for key, value in pairs:
            groups.setdefault(key, []).append(value)
        return shuffled(groups.items())

    chunks = list(map(steps.tokenise, each(steps.read, shuffled(steps.units()))))
    plan = steps.lay_out(shuffled(map(steps.measure, chunks)))
    blocks = list(map(steps.join, grouped(each(steps.place, chunks, plan))))
    counts = each(steps.count_rows, blocks)
    shards = list(map(steps.write, grouped(each(steps.make_rows, blocks, counts))))
    some = each(steps.count_ngrams, blocks, plan)
    ngrams = steps.add_ngrams([steps.add_ngrams(some[:3]), *some[3:]])  # as workers add what others have added
    steps.conclude(None, plan, counts, shards, ngrams)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_elements_does_not_matter(tmp_path, corpus, monkeypatch, seed):
    monkeypatch.setattr(beam_steps, "CHUNK_CHARACTERS", 500)
    prepared = prepare(corpus, TOKENIZER, tmp_path / "single", OPTIONS, **SIZES)
    TOKENIZER.save(tmp_path / "steps")
    sizes = {**SIZES, "vocabulary_size": TOKENIZER.vocabulary_size, "segmenter": None}
    steps = Steps(corpus, tmp_path / "steps", OPTIONS, **sizes)
    run(pickle.loads(pickle.dumps(steps)), np.random.default_rng(seed))
    expected, made = files_of(tmp_path / "single"), files_of(tmp_path / "steps")
    summary = json.loads(made.pop("summary.json"))
    assert made == {name: expected[name] for name in made}
    assert expected.keys() - made.keys() == {"train/index.json", "held_out/index.json", "prepared.json"}
    assert summary["layout"]["counted"].items() <= prepared.statistics.items()
    assert summary["tokens"] == {"train": prepared.train.tokens, "held_out": prepared.held_out.tokens}
    sizes = [shard["size"] for shard in summary["shards"]["train"]]
    assert sizes == [shard.size for shard in prepared.train.shards]


def test_a_document_is_found_where_it_was_placed():
    layout = Layout(seed=3, held_out_share=0.3, block_tokens=100)
    random = np.random.default_rng(0)
    placed = [layout.add(int(tokens), 2) for tokens in random.integers(1, 150, 200)]
    assert [layout.place_of(number) for number in range(200)] == placed
    assert layout.counted["held_out_documents"] == sum(part == "held_out" for part, _ in placed)
    assert sum(layout.block_sizes["train"]) + sum(layout.block_sizes["held_out"]) == layout.counted["tokens"]


def test_a_block_ends_before_the_document_that_would_make_it_too_large():
    layout = Layout(seed=0, held_out_share=1e-9, block_tokens=100)
    assert [layout.add(tokens, 1)[1] for tokens in (60, 40, 1, 99, 150, 3)] == [0, 0, 1, 1, 2, 3]
    assert layout.block_sizes["train"] == [100, 100, 150, 3]
    assert layout.first_documents["train"] == [0, 2, 4, 5]


def test_blocks_are_joined_end_to_end():
    texts = ["river stone.\nbird.", "\u200b", "wind."]
    first, last = tokenised(texts, make_encoder(TOKENIZER, None))
    block = joined([joined([first]), last])
    assert [PIECES[i] for i in block.tokens] == ["river", "stone", ".", "bird", ".", "wind", "."]
    assert block.sentence_starts.tolist() == [0, 3, 5]
    assert block.document_starts.tolist() == [0, 5]
    assert [part.dtype.name for part in block] == ["int32", "bool", "int64", "int64"]


def test_a_named_segmenter_travels_by_its_name():
    segmenter = NamedSegmenter("tests.pipelines.test_beam:halves")
    assert segmenter("山水天") == ["山水", "天"]
    again = pickle.loads(pickle.dumps(segmenter))
    assert again == segmenter
    assert "function" not in vars(again)
    with pytest.raises(AttributeError):
        NamedSegmenter("textwrap:nothing")("山水")


def test_the_units_of_a_corpus_are_the_corpus(corpus):
    assert [text for unit in corpus.units() for text in corpus.read(unit)] == list(corpus)
