"""Fine-tuning from files to a model that is used: every task, and everything that may happen on the way."""

import io
import json
import shutil
import signal
from collections import Counter

import keras
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from bertkeras import cli
from bertkeras.datasets import read_examples
from bertkeras.datasets.examples import TextExample
from bertkeras.errors import BertKerasError, Interrupted
from bertkeras.models import BertTextClassifier, BertTextEmbedder, BertTokenClassifier
from bertkeras.training import finetune_run as module
from bertkeras.training.finetune import describe, evaluate_again, finetune, resume, spread
from bertkeras.training.finetune_config import FinetuneConfig
from bertkeras.training.metrics import read_metrics
from bertkeras.training.progress import Display
from bertkeras.training.task_data import folds_of, read_data
from bertkeras.training.tasks import TASKS
from tests.training.task_files import write_file, write_preset

if keras.backend.backend() != "tensorflow":
    pytest.skip("finetune runs on TensorFlow", allow_module_level=True)
pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("seqeval", reason="seqeval is not installed")

# For each kind of data: changes of the options, the examples to learn from, and the least gain over the baseline
KINDS = {
    "classification": ({"epochs": 4}, 300, None),
    "pairs": ({"epochs": 4}, 300, 0.1),
    "multi-label": ({"epochs": 8}, 400, None),
    "regression": ({"epochs": 6}, 400, None),
    "similarity": ({"epochs": 2}, 200, 0.15),
    "entities": ({"epochs": 12, "decoder": "softmax", "scheme": "bioes"}, 400, 0.4),
    "entities, crf": ({"epochs": 8, "decoder": "crf"}, 400, 0.4),
    "question-answering": ({"epochs": 12}, 400, 0.4),
    "generation": ({"epochs": 6}, 300, 0.1),
}
FILES = {"config.toml", "bertkeras.json", "model.safetensors", "README.md", "vocab.txt", "tokenizer.json"}
FILES |= {"tokenizer_config.json", "metrics.jsonl", "summary.json", "report.html", "checkpoints", "tensorboard"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    write_preset(folder / "bert")
    return folder


def config_of(home, kind, count=60, **changes):
    """Options with files drawn anew: `count` examples to learn from, 40 to choose by, 60 to report on."""
    parts = (("train", count), ("dev", 40), ("test", 60))
    data = kind.partition(",")[0]
    files = {
        name: write_file(home / f"{data}.{name}.{size}.jsonl", data, size, seed)
        for seed, (name, size) in enumerate(parts)
    }
    options = {"model": str(home / "bert"), "epochs": 2, "learning_rate": 3e-3, "max_length": 40, **files}
    return FinetuneConfig(**{"task": "classification" if data == "pairs" else data, **options, **changes})


@pytest.fixture(scope="module")
def runs(home):
    """Runs that learned their data, each made when first asked for: folder, summary, and what was shown."""
    made = {}

    def run(kind):
        if kind not in made:
            changes, count, _ = KINDS[kind]
            console = Console(file=io.StringIO(), width=120)
            folder = home / f"run {kind}"
            summary = finetune(config_of(home, kind, count, **changes), folder, display=Display(console))
            made[kind] = folder, summary, console.file.getvalue()
        return made[kind]

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_every_task_is_learned_and_told(home, runs, kind):
    folder, summary, shown = runs(kind)
    main = TASKS["classification" if kind == "pairs" else kind.partition(",")[0]].main
    gain = KINDS[kind][2]
    assert summary[main] > 0.9 if kind != "similarity" else summary[main] > 0.75
    assert summary[main] > summary.get(f"majority_{main}", 0) + 0.3
    assert gain is None or summary[main] > summary[f"baseline_{main}"] + gain
    assert (summary["train_examples"], summary["dev_examples"], summary["test_examples"]) == (KINDS[kind][1], 40, 60)

    assert {path.name for path in folder.iterdir()} == FILES
    assert not [path for path in folder.rglob(".*")]
    assert json.loads((folder / "summary.json").read_text()) == summary
    config = FinetuneConfig(**FinetuneConfig.load_toml(folder / "config.toml"))
    assert config == config_of(home, kind, KINDS[kind][1], **KINDS[kind][0])
    rows = read_metrics(folder / "metrics.jsonl")
    epochs = [row for row in rows if f"dev_{main}" in row]
    assert [row["epoch"] for row in epochs] == list(range(1, config.epochs + 1))
    assert rows[-1]["step"] == summary["steps"]
    assert max(row[f"dev_{main}"] for row in epochs) == summary[f"dev_{main}"]
    best = next(row for row in epochs if row[f"dev_{main}"] == summary[f"dev_{main}"])
    assert best["epoch"] == summary["best_epoch"], "the first of equally good ones"
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert f"step {summary['steps']}/{summary['steps']}  epoch {config.epochs}.00  loss " in shown
    assert "cheap baseline" in shown

    again = evaluate_again(folder)
    for name, value in again.items():
        assert summary[name] == pytest.approx(value, abs=1e-6), name
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert str(home) not in card, "no paths of this machine"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    for outside in ("src=", "@import", "<script", "<link", "url(http"):
        assert outside not in page


def test_the_figures_are_those_of_the_saved_model(runs):
    """By hand from the preset, with nothing of fine-tuning."""
    folder, summary, _ = runs("classification")
    model = BertTextClassifier.from_preset(folder)
    assert (model.labels, model.max_length, model.temperature) == (["bad", "good", "odd"], 40, summary["temperature"])
    examples = read_examples(folder.parent / "classification.test.60.jsonl", "classification")
    found = model.classify([example.text for example in examples])
    right = [guess.labels == (example.label,) for guess, example in zip(found, examples, strict=True)]
    assert np.mean(right) == pytest.approx(summary["accuracy"])

    folder, summary, _ = runs("entities, crf")
    tagger = BertTokenClassifier.from_preset(folder)
    assert (tagger.decoder, tagger.labels) == ("crf", ["O", "B-where", "I-where", "B-who", "I-who"])
    (found,) = tagger.tag("it was mr ada oslo the in bob there")
    assert [(entity.text, entity.type) for entity in found] == [("ada oslo", "who"), ("bob", "where")]

    folder, _, _ = runs("similarity")
    embedder = BertTextEmbedder.from_preset(folder)
    red, ruby, blue = embedder.embed(["so scarlet was it", "the ruby there", "much navy of"])
    assert red @ ruby > 0.5 > red @ blue


# The way: options, resumption, early end.


def test_a_report_shows_what_the_texts_say_and_no_more(home, tmp_path):
    """Markup in texts and labels is text; a label that cannot be known makes a mistake that is shown."""
    config = config_of(home, "classification", epochs=1)
    lines = [
        json.dumps({"text": f"<script>alert({n})</script> fine &amp;", "label": f"<b>{n % 2}</b>"}) for n in range(20)
    ]
    path = tmp_path / "marked <i>.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    finetune(
        FinetuneConfig(train=str(path), test=str(path), model=config.model, epochs=1, max_length=40), tmp_path / "run"
    )
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(" in page
    assert "&lt;b&gt;" in page
    assert "&amp;amp;" in page
    for raw in ("<script", "<b>", "<i>"):
        assert raw not in page


class StopAt(Display):
    """Sends a signal to this process at a step, as a person with a keyboard does."""

    def __init__(self, step, number=signal.SIGINT):
        super().__init__(Console(quiet=True))
        self.step, self.number = step, number

    def _lines(self, steps, done, text_of):
        def show(step, values):
            if step == self.step and values is None:
                signal.raise_signal(self.number)

        return show


def assert_same_weights(one, other):
    one, other = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def without_times(value):
    times = ("train_seconds", "step_seconds")
    return {name: part for name, part in value.items() if not name.startswith(times)}


def test_stopped_runs_end_with_the_same_weights(home, tmp_path):
    """Stopped twice, within an epoch and after one; with dropout, whose draws go on where they were."""
    config = config_of(home, "classification", count=100, epochs=3, head_dropout=0.3)
    whole = finetune(config, tmp_path / "whole")
    folder = tmp_path / "stopped"
    with pytest.raises(Interrupted, match=f"stopped by SIGINT at step 4, .*finetune --resume {folder}") as stop:
        finetune(config, folder, display=StopAt(4))
    assert stop.value.exit_code == 130
    assert not (folder / "summary.json").exists()
    with pytest.raises(Interrupted, match="stopped by SIGTERM at step 14"):
        resume(folder, display=StopAt(14, signal.SIGTERM))
    again = resume(folder)
    assert_same_weights(tmp_path / "whole", folder)
    assert without_times(again) == without_times(whole)
    rows = [
        [without_times(row) for row in read_metrics(path / "metrics.jsonl")] for path in (tmp_path / "whole", folder)
    ]
    assert rows[0] == rows[1]
    assert {path.name for path in folder.iterdir()} == FILES
    assert resume(folder) == again, "a finished run gives its summary"
    with pytest.raises(BertKerasError, match="not empty; continue the run in it with --resume"):
        finetune(config, folder)


def test_a_run_that_was_killed_at_its_end_can_go_on(home, tmp_path, monkeypatch):
    """After the last step and before the summary: the best epoch must still be there."""
    config = config_of(home, "classification", epochs=1)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_report", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(config, tmp_path / "run")
    summary = resume(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert summary["steps"] == 4


def test_it_ends_early_and_keeps_the_best_epoch(home, tmp_path, monkeypatch):
    """Figures by epoch as said below: best in the second, and no better in the two after it."""
    config = config_of(home, "classification", epochs=9, patience=2, calibrate=False)
    figures = iter([0.3, 0.6, 0.5, 0.6, 0.9, 0.9])
    saved = []
    monkeypatch.setattr(
        TASKS["classification"], "evaluate", lambda self, model, examples: {"accuracy": next(figures), "f1_macro": 0.0}
    )
    keep = module._keep_best
    monkeypatch.setattr(
        module, "_keep_best", lambda model, folder: [saved.append(model.get_weights()), keep(model, folder)]
    )
    summary = finetune(config, tmp_path / "run")
    assert (summary["best_epoch"], summary["dev_accuracy"], summary["steps"]) == (2, 0.6, 4 * 4)
    assert len(saved) == 2
    model = BertTextClassifier.from_preset(tmp_path / "run")
    for weight, value in zip(model.get_weights(), saved[-1], strict=True):
        np.testing.assert_array_equal(weight, value)


def test_an_epoch_whose_state_was_not_saved_does_not_end_a_run(home, tmp_path, monkeypatch):
    """Killed between the log and the checkpoint of an epoch that would be the last."""
    config = config_of(home, "classification", epochs=3, patience=1, calibrate=False)
    figures = {"values": iter([0.6, 0.5])}
    monkeypatch.setattr(
        TASKS["classification"], "evaluate", lambda self, model, examples: {"accuracy": next(figures["values"])}
    )
    save = module.Checkpoints.save

    def killed(self, progress):
        if progress.step == 8:
            raise KeyboardInterrupt
        return save(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(module.Checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(config, tmp_path / "run")
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")][-1] == 8
    figures["values"] = iter([0.5, 0.6])
    assert resume(tmp_path / "run")["steps"] == 8


def test_low_rank_additions_end_as_a_plain_preset(home, tmp_path):
    summary = finetune(
        config_of(home, "classification", lora_rank=2, adversarial=0.5, class_weights="balanced"), tmp_path / "run"
    )
    names = set(load_file(tmp_path / "run" / "model.safetensors"))
    assert not [name for name in names if "lora" in name]
    assert summary["trainable_parameters"] < summary["parameters"] / 3
    before, after = load_file(home / "bert" / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    changed = {name for name in names & set(before) if not np.array_equal(before[name], after[name])}
    assert {name.rpartition("/")[2] for name in changed if "/encoder_" in name} == {"kernel"}
    assert not [name for name in changed if "embeddings" in name]
    assert evaluate_again(tmp_path / "run")["accuracy"] == pytest.approx(summary["accuracy"])


def test_seeds_and_folds_are_summed_up(home, tmp_path, capsys):
    config = config_of(home, "classification", epochs=1, seed=5, seeds=2)
    alone = config_of(home, "classification", epochs=1, seed=6)
    summary = finetune(config, tmp_path / "seeds")
    assert without_times(finetune(alone, tmp_path / "alone")) == without_times(summary["runs"][1])
    assert_same_weights(tmp_path / "seeds" / "seed-6", tmp_path / "alone")
    one, two = (json.loads((tmp_path / "seeds" / f"seed-{seed}" / "summary.json").read_text()) for seed in (5, 6))
    assert summary["runs"] == [one, two]
    assert summary["accuracy"] == pytest.approx((one["accuracy"] + two["accuracy"]) / 2)
    assert summary["accuracy_spread"] == pytest.approx(abs(one["accuracy"] - two["accuracy"]) / 2**0.5)
    assert summary["majority_accuracy_spread"] == 0
    assert resume(tmp_path / "seeds") == summary
    assert evaluate_again(tmp_path / "seeds" / "seed-6")["accuracy"] == pytest.approx(two["accuracy"])
    with pytest.raises(BertKerasError, match="holds several runs; evaluate one of the folders"):
        evaluate_again(tmp_path / "seeds")

    folds = FinetuneConfig(**{**vars(config), "seeds": 1, "folds": 2, "test": None})
    summary = finetune(folds, tmp_path / "folds")
    assert [part["test_examples"] for part in summary["runs"]] == [30, 30]
    assert {path.name for path in (tmp_path / "folds").iterdir()} == {"config.toml", "fold-0", "fold-1", "summary.json"}
    with pytest.raises(BertKerasError, match="is a cross-validation"):
        evaluate_again(tmp_path / "folds")


def test_spread():
    total = spread([{"a": 1.0, "n": 3, "text": "x"}, {"a": 2.0, "n": 4, "text": "y"}, {"a": 6.0, "n": 5, "text": "z"}])
    assert (total["a"], total["a_spread"]) == (3, pytest.approx(7**0.5))
    assert set(total) == {"a", "a_spread", "runs"}
    assert spread([{"a": 1.0}])["a_spread"] == 0


def test_a_dry_run_tells_sizes_and_writes_nothing(home, tmp_path, capsys):
    config = config_of(home, "classification", epochs=5)
    assert describe(config)["steps"] == 5 * 4
    arguments = ["--task", "classification", "--train", config.train, "--model", config.model, "--epochs", "5"]
    assert (
        cli.main(["finetune", "--dry-run", *arguments, "--freeze-embeddings", "--output", str(tmp_path / "run")]) == 0
    )
    shown = capsys.readouterr().out
    for words in ("epochs = 5", "bad, good, odd", "train_examples", "no development data: 6 training examples"):
        assert words in shown
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_is_told(home, tmp_path):
    config = config_of(home, "classification", learning_rate=1e30, clip_norm=1e30, warmup_share=0.0)
    with pytest.raises(BertKerasError, match="the loss is (nan|inf) at step|not finite"):
        finetune(config, tmp_path / "run")


# Data.


def test_development_data_are_set_aside_once(home):
    whole = config_of(home, "classification", dev=None, test=None)
    examples = read_examples(whole.train, "classification")
    data = read_data(whole)
    assert (len(data.train), len(data.dev), data.test) == (54, 6, [])
    assert sorted(e.line for e in [*data.train, *data.dev]) == [e.line for e in examples]
    assert read_data(whole) == data
    other = read_data(FinetuneConfig(**{**vars(whole), "seed": 1}))
    assert {e.line for e in other.dev} != {e.line for e in data.dev}
    some = read_data(FinetuneConfig(**{**vars(whole), "max_train": 20, "dev_share": 0.25}))
    assert (len(some.train), len(some.dev)) == (15, 5)
    assert len(some.notes) == 2


def test_folds_test_every_example_once(home):
    config = config_of(home, "classification", dev=None, test=None, folds=4)
    data = read_data(config)
    parts = folds_of(data, config)
    assert Counter(e.line for part in parts for e in part.test) == Counter(e.line for e in data.train)
    for part in parts:
        assert len(part.train) + len(part.test) == len(data.train)
        assert not {e.line for e in part.train} & {e.line for e in part.test}
        assert part.dev == data.dev


def test_a_seldom_label_may_be_set_aside(tmp_path, home):
    """All but ten examples are of classes of their own: some of these are in no training part."""
    path = tmp_path / "seldom.tsv"
    rows = [f"so {n}\t{'often' if n < 10 else f'only {n}'}" for n in range(20)]
    path.write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    options = {"train": str(path), "model": str(home / "bert"), "epochs": 1, "max_length": 40}
    data = read_data(FinetuneConfig(**options, dev_share=0.5))
    assert {e.label for e in data.dev} - {e.label for e in data.train}
    task = TASKS["classification"](FinetuneConfig(**options), data.train, data.labels)
    assert len(task.labels) == 11
    summary = finetune(FinetuneConfig(**options, dev_share=0.5), tmp_path / "run")
    assert evaluate_again(tmp_path / "run")["accuracy"] == pytest.approx(summary["accuracy"])
    folds = folds_of(data, FinetuneConfig(**options, folds=2))
    assert all(part.labels == data.labels for part in folds)


def test_class_weights():
    def weights(task, labels):
        config = FinetuneConfig(task=task, train="x", class_weights="balanced")
        rows = type("Rows", (), {"labels": labels, "__len__": lambda self: len(labels)})()
        return TASKS[task](config, [], ["a", "b"]).weights(rows)

    np.testing.assert_allclose(weights("classification", [0, 0, 0, 1]), [2 / 3, 2 / 3, 2 / 3, 2])
    rarity = np.array([4 / 3, 4 / 3, (4 / 3 + 4) / 2, (4 / 3 + 4 / 3 + 8 / 3) / 3])  # the last has none: their mean
    labels = [np.array(row, "float32") for row in ([1, 0], [1, 0], [1, 1], [0, 0])]
    np.testing.assert_allclose(weights("multi-label", labels), rarity / rarity.mean(), rtol=1e-6)


def test_a_new_head_begins_at_how_frequent_the_answers_are(home):
    labelled = [TextExample("so", label=("a",)), TextExample("so", label=("a", "b")), TextExample("so", label=("a",))]
    task = TASKS["multi-label"](FinetuneConfig(task="multi-label", train="x", model=str(home / "bert")), labelled)
    shares = 1 / (1 + np.exp(-np.asarray(task.model().classifier.bias)))
    np.testing.assert_allclose(shares, [3.5 / 4, 1.5 / 4], rtol=1e-6)  # of 3 texts, with half a text more for either
    rated = [TextExample("so", label=2.0), TextExample("so", label=5.0)]
    task = TASKS["regression"](FinetuneConfig(task="regression", train="x", model=str(home / "bert")), rated)
    np.testing.assert_allclose(task.model().classifier.bias, [3.5])


def test_labels_that_are_numbers_are_in_their_order():
    def labels(*names):
        return TASKS["classification"](FinetuneConfig(train="x"), [], names).labels

    assert labels("10", "9", "-1", "2.5") == ["-1", "2.5", "9", "10"]
    assert labels("10", "9", "nan") == ["10", "9", "nan"]
    assert labels("1", "1.0", "0") == ["0", "1", "1.0"]


def test_a_scale_is_brought_to_that_of_cosines(home):
    config = config_of(home, "similarity", objective="contrastive")
    data = read_data(config)
    task = TASKS["similarity"](config, data.train)
    model = task.model()
    assert {example.label for example in task.scaled(data.train)} == {0.0, 1.0}
    rows = task.rows(model, data.train)
    alike = sum(example.label == 5 for example in data.train)
    assert (len(rows), rows.counts["pairs left out as unlike"]) == (2 * alike, 60 - alike)
    rows = TASKS["similarity"](config_of(home, "similarity"), data.train).rows(model, data.train)
    assert (len(rows), set(rows.labels)) == (120, {0.0, 1.0})


def test_another_task_takes_over_no_decisions(home, runs, tmp_path):
    """From a run with several labels, which has thresholds, to one with numbers and to one with classes."""
    folder, _, _ = runs("multi-label")
    for kind in ("regression", "classification"):
        task = TASKS[kind](config_of(home, kind, model=str(folder)), read_data(config_of(home, kind)).train)
        model = task.model()
        assert (model.thresholds, model.temperature) == (None, 1.0)
        assert not np.array_equal(model.backbone.token_table, 0)


# The command.


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def complaints(capsys, *arguments):
    capsys.readouterr()
    assert run(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("bertkeras: ") for line in lines)
    return [line.removeprefix("bertkeras: ") for line in lines]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "sorting"], "invalid choice: 'sorting'"),
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--epochs", "many"], "invalid int value: 'many'"),
        (["--learning-rate", "nan"], "learning_rate must be float, got nan"),
        (["--learning-rate", "-1"], "learning_rate must be positive"),
        (["--patience", "0"], "patience must be at least 1"),
        (["--max-length", "7"], "max_length must be at least 8"),
        (["--folds", "1"], "folds must be 0 or at least 2"),
        (["--folds", "3", "--seeds", "2"], "--folds or --seeds, not both"),
        (["--folds", "3", "--test", "{train}"], "--folds tests on parts of the training data"),
        (["--folds", "99"], "54 examples do not make 99 folds"),
        (["--dev-share", "1"], "dev_share must be in (0, 1)"),
        (["--dataset", "x"], "--train FILE or --dataset NAME, one of the two"),
        (["--task", "similarity", "--batch-size", "3"], "batch_size must be even"),
        (["--task", "entities", "--class-weights", "balanced"], "not for entities"),
        (["--freeze-layers", "2"], "freeze_layers=2, but the model has 1"),
        (["--model", "{home}/nowhere"], "nowhere"),
        (["--dev", "{home}/nowhere.tsv"], "nowhere.tsv: no such file"),
        (["--text-column", "review"], "no key 'review'"),
        (["--task", "regression"], "line 1, column 1: the label must be a number"),
        (["--max-train", "1"], "0 training examples are too few"),
        (["--dev", "{home}/pairs.dev.40.jsonl"], "pairs of texts"),
        (["--unknown", "1"], "unrecognized arguments"),
    ],
)
def test_wrong_options_are_one_line(home, tmp_path, capsys, arguments, words):
    train = config_of(home, "classification").train
    config_of(home, "pairs")
    arguments = [part.format(home=home, train=train) for part in arguments]
    defaults = ["--train", train, "--model", home / "bert", "--output", tmp_path / "run"]
    line = complaints(capsys, "finetune", *defaults, *arguments)[0]
    assert words in line
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left in ([], ["config.toml"])


@pytest.mark.parametrize(
    ("task", "train", "dev", "words"),
    [
        (
            "classification",
            ["a\tx", "b\ty"],
            ["c\tx", "d\tz"],
            "dev.tsv, line 3, column 2: unknown label 'z'; the labels are x, y",
        ),
        ("multi-label", ["a\tx,y", "b\t"], ["c\tx,w"], "dev.tsv, line 2, column 2: unknown label 'w'"),
        ("entities", ["a B-x", "b I-x"], ["c O", "", "d B-z"], "dev.conll, line 3, column 2: unknown label 'z'"),
    ],
)
def test_labels_unknown_in_training_are_told_with_their_place(home, tmp_path, capsys, task, train, dev, words):
    suffix, head = ("conll", []) if task == "entities" else ("tsv", ["text\tlabel"])
    for name, lines in (("train", train), ("dev", dev)):
        (tmp_path / f"{name}.{suffix}").write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
    files = [part for name in ("train", "dev") for part in (f"--{name}", tmp_path / f"{name}.{suffix}")]
    arguments = ["finetune", "--task", task, *files, "--model", home / "bert", "--output", tmp_path / "run"]
    lines = complaints(capsys, *arguments)
    assert len(lines) == 1
    assert words in lines[0]
    assert not (tmp_path / "run").exists()


def test_every_problem_of_a_file_has_a_line(home, tmp_path, capsys):
    path = tmp_path / "train.tsv"
    path.write_text("text\tlabel\na\tx\n\tx\nb\ny\t\n", encoding="utf-8")
    lines = complaints(capsys, "finetune", "--train", path, "--output", tmp_path / "run")
    assert [line.removeprefix(f"{path}, ").partition(":")[0] for line in lines] == [
        *("line 3, column 1", "line 4, column 2", "line 5, column 2")
    ]


def test_evaluate_again_and_on_other_files(home, runs, capsys, tmp_path):
    folder, summary, _ = runs("pairs")
    assert run("evaluate", folder) == 0
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(shown["accuracy"]) == pytest.approx(summary["accuracy"], abs=1e-4)
    other = tmp_path / "other.jsonl"
    lines = [{"text": "the fine", "pair": f"so {word}", "label": "good"} for word in ("dull", "sad", "fine", "great")]
    other.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert run("evaluate", folder, "--test", other) == 0
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(shown["accuracy"]) == 0.5
    other.write_text(json.dumps({"text": "a", "pair": "b", "label": "odd"}), encoding="utf-8")
    assert "unknown label 'odd'" in complaints(capsys, "evaluate", folder, "--test", other)[0]
    other.write_text(json.dumps({"text": "a", "label": "good"}), encoding="utf-8")
    assert "pairs of texts" in complaints(capsys, "evaluate", folder, "--test", other)[0]


def test_an_unfinished_run_says_how_to_go_on(home, runs, tmp_path, capsys):
    folder, _, _ = runs("classification")
    for name in ("config.toml", "metrics.jsonl"):
        shutil.copy(folder / name, tmp_path / name)
    assert run("info", tmp_path) == 0
    assert "bertkeras finetune --resume" in capsys.readouterr().out


def said(capsys, *arguments, code=0):
    capsys.readouterr()
    assert run("predict", *arguments) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_predict_from_options_lines_and_files(runs, capsys, tmp_path, monkeypatch):
    folder, _, _ = runs("classification")
    texts, labels = ["it was fine", "so dull", "<weird> & é"], ["good", "bad", "odd"]
    from_options = said(capsys, folder, *(part for text in texts for part in ("--text", text)))
    assert [(found["text"], found["label"]) for found in from_options] == list(zip(texts, labels, strict=True))
    assert sum(from_options[0]["probabilities"].values()) == pytest.approx(1)
    assert list(from_options[0]["probabilities"]) == ["bad", "good", "odd"]

    monkeypatch.setattr(
        "sys.stdin", io.StringIO("it was fine\n\n  so dull  \n" + json.dumps({"text": texts[2]}) + "\n")
    )
    assert said(capsys, folder) == from_options

    files = {
        "texts.txt": "\n".join(texts),
        "texts": "\r\n".join(texts),
        "texts.tsv": "text\tlabel\n" + "".join(f"{text}\t?\n" for text in texts),
        "texts.csv": "id,text\n" + "".join(f"{n},{text}\n" for n, text in enumerate(texts)),
        "texts.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in texts),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        from_file = said(capsys, folder, tmp_path / name, "--batch-size", "1")
        assert [(found["text"], found["label"]) for found in from_file] == list(zip(texts, labels, strict=True)), name
        for found, other in zip(from_file, from_options, strict=True):
            assert found["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)


def test_predict_reads_the_columns_that_were_learned_from(home, tmp_path, capsys):
    train = tmp_path / "train.tsv"
    train.write_text("review\tstars\n" + "so fine\tgood\nvery dull\tbad\n" * 5, encoding="utf-8")
    columns = ["--text-column", "review", "--label-column", "stars", "--epochs", "1", "--output", tmp_path / "run"]
    assert run("finetune", "--train", train, "--model", home / "bert", "--max-length", "20", *columns) == 0
    (tmp_path / "new.csv").write_text("review\nso fine\n", encoding="utf-8")
    assert [found["text"] for found in said(capsys, tmp_path / "run", tmp_path / "new.csv")] == ["so fine"]


def test_predict_of_every_task(runs, capsys, tmp_path, monkeypatch):
    def lines(kind, *records, options=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(record) + "\n" for record in records)))
        return said(capsys, runs(kind)[0], *options)

    found = lines("pairs", {"text": "so fine", "pair": "so dull"}, {"text": "so dull", "pair": "the great"})
    assert [(answer["pair"], answer["label"]) for answer in found] == [("so dull", "bad"), ("the great", "good")]
    (found,) = lines("multi-label", {"text": "the navy was of lime"})
    thresholds = runs("multi-label")[1]["thresholds"]
    sure = dict(zip(["blue", "green", "red"], thresholds, strict=True))
    assert found["labels"] == [name for name, value in found["probabilities"].items() if value >= sure[name]]
    assert "green" in found["labels"]
    more, less = (found["value"] for found in lines("regression", {"text": "fine great"}, {"text": "dull sad"}))
    assert more > less + 1
    pair = {"text": "so scarlet the", "pair": "it was ruby"}
    vector, likeness = lines("similarity", {"text": "so scarlet"}), lines("similarity", pair)
    assert len(vector[0]["vector"]) == 32
    assert likeness[0]["similarity"] > 0.5
    (found,) = lines("entities", {"text": "it was mr Ada there"})
    assert [(e["text"], e["type"], e["start"], e["end"]) for e in found["entities"]] == [("Ada", "who", 10, 13)]
    conll = tmp_path / "words.conll"
    conll.write_text("it O\nwas O\nmr O\nada O\nthere O\n", encoding="utf-8")
    assert said(capsys, runs("entities")[0], conll) == [
        {"tokens": ["it", "was", "mr", "ada", "there"], "tags": ["O", "O", "O", "S-who", "O"]}
    ]
    question = {"question": "where ?", "context": "it was Ada so much Oslo"}
    (found,) = lines("question-answering", {"id": "q1", **question}, options=["--top-k", "2"])
    assert (found["id"], found["text"], found["start"], found["end"]) == ("q1", "Oslo", 19, 23)
    assert found["answers"][0]["text"] == "Oslo"
    assert len(found["answers"]) == 2
    (found,) = lines("question-answering", {"question": "where ?", "context": "it was ada so much"})
    assert (found["text"], found["start"]) == ("", 0)


def test_predict_of_bad_input_is_told_with_its_place(home, runs, capsys, tmp_path, monkeypatch):
    folder, _, _ = runs("classification")
    latin = tmp_path / "latin.txt"
    latin.write_bytes("fine\nschön\n".encode("latin-1"))
    assert complaints(capsys, "predict", folder, latin) == [
        f"{latin}, line 2, column 4: byte 0xf6 is not UTF-8; save the file as UTF-8"
    ]
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": 3}\n{"txt": "a"}\n', encoding="utf-8")
    found = complaints(capsys, "predict", folder, tmp_path / "bad.jsonl")
    assert ["line 2, column 1" in found[0], "line 3, column 1" in found[1]] == [True, True]
    assert "nowhere.txt" in complaints(capsys, "predict", folder, tmp_path / "nowhere.txt")[0]
    assert "not both" in complaints(capsys, "predict", folder, latin, "--text", "a")[0]
    assert "--top-k" in complaints(capsys, "predict", folder, "--text", "a", "--top-k", "0")[0]
    assert (
        "BertPretrainer; predict needs a fine-tuned model"
        in complaints(capsys, "predict", home / "bert", "--text", "a")[0]
    )
    assert "cannot read" in complaints(capsys, "predict", tmp_path / "nowhere", "--text", "a")[0]

    def from_stdin(raw):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        return complaints(capsys, "predict", folder)[0]

    assert "standard input, line 2, column 1: no key 'text'" in from_stdin(b'fine\n{"txt": "a"}\n')
    assert "standard input is not UTF-8" in from_stdin(b"fine\nsch\xf6n\n")
    mixed = b'{"text": "a", "pair": "b"}\n{"text": "c"}\n'
    assert "line 2: all texts must have a pair or none" in from_stdin(mixed)


def test_predict_of_nothing_is_nothing(runs, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert said(capsys, runs("classification")[0]) == []
