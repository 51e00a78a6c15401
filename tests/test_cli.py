import errno
import json
import subprocess
import sys

import numpy as np
import pytest
from keras import ops

from bertkeras import BertBackbone, BertConfig, BertPretrainer, WordPieceTokenizer, cli
from bertkeras.text.corpus import Corpus
from tests.tiny import OPTIONS, write_corpus


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a corpus, a tokenizer, prepared text and a short run, all made by the command."""
    folder = tmp_path_factory.mktemp("home")
    corpus = write_corpus(folder / "corpus.txt")
    length, held_out = ["--max-sequence-length", "24"], ["--held-out-share", "0.2"]
    source = ["--corpus", str(corpus)]
    assert run("train-tokenizer", *source, "--vocabulary-size", 98, "--output", folder / "tokenizer") == 0
    tokenizer = ["--tokenizer", folder / "tokenizer"]
    assert run("prepare", *source, *tokenizer, *length, *held_out, "--output", folder / "prepared") == 0
    options = {name: value for name, value in OPTIONS.items() if name != "sentences"}
    (folder / "options.toml").write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in options.items()))
    prepared = ["--config", folder / "options.toml", "--prepared", folder / "prepared"]
    assert run("pretrain", *prepared, "--steps", 3, "--sentences", "A [MASK].", "--output", folder / "run") == 0
    return folder


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def complaint(capsys, *arguments):
    """The one line on stderr of a command that must fail with exit code 2."""
    capsys.readouterr()
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("bertkeras: ")
    return lines[0]


def test_help_of_every_command_has_an_example(capsys):
    making = ("train-tokenizer", "prepare", "plan", "pretrain", "finetune")
    for name in (*making, "launch", "predict", "fill-mask", "evaluate", "convert", "export", "info"):
        with pytest.raises(SystemExit) as end:
            run(name, "--help")
        assert end.value.code == 0
        assert f"example:\n  bertkeras {name}" in capsys.readouterr().out


def test_help_needs_neither_keras_nor_tensorflow():
    code = (
        "import sys; from bertkeras import cli\n"
        "try: cli.main(['pretrain', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('keras', 'tensorflow', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_the_same_command_starts_a_run_and_goes_on_with_it(home, tmp_path, capsys):
    command = ["pretrain", "--config", home / "options.toml", "--prepared", home / "prepared", "--auto-resume"]
    command += ["--sentences", "A [MASK].", "--output", tmp_path / "run", "--strategy", "single"]
    assert run(*command, "--steps", 3) == 0
    assert run(*command, "--steps", 3) == 0
    assert "steps=3, this one 4" in complaint(capsys, *command, "--steps", 4)
    assert "--resume goes on with the options of the run" in complaint(
        capsys, "pretrain", "--auto-resume", "--resume", tmp_path / "run"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--strategy", "data_parallel"], "does not work on tensorflow"),
        (["--strategy", "multi_worker"], "needs several processes"),
        (["--model-shards", "2"], "model_shards is for strategy model_parallel"),
    ],
)
def test_devices_that_cannot_be(home, tmp_path, capsys, options, words):
    line = complaint(capsys, "pretrain", "--prepared", home / "prepared", "--output", tmp_path / "run", *options)
    assert words in line
    assert not (tmp_path / "run").exists()


def test_options_of_the_command_win_over_the_file(home):
    config = (home / "run" / "config.toml").read_text()
    assert "steps = 3" in config
    assert "max_sequence_length = 24" in config


def test_the_tokenizer_is_written(home):
    tokenizer = WordPieceTokenizer.load(home / "tokenizer")
    assert tokenizer.vocabulary_size == 98
    assert tokenizer == WordPieceTokenizer.train(Corpus(home / "corpus.txt"), 98)


def test_fill_mask(home, capsys):
    assert run("fill-mask", home / "run", "--top-k", 2, "The [MASK] sings.", "[MASK] [MASK]") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("The [MASK] sings.  ->  ")
    assert lines[0].count("%") == 2
    assert lines[1].count("%") == 4
    assert run("fill-mask", home / "run", "The [MASK] sings.", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["sentence"] == "The [MASK] sings."
    probabilities = [filling["probability"] for filling in answer["blanks"][0]]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)


def test_fill_mask_reads_lines(home, capsys, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("The [MASK].\n\n[MASK] road\n"))
    assert run("fill-mask", home / "run") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_evaluate_repeats_the_summary(home, capsys):
    assert run("evaluate", home / "run") == 0
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines())
    summary = json.loads((home / "run" / "summary.json").read_text())
    for name in ("mlm_loss", "nsp_accuracy", "bigram_loss", "uniform_loss"):
        assert float(shown[name]) == pytest.approx(summary[name], abs=1e-4)


def test_info_describes_every_kind_of_folder(home, capsys, tmp_path):
    for folder, word in (("run", "mlm_loss"), ("prepared", "held_out_rows"), ("tokenizer", "vocabulary_size")):
        assert run("info", home / folder) == 0
        assert word in capsys.readouterr().out
    BertPretrainer(BertConfig(11, 1, 6, 2, 10, 7)).save_to_preset(tmp_path / "preset")
    assert run("info", tmp_path / "preset") == 0
    assert "BertPretrainer" in capsys.readouterr().out
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "metrics.jsonl").write_text('{"step": 50, "mlm_loss": 7.5}\n')
    assert run("info", tmp_path / "begun") == 0
    assert "--resume" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert run("pretrain", "--dry-run", "--steps", 7, "--vocabulary-size", 500, "--output", tmp_path / "run") == 0
    shown = capsys.readouterr().out
    assert "steps = 7" in shown
    assert "parameters" in shown
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_trained_again(home, capsys):
    assert run("pretrain", "--resume", home / "run") == 0
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain", "--output", "{new}", "--stpes", "3"], "unrecognized arguments: --stpes"),
        (["pretrain", "--output", "{new}", "--steps", "many"], "invalid int value: 'many'"),
        (["pretrain", "--output", "{new}", "--size", "huge"], "invalid choice: 'huge'"),
        (["pretrain", "--output", "{new}", "--steps", "0"], "steps must be at least 1"),
        (["pretrain", "--steps", "3"], "one of the arguments --output --resume is required"),
        (["pretrain", "--output", "{new}", "--config", "{home}/none.toml"], "no such file"),
        (["pretrain", "--output", "{home}/run"], "not empty"),
        (["pretrain", "--resume", "{new}"], "no run to resume"),
        (["pretrain", "--resume", "{home}/run", "--steps", "9"], "give no others"),
        (["pretrain", "--output", "{new}", "--corpus", "{home}/none.txt"], "none.txt"),
        (["pretrain", "--output", "{new}", "--corpus", "{home}/empty.txt"], "empty.txt"),
        (["pretrain", "--output", "{new}", "--corpus", "{home}/latin1.txt"], "UTF-8"),
        (["pretrain", "--output", "{new}", "--corpus", "{home}/corpus.txt"], "vocabulary"),
        (["pretrain", "--output", "{new}", "--prepared", "{home}/run"], "prepared"),
        (["train-tokenizer", "--corpus", "{home}/corpus.txt", "--output", "{home}/run"], "not empty"),
        (["train-tokenizer", "--corpus", "{home}/corpus.txt"], "required: --output"),
        (["prepare", "--corpus", "{home}/corpus.txt", "--output", "{new}"], "--tokenizer is needed"),
        (["prepare", "--tokenizer", "{home}/tokenizer", "--output", "{home}/prepared"], "exists already"),
        (
            ["prepare", "--tokenizer", "{home}/tokenizer", "--output", "{new}", "--segmenter", "no_such_module:cut"],
            "MODULE:FUNCTION",
        ),
        (["fill-mask", "{new}", "A [MASK]."], "not a preset"),
        (["fill-mask", "{home}/run", "No blank."], "no [MASK]"),
        (["fill-mask", "{home}/run", "A [MASK].", "--top-k", "0"], "--top-k"),
        (["fill-mask", "{home}/run", "[MASK] " * 30], "at most 24"),
        (["evaluate", "{home}/tokenizer"], "not a preset"),
        (["info", "{new}"], "no such folder"),
        (["info", "{home}/empty"], "no run, preset"),
        (["convert", "{home}/run", "{new}"], "required: --to"),
        (["convert", "{home}/run", "{new}", "--to", "onnx"], "invalid choice: 'onnx'"),
        (["convert", "{home}/run", "{home}/run", "--to", "hugging_face"], "not empty"),
        (["convert", "{home}/tokenizer", "{new}", "--to", "hugging_face"], "not a preset"),
        (["convert", "{home}/run", "{new}", "--to", "keras_hub"], "--other-gelu"),
        (["convert", "{home}/run", "{new}", "--to", "keras_hub", "--dry-run"], "--other-gelu"),
        (["export", "{home}/run", "{new}"], "required: --to"),
        (["export", "{home}/run", "{home}/run", "--to", "onnx"], "is there already"),
        (["export", "{home}/run", "{new}", "--to", "litert", "--attention"], "--attention is for --to onnx"),
        (["export", "{home}/run", "{new}", "--to", "onnx", "--also", "{home}/run"], "--also is for --to browser"),
        (["export", "{home}/run", "{new}", "--to", "onnx", "--model", "BertDancer"], "unknown model 'BertDancer'"),
        (["export", "{home}/run", "{new}", "--to", "saved_model"], "a BertPretrainer has no SavedModel"),
        (["export", "{home}/run", "{new}", "--to", "litert", "--weights", "bfloat16"], "weights must be one of"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(home, tmp_path, capsys, arguments, words):
    (home / "empty.txt").write_text("\n\n")
    (home / "latin1.txt").write_bytes("Ein schöner Satz.\n".encode("latin-1"))
    (home / "empty").mkdir(exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    new = tmp_path / "new"
    line = complaint(capsys, *(argument.format(new=new, home=home) for argument in arguments))
    assert words in line
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()} == before
    assert not (new / "model.safetensors").exists()


def test_a_run_that_failed_on_its_corpus_can_begin_again(tmp_path, capsys):
    arguments = ["pretrain", "--output", tmp_path / "run", "--corpus", tmp_path / "late.txt"]
    complaint(capsys, *arguments)
    assert "late.txt" in complaint(capsys, *arguments)  # not: the folder is not empty


def test_a_full_disk_is_one_line(home, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    arguments = ["train-tokenizer", "--corpus", home / "corpus.txt", "--vocabulary-size", 98]
    assert "No space left on device" in complaint(capsys, *arguments, "--output", tmp_path / "tokenizer")
    assert not list((tmp_path / "tokenizer").iterdir())


def test_an_interrupt_is_one_line(capsys, monkeypatch, home):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "info", interrupted)
    assert run("info", home) == 130
    assert capsys.readouterr().err == "bertkeras: interrupted\n"


def test_a_fault_of_ours_is_not_hidden(monkeypatch, home):
    def broken(_):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "info", broken)
    with pytest.raises(ZeroDivisionError):
        run("info", home)


def weights_of(folder):
    model = BertPretrainer.from_preset(folder)
    return {name: ops.convert_to_numpy(weight) for name, weight in model.canonical_weights().items()}


def test_export_to_onnx(home, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    arguments = ["--to", "onnx", "--model", "BertMaskedLM", "--attention", "--weights", "float16"]
    assert run("export", home / "run", tmp_path / "model.onnx", *arguments) == 0
    shown = capsys.readouterr().out
    assert "BertMaskedLM" in shown
    assert str(tmp_path / "model.onnx") in shown
    outputs = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_outputs()
    assert [output.name for output in outputs] == ["logits", "attention"]


def test_convert_there_and_back(home, tmp_path, capsys):
    expected = weights_of(home / "run")
    source = home / "run"
    for step, target in enumerate(("hugging_face", "tensorflow1", "bertkeras")):
        folder = tmp_path / f"{step}"
        assert run("convert", source, folder, "--to", target) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"wrote {target}" in shown
        for path in folder.iterdir():
            assert f"{path} {path.stat().st_size:,} bytes" in shown
        found = weights_of(folder)
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=f"{target}: {name}")
        assert WordPieceTokenizer.load(folder) == WordPieceTokenizer.load(home / "tokenizer")
        source = folder
    assert "## How it was made" in (tmp_path / "0" / "README.md").read_text(encoding="utf-8")


def test_convert_to_keras_hub(home, tmp_path):
    pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    folder = tmp_path / "hub"
    assert run("convert", home / "run", folder, "--to", "keras_hub", "--other-gelu") == 0
    expected, found = weights_of(home / "run"), BertBackbone.from_preset(folder).canonical_weights()
    assert set(found) == {name for name in expected if name.startswith("backbone/")}
    for name, weight in found.items():
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), expected[name])
    assert (folder / "assets" / "tokenizer" / "vocabulary.txt").is_file()


def test_a_dry_run_of_convert_writes_nothing(home, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert run("convert", home / "run", tmp_path / "new", "--to", "hugging_face", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "would write" in shown
    for name in ("model.safetensors", "config.json", "README.md", "vocab.txt", "tokenizer.json"):
        assert str(tmp_path / "new" / name) in shown
    assert sorted(tmp_path.rglob("*")) == before


def test_convert_asks_what_a_vocabulary_alone_leaves_open(tmp_path, capsys):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "The", "the"]
    tokenizer = WordPieceTokenizer(pieces, lowercase=False)
    BertBackbone(BertConfig(11, 1, 6, 2, 10, 7), tokenizer=tokenizer).save_to_hugging_face(tmp_path / "old")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "old" / name).unlink()
    arguments = ["convert", tmp_path / "old", tmp_path / "new", "--to", "bertkeras"]
    assert "nothing says whether to lowercase" in complaint(capsys, *arguments)
    assert not (tmp_path / "new").exists()
    assert run(*arguments, "--no-lowercase") == 0
    assert BertBackbone.from_preset(tmp_path / "new").tokenizer == tokenizer
