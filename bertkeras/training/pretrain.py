"""Raw text to a trained BERT: tokenizer, rows, training, evaluation, report."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bertkeras.errors import BertKerasError, Interrupted
from bertkeras.files import write_text
from bertkeras.models.masked_lm import BertMaskedLM
from bertkeras.models.pretrainer import BertPretrainer
from bertkeras.pipelines.masking import Masking
from bertkeras.pipelines.prepare import Prepared, prepare
from bertkeras.pipelines.pretraining import pretraining_dataset
from bertkeras.text.corpus import Corpus
from bertkeras.text.wordpiece import WordPieceTokenizer
from bertkeras.training.evaluate import evaluate
from bertkeras.training.interrupt import StopSignal
from bertkeras.training.metrics import MetricsLog, means, read_metrics
from bertkeras.training.optimizers import AdamW
from bertkeras.training.pretrain_config import PretrainConfig
from bertkeras.training.progress import Display
from bertkeras.training.report import write_report
from bertkeras.training.resume import Checkpoints, Progress
from bertkeras.training.schedules import WarmupLinearDecay
from bertkeras.training.step import make_train_step


def pretrain(
    config: PretrainConfig, folder: str | os.PathLike[str], *, display: Display | None = None
) -> dict[str, Any]:
    """Train a BERT from raw text into a run folder.

    The folder receives `config.toml`, the tokenizer, `prepared/`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, and
    at the end the preset with its model card, `summary.json` and `report.html`. A run that was stopped, or killed, goes
    on with `resume`: the weights it ends with are those of a run that was never stopped, bit for bit.

    Args:
        config: All options.
        folder: The run; must not hold another one.
        display: Where progress is shown; `None` is silent.

    Returns:
        The summary: held-out figures and baselines, speed and sizes, as in `summary.json`.

    Raises:
        BertKerasError: Bad input, in one line.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(path.name != "config.toml" for path in folder.iterdir())):
        raise BertKerasError(
            f"{folder} is not empty; continue the run in it with --resume, or choose another folder for this one"
        )
    write_text(folder / "config.toml", config.to_toml())
    return _run(config, folder, display or Display.silent())


def resume(folder: str | os.PathLike[str], *, display: Display | None = None) -> dict[str, Any]:
    """Go on with a run from its newest checkpoint; a finished run gives its summary.

    Raises:
        BertKerasError: The folder holds no run.
    """
    folder = Path(folder)
    path = folder / "config.toml"
    if not path.is_file():
        raise BertKerasError(f"{folder} holds no run to resume: no config.toml in it")
    config = PretrainConfig(**PretrainConfig.load_toml(path))
    if (folder / "summary.json").is_file():
        return json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return _run(config, folder, display or Display.silent())


def _run(config: PretrainConfig, folder: Path, display: Display) -> dict[str, Any]:
    if keras.backend.backend() != "tensorflow":
        raise BertKerasError(
            f"pretrain runs on the TensorFlow backend, not on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow"
        )
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()  # the promise of an exact resume needs it
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    with StopSignal() as stop:
        tokenizer = _tokenizer(config, folder, display)
        _check_sentences(config, tokenizer)
        prepared = _prepared(config, folder, tokenizer, display)
        masking = config.masking(tokenizer, prepared.train.options.max_sequence_length)
        model, progress = _train(config, folder, tokenizer, prepared, masking, display, stop)
        display.say("evaluating on held-out text")
        figures = evaluate(model, prepared.held_out, masking, prepared.ngrams)
    model.model_card = {
        "data": {"corpus": Path(config.corpus).name, **prepared.statistics},
        "metrics": figures,
        "command": "bertkeras pretrain --config config.toml --output RUN",
    }
    model.save_to_preset(folder)
    summary = {
        **figures,
        "steps": config.steps,
        "train_seconds": progress.seconds,
        "tokens_per_second": _median_speed(folder),
        "parameters": model.count_params(),
        "vocabulary_size": tokenizer.vocabulary_size,
        **{f"corpus_{name}": value for name, value in prepared.statistics.items()},
    }
    fillings = BertMaskedLM.from_preset(folder).fill_mask(config.sentences)
    write_report(folder, config, summary, read_metrics(folder / "metrics.jsonl"), fillings)
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    display.summary(summary, config.sentences, fillings)
    return summary


def _tokenizer(config: PretrainConfig, folder: Path, display: Display) -> WordPieceTokenizer:
    if (folder / "tokenizer.json").is_file():
        return WordPieceTokenizer.load(folder)
    if trained := config.prepared or config.tokenizer:
        tokenizer = WordPieceTokenizer.load(trained)
    else:
        display.say(f"training a tokenizer of {config.vocabulary_size} pieces on {config.corpus}")
        corpus = Corpus(config.corpus, config.corpus_format, config.field)
        tokenizer = WordPieceTokenizer.train(corpus, config.vocabulary_size, lowercase=config.lowercase)
    tokenizer.save(folder)
    return tokenizer


def _check_sentences(config: PretrainConfig, tokenizer: WordPieceTokenizer) -> None:
    """The report comes last; a sentence that it cannot show must be told first."""
    for sentence in config.sentences:
        size = len(tokenizer.encode(sentence, special_tokens_in_text=True).ids)
        if size > config.max_sequence_length:
            raise BertKerasError(
                f"{size} pieces in {sentence[:40]!r}, but a row has at most {config.max_sequence_length}; "
                "give other sentences or a larger max_sequence_length"
            )


def _prepared(config: PretrainConfig, folder: Path, tokenizer: WordPieceTokenizer, display: Display) -> Prepared:
    if config.prepared or (folder / "prepared").is_dir():
        prepared = Prepared.open(config.prepared or folder / "prepared")
        length = prepared.train.options.max_sequence_length
        if length != config.max_sequence_length or prepared.train.options.pairs != config.pairs:
            raise BertKerasError(
                f"{prepared.folder} has rows of {length} pieces and pairs={prepared.train.options.pairs!r}; "
                f"this run wants {config.max_sequence_length} and {config.pairs!r}"
            )
        if prepared.train.tokenizer != tokenizer.fingerprint():
            raise BertKerasError(f"{prepared.folder} was made with another tokenizer than the one in {folder}")
        return prepared
    display.say(f"preparing {config.corpus}: sentences, pairs, {config.passes} passes")
    with display.counting() as count:
        return prepare(
            Corpus(config.corpus, config.corpus_format, config.field),
            tokenizer,
            folder / "prepared",
            config.row_options(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id),
            passes=config.passes,
            held_out_share=config.held_out_share,
            progress=count,
        )


def _train(
    config: PretrainConfig,
    folder: Path,
    tokenizer: WordPieceTokenizer,
    prepared: Prepared,
    masking: Masking,
    display: Display,
    stop: StopSignal,
) -> tuple[BertPretrainer, Progress]:
    model = BertPretrainer(
        config.bert_config(tokenizer.vocabulary_size),
        next_sentence=prepared.train.options.has_labels,
        tokenizer=tokenizer,
    )
    optimizer = make_optimizer(config)
    train_step = make_train_step(model, optimizer, accumulation=config.accumulation, jit_compile=config.jit_compile)
    checkpoints = Checkpoints(folder / "checkpoints", model, optimizer, config.keep_checkpoints)
    progress = checkpoints.restore()
    batches = pretraining_dataset(
        prepared.train, masking, config.batch_size, seed=config.seed, start_step=progress.step
    ).take(config.steps - progress.step)

    with MetricsLog(folder, progress.step) as log, display.training(config.steps, progress.step) as bar:
        saved_at = clock = time.monotonic()
        for inputs, labels in batches:
            for name, value in train_step(inputs, labels).items():
                progress.sums[name] = progress.sums.get(name, 0.0) + float(value)
            progress.step += 1
            now = time.monotonic()
            progress.sums["seconds"] = progress.sums.get("seconds", 0.0) + now - clock
            progress.seconds += now - clock
            clock = now
            logged = progress.step % config.log_steps == 0 or progress.step == config.steps
            if logged:
                rate = float(optimizer.learning_rate)
                values = {**means(progress.sums), "learning_rate": rate, "tokens_per_second": _speed(progress.sums)}
                if not math.isfinite(values["mlm_loss"]):
                    raise BertKerasError(
                        f"the loss is {values['mlm_loss']} at step {progress.step}; lower learning_rate "
                        f"({config.learning_rate:g}) and start anew, or resume from the last checkpoint"
                    )
                log.write(progress.step, values)
                bar(progress.step, values)
                progress.sums = {}
            else:
                bar(progress.step, None)
            minutes = (now - saved_at) / 60
            due = progress.step % config.checkpoint_steps == 0 or minutes >= config.checkpoint_minutes
            if due or stop.name or progress.step == config.steps:
                checkpoints.save(progress)
                saved_at = now
            if stop.name and progress.step < config.steps:
                raise Interrupted(stop.name, progress.step, folder)
    optimizer.finalize_variable_values(model.trainable_variables)  # with ema, the weights become their average
    return model, progress


def make_optimizer(config: PretrainConfig) -> AdamW:
    """AdamW with warm-up, decay, clipping and, if asked for, a moving average of the weights."""
    schedule = WarmupLinearDecay(config.learning_rate, int(config.steps * config.warmup_share), config.steps)
    average: dict[str, Any] = {} if config.ema is None else {"use_ema": True, "ema_momentum": config.ema}
    return AdamW(schedule, weight_decay=config.weight_decay, global_clipnorm=config.clip_norm, **average)


def _speed(sums: dict[str, float]) -> float:
    return sums["tokens"] / max(sums["seconds"], 1e-9)


def _median_speed(folder: Path) -> float:
    """Of the log's lines; the first one, which holds the compilation, moves a median little."""
    return float(np.median([row["tokens_per_second"] for row in read_metrics(folder / "metrics.jsonl")]))


def describe(config: PretrainConfig) -> dict[str, Any]:
    """What a run would be, for a dry run: sizes and work, without reading the corpus or writing a file."""
    model = BertPretrainer(
        config.bert_config(config.vocabulary_size), next_sentence=config.row_options(0, 1, 2).has_labels
    )
    parameters = model.count_params()
    return {
        "parameters": parameters,
        "weights_and_optimizer_mb": round(parameters * 4 * (3 + (config.ema is not None)) / 2**20, 1),
        "rows": config.steps * config.batch_size,
        "pieces_at_most": config.steps * config.batch_size * config.max_sequence_length,
        "predictions_per_row": config.predictions(config.max_sequence_length),
    }
