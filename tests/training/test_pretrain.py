import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from bertkeras import BertKerasError, BertMaskedLM, BertPretrainer, WordPieceTokenizer
from bertkeras.pipelines.prepare import Prepared
from bertkeras.training.evaluate import evaluate
from bertkeras.training.metrics import read_metrics
from bertkeras.training.pretrain import describe, pretrain, resume
from bertkeras.training.pretrain_config import PretrainConfig
from bertkeras.training.progress import Display
from tests.tiny import OPTIONS, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("text") / "corpus.txt")


def config_of(corpus, **changes):
    return PretrainConfig(**{"corpus": str(corpus), **OPTIONS, **changes})


@pytest.fixture(scope="module")
def learned(corpus, tmp_path_factory):
    """A run long enough to learn this small language."""
    folder = tmp_path_factory.mktemp("runs") / "learned"
    console = Console(file=io.StringIO(), width=100)
    options = {"steps": 600, "batch_size": 32, "hidden_dim": 64, "num_layers": 2, "learning_rate": 5e-3, "dropout": 0.0}
    config = config_of(corpus, **options, norm_first=True, log_steps=100)
    summary = pretrain(config, folder, display=Display(console))
    return folder, summary, console.file.getvalue()


def test_it_learns_more_than_counting_does(learned):
    _, summary, _ = learned
    assert summary["mlm_loss"] < summary["bigram_loss"] < summary["unigram_loss"] < summary["uniform_loss"]
    assert summary["mlm_accuracy"] > summary["bigram_accuracy"] > summary["unigram_accuracy"]
    assert summary["uniform_loss"] == pytest.approx(np.log(summary["vocabulary_size"]))


def test_a_run_is_a_folder_that_tells_everything(learned):
    folder, summary, _ = learned
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.toml", "bertkeras.json", "model.safetensors", "vocab.txt", "tokenizer.json"}
    assert names >= {"prepared", "checkpoints", "tensorboard", "metrics.jsonl", "report.html", "summary.json"}
    assert json.loads((folder / "summary.json").read_text()) == summary
    card = BertPretrainer.from_preset(folder).model_card
    assert card["metrics"].items() <= summary.items()
    assert card["data"] == {"corpus": "corpus.txt", **Prepared.open(folder / "prepared").statistics}
    assert "bertkeras pretrain --config config.toml" in (folder / "README.md").read_text(encoding="utf-8")
    rows = read_metrics(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [100, 200, 300, 400, 500, 600]
    assert set(rows[0]) == {
        *("step", "mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy", "learning_rate", "tokens_per_second")
    }
    assert rows[-1]["mlm_loss"] < rows[0]["mlm_loss"]
    assert rows[-1]["learning_rate"] < rows[0]["learning_rate"]


def test_a_run_goes_on_from_another(learned, corpus, tmp_path):
    folder, summary, _ = learned
    config = config_of(corpus, start_from=str(folder), steps=1, learning_rate=1e-9, dropout=0.0)
    again = pretrain(config, tmp_path / "run")
    assert again["parameters"] == summary["parameters"]  # its sizes, not those of the options
    assert again["mlm_loss"] == pytest.approx(summary["mlm_loss"], abs=1e-4)
    assert WordPieceTokenizer.load(tmp_path / "run") == WordPieceTokenizer.load(folder)
    assert resume(tmp_path / "run") == again
    assert describe(config)["parameters"] == summary["parameters"]


def test_what_a_run_cannot_go_on_from(learned, corpus, tmp_path):
    folder, _, _ = learned
    with pytest.raises(BertKerasError, match="reads rows of 24 pieces at most; got max_sequence_length=48"):
        pretrain(config_of(corpus, start_from=str(folder), max_sequence_length=48), tmp_path / "long")
    model = BertMaskedLM.from_preset(folder, tokenizer=None)
    model.save_to_preset(tmp_path / "silent")
    with pytest.raises(BertKerasError, match="has no tokenizer"):
        pretrain(config_of(corpus, start_from=str(tmp_path / "silent")), tmp_path / "run")


def test_the_saved_model_is_the_trained_one(learned):
    folder, summary, _ = learned
    model = BertPretrainer.from_preset(folder)
    prepared = Prepared.open(folder / "prepared")
    masking = config_of("x").masking(model.tokenizer, 24)
    figures = evaluate(model, prepared.held_out, masking, prepared.ngrams)
    for name, value in figures.items():
        assert summary[name] == pytest.approx(value, rel=1e-5), name
    (best, *_), *_ = BertMaskedLM.from_preset(folder).fill_mask("The [MASK] flows by the road.")[0]
    assert best.token == "river"


def test_what_is_shown_tells_losses_apart(learned):
    *_, shown = learned
    assert "step 600/600  MLM " in shown
    assert "NSP " in shown
    assert "baseline" in shown
    assert "The [MASK] flows by the road.  ->  river" in shown


def test_the_report_stands_alone(learned):
    folder, _, _ = learned
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4  # two figures, each for light and dark pages
    assert "river" in page
    assert "bigram" in page
    for outside in ("src=", "@import", "<script", "<link", "url(http"):
        assert outside not in page


def test_a_finished_run_gives_its_summary_again(learned):
    folder, summary, _ = learned
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert resume(folder) == summary
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_same_seed_same_weights_and_another_seed_others(corpus, tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        pretrain(config_of(corpus, seed=seed), tmp_path / name)
    one, two, three = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "three"))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    assert any((one[name] != three[name]).any() for name in one if one[name].shape == three[name].shape)


@pytest.mark.parametrize(
    "changes",
    [
        {"pairs": "sop", "accumulation": 2, "ema": 0.9, "steps": 4},
        {"pairs": "none", "whole_words": True, "steps": 4, "jit_compile": False},
        {"pairs": "packed", "max_ngram": 3, "steps": 4, "precision": "mixed_bfloat16"},
    ],
)
def test_other_ways_to_train(corpus, tmp_path, changes):
    before = keras.config.dtype_policy()
    try:
        summary = pretrain(config_of(corpus, **changes), tmp_path / "run")
    finally:
        keras.config.set_dtype_policy(before)
    assert np.isfinite(summary["mlm_loss"])
    assert ("nsp_loss" in summary) == (changes["pairs"] == "sop")


def test_prepared_text_and_tokenizer_are_taken_over(learned, tmp_path):
    folder, _, _ = learned
    summary = pretrain(config_of("nowhere.txt", prepared=str(folder / "prepared"), steps=2), tmp_path / "run")
    assert summary["corpus_rows"] == Prepared.open(folder / "prepared").train.rows
    assert not (tmp_path / "run" / "prepared").exists()
    one, two = (WordPieceTokenizer.load(path).fingerprint() for path in (folder, tmp_path / "run"))
    assert one == two


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_sequence_length": 32}, "has rows of 24 pieces.*wants 32"),
        ({"pairs": "none"}, "pairs='nsp'.*'none'"),
    ],
)
def test_prepared_text_of_another_kind_is_refused(learned, tmp_path, changes, words):
    folder, _, _ = learned
    with pytest.raises(BertKerasError, match=words):
        pretrain(config_of("x", prepared=str(folder / "prepared"), **changes), tmp_path / "run")


def test_a_folder_with_another_run_is_left_alone(learned):
    folder, _, _ = learned
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(BertKerasError, match="not empty.*--resume"):
        pretrain(config_of("x"), folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_there_must_be_a_run_to_resume(tmp_path):
    with pytest.raises(BertKerasError, match="no run to resume"):
        resume(tmp_path)


def test_a_sentence_too_long_for_the_model_is_told_before_training(corpus, tmp_path):
    with pytest.raises(BertKerasError, match=r"\d+ pieces in 'very very.*at most 24.*sentences"):
        pretrain(config_of(corpus, sentences=["very " * 30 + "[MASK]"]), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_loss_that_is_no_number_stops_the_run(corpus, tmp_path):
    with pytest.raises(BertKerasError, match="the loss is (nan|inf).*lower learning_rate"):
        pretrain(config_of(corpus, learning_rate=1e30, warmup_share=0.0, clip_norm=1e30), tmp_path / "run")


def test_a_dry_run_tells_sizes():
    sizes = describe(PretrainConfig(vocabulary_size=1000, steps=10, batch_size=4))
    assert sizes["pieces_at_most"] == 10 * 4 * 64
    assert sizes["predictions_per_row"] == 10
    assert sizes["parameters"] > 1000 * 128


# A run in a process of its own, killed again and again. The full loop of 20 kills is benchmarks/kill_and_resume.py.
SCRIPT = """
import sys
from bertkeras.cli import main
sys.exit(main(sys.argv[1:]))
"""


def start(*arguments):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def options_of(config):
    for name, value in vars(config).items():
        if not isinstance(value, bool) and value is not None:
            yield f"--{name.replace('_', '-')}={value[0] if name == 'sentences' else value}"


def wait_for(condition, seconds=120):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.02)


def test_killed_and_resumed_runs_end_with_the_same_weights(corpus, tmp_path):
    config = config_of(corpus, steps=400, log_steps=20, checkpoint_steps=20)
    pretrain(config, tmp_path / "whole")
    killed = tmp_path / "killed"

    def newest():
        return max((path.name for path in (killed / "checkpoints").glob("step-*")), default="")

    process = start("pretrain", "--output", killed, *options_of(config))
    wait_for(lambda: newest() >= "step-000000040")
    process.send_signal(signal.SIGKILL)
    process.wait()

    at = newest()
    process = start("pretrain", "--resume", killed)
    wait_for(lambda: newest() > at)
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate()
    assert process.returncode == 143
    assert "stopped by SIGTERM at step" in complaint
    assert "--resume" in complaint

    resume(killed)
    whole, again = (load_file(path / "model.safetensors") for path in (tmp_path / "whole", killed))
    for name in whole:
        np.testing.assert_array_equal(whole[name], again[name], err_msg=name)
    rows = [read_metrics(path / "metrics.jsonl") for path in (tmp_path / "whole", killed)]
    for one, two in zip(*rows, strict=True):
        assert {k: v for k, v in one.items() if k != "tokens_per_second"} == {
            k: v for k, v in two.items() if k != "tokens_per_second"
        }
