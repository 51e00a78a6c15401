"""What computing activations twice saves of memory and costs in time, and what a head in chunks does.

Steps of a model of 8 layers, width 256, with and without `recompute`, take turns, each pair in two processes of their
own, and so do steps of a small model with BERT's vocabulary whose head scores all positions at once or in 8 chunks;
then one step of BERT-base, 32 rows of 512 pieces, 76 of them masked in each. Memory is the largest resident size of a
process.

python -m benchmarks.recompute
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import ROOT, Worker, machine, middle, serve, today, versions, write_section, write_text
from benchmarks.step_contenders import Shape

SHAPES = {
    "8 x 256, length 256": Shape(8, 256, 4, vocabulary=8000, length=256, predictions=38),
    "2 x 128, length 512": Shape(2, 128, 2, length=512, predictions=76),
    "BERT-base, length 512": Shape(12, 768, 12, length=512, predictions=76),
}
PLAIN: dict[str, Any] = {}
SAVINGS = dict(zip(SHAPES, ({"recompute": True}, {"head_chunks": 8}, {"recompute": True}), strict=True))
WAYS = {"tensorflow": ("tensorflow", False), "tensorflow, XLA": ("tensorflow", True), "jax": ("jax", True)}
WAYS["torch"] = ("torch", False)


def contender(shape: str, jit_compile: bool, savings: dict[str, Any]) -> Callable[[], float]:
    """A function that takes one step and waits for its loss."""
    import keras

    from bertkeras import BertConfig, BertPretrainer
    from bertkeras.training import AdamW, make_train_step

    sizes = SHAPES[shape]
    keras.utils.set_random_seed(0)
    widths = (sizes.layers, sizes.width, sizes.heads, 4 * sizes.width)
    config = BertConfig(sizes.vocabulary, *widths, sizes.length, dropout=0.1, attention_dropout=0.1)
    model, optimizer = BertPretrainer(config), AdamW(1e-4, global_clipnorm=1.0)
    step = make_train_step(model, optimizer, jit_compile=jit_compile, **savings)
    inputs, labels = sizes.batch()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        inputs, labels = tf.nest.map_structure(tf.constant, (inputs, labels))
    return lambda: float(step(inputs, labels)["mlm_loss"])


def start_worker(shape: str, way: str, savings: dict[str, Any]) -> None:
    backend, jit_compile = WAYS[way]
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def start() -> Callable[[dict[str, Any]], dict[str, Any]]:
        step = contender(shape, jit_compile, savings)
        step()

        def timed(command: dict[str, Any]) -> dict[str, Any]:
            begin = time.perf_counter()
            loss = step()
            return {"seconds": time.perf_counter() - begin, "loss": loss}

        return timed

    serve(start)


def measure(shape: str, way: str, both: bool, rounds: int) -> list[dict[str, Any]]:
    settings = {on: SAVINGS[shape] if on else PLAIN for on in ((False, True) if both else (True,))}
    workers = {
        on: Worker("benchmarks.recompute", "--worker", shape, way, json.dumps(savings))
        for on, savings in settings.items()
    }
    answers: dict[bool, list[dict[str, Any]]] = {on: [] for on in workers}
    for _ in range(rounds):
        for on, worker in workers.items():
            answers[on].append(worker.ask())
    for worker in workers.values():
        worker.close()
    rows = []
    for on, found in answers.items():
        seconds = middle([answer["seconds"] for answer in found])
        plain = answers.get(False, [])
        ratios = [again["seconds"] / one["seconds"] for again, one in zip(found, plain, strict=False)]
        rows.append(
            {
                "work": shape,
                "who": way,
                "recompute": settings[on].get("recompute", False),
                "head_chunks": settings[on].get("head_chunks", 1),
                "seconds_per_step": round(seconds["median"], 3),
                "times_as_long": round(middle(ratios)["median"], 3) if ratios else None,
                "peak_memory_mb": found[-1]["peak_memory_mb"],
                "loss": found[-1]["loss"],
                "date": today(),
            }
        )
        print(rows[-1], flush=True)
    return rows


def report(record: dict[str, Any]) -> None:
    lines = "".join(
        f"| {row['work']} | {row['who']} | {'twice' if row['recompute'] else 'kept'} | {row['head_chunks']} | "
        f"{row['peak_memory_mb']:,} | {row['seconds_per_step']:.2f} | {row['times_as_long'] or '-'} |\n"
        for row in record["rows"]
    )
    text = f"""## Activations computed twice, and a head in chunks

32 rows a step, float32, dropout 0.1; 38 pieces of a row of 256 are masked, of a row of 512 76. The vocabulary of the
first model has 8,000 pieces, that of the others 30,522.

| model | how | activations | chunks of the head | largest memory of the process, MB | seconds a step | times as long |
|---|---|---|---:|---:|---:|---:|
{lines}
Of the smaller models, medians of {record["rounds"]} rounds in which both take turns; of BERT-base one step.
{record["machine"]}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}.
{" and ".join(sorted({row["date"] for row in record["rows"]}))}, `{record["command"]}`.
"""
    write_section("recompute", text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recompute", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="turns of each with the smaller models")
    parser.add_argument("--only", choices=SHAPES, help="measure this model, and keep what is recorded of the others")
    parser.add_argument("--worker", nargs=3, metavar=("SHAPE", "HOW", "SAVINGS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        start_worker(*options.worker[:2], json.loads(options.worker[2]))
        return
    path, base = ROOT / "book" / "results" / "recompute.json", list(SHAPES)[-1]
    there = json.loads(path.read_text())["rows"] if options.only else []
    rows = []
    for shape in SHAPES:
        if options.only not in (None, shape):
            rows += [row for row in there if row["work"] == shape]
        elif shape == base:
            rows += [row for way in ("tensorflow", "jax") for row in measure(shape, way, False, 1)]
        else:
            rows += [row for way in WAYS for row in measure(shape, way, True, options.rounds)]
    record = {
        "rows": rows,
        "rounds": options.rounds,
        "machine": machine(),
        "versions": versions("keras", "tensorflow", "jax", "torch"),
        "date": today(),
        "command": f"python -m benchmarks.recompute --rounds {options.rounds}",
    }
    write_text(path, json.dumps(record, indent=1) + "\n")
    report(record)


if __name__ == "__main__":
    main()
