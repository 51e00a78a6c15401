"""One pretraining step of a mini and of a small BERT: ours, KerasHub's and that of `transformers`, side by side.

Every contender trains the same sizes on the same batch: 4 layers of width 256 (mini) or 512 (small), heads of 64,
vocabulary 30,522; 32 full rows of 128 pieces, 20 masked positions in each; dropout 0.1 everywhere; AdamW with clipping
of the global norm to 1. Ours and that of `transformers` learn masked LM and next sentence; KerasHub, which has no head
for that, masked LM alone. Each runs in a process of its own and they take turns, so that what else the machine
does strikes all alike: the ratios are medians over rounds. In every round a large float32 matrix product is timed
too; the arithmetic that the step needs, done at that rate, is the limit.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Callable
from typing import Any

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

VOCABULARY = 30_522
BATCH, LENGTH, PREDICTIONS = 32, 128, 20
DROPOUT, LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 0.1, 1e-4, 0.01, 1.0
SIDE = 2048  # of the square matrices whose product gives the limit

Step = Callable[[], None]


# === The contenders: each returns a function that does one whole step and waits for its result ===


def bertkeras_step(size: str, jit_compile: bool) -> Step:
    import tensorflow as tf

    from bertkeras import BertConfig, BertPretrainer
    from bertkeras.training import AdamW, make_train_step

    dropouts = {"dropout": DROPOUT, "attention_dropout": DROPOUT}
    model = BertPretrainer(BertConfig.from_size(size, VOCABULARY, **dropouts))
    optimizer = AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORM)
    step = make_train_step(model, optimizer, jit_compile=jit_compile)
    inputs, labels = tf.nest.map_structure(tf.constant, batch())
    return lambda: float(step(inputs, labels)["mlm_loss"])


def kerashub_step(size: str, jit_compile: bool) -> Step:
    import keras
    import keras_hub
    import tensorflow as tf

    layers, width, heads = SIZES[size]
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=4 * width,
        dropout=DROPOUT,
    )
    model = keras_hub.models.BertMaskedLM(backbone)
    model.compile(
        optimizer=keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()],
        jit_compile=jit_compile,
    )
    inputs, labels = tf.nest.map_structure(tf.constant, batch())
    inputs["padding_mask"] = tf.cast(inputs["padding_mask"], tf.int32)
    return lambda: model.train_on_batch(inputs, labels["mlm_labels"], labels["mlm_weights"])


def transformers_step(size: str, compiled: bool) -> Step:
    import numpy as np
    import torch
    from transformers import BertConfig, BertForPreTraining

    layers, width, heads = SIZES[size]
    model = BertForPreTraining(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            hidden_dropout_prob=DROPOUT,
            attention_probs_dropout_prob=DROPOUT,
        )
    ).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    inputs, labels = batch()
    everywhere = np.full((BATCH, LENGTH), -100)
    np.put_along_axis(everywhere, inputs["mask_positions"], labels["mlm_labels"], axis=1)
    arguments = {
        "input_ids": torch.tensor(inputs["token_ids"], dtype=torch.long),
        "token_type_ids": torch.tensor(inputs["segment_ids"], dtype=torch.long),
        "attention_mask": torch.tensor(inputs["padding_mask"], dtype=torch.long),
        "labels": torch.tensor(everywhere, dtype=torch.long),
        "next_sentence_label": torch.tensor(labels["nsp_labels"], dtype=torch.long),
    }
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        loss = forward(**arguments).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def matrix_product(size: str) -> Step:
    import tensorflow as tf

    a, b = tf.random.normal((SIDE, SIDE)), tf.random.normal((SIDE, SIDE))
    return lambda: tf.matmul(a, b).numpy()


# who -> setting -> how to make the step; of several settings the fastest runs
CONTENDERS: dict[str, dict[str, Callable[[str], Step]]] = {
    "bertkeras": {
        "jit_compile=True": functools.partial(bertkeras_step, jit_compile=True),
        "jit_compile=False": functools.partial(bertkeras_step, jit_compile=False),
    },
    "kerashub": {
        "jit_compile=True": functools.partial(kerashub_step, jit_compile=True),
        "jit_compile=False": functools.partial(kerashub_step, jit_compile=False),
    },
    "transformers": {
        "eager": functools.partial(transformers_step, compiled=False),
        "torch.compile": functools.partial(transformers_step, compiled=True),
    },
    "limit": {"float32 matrix product": matrix_product},
}
BACKENDS = {"bertkeras": "tensorflow", "kerashub": "tensorflow", "transformers": "torch", "limit": "tensorflow"}


def batch(
    rows: int = BATCH, length: int = LENGTH, predictions: int = PREDICTIONS, vocabulary: int = VOCABULARY
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One batch of random pieces without padding: inputs and labels under our names."""
    import numpy as np

    random = np.random.default_rng(0)
    places = np.arange(1, length)[None].repeat(rows, axis=0)
    inputs = {
        "token_ids": random.integers(5, vocabulary, (rows, length)).astype("int32"),
        "segment_ids": np.broadcast_to(np.arange(length) >= length // 2, (rows, length)).astype("int32"),
        "padding_mask": np.ones((rows, length), "bool"),
        "mask_positions": np.sort(random.permuted(places, axis=1)[:, :predictions], axis=1).astype("int32"),
    }
    labels = {
        "mlm_labels": random.integers(5, vocabulary, (rows, predictions)).astype("int32"),
        "mlm_weights": np.ones((rows, predictions), "float32"),
        "nsp_labels": random.integers(0, 2, (rows,)).astype("int32"),
    }
    return inputs, labels


def needed_flops(size: str = "mini") -> int:
    """Floating-point operations of the matrix products that one step cannot do without.

    The masked-LM head is counted at the masked positions, and the last block past its keys and values only there and
    at the first position. Backward costs twice forward.
    """
    layers, width, _ = SIZES[size]
    seen = PREDICTIONS + 1
    kernels = 12 * width**2  # of one block: Q, K, V, output, feed-forward
    blocks = (layers - 1) * LENGTH * kernels + LENGTH * 2 * width**2 + seen * (kernels - 2 * width**2)
    attention = 2 * width * LENGTH * ((layers - 1) * LENGTH + seen)
    heads = PREDICTIONS * (width**2 + width * VOCABULARY) + width**2 + 2 * width
    return 3 * 2 * BATCH * (blocks + attention + heads)


def start_worker(size: str, who: str, setting: str, warmup: int) -> None:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def start() -> Callable[[dict[str, Any]], dict[str, Any]]:
        step = CONTENDERS[who][setting](size)
        for _ in range(warmup):
            step()

        def timed(command: dict[str, Any]) -> dict[str, Any]:
            begin = time.perf_counter()
            for _ in range(command["steps"]):
                step()
            return {"seconds": (time.perf_counter() - begin) / command["steps"]}

        return timed

    serve(start)


def measure(
    size: str, rounds: int, trials: int, steps: int, warmup: int
) -> tuple[dict[str, str], dict[str, list[float]], dict[str, int]]:
    """The fastest setting of each contender, its seconds per step round by round, and its peak memory in MB."""
    settings: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    for who, choices in CONTENDERS.items():
        running = {}
        for setting in choices:
            worker = Worker("benchmarks.pretraining_step", "--worker", size, who, setting, "--warmup", str(warmup))
            if "error" in worker.greeting:
                print(f"{who}, {setting}: left out, {worker.greeting['error']}")
            else:
                running[setting] = worker
        if not running:
            raise SystemExit(f"{who}: no setting runs")
        turns = range(trials if len(running) > 1 else 0)
        trial = [{setting: worker.ask(steps=steps)["seconds"] for setting, worker in running.items()} for _ in turns]
        medians = {setting: middle([turn[setting] for turn in trial])["median"] for setting in running if trial}
        settings[who] = min(medians, key=medians.__getitem__) if medians else next(iter(running))
        for setting, seconds in medians.items():
            print(f"{who}, {setting}: {seconds * 1e3:,.0f} ms a step", flush=True)
        for setting, worker in running.items():
            if setting == settings[who]:
                workers[who] = worker
            else:
                worker.close()
    seconds: dict[str, list[float]] = {who: [] for who in workers}
    memory: dict[str, int] = {}
    for turn in range(rounds):
        for who, worker in workers.items():
            answer = worker.ask(steps=steps)
            seconds[who].append(answer["seconds"])
            memory[who] = answer["peak_memory_mb"]
        print(
            f"round {turn + 1} of {rounds}: " + ", ".join(f"{w} {s[-1] * 1e3:,.0f} ms" for w, s in seconds.items()),
            flush=True,
        )
    for worker in workers.values():
        worker.close()
    return settings, seconds, memory


def report(
    size: str, settings: dict[str, str], seconds: dict[str, list[float]], memory: dict[str, int], command: str
) -> dict[str, Any]:
    """Rows, ratios and where they come from; written to `RESULTS.md` too."""
    tokens, flops = BATCH * LENGTH, needed_flops(size)
    limit = [flops * s / (2 * SIDE**3) for s in seconds["limit"]]  # seconds of a step that is nothing but products
    rows, ratios = [], {}
    for who, measured in seconds.items():
        own = limit if who == "limit" else measured
        rows.append(
            {
                "work": f"step-{size}",
                "who": who,
                "backend": BACKENDS[who],
                "setting": settings[who],
                "tokens_per_second": round(middle([tokens / s for s in own])["median"]),
                "share_of_limit": round(middle([t / s for t, s in zip(limit, own, strict=True)])["median"], 3),
                "peak_memory_mb": None if who == "limit" else memory[who],
            }
        )
        if who not in ("bertkeras", "limit"):
            pairs = zip(measured, seconds["bertkeras"], strict=True)
            ratios[who] = {name: round(value, 3) for name, value in middle([s / ours for s, ours in pairs]).items()}
    rate = middle([2 * SIDE**3 / s / 1e9 for s in seconds["limit"]])["median"]
    record = {
        "rows": rows,
        "ratios": ratios,
        "rounds": len(limit),
        "matmul_gflops_per_second": round(rate),
        "needed_gflop_per_step": round(flops / 1e9, 1),
        "machine": machine(),
        "versions": versions("bertkeras", "keras", "tensorflow", "keras-hub", "torch", "transformers"),
        "command": command,
        "date": today(),
    }
    table = "\n".join(
        f"| {row['who']} | {row['backend']}, {row['setting']} | {row['tokens_per_second']:,} | "
        f"{row['share_of_limit']:.0%} | {row['peak_memory_mb'] or '-'} |"
        for row in rows
    )
    compared = "\n".join(
        f"- **{r['median']:.2f} times** the tokens per second of {who} (quartiles {r['low']:.2f} to {r['high']:.2f})."
        for who, r in ratios.items()
    )
    layers, width, heads = SIZES[size]
    write_section(
        "pretraining_step" if size == "mini" else f"pretraining_step_{size}",
        f"""## One pretraining step of a {size} BERT

{layers} layers, width {width}, {heads} heads, feed-forward {4 * width:,}, vocabulary {VOCABULARY:,}; {BATCH} full
rows of {LENGTH} pieces, {PREDICTIONS} masked in each; dropout {DROPOUT}; AdamW, global norm clipped to {CLIP_NORM:g};
float32. bertkeras and transformers learn masked LM and next sentence; KerasHub (no next-sentence head) masked LM alone.

| who | how | tokens/s | share of the limit | peak memory, MB |
|---|---|---:|---:|---:|
{table}

bertkeras does

{compared}

Medians over {record["rounds"]} rounds in which the contenders take turns, each in its own process and in the faster
of its settings. The limit is the {record["needed_gflop_per_step"]} GFLOP of matrix products that a step cannot do
without (the masked-LM head at the masked positions; the last block, past its keys and values, there and at `[CLS]`) at
the {record["matmul_gflops_per_second"]} GFLOP/s of a {SIDE:,} x {SIDE:,} float32 product, timed in the same rounds.

{record["machine"]}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}.
{record["date"]}, `{command}`.""",
    )
    return record


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretraining_step", description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["mini", "small"], help="of the model (default: mini small)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds in which every contender takes its turn")
    parser.add_argument("--trials", type=int, default=5, help="turns that decide between a contender's settings")
    parser.add_argument("--steps", type=int, default=1, help="steps in a turn")
    parser.add_argument("--warmup", type=int, default=3, help="steps before anything is timed")
    parser.add_argument("--worker", nargs=3, metavar=("SIZE", "WHO", "SETTING"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        start_worker(*options.worker, warmup=options.warmup)
        return
    require("tensorflow", "keras_hub", "torch", "transformers")
    for size in options.sizes:
        settings, seconds, memory = measure(size, options.rounds, options.trials, options.steps, options.warmup)
        command = f"python -m benchmarks.pretraining_step --sizes {size} --rounds {options.rounds}"
        record = report(size, settings, seconds, memory, command)
        for who, ratio in record["ratios"].items():
            print(f"{size}, bertkeras / {who}: {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})")
        write_rows(ROOT / "book" / "results" / "performance.json", f"step-{size}", record)


if __name__ == "__main__":
    main()
