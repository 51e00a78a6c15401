"""The command `bertkeras`: its options, its help and its errors."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import sys
import tempfile
import typing
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from bertkeras.checkpoints import FORMATS
from bertkeras.commands import (
    config_class,
    convert,
    evaluate_run,
    export,
    fill_mask,
    info,
    plan_run,
    predict,
    prepare_rows,
    run_finetune,
    run_launch,
    run_pretrain,
    train_tokenizer,
)
from bertkeras.errors import BertKerasError, Interrupted, PeerLost
from bertkeras.training.cluster import STRATEGIES
from bertkeras.training.devices import PUBLISHED


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise BertKerasError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 2 for bad input, 75 for a lost process, or 128 + n after signal n."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    code = 1  # of an error that nobody foresaw
    try:
        code = run(arguments)
        return code
    finally:
        if "jax" in sys.modules:
            from bertkeras.training.distribution_jax import leave

            leave(code)


def run(arguments: Sequence[str] | None) -> int:
    try:
        options = parse(arguments)
        import_quietly()
        return options.run(options) or 0
    except BertKerasError as error:
        return complain(str(error), 2)
    except (Interrupted, PeerLost) as error:
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
    for line in message.splitlines():  # the problems of a file have a line each
        print(f"bertkeras: {' '.join(line.split())}", file=sys.stderr)
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
        "bertkeras prepare --corpus novels/ --tokenizer my-tokenizer --output prepared\n"
        "  bertkeras prepare --corpus /net/novels --tokenizer my-tokenizer --output /net/prepared \\\n"
        '    --beam="--runner=FlinkRunner --flink_master=host:8081"',
    )
    add_output(make, "new folder for the records")
    make.add_argument("--segmenter", metavar="MODULE:FUNCTION", help="cuts Chinese sentences into words, as jieba:lcut")
    make.add_argument(
        "--beam",
        nargs="?",
        const="",
        metavar="OPTIONS",
        help="make the same files in an Apache Beam pipeline: on all cores of this machine, or as the OPTIONS of Beam "
        'say, such as --beam="--runner=SparkRunner"; its workers must find the corpus and the output under these paths',
    )
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
    run.add_argument(
        "--auto-resume",
        action="store_true",
        help="with --output: go on with the run there, if there is one with these options",
    )
    group = run.add_argument_group("devices", "of this sitting; a run may go on with others")
    group.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="auto",
        help="how devices share the work (default: auto, all of them); what works where: the chapter Many devices",
    )
    group.add_argument("--model-shards", type=int, metavar="INT", help="devices that share a model (model_parallel)")
    add_fields(run, None)

    budget = command(
        "plan",
        plan_run,
        "What a pretraining run would take: arithmetic, memory, hours and money, from the options alone.",
        "bertkeras plan --size base --vocabulary-size 30522 --max-sequence-length 128 --batch-size 256 \\\n"
        "    --precision mixed_bfloat16 --tokens 3e9 --device h200:8",
    )
    budget.add_argument("--config", metavar="FILE", help="options of a run from a TOML file; options given here win")
    budget.add_argument(
        "--device",
        default="cpu",
        metavar="NAME[:COUNT]",
        help=f"cpu (measured here in a second), {', '.join(PUBLISHED)}; and how many (default: cpu)",
    )
    budget.add_argument("--tokens", type=float, metavar="N", help="real pieces to train on, in place of --steps")
    budget.add_argument(
        "--fill", type=float, default=1.0, metavar="SHARE", help="share of a row that is no padding (default: 1)"
    )
    budget.add_argument(
        "--mfu",
        type=float,
        metavar="SHARE",
        help="of the device's peak that the matrix products reach (default: 0.35, on cpu 0.6)",
    )
    budget.add_argument("--price", type=float, metavar="MONEY", help="of a device for an hour; without it, no money")
    budget.add_argument(
        "--model-shards", type=int, default=1, metavar="N", help="devices that share each layer (default: 1)"
    )
    budget.add_argument(
        "--link",
        type=float,
        metavar="GB/S",
        help="that a device sends to the next one, where its own link does not join so many",
    )
    budget.add_argument("--json", action="store_true", help="one JSON object")
    names = ["vocabulary_size", "max_sequence_length", "pairs", "mask_rate", "max_predictions", "size", "num_layers"]
    names += ["hidden_dim", "num_heads", "intermediate_dim", "positions", "gated_feed_forward", "norm_first"]
    names += ["tie_embeddings", "steps", "batch_size"]
    add_fields(budget, [*names, "accumulation", "recompute", "head_chunks", "ema", "precision"])

    several = command(
        "launch",
        run_launch,
        "Run a command in several processes of this machine, and start all again when one is lost.",
        "bertkeras launch --processes 2 --restarts 3 pretrain --output runs/novels --corpus novels/",
    )
    several.add_argument("--processes", type=int, required=True, metavar="N", help="how many")
    several.add_argument("--restarts", type=int, default=0, metavar="N", help="how often to start again (default: 0)")
    several.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command and its options")

    tune = command(
        "finetune",
        run_finetune,
        "Fit a pretrained model to a task, and compare it with a cheap baseline.",
        "bertkeras finetune --task classification --train a.tsv --dev b.tsv --test c.tsv --epochs 2 --output run\n"
        "  bertkeras finetune --task entities --dataset wnut17 --seeds 3 --output runs/wnut17\n"
        "  bertkeras finetune --resume run",
    )
    where = tune.add_mutually_exclusive_group(required=True)
    where.add_argument("--output", "--out", metavar="FOLDER", help="new folder for the run")
    where.add_argument("--resume", metavar="FOLDER", help="go on with the run in this folder, with its own options")
    tune.add_argument("--config", metavar="FILE", help="options from a TOML file; options given here win")
    tune.add_argument("--dry-run", action="store_true", help="read the data, print what would be done, and stop")
    add_fields(tune, None, "finetune")

    guess = command(
        "predict",
        predict,
        "What a fine-tuned model says of texts, as a JSON object a line.",
        "bertkeras predict run --text 'A joy from start to end.'\n"
        "  bertkeras predict run reviews.tsv > said.jsonl\n"
        '  echo \'{"question": "Who?", "context": "Ada wrote it."}\' | bertkeras predict run',
    )
    guess.add_argument("preset", metavar="RUN", help="a run of bertkeras finetune, or a preset of a task model")
    guess.add_argument("file", nargs="?", metavar="FILE", help="texts: .tsv, .csv, .jsonl, or .txt with one a line")
    guess.add_argument("--text", action="append", metavar="TEXT", help="a text; may be given several times")
    guess.add_argument("--batch-size", type=int, default=32, metavar="N", help="rows at a time (default: 32)")
    guess.add_argument("--top-k", type=int, default=1, metavar="K", help="answers to each question (default: 1)")

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
        "How good a run is: of pretraining on held-out text, of fine-tuning on labelled examples; with baselines.",
        "bertkeras evaluate runs/demo\n  bertkeras evaluate run --test other.tsv",
    )
    score.add_argument("preset", metavar="RUN", help="a run of bertkeras pretrain or bertkeras finetune")
    score.add_argument("--prepared", metavar="FOLDER", help="other text, made by bertkeras prepare with its tokenizer")
    score.add_argument("--test", metavar="FILE", help="other labelled examples, for a fine-tuned model")

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

    ship = command(
        "export",
        export,
        "Write a model for onnxruntime, TensorFlow Serving, LiteRT on a phone, or a page that runs it in the browser.",
        "bertkeras export runs/reviews reviews.onnx --to onnx --weights int8\n"
        "  bertkeras export runs/reviews reviews --to saved_model    # takes raw strings\n"
        "  bertkeras export course-bert blanks.tflite --to litert --model BertMaskedLM\n"
        "  bertkeras export course-bert page --to browser --model BertMaskedLM --also runs/reviews",
    )
    ship.add_argument(
        "source", metavar="FROM", help="what `from_preset` takes: a run, a preset, hf://org/name or a name"
    )
    ship.add_argument("output", metavar="TO", help="new file; for saved_model and browser new folder")
    ship.add_argument("--to", required=True, choices=("onnx", "saved_model", "litert", "browser"), help="what to write")
    ship.add_argument("--model", help="the class to load it as, where FROM holds another, such as BertMaskedLM")
    ship.add_argument(
        "--weights",
        choices=("float32", "float16", "bfloat16", "int8"),
        help="what the weights are stored as: by default float32, for browser float16; litert has no bfloat16",
    )
    ship.add_argument("--also", nargs="+", default=[], metavar="FROM", help="browser: further models for the page")
    ship.add_argument("--attention", action="store_true", help="onnx: give the attention of all layers too")

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


def add_fields(parser: Parser, names: Sequence[str] | None, command: str = "pretrain") -> None:
    """Add the options of a run, all or the named ones; an option not given is absent from the result."""
    config = config_class(command)
    parser.set_defaults(config_of_command=command)
    hints = typing.get_type_hints(config)
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(config):
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


if __name__ == "__main__":
    sys.exit(main())
