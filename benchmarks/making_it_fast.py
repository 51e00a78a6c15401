"""What each rung of the chapter "Making it fast" buys, at the mini size and on rows of real lengths.

Each rung is one change on top of those before it: score the masked positions only (and compute the last block there),
pack the rows, trace the step into a graph, let XLA compile it, multiply in bfloat16. Beside the ladder stand Keras's
own training step, the graph in bfloat16, and the package's step with the whole batch and in four micro-batches. Every
contender trains a BERT of 4 layers, width 256, vocabulary 30,522 on the same text, masked LM alone, without dropout.
They take turns; memory and the first call are measured before that, in a process for each. Speed is in useful tokens:
padding does not count. A large float32 matrix product, timed in the same rounds, is the limit; the share of it is the
time that the arithmetic which the useful tokens need would take at that rate, over the time that the step took.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import (
    ROOT,
    Worker,
    machine,
    middle,
    peak_memory_mb,
    require,
    serve,
    today,
    versions,
    write_section,
)
from bertkeras.files import write_text

SIZE, VOCABULARY, BATCH, LENGTH, PREDICTIONS = "mini", 30_522, 32, 128, 20
LEARNING_RATE, CLIP_NORM = 1e-4, 1.0
PIECES = 8000  # that the tokenizer knows; the model has room for VOCABULARY
BATCHES = 4  # that the steps go through
PARTS = 4
SIDE = 2048  # of the square matrices whose product gives the limit
LABELS = "mlm_labels", "mlm_weights"
EVERYWHERE = "mlm_labels_everywhere", "mlm_weights_everywhere"  # the same with a place for every position

Arrays = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a contender takes a step.

    `compiled` is None for eager, else what `tf.function` is told as `jit_compile`. With `parts` it is the package's
    step, in so many micro-batches; with `keras_step` it is Keras's, which decides about compiling by itself.
    """

    packed: bool = True
    every_position: bool = False
    compiled: bool | None = True
    dtype: str = "float32"
    parts: int | None = None
    keras_step: bool = False


LADDER = {
    "every position, eager": Setting(packed=False, every_position=True, compiled=None),
    "masked positions": Setting(packed=False, compiled=None),
    "packed rows": Setting(compiled=None),
    "graph": Setting(compiled=False),
    "XLA": Setting(),
    "bfloat16": Setting(dtype="mixed_bfloat16"),
}
BESIDE = {
    "Keras fit": Setting(packed=False, keras_step=True),
    "bfloat16 without XLA": Setting(compiled=False, dtype="mixed_bfloat16"),
    "whole batch": Setting(compiled=False, parts=1),
    "four micro-batches": Setting(compiled=False, parts=PARTS),
}
CONTENDERS = {**LADDER, **BESIDE}
PRODUCTS = {"limit": "float32", "product in bfloat16": "bfloat16"}
FIRST = next(iter(LADDER))


# === The data: the same documents, one in a row or packed ===


def write_batches(path: Path) -> dict[bool, float]:
    """Masked batches of padded and of packed rows, as arrays in one file; the share of useful tokens in all rows."""
    import numpy as np
    import tensorflow as tf

    from bertkeras import WordPieceTokenizer
    from bertkeras.pipelines import Masking
    from bertkeras.pipelines.packing import packed_features
    from bertkeras.pipelines.sentence_pairs import DocumentBlock, RowOptions, make_rows
    from bertkeras.text.corpus import Corpus

    documents = list(Corpus("installed-docs"))
    tokenizer = WordPieceTokenizer.train(documents, PIECES)
    pieces = [np.array(row.ids, "int32") for row in tokenizer.encode_batch(documents, add_special_tokens=False)]
    starts = np.cumsum([0, *map(len, pieces[:-1])])
    block = DocumentBlock(np.concatenate(pieces), np.zeros(0, bool), starts, starts)
    masking = Masking(PIECES, tokenizer.mask_id, tuple(tokenizer.special_ids), PREDICTIONS)
    arrays: Arrays = {}
    useful = {}
    for packed in (False, True):
        kind = "packed" if packed else "none"
        special = {"cls_id": tokenizer.cls_id, "sep_id": tokenizer.sep_id, "pad_id": tokenizer.pad_id}
        options = RowOptions(LENGTH, pairs=kind, **special)
        rows = make_rows(block, options, 0, 0)["token_ids"].numpy()
        useful[packed] = float((rows != tokenizer.pad_id).mean())
        rows = rows[:: len(rows) // (BATCHES * BATCH)][: BATCHES * BATCH]  # from all parts of the text
        masked = masking(tf.constant(rows), tf.range(len(rows), dtype=tf.int64))
        batch = {name: value.numpy() for name, value in masked.items()}
        for name, source in zip(EVERYWHERE, LABELS, strict=True):
            batch[name] = np.zeros(rows.shape, batch[source].dtype)
            np.put_along_axis(batch[name], batch["mask_positions"], batch[source], axis=1)
        if packed:
            features = packed_features(tf.constant(rows), tokenizer.cls_id, tokenizer.pad_id)
            batch |= {name: value.numpy() for name, value in features.items()}
        else:
            batch["padding_mask"] = rows != tokenizer.pad_id
        arrays |= {f"{kind}/{name}": value for name, value in batch.items()}
    np.savez(path, **arrays)
    return useful


def read_batches(path: str | Path, packed: bool) -> list[Arrays]:
    import numpy as np

    kind = "packed/" if packed else "none/"
    with np.load(path) as file:
        arrays = {name.removeprefix(kind): file[name] for name in file.files if name.startswith(kind)}
    return [
        {name: array[start : start + BATCH] for name, array in arrays.items()}
        for start in range(0, BATCHES * BATCH, BATCH)
    ]


def text_lengths(batch: Arrays) -> Any:
    """Pieces of each text of a batch."""
    import numpy as np

    if "padding_mask" in batch:
        return batch["padding_mask"].sum(axis=1)
    return np.concatenate([np.bincount(row[row > 0])[1:] for row in batch["sequence_ids"]])


def needed_flops(lengths: Any, asked: float) -> float:
    """Floating-point operations of the matrix products that a step cannot do without.

    Texts of `lengths`, `asked` masked positions in all. The last block past its keys and values, and the head, are
    counted at the masked positions. Backward costs twice forward.
    """
    from bertkeras import BertConfig

    config = BertConfig.from_size(SIZE, VOCABULARY)
    width, inner = config.hidden_dim, config.intermediate_dim
    tokens, pairs = float(lengths.sum()), float((lengths.astype(float) ** 2).sum())
    kernels = 4 * width**2 + 2 * width * inner  # of one block: Q, K, V, output, feed-forward
    blocks = (config.num_layers - 1) * (tokens * kernels + 2 * width * pairs)
    last = tokens * 2 * width**2 + asked * (kernels - 2 * width**2 + 2 * width * pairs / tokens)
    head = asked * (width**2 + width * VOCABULARY)
    return 3 * 2 * (blocks + last + head)


# === The contenders ===


def make_step(setting: Setting) -> Callable[[Any, Any], Any]:
    """A function of inputs and labels that trains a fresh model by one step and gives the masked-LM loss."""
    import keras
    import tensorflow as tf

    from bertkeras import BertConfig, BertPretrainer
    from bertkeras.models.losses import cross_entropy
    from bertkeras.training import AdamW, make_train_step

    keras.utils.set_random_seed(0)
    config = BertConfig.from_size(SIZE, VOCABULARY, max_sequence_length=LENGTH, dropout=0.0, attention_dropout=0.0)
    model = BertPretrainer(config, next_sentence=False, dtype=setting.dtype)
    optimizer = AdamW(LEARNING_RATE, global_clipnorm=CLIP_NORM)
    if setting.keras_step:
        model.compile(optimizer=optimizer)
        return lambda inputs, labels: model.train_on_batch(inputs, labels, return_dict=True)["mlm_loss"]
    if setting.parts:
        step = make_train_step(model, optimizer, accumulation=setting.parts, jit_compile=bool(setting.compiled))

        def mean_loss(inputs: Any, labels: Any) -> Any:
            sums = step(inputs, labels)
            return sums["mlm_loss"] / sums["mlm_count"]

        return mean_loss
    optimizer.build(model.trainable_variables)
    values = [variable.value for variable in model.trainable_variables]

    def one_step(inputs: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            if setting.every_position:
                vectors = model.backbone(inputs, training=True)["sequence_output"]
                logits = model.mlm_head(vectors, None, model.backbone.token_table)
            else:
                logits = model(inputs, training=True)["mlm_logits"]
            losses = cross_entropy(labels["mlm_labels"], logits)
            loss = tf.reduce_sum(losses * labels["mlm_weights"]) / tf.reduce_sum(labels["mlm_weights"])
        optimizer.apply(tape.gradient(loss, values), model.trainable_variables)
        return loss

    if setting.compiled is None:
        return one_step
    return tf.function(one_step, autograph=False, jit_compile=setting.compiled)


def contender(name: str, path: str | Path) -> Callable[[int], float]:
    """Set up one; what returns takes a step on batch number so and so, waits for it and gives the loss."""
    import tensorflow as tf

    if name in PRODUCTS:
        a, b = (tf.cast(tf.random.normal((SIDE, SIDE)), PRODUCTS[name]) for _ in range(2))
        return lambda _: float(tf.matmul(a, b)[0, 0])
    setting = CONTENDERS[name]
    given = EVERYWHERE if setting.every_position else LABELS
    batches = []
    for batch in read_batches(path, setting.packed):
        labels = {label: batch[source] for label, source in zip(LABELS, given, strict=True)}
        inputs = {key: value for key, value in batch.items() if not key.startswith("mlm_")}
        batches.append(tf.nest.map_structure(tf.constant, (inputs, labels)))
    step = make_step(setting)
    return lambda number: float(step(*batches[number % BATCHES]))


# === Measuring and reporting ===


def start_data(path: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    padded, packed = write_batches(Path(path)).values()
    return lambda _: {"padded": padded, "packed": packed}


def start_alone(name: str, path: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Take the first steps in a process that has nothing else in it, for their memory and the time of the first."""
    step = contender(name, path)
    before = peak_memory_mb()
    begin = time.perf_counter()
    first_loss = step(0)
    first_seconds = time.perf_counter() - begin
    for number in range(1, BATCHES):
        step(number)
    memory = peak_memory_mb() - before
    return lambda _: {"first_loss": first_loss, "first_seconds": first_seconds, "step_memory_mb": memory}


def ask_worker(*arguments: str) -> dict[str, Any]:
    """What a process of its own answers, which then ends."""
    worker = Worker("benchmarks.making_it_fast", "--worker", *arguments)
    if "error" in worker.greeting:
        raise SystemExit(f"{arguments[0]}: {worker.greeting['error']}")
    answer = worker.ask()
    worker.close()
    return answer


def measure(path: Path, rounds: int, warmup: int) -> dict[str, list[float]]:
    """Seconds of a step of every contender, round by round."""
    steps = {name: contender(name, path) for name in [*CONTENDERS, *PRODUCTS]}
    for step in steps.values():
        for number in range(warmup):
            step(number)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            step(turn)
            seconds[name].append(time.perf_counter() - begin)
        shown = ", ".join(f"{name} {values[-1] * 1e3:,.0f}" for name, values in seconds.items())
        print(f"round {turn + 1} of {rounds}, ms: {shown}", flush=True)
    return seconds


def check_losses(alone: dict[str, dict[str, Any]]) -> None:
    """Contenders that see the same rows begin with the same loss, or they do not compute the same.

    Raises:
        SystemExit: They do not.
    """
    for packed in (False, True):
        losses = {name: alone[name]["first_loss"] for name, s in CONTENDERS.items() if s.packed == packed}
        for name, loss in losses.items():
            reference = next(iter(losses.values()))
            allowed = 1e-5 if CONTENDERS[name].dtype == "float32" else 1e-3
            if abs(loss / reference - 1) > allowed:
                raise SystemExit(f"{name} begins with the loss {loss}, the others on its rows with {reference}")


def summarise(
    path: Path, useful: dict[str, float], seconds: dict[str, list[float]], alone: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The record: a line for each rung and each contender beside the ladder."""
    rate = [2 * SIDE**3 / s for s in seconds["limit"]]
    tokens, needed = {}, {}
    for packed in (False, True):
        batches = read_batches(path, packed)
        lengths = [text_lengths(batch) for batch in batches]
        tokens[packed] = [int(numbers.sum()) for numbers in lengths]
        asked = [float(batch["mlm_weights"].sum()) for batch in batches]
        needed[packed] = [needed_flops(*both) for both in zip(lengths, asked, strict=True)]

    def speeds(name: str) -> list[float]:
        """Useful tokens a second, round by round."""
        return [tokens[CONTENDERS[name].packed][turn % BATCHES] / s for turn, s in enumerate(seconds[name])]

    def rounded(values: list[float]) -> dict[str, float]:
        return {name: round(value, 3) for name, value in middle(values).items()}

    rungs, below = [], {name: before for before, name in zip(LADDER, list(LADDER)[1:], strict=False)}
    for name, setting in CONTENDERS.items():
        flops = needed[setting.packed]
        shares = [flops[turn % BATCHES] / s / rate[turn] for turn, s in enumerate(seconds[name])]
        row: dict[str, Any] = {
            "rung": name,
            "on_the_ladder": name in LADDER,
            "tokens_per_second": round(middle(speeds(name))["median"]),
            "ratio": rounded([own / first for own, first in zip(speeds(name), speeds(FIRST), strict=True)]),
            "share_of_limit": round(middle(shares)["median"], 3),
            "first_call_seconds": round(alone[name]["first_seconds"], 2),
            "step_memory_mb": alone[name]["step_memory_mb"],
        }
        if name in below:
            pairs = zip(speeds(name), speeds(below[name]), strict=True)
            row["over_the_rung_below"] = rounded([own / before for own, before in pairs])
        rungs.append(row)
    products = zip(seconds["limit"], seconds["product in bfloat16"], strict=True)
    return {
        "work": f"{SIZE} size, {BATCH} rows of {LENGTH} pieces, vocabulary {VOCABULARY:,}, {PREDICTIONS} predictions",
        "rungs": rungs,
        "rounds": len(rate),
        "matmul_gflops_per_second": round(middle(rate)["median"] / 1e9),
        "bfloat16_product_ratio": rounded([plain / short for plain, short in products]),
        "useful_share": {kind: round(useful[kind], 4) for kind in ("padded", "packed")},
        "machine": machine(),
        "versions": versions("bertkeras", "keras", "tensorflow"),
    }


def report(record: dict[str, Any]) -> None:
    """Write the section of RESULTS.md."""

    def line(row: dict[str, Any]) -> str:
        ratio, below = row["ratio"], row.get("over_the_rung_below")
        over_below = f"{below['median']:.2f}" if below else "-"
        return (
            f"| {row['rung']} | {row['tokens_per_second']:,} | {ratio['median']:.2f} ({ratio['low']:.2f} to "
            f"{ratio['high']:.2f}) | {over_below} | {row['share_of_limit']:.0%} | "
            f"{row['step_memory_mb']:,} | {row['first_call_seconds']:.1f} |"
        )

    head = ["rung", "useful tokens/s", "of the first (quartiles)", "of the rung above", "share of the limit"]
    head += ["step's memory, MB", "first call, s"]
    padded, packed = (record["useful_share"][kind] for kind in ("padded", "packed"))
    gflops, shorter = record["matmul_gflops_per_second"], record["bfloat16_product_ratio"]["median"]
    ladder = "\n".join(line(row) for row in record["rungs"] if row["on_the_ladder"])
    beside = "\n".join(line(row) for row in record["rungs"] if not row["on_the_ladder"])
    write_section(
        "making_it_fast",
        f"""## Making it fast

The mini size (4 layers, width 256), vocabulary {VOCABULARY:,}; {BATCH} rows of {LENGTH} pieces of the installed
documentation, up to {PREDICTIONS} masked in each; masked LM alone, no dropout; AdamW, global norm clipped to
{CLIP_NORM:g}. Each rung is one change on top of those above it.

| {" | ".join(head)} |
|---|---:|---:|---:|---:|---:|---:|
{ladder}
| *beside the ladder* | | | | | | |
{beside}

Useful tokens are those that are not padding: {padded:.1%} of the padded rows, {packed:.1%} of the packed ones.
Keras fit is Keras's own training step on the padded rows; bfloat16 without XLA is the rung graph in bfloat16; the last
two are the package's step on the packed rows, as a graph, in one part and in {PARTS}. Memory is the peak of a process
beyond what it held before its first step, compilation included. The limit is a {SIDE:,} x {SIDE:,} float32 product,
{gflops} GFLOP/s in the same rounds; in bfloat16 the same product was {shorter:.2f} times as fast.

Medians over {record["rounds"]} rounds in which the contenders take turns; memory and first call in a process for each.
{record["machine"]}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}.
{record["date"]}, `{record["command"]}`.""",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.making_it_fast", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="rounds in which every contender takes its turn")
    parser.add_argument("--warmup", type=int, default=3, help="steps before anything is timed")
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "BATCHES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.worker:
        name, path = options.worker
        serve(lambda: start_data(path) if name == "data" else start_alone(name, path))
        return
    require("tensorflow")
    with tempfile.TemporaryDirectory() as folder:
        batches = Path(folder, "batches.npz")
        # TensorFlow is imported here last: a process's peak of memory begins with what its parent holds
        useful = ask_worker("data", str(batches))
        alone = {}
        for name in CONTENDERS:
            alone[name] = ask_worker(name, str(batches))
            print(f"{name}: first call {alone[name]['first_seconds']:.1f} s", flush=True)
        check_losses(alone)
        seconds = measure(batches, options.rounds, options.warmup)
        record = summarise(batches, useful, seconds, alone)
    record |= {"command": f"python -m benchmarks.making_it_fast --rounds {options.rounds}", "date": today()}
    write_text(ROOT / "book" / "results" / "making_it_fast.json", json.dumps(record, indent=2) + "\n")
    report(record)
    for row in record["rungs"]:
        print(f"{row['rung']:24} {row['ratio']['median']:6.2f} of the first, {row['share_of_limit']:.0%} of the limit")


if __name__ == "__main__":
    main()
