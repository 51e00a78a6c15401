"""Raw text to a trained BERT: tokenizer, rows, training, evaluation, report."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bertkeras.checkpoints.read import read_checkpoint
from bertkeras.errors import BertKerasError, Interrupted, PeerLost, first_line
from bertkeras.files import write_text
from bertkeras.models.base import load_tokenizer
from bertkeras.models.masked_lm import BertMaskedLM
from bertkeras.models.pretrainer import BertPretrainer
from bertkeras.pipelines.masking import Masking
from bertkeras.pipelines.prepare import Prepared, prepare
from bertkeras.pipelines.pretraining import pretraining_dataset
from bertkeras.text.corpus import Corpus
from bertkeras.text.wordpiece import WordPieceTokenizer
from bertkeras.training.distribution import Distribution, is_lost_peer
from bertkeras.training.evaluate import evaluate
from bertkeras.training.interrupt import StopSignal
from bertkeras.training.metrics import MetricsLog, means, read_metrics
from bertkeras.training.optimizers import AdamW
from bertkeras.training.plan import count_parameters
from bertkeras.training.pretrain_config import PretrainConfig
from bertkeras.training.progress import Display
from bertkeras.training.report import write_report
from bertkeras.training.resume import Checkpoints, Progress
from bertkeras.training.schedules import WarmupLinearDecay
from bertkeras.training.step import batches_for_step, make_train_step
from bertkeras.training.virtual import check_virtual_devices


def pretrain(
    config: PretrainConfig,
    folder: str | os.PathLike[str],
    *,
    display: Display | None = None,
    distribution: Distribution | None = None,
) -> dict[str, Any]:
    """Train a BERT from raw text into a run folder.

    The folder receives `config.toml`, the tokenizer, `prepared/`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, and
    at the end the preset with its model card, `summary.json` and `report.html`. A run that was stopped, or killed, goes
    on with `resume`: the weights it ends with are those of a run that was never stopped, bit for bit.

    Of several processes each calls this with the same arguments, on a folder that all of them see. The chief writes;
    the others come in when the text is prepared.

    Args:
        config: All options.
        folder: The run; must not hold another one.
        display: Where progress is shown; `None` is silent.
        distribution: From `choose_distribution`; by default one device. It belongs to the sitting, not to the run:
            what was begun on four devices may go on on two.

    Returns:
        The summary: held-out figures and baselines, speed and sizes, as in `summary.json`.

    Raises:
        BertKerasError: Bad input, in one line.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    folder, distribution = Path(folder), distribution or Distribution()
    if distribution.is_chief:
        if folder.exists() and (not folder.is_dir() or any(_is_foreign(path) for path in folder.iterdir())):
            raise BertKerasError(
                f"{folder} is not empty; continue the run in it with --resume, or choose another folder for this one"
            )
        write_text(folder / "config.toml", config.to_toml())
    return _run(config, folder, display or Display.silent(), distribution)


def _is_foreign(path: Path) -> bool:
    """Whether a file in a run's folder is more than its options, or what a kill left of them."""
    return path.name != "config.toml" and not path.name.startswith(".config.toml.")


def resume(
    folder: str | os.PathLike[str], *, display: Display | None = None, distribution: Distribution | None = None
) -> dict[str, Any]:
    """Go on with a run from its newest whole checkpoint; a finished run gives its summary.

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
    return _run(config, folder, display or Display.silent(), distribution or Distribution())


def start_or_resume(
    config: PretrainConfig,
    folder: str | os.PathLike[str],
    *,
    display: Display | None = None,
    distribution: Distribution | None = None,
) -> dict[str, Any]:
    """`resume` where the folder holds a run with these options, `pretrain` where it holds none.

    So the command of a job that is started again after a kill can stay as it is.

    Raises:
        BertKerasError: The run in the folder has other options.
    """
    path = Path(folder) / "config.toml"
    if not path.is_file():
        return pretrain(config, folder, display=display, distribution=distribution)
    there = PretrainConfig(**PretrainConfig.load_toml(path))
    names = [field.name for field in dataclasses.fields(config)]
    if other := [name for name in names if getattr(there, name) != getattr(config, name)]:
        raise BertKerasError(
            f"the run in {folder} has {other[0]}={getattr(there, other[0])!r}, this one {getattr(config, other[0])!r}; "
            "choose another folder, or go on with --resume and no options"
        )
    return resume(folder, display=display, distribution=distribution)


def _run(config: PretrainConfig, folder: Path, display: Display, distribution: Distribution) -> dict[str, Any]:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()  # the promise of an exact resume needs it
    distribution.check_batch(config.batch_size, config.accumulation)
    if config.virtual_devices is not None:
        check_virtual_devices(config.virtual_devices, distribution=distribution)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    if not distribution.is_chief:
        display = Display.silent()
    try:
        with StopSignal() as stop:
            if distribution.is_chief:
                _check_sentences(config, _tokenizer(config, folder, display))
                _prepared(config, folder, WordPieceTokenizer.load(folder), display)
            distribution.meet(folder / "tokenizer.json", Path(config.prepared or folder / "prepared") / "prepared.json")
            tokenizer = WordPieceTokenizer.load(folder)
            prepared = _prepared(config, folder, tokenizer, display)
            masking = config.masking(tokenizer, prepared.train.options.max_sequence_length)
            if distribution.replicas > 1:
                display.say(f"training: {distribution}")
            model, progress = _train(config, folder, tokenizer, prepared, masking, display, stop, distribution)
            display.say("evaluating on held-out text")
            figures = evaluate(model, prepared.held_out, masking, prepared.ngrams, distribution=distribution)
        distribution.gather(model.variables)
        if distribution.is_chief:
            _finish(config, folder, model, prepared, figures, progress.seconds, display)
        distribution.meet(folder / "summary.json")
    except Exception as error:
        if distribution.processes > 1 and is_lost_peer(error):
            raise PeerLost(folder, first_line(error)) from error
        raise
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def _finish(
    config: PretrainConfig,
    folder: Path,
    model: BertPretrainer,
    prepared: Prepared,
    figures: dict[str, float],
    seconds: float,
    display: Display,
) -> None:
    """The preset, the report and, as the last of all files, the summary."""
    model.model_card = {
        "data": {"corpus": Path(config.corpus).name, **prepared.statistics},
        "metrics": figures,
        "command": "bertkeras pretrain --config config.toml --output RUN",
    }
    model.save_to_preset(folder)
    summary = {
        **figures,
        "steps": config.steps,
        "train_seconds": seconds,
        "tokens_per_second": _median_speed(folder),
        "parameters": model.count_params(),
        "vocabulary_size": model.config.vocabulary_size,
        **{f"corpus_{name}": value for name, value in prepared.statistics.items()},
    }
    fillings = BertMaskedLM.from_preset(folder).fill_mask(config.sentences)
    write_report(folder, config, summary, read_metrics(folder / "metrics.jsonl"), fillings)
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    display.summary(summary, config.sentences, fillings)


def _tokenizer(config: PretrainConfig, folder: Path, display: Display) -> WordPieceTokenizer:
    if (folder / "tokenizer.json").is_file():
        return WordPieceTokenizer.load(folder)
    if config.start_from:
        tokenizer = load_tokenizer(read_checkpoint(config.start_from).tokenizer)
        if tokenizer is None:
            raise BertKerasError(f"{config.start_from} has no tokenizer; what its pieces are cannot be known")
    elif trained := config.prepared or config.tokenizer:
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
    distribution: Distribution,
) -> tuple[BertPretrainer, Progress]:
    start = read_checkpoint(config.start_from) if config.start_from else None
    with distribution.scope():
        model = BertPretrainer(
            config.bert_config(tokenizer.vocabulary_size) if start is None else config.continued(start.config),
            next_sentence=prepared.train.options.has_labels,
            tokenizer=tokenizer,
        )
        optimizer = make_optimizer(config)
    train_step = make_train_step(
        model,
        optimizer,
        accumulation=config.accumulation,
        recompute=config.recompute,
        head_chunks=config.head_chunks,
        flash_dropout=config.flash_dropout,
        virtual_devices=config.virtual_devices,
        jit_compile=config.jit_compile,
        distribution=distribution,
    )
    checkpoints = Checkpoints(folder / "checkpoints", model, optimizer, config.keep_checkpoints, distribution)
    progress = checkpoints.restore()
    if start is not None and not progress.step:
        model.assign_weights(start.arrays, source=str(config.start_from))
    if progress.step > config.steps:
        raise BertKerasError(
            f"{folder} has a checkpoint of step {progress.step}, but config.toml says steps = {config.steps}; "
            "set steps to what it was"
        )
    batches = pretraining_dataset(
        prepared.train,
        masking,
        config.batch_size,
        seed=config.seed,
        start_step=progress.step,
        part=distribution.part,
    ).take(config.steps - progress.step)

    with (
        checkpoints,
        MetricsLog(folder, progress.step, write=distribution.is_chief) as log,
        display.training(config.steps, progress.step) as bar,
    ):
        saved_at = clock = time.monotonic()
        running: dict[str, Any] = {}  # what the last step sums, which the device may still be at
        for inputs, labels in batches_for_step(batches):
            finished, running = running, train_step(inputs, labels)
            _count(finished, progress, config)
            progress.step += 1
            late = (clock - saved_at) / 60 >= config.checkpoint_minutes
            stopping, late = distribution.any(stop.name is not None, late)  # the processes must agree
            last = progress.step == config.steps
            saving = late or stopping or last or progress.step % config.checkpoint_steps == 0
            logged = last or progress.step % config.log_steps == 0
            if saving or logged:
                running = _count(running, progress, config)
            now = time.monotonic()
            progress.sums["seconds"] = progress.sums.get("seconds", 0.0) + now - clock
            progress.seconds += now - clock
            clock = now
            if logged:
                rate = float(optimizer.learning_rate)
                values = {**means(progress.sums), "learning_rate": rate, "tokens_per_second": _speed(progress.sums)}
                log.write(progress.step, values)
                bar(progress.step, values)
                progress.sums = {}
            else:
                bar(progress.step, None)
            if saving:
                checkpoints.save(progress, background=True)
                saved_at = now
            if stopping and not last:
                checkpoints.wait()
                raise Interrupted(stop.name or "SIGTERM", progress.step, folder)
    optimizer.finalize_variable_values(model.trainable_variables)  # with ema, the weights become their average
    return model, progress


def _count(sums: dict[str, Any], progress: Progress, config: PretrainConfig) -> dict[str, Any]:
    """Wait for a step's sums and add them to those since the last line of the log; nothing is left of them.

    Raises:
        BertKerasError: The loss is not finite. It comes before anything is saved.
    """
    for name, value in sums.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + float(value)
    if not math.isfinite(progress.sums.get("mlm_loss", 0.0)):
        raise BertKerasError(
            f"the loss is {progress.sums['mlm_loss']} at step {progress.step}; lower learning_rate "
            f"({config.learning_rate:g}) and start anew, or resume from the last checkpoint"
        )
    return {}


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
    model = config.bert_config(config.vocabulary_size)
    if config.start_from:
        model = config.continued(read_checkpoint(config.start_from).config)
    parameters = count_parameters(model, config.row_options(0, 1, 2).has_labels)
    return {
        "parameters": parameters,
        "weights_and_optimizer_mb": round(parameters * 4 * (3 + (config.ema is not None)) / 2**20, 1),
        "rows": config.steps * config.batch_size,
        "pieces_at_most": config.steps * config.batch_size * config.max_sequence_length,
        "predictions_per_row": config.predictions(config.max_sequence_length),
    }
