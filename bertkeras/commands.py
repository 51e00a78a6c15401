"""What each subcommand of `bertkeras` does with its options.

Heavy modules are imported by the command that needs them, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bertkeras.errors import BertKerasError


def config_class(command: str) -> type[Any]:
    """The table of options of a command."""
    from bertkeras.training.finetune_config import FinetuneConfig
    from bertkeras.training.pretrain_config import PretrainConfig

    return FinetuneConfig if command == FinetuneConfig.command else PretrainConfig


def config_of(options: argparse.Namespace) -> Any:
    """The options given on the command line over those of the TOML file over the defaults."""
    config = config_class(options.config_of_command)
    values = config.load_toml(options.config) if getattr(options, "config", None) else {}
    return config(**{**values, **given(options)})


def given(options: argparse.Namespace) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(config_class(options.config_of_command))}
    return {name: value for name, value in vars(options).items() if name in names}


def display() -> Any:
    from rich.console import Console

    from bertkeras.training.progress import Display

    return Display(Console())


def new_folder(path: str) -> Path:
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BertKerasError(f"{folder} is not empty; nothing was changed, choose another --output")
    return folder


def train_tokenizer(options: argparse.Namespace) -> None:
    from bertkeras.text.corpus import Corpus
    from bertkeras.text.wordpiece import WordPieceTokenizer

    folder, config = new_folder(options.output), config_of(options)
    corpus = Corpus(config.corpus, config.corpus_format, config.field)
    tokenizer = WordPieceTokenizer.train(corpus, config.vocabulary_size, lowercase=config.lowercase)
    tokenizer.save(folder)
    print(f"{tokenizer.vocabulary_size} word pieces in {folder}")


def prepare_rows(options: argparse.Namespace) -> None:
    from bertkeras.pipelines.prepare import prepare
    from bertkeras.text.corpus import Corpus
    from bertkeras.text.wordpiece import WordPieceTokenizer

    config = config_of(options)
    if config.tokenizer is None:
        raise BertKerasError("--tokenizer is needed: a folder made by bertkeras train-tokenizer")
    tokenizer = WordPieceTokenizer.load(config.tokenizer)
    if Path(options.output).is_dir() and not any(Path(options.output).iterdir()):
        Path(options.output).rmdir()
    corpus = Corpus(config.corpus, config.corpus_format, config.field)
    rows = config.row_options(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id)
    settings: dict[str, Any] = {
        "passes": config.passes,
        "held_out_share": config.held_out_share,
        "segmenter": load_segmenter(options.segmenter),
    }
    if options.beam is None:
        with display().counting() as count:
            prepared = prepare(corpus, tokenizer, options.output, rows, **settings, progress=count)
    else:
        from bertkeras.pipelines.beam import prepare_with_beam

        words = pipeline_options(options.beam)
        prepared = prepare_with_beam(corpus, tokenizer, options.output, rows, **settings, pipeline_options=words)
    print_table(prepared.statistics)


def pipeline_options(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BertKerasError(f"--beam {text}: {error}; write its options as for a shell") from error


def load_segmenter(name: str | None) -> Callable[[str], list[str]] | None:
    from bertkeras.pipelines.documents import NamedSegmenter

    if name is None:
        return None
    segmenter = NamedSegmenter(name)
    try:
        segmenter.function  # noqa: B018
        return segmenter
    except (ImportError, AttributeError, ValueError) as error:
        raise BertKerasError(f"--segmenter {name}: {error}; write MODULE:FUNCTION, such as jieba:lcut") from error


def run_pretrain(options: argparse.Namespace) -> None:
    from bertkeras.training.distribution import choose_distribution
    from bertkeras.training.pretrain import describe, pretrain, resume, start_or_resume

    if options.resume and (options.config or options.auto_resume or given(options)):
        raise BertKerasError("--resume goes on with the options of the run; give no others")
    config = None if options.resume else config_of(options)
    if options.dry_run:
        config = config or config_class("pretrain")(
            **config_class("pretrain").load_toml(Path(options.resume) / "config.toml")
        )
        print(config.to_toml())
        print_table(describe(config))
        return
    distribution = choose_distribution(options.strategy, model_shards=options.model_shards)
    if config is None:
        resume(options.resume, display=display(), distribution=distribution)
    else:
        start = start_or_resume if options.auto_resume else pretrain
        start(config, options.output, display=display(), distribution=distribution)
    if distribution.is_chief:
        print(f"report: {Path(options.resume or options.output) / 'report.html'}")


def plan_run(options: argparse.Namespace) -> None:
    from bertkeras.training.plan import make_plan
    from bertkeras.training.plan_report import plan_lines

    if options.tokens is not None and "steps" in given(options):
        raise BertKerasError("give --tokens or --steps, not both")
    config = config_of(options)
    plan = make_plan(
        config,
        options.device,
        tokens=options.tokens,
        fill=options.fill,
        mfu=options.mfu,
        price=options.price,
        model_shards=options.model_shards,
        link=None if options.link is None else options.link * 1e9,
    )
    if options.json:
        print(json.dumps(plan.to_dict()))
        return
    for title, lines in plan_lines(plan, config.precision):
        print(title)
        for name, value, remark in lines:
            print(f"  {name:<29} {value:>14}  {remark}".rstrip())


def run_launch(options: argparse.Namespace) -> int:
    from bertkeras.training.launch import launch

    return launch(options.arguments, options.processes, restarts=options.restarts, say=display().say)


def run_finetune(options: argparse.Namespace) -> None:
    from bertkeras.training.finetune import describe, finetune, resume

    if options.resume:
        if options.config or given(options):
            raise BertKerasError("--resume goes on with the options of the run; give no others")
        resume(options.resume, display=display())
        return
    config = config_of(options)
    if options.dry_run:
        print(config.to_toml())
        print_table(describe(config))
        return
    finetune(config, options.output, display=display())
    if (Path(options.output) / "report.html").is_file():
        print(f"report: {Path(options.output) / 'report.html'}")


def predict(options: argparse.Namespace) -> None:
    from bertkeras.training.predict import predictions

    if options.batch_size < 1 or options.top_k < 1:
        raise BertKerasError("--batch-size and --top-k must be at least 1")
    if options.text and options.file:
        raise BertKerasError("give a file or --text, not both")
    source: Any = options.file
    if options.text:
        source = [json.dumps({"text": text}) for text in options.text]
    elif source is None:
        source = standard_input()
    for found in predictions(options.preset, source, batch_size=options.batch_size, top_k=options.top_k):
        print(json.dumps(found, ensure_ascii=False))


def standard_input() -> Iterator[str]:
    try:
        yield from sys.stdin
    except UnicodeDecodeError as error:
        raise BertKerasError(f"standard input is not UTF-8: {error.reason}; convert it first") from error


def fill_mask(options: argparse.Namespace) -> None:
    from bertkeras.models import BertMaskedLM
    from bertkeras.training.progress import filled_text

    if options.top_k < 1:
        raise BertKerasError(f"--top-k must be at least 1, got {options.top_k}")
    sentences = options.sentences or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not sentences:
        raise BertKerasError("no sentence; give one with [MASK] in it")
    model = BertMaskedLM.from_preset(options.preset)
    for sentence, blanks in zip(sentences, model.fill_mask(sentences, top_k=options.top_k), strict=True):
        if options.json:
            found = [[dataclasses.asdict(filling) for filling in blank] for blank in blanks]
            print(json.dumps({"sentence": sentence, "blanks": found}, ensure_ascii=False))
        else:
            print(filled_text(sentence, blanks))


def evaluate_run(options: argparse.Namespace) -> None:
    from bertkeras.models import BertPretrainer
    from bertkeras.pipelines.prepare import Prepared
    from bertkeras.training.evaluate import evaluate
    from bertkeras.training.pretrain_config import PretrainConfig

    folder = Path(options.preset)
    if (folder / "config.toml").is_file() and is_finetuned(folder / "config.toml"):
        from bertkeras.training.finetune import evaluate_again

        print_table(evaluate_again(folder, options.test))
        return
    if options.test:
        raise BertKerasError(f"{folder} is no run of bertkeras finetune; --test is for these")
    model = BertPretrainer.from_preset(folder)
    config = PretrainConfig(**PretrainConfig.load_toml(folder / "config.toml"))
    prepared = Prepared.open(options.prepared or config.prepared or folder / "prepared")
    if model.tokenizer is None or prepared.train.tokenizer != model.tokenizer.fingerprint():
        raise BertKerasError(f"{prepared.folder} was made with another tokenizer than that of {folder}")
    masking = config.masking(model.tokenizer, prepared.held_out.options.max_sequence_length)
    print_table(evaluate(model, prepared.held_out, masking, prepared.ngrams))


def is_finetuned(path: Path) -> bool:
    """Whether a `config.toml` is that of a fine-tuning run."""
    import tomllib

    return "task" in tomllib.loads(path.read_text(encoding="utf-8"))


def info(options: argparse.Namespace) -> None:
    from bertkeras.checkpoints.presets import CONFIG_FILE, has_tokenizer, read_preset
    from bertkeras.training.metrics import read_metrics

    folder = Path(options.folder)
    if not folder.is_dir():
        raise BertKerasError(f"{folder}: no such folder")
    facts: dict[str, Any] = {}
    if (folder / CONFIG_FILE).is_file():
        preset = read_preset(folder)
        facts |= {"model": preset.model, "parameters": sum(array.size for array in preset.arrays.values())}
        facts |= preset.config.to_dict() | preset.options
    for name in ("summary.json", "prepared.json"):
        if (folder / name).is_file():
            facts |= json.loads((folder / name).read_text(encoding="utf-8"))
    if not facts and (rows := read_metrics(folder / "metrics.jsonl")):
        config = folder / "config.toml"
        command = "finetune" if config.is_file() and is_finetuned(config) else "pretrain"
        facts |= {"unfinished": f"go on with bertkeras {command} --resume", **rows[-1]}
    if has_tokenizer(folder):
        from bertkeras.text.wordpiece import WordPieceTokenizer

        tokenizer = WordPieceTokenizer.load(folder)
        facts |= {"vocabulary_size": tokenizer.vocabulary_size, "tokenizer": tokenizer.fingerprint()}
    if not facts:
        raise BertKerasError(f"{folder} holds no run, preset, tokenizer or prepared text")
    print_table(facts)


def convert(options: argparse.Namespace) -> None:
    from bertkeras.checkpoints.read import read_checkpoint
    from bertkeras.checkpoints.write import write_checkpoint
    from bertkeras.models.base import load_tokenizer

    folder = new_folder(options.output)
    preset = read_checkpoint(options.source)
    tokenizer = load_tokenizer(preset.tokenizer, options.lowercase)
    with tempfile.TemporaryDirectory() as trial:
        target = Path(trial) / "model" if options.dry_run else folder
        write_checkpoint(target, preset, options.to, tokenizer, options.other_gelu)
        print_table(
            {
                "model": preset.model or "unknown",
                "parameters": sum(array.size for array in preset.arrays.values()),
                "tokenizer": "none" if tokenizer is None else f"{tokenizer.vocabulary_size:,} word pieces",
                "would write" if options.dry_run else "wrote": options.to,
                **{
                    os.fspath(folder / path.relative_to(target)): f"{path.stat().st_size:,} bytes"
                    for path in sorted(target.rglob("*"))
                    if path.is_file()
                },
            }
        )


def export(options: argparse.Namespace) -> None:
    import bertkeras.models
    from bertkeras.checkpoints.read import read_checkpoint

    target = Path(options.output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BertKerasError(f"{target} is there already; nothing was changed, choose another TO")
    if options.to != "onnx" and options.attention:
        raise BertKerasError(f"--attention is for --to onnx; {options.to} has no place for it")

    def load(source: str, name: str | None = None) -> Any:
        name = name or read_checkpoint(source).model or "of no known name"
        models = [name for name in bertkeras.models.__all__ if name.startswith("Bert")]
        if name not in models:
            raise BertKerasError(f"unknown model {name!r}; say --model, one of {', '.join(models)}")
        return getattr(bertkeras.models, name).from_preset(source)

    if options.also and options.to != "browser":
        raise BertKerasError("--also is for --to browser; elsewhere a file holds one model")
    model = load(options.source, options.model)
    weights = {} if options.weights is None else {"weights": options.weights}
    try:
        if options.to == "onnx":
            from bertkeras.export.onnx import export_onnx

            export_onnx(model.to_preset(), target, attention=options.attention, **weights)
        elif options.to == "browser":
            from bertkeras.export.browser import export_browser

            export_browser([model, *map(load, options.also)], target, **weights)
        elif options.to == "litert":
            from bertkeras.export.litert import export_litert

            export_litert(model, target, **weights)
        else:
            from bertkeras.export.saved_model import export_saved_model

            if weights:
                raise BertKerasError("--weights is for the others; a SavedModel has the weights as they are")
            export_saved_model(model, target)
    except ImportError as error:
        raise BertKerasError(f'this needs {error.name}; run: pip install "bertkeras[tensorflow,export]"') from error
    size = sum(path.stat().st_size for path in (target.rglob("*") if target.is_dir() else [target]) if path.is_file())
    print_table({"model": type(model).__name__, "wrote": os.fspath(target), "as": options.to, "bytes": size})


def print_table(values: dict[str, Any]) -> None:
    width = max(map(len, values))
    for name, value in values.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:,.4f}" if isinstance(value, float) else value
        print(f"{name:<{width}}  {shown}")
