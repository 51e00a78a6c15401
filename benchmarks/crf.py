"""What a CRF costs: one training step of a mini BERT that tags, with the softmax loss and with that of the CRF.

The same sizes on the same batch: 4 layers, width 256, vocabulary 30,522; 32 full rows of 128 pieces, of which three in
four have one of 9 tags; dropout 0.1, AdamW. Each backend and setting runs in a process of its own that holds both
models, and they take turns, softmax and CRF side by side, so that what else the machine does strikes both alike: the
figures are medians over rounds. On PyTorch the CRF alone, its loss with gradients and its decoding, is compared with
that of `pytorch-crf`.
"""

from __future__ import annotations

import argparse
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

SIZE, VOCABULARY = "mini", 30_522
BATCH, LENGTH, TYPES = 32, 128, ("person", "place", "group", "work")
LEARNING_RATE = 1e-4

Run = Callable[[], Any]

# name -> backend, whether XLA compiles (None: the backend has no such choice), and what is compared with what
WORKERS: dict[str, tuple[str, bool | None, tuple[str, str]]] = {
    "tensorflow, jit_compile=True": ("tensorflow", True, ("crf", "softmax")),
    "tensorflow, jit_compile=False": ("tensorflow", False, ("crf", "softmax")),
    "jax": ("jax", None, ("crf", "softmax")),
    "torch": ("torch", None, ("crf", "softmax")),
    "loss and gradients": ("torch", None, ("bertkeras", "pytorch-crf")),
    "decoding": ("torch", None, ("bertkeras", "pytorch-crf")),
}


def batch() -> tuple[dict[str, Any], Any]:
    """Full rows of random pieces, and tags of which no two neighbours break the scheme; -1 does not count."""
    import numpy as np

    random = np.random.default_rng(0)
    inputs = {
        "token_ids": random.integers(5, VOCABULARY, (BATCH, LENGTH)).astype("int32"),
        "padding_mask": np.ones((BATCH, LENGTH), "bool"),
    }
    tags = random.choice([0, 1, 3, 5, 7], (BATCH, LENGTH))  # O and every B-
    return inputs, np.where(random.random(tags.shape) < 0.75, tags, -1).astype("int32")


def training_step(loss: str, jit_compile: bool | None) -> Run:
    """One whole step as `fit` does it, with the loss computed from the classifier's logits."""
    import keras
    from keras import ops

    from bertkeras import BertConfig, BertTokenClassifier
    from bertkeras.layers import CRF
    from bertkeras.models.losses import cross_entropy, weighted_mean
    from bertkeras.text.tags import forbidden_pairs, tag_names

    tags = tag_names(TYPES)

    class Tagger(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = BertTokenClassifier(BertConfig.from_size(SIZE, VOCABULARY), len(tags))
            if loss == "crf":
                self.crf = CRF(len(tags), forbidden_pairs(tags))
                self.crf.build()
            self.built = True

        def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
            return self.classifier(inputs, training=training)

        def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *others: Any, **more: Any) -> Any:
            counts = y >= 0
            if loss == "softmax":
                return weighted_mean(cross_entropy(ops.maximum(y, 0), y_pred), counts)
            return -ops.sum(self.crf.log_likelihood(y_pred, y, counts)) / ops.sum(ops.cast(counts, "float32"))

    model = Tagger()
    model.compile(keras.optimizers.AdamW(LEARNING_RATE), jit_compile="auto" if jit_compile is None else jit_compile)
    inputs, labels = batch()
    return lambda: float(model.train_on_batch(inputs, labels))


def alone(who: str, work: str) -> Run:
    """The CRF without a model, on PyTorch: its loss with gradients, or the best path of every row."""
    import numpy as np
    import torch

    tags, num_classes = batch()[1], 2 * len(TYPES) + 1
    lengths = np.random.default_rng(0).integers(LENGTH // 2, LENGTH + 1, BATCH)  # pytorch-crf wants no holes
    mask = torch.tensor(np.arange(LENGTH) < lengths[:, None])
    labels = torch.tensor(np.maximum(tags, 0), dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    emissions = torch.randn(BATCH, LENGTH, num_classes, generator=generator, requires_grad=True)
    if who == "bertkeras":
        from bertkeras.layers import CRF

        ours = CRF(num_classes)
        ours.build()
        parameters = [ours.transitions.value]
        loss, decode = lambda: -ours.log_likelihood(emissions, labels, mask).sum(), lambda: ours(emissions, mask)
    else:
        import torchcrf

        theirs = torchcrf.CRF(num_classes, batch_first=True)
        parameters = list(theirs.parameters())
        loss, decode = lambda: -theirs(emissions, labels, mask), lambda: theirs.decode(emissions, mask)

    def step() -> None:
        if work == "decoding":
            with torch.no_grad():
                decode()
        else:
            torch.autograd.grad(loss(), [emissions, *parameters])

    return step


def start_worker(name: str, warmup: int) -> None:
    backend, jit_compile, contenders = WORKERS[name]
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def start() -> Callable[[dict[str, Any]], dict[str, Any]]:
        steps = {
            who: alone(who, name) if "pytorch-crf" in contenders else training_step(who, jit_compile)
            for who in contenders
        }
        for step in steps.values():
            for _ in range(warmup):
                step()

        def timed(command: dict[str, Any]) -> dict[str, Any]:
            begin, begin_busy = time.perf_counter(), time.process_time()
            for _ in range(command["steps"]):
                steps[command["who"]]()
            elapsed, busy = time.perf_counter() - begin, time.process_time() - begin_busy
            return {"seconds": elapsed / command["steps"], "processor_seconds": busy / command["steps"]}

        return timed

    serve(start)


def measure(rounds: int, steps: int, warmup: int) -> dict[str, list[list[dict[str, float]]]]:
    """The times per step of the two that a worker compares, round by round; which of them begins changes."""
    workers: dict[str, Worker] = {}
    for name in WORKERS:
        worker = Worker("benchmarks.crf", "--worker", name, "--warmup", str(warmup))
        if "error" in worker.greeting:
            raise SystemExit(f"{name}: {worker.greeting['error']}")
        workers[name] = worker
    times: dict[str, list[list[dict[str, float]]]] = {name: [] for name in workers}
    for turn in range(rounds):
        for name, worker in workers.items():
            pair = WORKERS[name][2]
            many = steps if "softmax" in pair else 10 * steps
            order = pair if turn % 2 else pair[::-1]
            answers = {who: worker.ask(who=who, steps=many) for who in order}
            times[name].append([answers[who] for who in pair])
        latest = (
            f"{name} {' : '.join(format(answer['seconds'] * 1e3, ',.0f') for answer in turns[-1])} ms"
            for name, turns in times.items()
        )
        print(f"round {turn + 1} of {rounds}: {', '.join(latest)}", flush=True)
    for worker in workers.values():
        worker.close()
    return times


def report(times: dict[str, list[list[dict[str, float]]]], command: str) -> dict[str, Any]:
    """One row for each comparison; written to `RESULTS.md` too."""
    rows = []
    for name, turns in times.items():
        ratios = {
            clock: {
                key: round(value, 3)
                for key, value in middle([first[clock] / second[clock] for first, second in turns]).items()
            }
            for clock in ("seconds", "processor_seconds")
        }
        medians = [middle([turn[i]["seconds"] for turn in turns])["median"] for i in (0, 1)]
        rows.append(
            {
                "work": "crf",
                "what": name,
                "compared": list(WORKERS[name][2]),
                "milliseconds": [round(median * 1e3, 1) for median in medians],
                "ratio": ratios["seconds"],
                "processor_ratio": ratios["processor_seconds"],
            }
        )
    record = {
        "rows": rows,
        "rounds": len(next(iter(times.values()))),
        "machine": machine(),
        "versions": versions("bertkeras", "keras", "tensorflow", "jax", "torch", "pytorch-crf"),
        "command": command,
        "date": today(),
    }

    def table(other: str) -> str:
        return "\n".join(
            f"| {row['what']} | {row['milliseconds'][0]:,} | {row['milliseconds'][1]:,} | "
            f"{_spread(row['ratio'])} | {_spread(row['processor_ratio'])} |"
            for row in rows
            if row["compared"][1] == other
        )

    write_section(
        "crf",
        f"""## What a CRF costs

One training step of a {SIZE} BERT that tags: vocabulary {VOCABULARY:,}, {BATCH} rows of {LENGTH} pieces,
{2 * len(TYPES) + 1} tags, dropout 0.1, AdamW, float32; milliseconds, and the step with the CRF over the step without.

| backend | CRF | softmax | ratio (quartiles) | of processor time |
|---|---:|---:|---:|---:|
{table("softmax")}

The CRF alone on PyTorch, {BATCH} rows of {LENGTH // 2} to {LENGTH} positions, beside pytorch-crf:

| work | bertkeras | pytorch-crf | ratio (quartiles) | of processor time |
|---|---:|---:|---:|---:|
{table("pytorch-crf")}

Medians over {record["rounds"]} rounds in which the two take turns in one process; ratios are those within a round. The
processor time, of all threads together, is less disturbed by what else the machine does.

{record["machine"]}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}.
{record["date"]}, `{command}`.""",
    )
    return record


def _spread(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crf", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="rounds in which every contender takes its turn")
    parser.add_argument("--steps", type=int, default=1, help="training steps in a turn; of the CRF alone ten times it")
    parser.add_argument("--warmup", type=int, default=3, help="steps before anything is timed")
    parser.add_argument("--worker", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        start_worker(options.worker, options.warmup)
        return
    require("tensorflow", "jax", "torch", "torchcrf")
    times = measure(options.rounds, options.steps, options.warmup)
    record = report(times, f"python -m benchmarks.crf --rounds {options.rounds}")
    for row in record["rows"]:
        compared = " / ".join(row["compared"])
        print(f"{row['what']}: {compared} {_spread(row['ratio'])}, processor {_spread(row['processor_ratio'])}")
    write_rows(ROOT / "book" / "results" / "crf.json", "crf", record)


if __name__ == "__main__":
    main()
