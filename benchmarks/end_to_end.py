"""From the raw text of WikiText-2 to 1,000 steps of weights: ours, KerasHub's guide and the recipe of `transformers`.

What is counted is useful tokens per second of the whole job: pieces of text that a step trains on, without padding,
`[CLS]` and `[SEP]`, over the seconds from the start of the process to the end of the last step. All contenders get the
same file, the same WordPiece vocabulary (learnt before by bertkeras, which is not timed), the same size of model (4
layers of width 256), batches of 32 rows of up to 128 pieces, 15 % of them masked, dropout 0.1, and AdamW with clipping
of the global norm to 1. Text becomes rows as each project does it:

- bertkeras: as `bertkeras pretrain` does by default, rows made beforehand; next-sentence pairs, or packed documents.
- kerashub: its guide "Pretraining a Transformer from scratch": lines of more than 100 bytes, cut or padded to the
  length, tokenised and masked in the `tf.data` pipeline that `fit` reads; its BERT in the place of the guide's encoder.
- transformers: the recipe of its script run_mlm.py: tokenised lines, laid end to end and cut into full blocks or else
  each padded (whichever is faster), `DataCollatorForLanguageModeling`, and a plain loop of PyTorch.

Only some of the steps are done: each contender starts afresh several times (imports, preparation, compilation and the
first step; what `torch.compile` keeps on disk from its trial serves it), then all take turns of a few steps, drawn from
their live pipelines. The job is a start and 999 times a step. The useful tokens are those of the first 1,000 batches of
the pipeline, drawn once more and counted one by one.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import itertools
import json
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    ROOT,
    Worker,
    machine,
    middle,
    require,
    serve,
    today,
    versions,
    write_rows,
    write_section,
)
from bertkeras.config import SIZES

BATCH, LENGTH, PREDICTIONS, MASK_RATE = 32, 128, 20, 0.15
DROPOUT, LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 0.1, 1e-4, 0.01, 1.0
SHORTEST_LINE = 100  # bytes; the guide of KerasHub leaves such lines and shorter ones out
LINES_AT_ONCE = 1000  # that run_mlm.py tokenises, and lays end to end
WARMUP = 3  # steps after the first one before anything is timed

Tried = dict[str, dict[str, float]]  # of each setting of a contender
Train = Callable[[int], float | None]  # does so many steps; gives the seconds that they waited for batches


@dataclasses.dataclass(frozen=True)
class Task:
    """What every contender is given."""

    corpus: str
    tokenizer: str  # a folder
    size: str
    steps: int


# === The contenders: text to an endless stream of batches, batches to steps, a batch to its ids and what is padding ===


class Bertkeras:
    def __init__(self, task: Task, setting: str) -> None:
        import keras
        import tensorflow as tf

        from bertkeras import WordPieceTokenizer
        from bertkeras.training.pretrain_config import PretrainConfig

        self.config = PretrainConfig(
            corpus=task.corpus,
            corpus_format="wikitext",
            tokenizer=task.tokenizer,
            max_sequence_length=LENGTH,
            pairs=setting.removeprefix("pairs="),
            mask_rate=MASK_RATE,
            max_predictions=PREDICTIONS,
            size=task.size,
            dropout=DROPOUT,
            steps=task.steps,
            batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            clip_norm=CLIP_NORM,
        )
        tf.config.experimental.enable_op_determinism()  # as the command does
        keras.utils.set_random_seed(self.config.seed)
        self.tokenizer = WordPieceTokenizer.load(task.tokenizer)

    def prepare(self, folder: Path) -> Iterable[Any]:
        from bertkeras.pipelines.prepare import prepare
        from bertkeras.pipelines.pretraining import pretraining_dataset
        from bertkeras.text.corpus import Corpus

        config, tokenizer = self.config, self.tokenizer
        prepared = prepare(
            Corpus(config.corpus, config.corpus_format),
            tokenizer,
            folder / "prepared",
            config.row_options(tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id),
            passes=config.passes,
            held_out_share=config.held_out_share,
        )
        return pretraining_dataset(prepared.train, config.masking(tokenizer, LENGTH), BATCH, seed=config.seed)

    def start(self, batches: Iterable[Any]) -> Train:
        from bertkeras import BertPretrainer
        from bertkeras.training import make_train_step
        from bertkeras.training.pretrain import make_optimizer

        config = self.config.bert_config(self.tokenizer.vocabulary_size)
        model = BertPretrainer(config, next_sentence=self.config.pairs == "nsp", tokenizer=self.tokenizer)
        step = make_train_step(model, make_optimizer(self.config), jit_compile=self.config.jit_compile)

        def wait(sums: dict[str, Any]) -> None:
            for value in sums.values():
                float(value)

        stream = iter(batches)

        def train(steps: int) -> float:
            waited, running = 0.0, {}
            for _ in range(steps):
                begin = time.perf_counter()
                inputs, labels = next(stream)
                waited += time.perf_counter() - begin
                finished, running = running, step(inputs, labels)
                wait(finished)  # as the trainer does: while the device is at the next step
            wait(running)
            return waited

        return train

    @staticmethod
    def pieces(batch: Any) -> tuple[np.ndarray, np.ndarray]:
        inputs, _ = batch
        real = inputs["sequence_ids"] > 0 if "sequence_ids" in inputs else inputs["padding_mask"]
        return inputs["token_ids"].numpy(), real.numpy()


class KerasHub:
    def __init__(self, task: Task, setting: str) -> None:
        import keras_hub

        self.task, self.jit_compile = task, setting == "jit_compile=True"
        self.tokenizer = keras_hub.tokenizers.WordPieceTokenizer(
            os.path.join(task.tokenizer, "vocab.txt"), sequence_length=LENGTH, lowercase=True, strip_accents=True
        )
        self.masker = keras_hub.layers.MaskedLMMaskGenerator(
            self.tokenizer.vocabulary_size(),
            mask_selection_rate=MASK_RATE,
            mask_selection_length=PREDICTIONS,
            mask_token_id=self.tokenizer.token_to_id("[MASK]"),
        )

    def prepare(self, folder: Path) -> Iterable[Any]:
        import tensorflow as tf

        padding = self.tokenizer.token_to_id("[PAD]")

        def features(lines: Any) -> tuple[dict[str, Any], Any, Any]:
            ids = self.tokenizer(lines)
            masked = self.masker(ids)
            inputs = {
                "token_ids": masked["token_ids"],
                "mask_positions": masked["mask_positions"],
                "padding_mask": tf.cast(ids != padding, tf.int32),
                "segment_ids": tf.zeros_like(ids),
            }
            return inputs, masked["mask_ids"], masked["mask_weights"]

        packed = "GZIP" if self.task.corpus.endswith(".gz") else None
        return (
            tf.data.TextLineDataset(self.task.corpus, packed)
            .filter(lambda line: tf.strings.length(line) > SHORTEST_LINE)
            .repeat()
            .batch(BATCH, drop_remainder=True)
            .map(features, num_parallel_calls=tf.data.AUTOTUNE)
            .prefetch(tf.data.AUTOTUNE)
        )

    def start(self, batches: Iterable[Any]) -> Train:
        import keras
        import keras_hub

        layers, width, heads = SIZES[self.task.size]
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=self.tokenizer.vocabulary_size(),
            num_layers=layers,
            num_heads=heads,
            hidden_dim=width,
            intermediate_dim=4 * width,
            dropout=DROPOUT,
            max_sequence_length=LENGTH,
        )
        model = keras_hub.models.BertMaskedLM(backbone)
        model.compile(
            optimizer=keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORM),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()],
            jit_compile=self.jit_compile,
        )
        wanted: queue.Queue[int] = queue.Queue()
        done: queue.Queue[Exception | None] = queue.Queue()

        class Turns(keras.callbacks.Callback):
            """One `fit` goes through all turns, and waits between them."""

            left = 0

            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                if not self.left:
                    self.left = wanted.get()

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                self.left -= 1
                if not self.left:
                    float(logs["loss"])
                    done.put(None)

        def fit() -> None:
            try:
                model.fit(batches, steps_per_epoch=10**9, verbose=0, callbacks=[Turns()])
            except Exception as error:
                done.put(error)

        threading.Thread(target=fit, daemon=True).start()

        def train(steps: int) -> None:
            wanted.put(steps)
            if error := done.get():
                raise error

        return train

    @staticmethod
    def pieces(batch: Any) -> tuple[np.ndarray, np.ndarray]:
        return batch[0]["token_ids"].numpy(), batch[0]["padding_mask"].numpy() > 0


class Transformers:
    def __init__(self, task: Task, setting: str) -> None:
        from transformers import BertTokenizerFast, DataCollatorForLanguageModeling

        self.task, self.blocks, self.compiled = task, "blocks" in setting, "torch.compile" in setting
        self.tokenizer = BertTokenizerFast.from_pretrained(task.tokenizer)
        self.collator = DataCollatorForLanguageModeling(self.tokenizer, mlm_probability=MASK_RATE)

    def prepare(self, folder: Path) -> Iterable[Any]:
        from torch.utils.data import DataLoader

        tokenizer = self.tokenizer
        with open_text(Path(self.task.corpus)) as file:
            lines = [line for line in file if line.strip()]
        rows: list[dict[str, list[int]]] = []
        for at in range(0, len(lines), LINES_AT_ONCE):
            some = lines[at : at + LINES_AT_ONCE]
            if self.blocks:
                encoded = tokenizer(some, return_special_tokens_mask=True)
                chained = {name: list(itertools.chain.from_iterable(encoded[name])) for name in encoded}
                ends = range(LENGTH, len(chained["input_ids"]) + 1, LENGTH)
                rows += [{name: line[end - LENGTH : end] for name, line in chained.items()} for end in ends]
            else:
                encoded = tokenizer(some, truncation=True, max_length=LENGTH, return_special_tokens_mask=True)
                rows += [{name: encoded[name][i] for name in encoded} for i in range(len(some))]
        return Endless(DataLoader(rows, BATCH, shuffle=True, drop_last=True, collate_fn=self.collator))

    def start(self, batches: Iterable[Any]) -> Train:
        import torch
        from transformers import BertConfig, BertForMaskedLM

        layers, width, heads = SIZES[self.task.size]
        model = BertForMaskedLM(
            BertConfig(
                vocab_size=len(self.tokenizer),
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * width,
                max_position_embeddings=LENGTH,
                hidden_dropout_prob=DROPOUT,
                attention_probs_dropout_prob=DROPOUT,
            )
        ).train()
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
        forward = torch.compile(model) if self.compiled else model
        stream = iter(batches)

        def train(steps: int) -> float:
            waited = 0.0
            for _ in range(steps):
                begin = time.perf_counter()
                batch = next(stream)
                waited += time.perf_counter() - begin
                forward(**batch).loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            return waited

        return train

    @staticmethod
    def pieces(batch: Any) -> tuple[np.ndarray, np.ndarray]:
        return batch["input_ids"].numpy(), batch["attention_mask"].numpy() > 0


@dataclasses.dataclass
class Endless:
    """One epoch after another."""

    epoch: Iterable[Any]

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self.epoch


# who -> class, backend and settings; of several settings the fastest runs
CONTENDERS: dict[str, tuple[Callable[[Task, str], Any], str, tuple[str, ...]]] = {
    "bertkeras": (Bertkeras, "tensorflow", ("pairs=nsp",)),
    "bertkeras, packed": (Bertkeras, "tensorflow", ("pairs=packed",)),
    "kerashub": (KerasHub, "tensorflow", ("jit_compile=True", "jit_compile=False")),
    "transformers": (
        Transformers,
        "torch",
        ("blocks, eager", "blocks, torch.compile", "lines, eager", "lines, torch.compile"),
    ),
}
PEERS = ("kerashub", "transformers")


# === In the process of a contender ===


def start_worker(task: Task, who: str, setting: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:

        def start() -> Callable[[dict[str, Any]], dict[str, Any]]:
            job = CONTENDERS[who][0](task, setting)
            begin = time.perf_counter()
            batches = job.prepare(Path(folder))
            preparing = time.perf_counter() - begin
            train = job.start(batches)
            train(1)
            pieces = Path(task.tokenizer, "vocab.txt").read_text(encoding="utf-8").splitlines()
            special = [pieces.index("[CLS]"), pieces.index("[SEP]")]

            def work(command: dict[str, Any]) -> dict[str, Any]:
                if "count" in command:
                    drawn = itertools.islice(batches, command["count"])
                    return {"useful": sum(useful(*job.pieces(batch), special) for batch in drawn)}
                begin = time.perf_counter()
                waited = train(command["train"])
                seconds = time.perf_counter() - begin
                return {
                    "preparing": preparing,
                    "seconds": seconds / command["train"],
                    "wait": None if waited is None else waited / seconds,
                }

            return work

        serve(start)


def useful(ids: np.ndarray, real: np.ndarray, special: list[int]) -> int:
    """Pieces of text in a batch: not padding, and none of `[CLS]` and `[SEP]`; what is masked counts."""
    return int((real & ~np.isin(ids, special)).sum())


def open_text(path: Path) -> Any:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


# === In the main process ===


@dataclasses.dataclass
class Measured:
    """Of one contender: what it is, seconds, and shares of the time of the steps that were spent waiting for data."""

    setting: str
    useful: int = 0
    preparing: list[float] = dataclasses.field(default_factory=list)
    starts: list[float] = dataclasses.field(default_factory=list)  # from the start of the process through a first step
    seconds: list[float] = dataclasses.field(default_factory=list)  # of a step
    waits: list[float | None] = dataclasses.field(default_factory=list)
    memory: int = 0

    def start(self, task: Task, who: str) -> Worker | None:
        begin = time.perf_counter()
        arguments = json.dumps([dataclasses.asdict(task), who, self.setting])
        worker = Worker("benchmarks.end_to_end", "--worker", arguments)
        if "error" in worker.greeting:
            print(f"{who} ({self.setting}): left out, {worker.greeting['error']}", flush=True)
            return None
        self.starts.append(time.perf_counter() - begin)
        self.preparing.append(worker.ask(train=WARMUP)["preparing"])
        self.useful = self.useful or worker.ask(count=task.steps)["useful"]
        print(f"{who} ({self.setting}): first step after {self.starts[-1]:.1f} s", flush=True)
        return worker

    def turn(self, worker: Worker, steps: int) -> None:
        answer = worker.ask(train=steps)
        self.seconds.append(answer["seconds"])
        self.waits.append(answer["wait"])
        self.memory = answer["peak_memory_mb"]

    def useful_share(self, steps: int) -> float:
        """Of the places in `steps` full batches."""
        return round(self.useful / (steps * BATCH * LENGTH), 4)

    def speeds(self, steps: int) -> list[float]:
        """Useful tokens per second of the whole job, if all steps took as long as those of each turn."""
        start = middle(self.starts)["median"]
        return [self.useful / (start + (steps - 1) * seconds) for seconds in self.seconds]


def fastest_setting(task: Task, who: str, turns: int, steps: int) -> tuple[str, Tried]:
    """The setting with the most useful tokens per second, and of each its speed and useful share."""
    settings = CONTENDERS[who][2]
    if len(settings) == 1:
        return settings[0], {}
    tried = {setting: Measured(setting) for setting in settings}
    started = {setting: tried[setting].start(task, who) for setting in settings}
    workers = {setting: worker for setting, worker in started.items() if worker}
    if not workers:
        raise SystemExit(f"{who}: no setting runs")
    for _ in range(turns):
        for setting, worker in workers.items():
            tried[setting].turn(worker, steps)
    for worker in workers.values():
        worker.close()
    found = {
        setting: {
            "tokens_per_second": round(middle(tried[setting].speeds(task.steps))["median"]),
            "useful_share": tried[setting].useful_share(task.steps),
        }
        for setting in workers
    }
    print(f"{who}: {_tried(found)}", flush=True)
    return max(found, key=lambda setting: found[setting]["tokens_per_second"]), found


def measure(
    task: Task, names: list[str], turns: int, trials: int, starts: int, steps: int
) -> tuple[dict[str, Measured], dict[str, Tried]]:
    """What the contenders need, each in its fastest setting, and what decided on the settings."""
    chosen = {who: fastest_setting(task, who, trials, steps) for who in names}
    measured = {who: Measured(setting) for who, (setting, _) in chosen.items()}
    workers: dict[str, Worker] = {}
    for _ in range(starts):
        for worker in workers.values():
            worker.close()
        started = {who: measured[who].start(task, who) for who in names}
        workers = {who: worker for who, worker in started.items() if worker}
    if set(workers) != set(names):
        raise SystemExit("not all contenders run")
    for turn in range(turns):
        for who, worker in workers.items():
            measured[who].turn(worker, steps)
        now = ", ".join(f"{who} {measured[who].seconds[-1] * 1e3:,.0f} ms" for who in workers)
        print(f"turn {turn + 1} of {turns}: {now}", flush=True)
    for worker in workers.values():
        worker.close()
    return measured, {who: found for who, (_, found) in chosen.items() if found}


def summarise(
    task: Task, vocabulary_size: int, measured: dict[str, Measured], tried: dict[str, Tried], command: str
) -> dict[str, Any]:
    """Rows, ratios and where they come from."""
    speeds = {who: found.speeds(task.steps) for who, found in measured.items()}
    rows = []
    for who, found in measured.items():
        waits = [wait for wait in found.waits if wait is not None]
        rows.append(
            {
                "work": "end-to-end",
                "who": who,
                "backend": CONTENDERS[who][1],
                "setting": found.setting,
                "tokens_per_second": round(middle(speeds[who])["median"]),
                "useful_tokens": found.useful,
                "useful_share": found.useful_share(task.steps),
                "prepare_seconds": round(middle(found.preparing)["median"], 2),
                "start_seconds": round(middle(found.starts)["median"], 2),
                "step_seconds": round(middle(found.seconds)["median"], 4),
                "data_wait_share": round(middle(waits)["median"], 5) if waits else None,
                "peak_memory_mb": found.memory,
            }
        )
    ratios = {
        ours: {peer: _ratio(speeds[ours], speeds[peer]) for peer in PEERS if peer in speeds}
        for ours in speeds
        if ours not in PEERS
    }
    waits = [wait for wait in measured["bertkeras"].waits if wait is not None] if "bertkeras" in measured else []
    return {
        "rows": rows,
        "ratios": ratios.pop("bertkeras", {}),
        "packed_ratios": ratios.pop("bertkeras, packed", {}),
        "data_wait": {name: round(value, 5) for name, value in middle(waits).items()} if waits else None,
        "tried": tried,
        "turns": len(next(iter(measured.values())).seconds),
        "starts": len(next(iter(measured.values())).starts),
        "steps": task.steps,
        "size": task.size,
        "vocabulary_size": vocabulary_size,
        "machine": machine(),
        "versions": versions("bertkeras", "keras", "tensorflow", "keras-hub", "torch", "transformers", "tokenizers"),
        "command": command,
        "date": today(),
    }


def _ratio(ours: list[float], peer: list[float]) -> dict[str, float]:
    quotients = [a / b for a, b in zip(ours, peer, strict=True)]
    return {name: round(value, 3) for name, value in middle(quotients).items()}


def section(record: dict[str, Any]) -> str:
    """The record as a section of `RESULTS.md`."""
    table = "\n".join(
        f"| {row['who']} | {row['backend']}, {row['setting']} | {row['tokens_per_second']:,} | "
        f"{row['useful_share']:.0%} | {row['prepare_seconds']:.1f} | {row['start_seconds']:.1f} | "
        f"{row['step_seconds'] * 1e3:,.0f} | {_share(row['data_wait_share'])} | {row['peak_memory_mb']:,} |"
        for row in record["rows"]
    )
    compared = "\n".join(
        f"- {ours}: **{r['median']:.2f} times** the useful tokens per second of {peer} "
        f"(quartiles {r['low']:.2f} to {r['high']:.2f})"
        for ours, ratios in (("bertkeras", record["ratios"]), ("bertkeras, packed", record["packed_ratios"]))
        for peer, r in ratios.items()
    )
    wait = record["data_wait"]
    waited = (
        f"\nbertkeras waits for data during **{wait['median']:.2%}** of the time of its steps (quartiles "
        f"{wait['low']:.2%} to {wait['high']:.2%}).\n"
        if wait
        else ""
    )
    tried = "; ".join(f"{who}: {_tried(found)}" for who, found in record["tried"].items())
    layers, width, heads = SIZES[record["size"]]
    return f"""## From raw text to {record["steps"]:,} steps

The training text of WikiText-2 as it stands, to a BERT of {layers} layers, width {width}, {heads} heads and
vocabulary {record["vocabulary_size"]:,} after {record["steps"]:,} steps of {BATCH} rows of up to {LENGTH} pieces;
dropout {DROPOUT}; AdamW, global norm clipped to {CLIP_NORM:g}; float32. Useful tokens are pieces of text without
padding, `[CLS]` and `[SEP]`, over the time of the whole job: imports, reading, tokenising, rows, masks, compilation
and steps. The vocabulary is given. bertkeras learns masked LM and next sentence (packed: masked LM alone), makes the
rows of its default number of passes, and keeps its default share of documents for the evaluation; KerasHub and
`transformers` learn masked LM alone, with the pipelines of KerasHub's pretraining guide and of run_mlm.py.

| who | how | useful tokens/s | useful share of a batch | preparing, s | to the end of the first step, s | step, ms | \
waits for data | peak memory, MB |
|---|---|---:|---:|---:|---:|---:|---:|---:|
{table}

{compared}
{waited}
Medians over {record["turns"]} turns and {record["starts"]} starts, each contender in its own process; the job is
a start and {record["steps"] - 1:,} times a step. The settings were chosen in a trial, by useful tokens/s (in brackets
the useful share of a batch): {tried}.

{record["machine"]}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}.
{record["date"]}, `{record["command"]}`."""


def _tried(found: Tried) -> str:
    return ", ".join(f"{name} {it['tokens_per_second']:,} ({it['useful_share']:.0%})" for name, it in found.items())


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def make_task(folder: Path, corpus: Path, small: bool, vocabulary_size: int, steps: int) -> tuple[Task, int]:
    """The task, with a vocabulary learnt for it, and the size of that."""
    from bertkeras import WordPieceTokenizer
    from bertkeras.text.corpus import Corpus

    if small:
        with open_text(corpus) as file:
            text = "".join(itertools.islice(file, 6000))
        corpus = folder / "train.txt"
        corpus.write_text(text, encoding="utf-8")
    tokenizer = WordPieceTokenizer.train(Corpus(corpus, "wikitext"), vocabulary_size)
    tokenizer.save(folder / "tokenizer")
    task = Task(str(corpus.resolve()), str(folder / "tokenizer"), "tiny" if small else "mini", steps)
    return task, tokenizer.vocabulary_size


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.end_to_end", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=20, help="turns of every contender (default: 20)")
    parser.add_argument("--steps", type=int, default=10, help="steps in a turn (default: 10)")
    parser.add_argument("--trials", type=int, default=3, help="turns that decide between settings (default: 3)")
    parser.add_argument("--starts", type=int, default=3, help="starts of every contender (default: 3)")
    parser.add_argument("--job-steps", type=int, default=1000, help="steps of the whole job (default: 1000)")
    parser.add_argument("--vocabulary-size", type=int, default=30_522, help="pieces to learn (default: 30522)")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="contenders to run")
    parser.add_argument(
        "--corpus", type=Path, help="a WikiText file (default: wikitext-2/train.txt.gz in BERTKERAS_DATA_HOME)"
    )
    parser.add_argument(
        "--output", type=Path, help="JSON file to write to and a section to print, in the place of the recorded ones"
    )
    parser.add_argument(
        "--small", action="store_true", help="a quick check that all runs: little text, tiny models; records nothing"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        task, who, setting = json.loads(options.worker)
        start_worker(Task(**task), who, setting)
        return
    require("tensorflow", "tensorflow_text", "keras_hub", "torch", "transformers")
    corpus = options.corpus or Path(os.environ.get("BERTKERAS_DATA_HOME", "data")) / "wikitext-2" / "train.txt.gz"
    if not corpus.is_file():
        sys.exit(f"{corpus} is not there; set BERTKERAS_DATA_HOME to a folder that holds wikitext-2/train.txt.gz")
    if options.small:
        options.turns, options.steps, options.trials, options.starts = 2, 2, 1, 1
        options.job_steps, options.vocabulary_size = 20, 1000
    whole = not options.small and options.only == list(CONTENDERS)
    if not whole and not options.output:
        print("not the whole measurement: the section is printed, nothing is recorded")
    with tempfile.TemporaryDirectory() as folder:
        task, size = make_task(Path(folder), corpus, options.small, options.vocabulary_size, options.job_steps)
        measured, tried = measure(task, options.only, options.turns, options.trials, options.starts, options.steps)
    command = (
        f"python -m benchmarks.end_to_end --turns {options.turns} --steps {options.steps} "
        f"--trials {options.trials} --starts {options.starts}"
    )
    record = summarise(task, size, measured, tried, command)
    text = section(record)
    print(text)
    if options.output:
        write_rows(options.output, "end-to-end", record)
    elif whole:
        write_section("end_to_end", text)
        write_rows(ROOT / "book" / "results" / "performance.json", "end-to-end", record)


if __name__ == "__main__":
    main()
