"""The pipeline writes the very bytes that `prepare` writes, whatever runs it."""

import contextlib
import gzip
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bertkeras import BertKerasError, WordPieceTokenizer
from bertkeras.cli import main
from bertkeras.pipelines import beam, beam_steps
from bertkeras.pipelines.documents import NamedSegmenter
from bertkeras.pipelines.ngrams import NgramCounts
from bertkeras.pipelines.prepare import Prepared, prepare
from bertkeras.pipelines.sentence_pairs import RowOptions
from bertkeras.text.corpus import Corpus

ROOT = Path(__file__).parents[2]
WORDS = ["river", "stone", "bird", "light", "wind", "tree", "night", "song", "cloud", "rain"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "##s", "山", "水", "天", "地", "。", *WORDS]
TOKENIZER = WordPieceTokenizer(PIECES)
ONE = ("--direct_running_mode=in_memory", "--direct_num_workers=1")  # in this process: no seconds lost in starting
SIZES = {"held_out_share": 0.2, "passes": 2, "block_tokens": 300, "rows_per_shard": 20}

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason='Apache Beam is not installed: pip install "bertkeras[beam]"',
)


def documents(count=60, seed=0, words=WORDS, space=" ", stop="."):
    random = np.random.default_rng(seed)
    for _ in range(count):
        lengths = random.integers(3, 9, random.integers(2, 9))
        yield "\n".join(space.join(random.choice(words, length)) + stop for length in lengths)


def halves(sentence):
    """A segmenter: words of two characters."""
    return [sentence[i : i + 2] for i in range(0, len(sentence), 2)]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The same kinds of text as one file, as JSON lines, as several files, and in Chinese."""
    home = tmp_path_factory.mktemp("texts")
    texts = list(documents())
    texts[7:9] = ["\u200b\n\u200b", "stone.\n\u200b\nbird."]  # a document without a piece, and a sentence without one
    (home / "one.txt").write_text("\n\n".join(texts), encoding="utf-8")
    (home / "lines.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    many = home / "many" / "inner"
    many.mkdir(parents=True)
    (many / "b.txt").write_text("\n\n".join(texts[:20]), encoding="utf-8")
    (many / "empty.txt").touch()
    (many.parent / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[20:23]))
    (many.parent / "c.txt.gz").write_bytes(gzip.compress("\n\n".join(texts[23:50]).encode()))
    for number, text in enumerate(texts[50:]):
        (many / f"{number}.md").write_text(text, encoding="utf-8")
    chinese = documents(seed=1, words=list("山水天地"), space="", stop="。")
    (home / "chinese.txt").write_text("\n\n".join(chinese), encoding="utf-8")
    return home


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def both(source, folder, options, workers=ONE, **changes):
    """What `prepare` and the pipeline write, each as a dictionary from file to bytes."""
    settings = {**SIZES, **changes}
    prepare(Corpus(source), TOKENIZER, folder / "single", options, **settings)
    beam.prepare_with_beam(Corpus(source), TOKENIZER, folder / "beam", options, **settings, pipeline_options=workers)
    assert sorted(path.name for path in folder.iterdir()) == ["beam", "single"]
    return files_of(folder / "single"), files_of(folder / "beam")


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(beam_steps, "CHUNK_CHARACTERS", 700)


@needs_beam
@pytest.mark.parametrize(
    ("pairs", "source"), [("nsp", "many"), ("nsp", "one.txt"), ("sop", "many"), ("none", "one.txt"), ("packed", "many")]
)
def test_every_kind_of_pairs_gives_the_same_files(texts, tmp_path, small_chunks, pairs, source):
    single, made = both(texts / source, tmp_path, RowOptions(24, pairs=pairs))
    assert made == single
    assert sum(name.startswith("train/rows-") for name in single) > 5


@needs_beam
def test_json_lines_and_one_large_block(texts, tmp_path):
    single, made = both(texts / "lines.jsonl", tmp_path, RowOptions(24, seed=5), block_tokens=2**22, passes=3)
    assert made == single


@needs_beam
@pytest.mark.parametrize("pairs", ["nsp", "packed"])
def test_a_segmenter_gives_the_same_word_boundaries(texts, tmp_path, small_chunks, pairs):
    single, made = both(texts / "chinese.txt", tmp_path, RowOptions(24, pairs=pairs), segmenter=halves)
    assert made == single
    assert Prepared.open(tmp_path / "beam").train.has_word_boundaries


@needs_beam
@pytest.mark.parametrize(("block_tokens", "rows_per_shard"), [(1, 1), (10**6, 10**6)])
def test_extreme_sizes(texts, tmp_path, block_tokens, rows_per_shard):
    sizes = {"block_tokens": block_tokens, "rows_per_shard": rows_per_shard, "passes": 1}
    single, made = both(texts / "many", tmp_path, RowOptions(24, pairs="none"), **sizes)
    assert made == single


@needs_beam
def test_ngrams_stop_at_the_same_block(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(NgramCounts.__init__, "__defaults__", (700,))
    single, made = both(texts / "many", tmp_path, RowOptions(24))
    assert made == single
    counted = NgramCounts.load(tmp_path / "beam" / "ngrams.safetensors").unigrams.sum()
    assert 700 <= counted < 1000 < Prepared.open(tmp_path / "beam").statistics["tokens"]


@needs_beam
@pytest.mark.parametrize(
    "workers",
    [
        ("--direct_num_workers=2",),  # in processes, as by default
        ("--direct_num_workers=3", "--direct_running_mode=multi_threading"),
        (
            "--runner=PortableRunner",
            "--job_endpoint=embed",
            "--environment_type=LOOPBACK",
        ),  # as Flink and Spark are told
        ("--runner=BundleBasedDirectRunner", *ONE),
    ],
    ids=["2 processes", "3 threads", "a job server", "another runner"],
)
def test_other_workers_and_runners_give_the_same_files(texts, tmp_path, monkeypatch, workers):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    segmenter = NamedSegmenter("tests.pipelines.test_beam:halves")
    single, made = both(texts / "many", tmp_path, RowOptions(24), workers, segmenter=segmenter)
    assert made == single


@needs_beam
@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        ("\n\n", {}, "nothing to train on"),
        ("\u200b\n\n\u200b", {}, "no documents"),
        ("river stone.", {}, "no row to train on.*two documents"),
        ("river stone.\nbird.\n\n" * 9, {"held_out_share": 0.001}, "no row to evaluate on"),
        ("river stone.\nbird.", {"held_out_share": 0.0}, "held_out_share"),
        ("river stone.\nbird.", {"passes": 0}, "passes"),
        ("river stone.\nbird.", {"segmenter": str.split}, "segmenter changed the text"),
        (b"river \xff", {}, "not UTF-8"),
    ],
)
def test_what_cannot_be_prepared_is_told_in_the_same_words(tmp_path, text, changes, words):
    source = tmp_path / "text.txt"
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BertKerasError, match=words) as single:
        prepare(Corpus(source), TOKENIZER, tmp_path / "single", RowOptions(24), **{**SIZES, **changes})
    with pytest.raises(BertKerasError) as made:
        beam.prepare_with_beam(
            Corpus(source), TOKENIZER, tmp_path / "beam", RowOptions(24), **{**SIZES, **changes}, pipeline_options=ONE
        )
    assert str(made.value) == str(single.value)
    assert not (tmp_path / "beam").exists()


@needs_beam
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["FlinkRunner"], "--name=value"),
        ("--runner=FlinkRunner", "a list of"),
        (["--runner=NoSuchRunner"], "the Beam pipeline failed.*NoSuchRunner"),
        (["--direct_running_mode=quick"], "Beam cannot use --direct_running_mode=quick: .*in_memory"),
    ],
)
def test_pipeline_options_that_cannot_be_used(texts, tmp_path, arguments, words):
    with pytest.raises(BertKerasError, match=words):
        beam.prepare_with_beam(
            Corpus(texts / "one.txt"), TOKENIZER, tmp_path / "beam", RowOptions(24), pipeline_options=arguments
        )


def test_without_beam_the_command_to_install_it_is_told(texts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(BertKerasError, match=r'pip install "bertkeras\[beam\]"'):
        beam.prepare_with_beam(Corpus(texts / "one.txt"), TOKENIZER, tmp_path / "beam", RowOptions(24))
    assert list(tmp_path.iterdir()) == []


@needs_beam
def test_the_command(texts, tmp_path, capsys):
    TOKENIZER.save(tmp_path / "tokenizer")
    made_of = ["--corpus", texts / "many", "--tokenizer", tmp_path / "tokenizer", "--passes", 2]
    sizes = ["--held-out-share", 0.2, "--max-sequence-length", 24]
    for name, how in (("single", []), ("beam", [f"--beam={' '.join(ONE)}"])):
        arguments = ["prepare", *made_of, *sizes, "--output", tmp_path / name, *how]
        assert main(list(map(str, arguments))) == 0
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "single")
    assert "unpaired_share" in capsys.readouterr().out
    assert main([*map(str, arguments[:-1]), '--beam=--runner="']) == 2
    assert "No closing quotation" in capsys.readouterr().err


PROGRAM = """
import sys
from bertkeras import WordPieceTokenizer
from bertkeras.pipelines.beam import prepare_with_beam
from bertkeras.pipelines.sentence_pairs import RowOptions
from bertkeras.text.corpus import Corpus

source, tokenizer, folder, *workers = sys.argv[1:]
prepare_with_beam(
    Corpus(source), WordPieceTokenizer.load(tokenizer), folder, RowOptions(24),
    held_out_share=0.2, passes=2, block_tokens=300, rows_per_shard=2, pipeline_options=workers,
)
"""


@pytest.fixture(scope="module")
def expected(texts, tmp_path_factory):
    """What `PROGRAM` writes when nobody kills it."""
    folder = tmp_path_factory.mktemp("expected") / "single"
    prepare(Corpus(texts / "many"), TOKENIZER, folder, RowOptions(24), **{**SIZES, "rows_per_shard": 2})
    return files_of(folder)


@needs_beam
@pytest.mark.parametrize(
    ("shards", "workers"),
    [(0, ONE), (60, ONE), (30, ("--direct_num_workers=2",))],
    ids=["at the beginning", "amid the files", "amid the files of two processes"],
)
def test_a_killed_pipeline_leaves_whole_files_and_can_be_started_again(texts, tmp_path, expected, shards, workers):
    folder, partial = tmp_path / "beam", tmp_path / "beam.partial"
    TOKENIZER.save(tmp_path / "tokenizer")
    arguments = [texts / "many", tmp_path / "tokenizer", folder, *workers]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    killed = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while killed.poll() is None and not (partial.exists() and len(shards_in(partial)) >= shards):
            time.sleep(0.002)
        killed.send_signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL, "it ended before it was killed"
        assert not folder.exists()
        for name, found in shards_in(partial).items():
            assert found == expected[name], f"{name} is there and not whole"
        # The processes of the killed pipeline may go on for a moment, beside those of the next one.
        beam.prepare_with_beam(
            Corpus(texts / "many"),
            TOKENIZER,
            folder,
            RowOptions(24),
            **{**SIZES, "rows_per_shard": 2},
            pipeline_options=ONE,
        )
        assert files_of(folder) == expected
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(killed.pid, signal.SIGKILL)


def shards_in(partial):
    """The files under the names of shards that an unfinished pipeline has written."""
    found = partial.glob("*/*/rows-*.tfrecord")
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in found}


@needs_beam
@pytest.mark.parametrize(
    ("name", "vocabulary", "segmenter"),
    [("enwiki-sample", "bert-base-uncased-vocab.txt", None), ("zhwiki-sample", "bert-base-chinese-vocab.txt", halves)],
)
def test_real_text(tmp_path, monkeypatch, name, vocabulary, segmenter):
    home = Path(os.environ.get("BERTKERAS_DATA_HOME", tmp_path))
    packed = home / name / f"{name}.txt.gz"
    if not packed.is_file() or not (home / "bert-vocabs").is_dir():
        pytest.skip(f"{name} or bert-vocabs is not in BERTKERAS_DATA_HOME")
    monkeypatch.setattr(beam_steps, "CHUNK_CHARACTERS", 2**15)
    source = tmp_path / "text.txt"
    with gzip.open(packed, "rt", encoding="utf-8") as file:
        source.write_text("".join(itertools.islice(file, 1000)), encoding="utf-8")
    tokenizer = WordPieceTokenizer.load(home / "bert-vocabs" / vocabulary, lowercase=True)
    options = RowOptions(64, cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id, pad_id=tokenizer.pad_id)
    settings = {"passes": 2, "block_tokens": 5000, "rows_per_shard": 100, "segmenter": segmenter, "held_out_share": 0.1}
    prepare(Corpus(source), tokenizer, tmp_path / "single", options, **settings)
    beam.prepare_with_beam(Corpus(source), tokenizer, tmp_path / "beam", options, **settings, pipeline_options=ONE)
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "single")
