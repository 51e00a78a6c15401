"""The command `bertkeras`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
import tempfile
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bertkeras.checkpoints import FORMATS
from bertkeras.errors import BertKerasError, Interrupted

if TYPE_CHECKING:
    from bertkeras.training.pretrain_config import PretrainConfig

# Heavy modules are imported by the command that needs them, so that --help answers at once.


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise BertKerasError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 2 for bad input, or 128 + n after signal n."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        options = parse(arguments)
        import_quietly()
        return options.run(options) or 0
    except BertKerasError as error:
        return complain(str(error), 2)
    except Interrupted as error:
        return complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return complain("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return complain(f"{where}{error.strerror or error}", 2)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; `argparse` alone loses the sentences that stand behind an option, as in `RUN --top-k 3 SENTENCE`."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (rest[0].startswith("-") or "sentences" not in options):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.sentences += rest
    return options


def import_quietly() -> None:
    """Import Keras and its backend without the lines that TensorFlow's libraries print while they load."""
    with tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            importlib.import_module("keras")
        except BaseException:
            caught.seek(0)
            os.write(stderr, caught.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def complain(message: str, exit_code: int) -> int:
    print(f"bertkeras: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


def make_parser() -> Parser:
    parser = Parser(prog="bertkeras", description="Train your own BERT, from raw text to a model you ship.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], Any], help: str, example: str) -> Parser:
        sub = commands.add_parser(name, help=help, description=help, epilog=f"example:\n  {example}")
        sub.set_defaults(run=run)
        return sub

    train = command(
        "train-tokenizer",
        train_tokenizer,
        "Learn a WordPiece vocabulary from text.",
        "bertkeras train-tokenizer --corpus novels/ --vocabulary-size 8000 --output my-tokenizer",
    )
    add_output(train, "folder for vocab.txt, tokenizer.json and tokenizer_config.json")
    add_fields(train, ["corpus", "corpus_format", "field", "vocabulary_size", "lowercase"])

    make = command(
        "prepare",
        prepare_rows,
        "Split, tokenise and pair a corpus into sharded records, once, for many runs.",
        "bertkeras prepare --corpus novels/ --tokenizer my-tokenizer --output prepared",
    )
    add_output(make, "new folder for the records")
    make.add_argument("--segmenter", metavar="MODULE:FUNCTION", help="cuts Chinese sentences into words, as jieba:lcut")
    names = ["corpus", "corpus_format", "field", "tokenizer", "max_sequence_length", "pairs"]
    add_fields(make, [*names, "short_row_probability", "passes", "held_out_share", "seed"])

    run = command(
        "pretrain",
        run_pretrain,
        "Train a BERT from raw text. With no corpus it reads the documentation installed on this machine.",
        "bertkeras pretrain --corpus novels/ --steps 20000 --output runs/novels\n"
        "  bertkeras pretrain --resume runs/novels",
    )
    where = run.add_mutually_exclusive_group(required=True)
    where.add_argument("--output", metavar="FOLDER", help="new folder for the run")
    where.add_argument("--resume", metavar="FOLDER", help="go on with the run in this folder, with its own options")
    run.add_argument("--config", metavar="FILE", help="options from a TOML file; options given here win")
    run.add_argument("--dry-run", action="store_true", help="check the options, print the sizes, and stop")
    add_fields(run, None)

    fill = command(
        "fill-mask",
        fill_mask,
        "Fill the [MASK]s of sentences with the likeliest word pieces.",
        'bertkeras fill-mask runs/demo "This function returns a [MASK] of strings."',
    )
    fill.add_argument("preset", metavar="RUN", help="a run or preset folder")
    fill.add_argument(
        "sentences", nargs="*", metavar="SENTENCE", help="with [MASK]; without any, lines of standard input"
    )
    fill.add_argument("--top-k", type=int, default=5, metavar="K", help="pieces for each blank (default: 5)")
    fill.add_argument("--json", action="store_true", help="one JSON object per sentence")

    score = command(
        "evaluate",
        evaluate_run,
        "Held-out masked-LM and next-sentence figures, beside unigram and bigram baselines.",
        "bertkeras evaluate runs/demo",
    )
    score.add_argument("preset", metavar="RUN", help="a run of bertkeras pretrain")
    score.add_argument("--prepared", metavar="FOLDER", help="other text, made by bertkeras prepare with its tokenizer")

    change = command(
        "convert",
        convert,
        "Write a model in another format, bit for bit: of this package, transformers, KerasHub or Google's BERT.",
        "bertkeras convert runs/demo demo-for-transformers --to hugging_face\n"
        "  bertkeras convert uncased_L-12_H-768_A-12 bert-base --to bertkeras\n"
        "  bertkeras convert hf://org/name my-preset --to bertkeras --dry-run",
    )
    change.add_argument(
        "source",
        metavar="FROM",
        help="a folder in any of the formats, a TensorFlow 1 checkpoint, hf://org/name, kerashub://preset or a name",
    )
    change.add_argument("output", metavar="TO", help="new folder")
    change.add_argument("--to", required=True, choices=FORMATS, help="the format to write")
    change.add_argument(
        "--lowercase",
        action=argparse.BooleanOptionalAction,
        help="whether the tokenizer lowercases, where FROM does not say",
    )
    change.add_argument(
        "--other-gelu",
        action="store_true",
        help="accept that KerasHub computes the approximate GELU, also for a model with the exact one",
    )
    change.add_argument("--dry-run", action="store_true", help="try it, print what would be written, and stop")

    about = command(
        "info",
        info,
        "Describe a run, a preset, a tokenizer or prepared text.",
        "bertkeras info runs/demo",
    )
    about.add_argument("folder", metavar="FOLDER")
    return parser


def add_output(parser: Parser, help: str) -> None:
    parser.add_argument("--output", required=True, metavar="FOLDER", help=help)


def add_fields(parser: Parser, names: Sequence[str] | None) -> None:
    """Add the options of `PretrainConfig`, all or the named ones; an option not given is absent from the result."""
    from bertkeras.training.pretrain_config import PretrainConfig

    hints = typing.get_type_hints(PretrainConfig)
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(PretrainConfig):
        if names is not None and field.name not in names:
            continue
        group = field.metadata["group"]
        target = groups.setdefault(group, parser.add_argument_group(group))
        kind = next(
            (
                part
                for part in (str, bool, int, float)
                if part in (hints[field.name], *typing.get_args(hints[field.name]))
            ),
            str,
        )
        default = field.default
        shown = "" if default in (None, dataclasses.MISSING) else f" (default: {default})"
        settings: dict[str, Any] = {
            "dest": field.name,
            "default": argparse.SUPPRESS,
            "help": field.metadata["help"] + shown,
        }
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings |= {"type": kind, "metavar": kind.__name__.upper()}
        if field.metadata["choices"]:
            settings |= {"choices": field.metadata["choices"], "metavar": None}
        if typing.get_origin(hints[field.name]) is list:
            settings |= {"nargs": "+"}
        target.add_argument("--" + field.name.replace("_", "-"), **settings)


def config_of(options: argparse.Namespace) -> PretrainConfig:
    """The options given on the command line over those of the TOML file over the defaults."""
    from bertkeras.training.pretrain_config import PretrainConfig, load_toml

    values = load_toml(options.config) if getattr(options, "config", None) else {}
    return PretrainConfig(**{**values, **given(options)})


def given(options: argparse.Namespace) -> dict[str, Any]:
    from bertkeras.training.pretrain_config import PretrainConfig

    names = {field.name for field in dataclasses.fields(PretrainConfig)}
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
    with display().counting() as count:
        prepared = prepare(
            Corpus(config.corpus, config.corpus_format, config.field),
            tokenizer,
            options.output,
            config.row_options(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id),
            passes=config.passes,
            held_out_share=config.held_out_share,
            segmenter=load_segmenter(options.segmenter),
            progress=count,
        )
    print_table(prepared.statistics)


def load_segmenter(name: str | None) -> Callable[[str], list[str]] | None:
    if name is None:
        return None
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise BertKerasError(f"--segmenter {name}: {error}; write MODULE:FUNCTION, such as jieba:lcut") from error


def run_pretrain(options: argparse.Namespace) -> None:
    from bertkeras.training.pretrain import describe, pretrain, resume

    if options.resume:
        if options.config or given(options):
            raise BertKerasError("--resume goes on with the options of the run; give no others")
        resume(options.resume, display=display())
        print(f"report: {Path(options.resume) / 'report.html'}")
        return
    config = config_of(options)
    if options.dry_run:
        print(config.to_toml())
        print_table(describe(config))
        return
    pretrain(config, options.output, display=display())
    print(f"report: {Path(options.output) / 'report.html'}")


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
    from bertkeras.training.pretrain_config import PretrainConfig, load_toml

    folder = Path(options.preset)
    model = BertPretrainer.from_preset(folder)
    config = PretrainConfig(**load_toml(folder / "config.toml"))
    prepared = Prepared.open(options.prepared or config.prepared or folder / "prepared")
    if model.tokenizer is None or prepared.train.tokenizer != model.tokenizer.fingerprint():
        raise BertKerasError(f"{prepared.folder} was made with another tokenizer than that of {folder}")
    masking = config.masking(model.tokenizer, prepared.held_out.options.max_sequence_length)
    print_table(evaluate(model, prepared.held_out, masking, prepared.ngrams))


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
        facts |= {"unfinished": "go on with bertkeras pretrain --resume", **rows[-1]}
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


def print_table(values: dict[str, Any]) -> None:
    width = max(map(len, values))
    for name, value in values.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:,.4f}" if isinstance(value, float) else value
        print(f"{name:<{width}}  {shown}")


if __name__ == "__main__":
    sys.exit(main())
