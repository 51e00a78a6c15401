"""What computing activations twice saves of memory and costs in time, and a BERT-base at length 512 in 16 GiB.

Steps of a model of 8 layers, width 256, with and without `recompute`, take turns, each pair in two processes of their
own; then one step of BERT-base, 32 rows of 512 pieces, 76 of them masked in each. Memory is the largest resident size
of a process.

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
    "BERT-base, length 512": Shape(12, 768, 12, length=512, predictions=76),
}
WAYS = {"tensorflow": ("tensorflow", False), "tensorflow, XLA": ("tensorflow", True), "jax": ("jax", True)}
WAYS["torch"] = ("torch", False)


def contender(shape: str, jit_compile: bool, recompute: bool) -> Callable[[], float]:
    """A function that takes one step and waits for its loss."""
    import keras

    from bertkeras import BertConfig, BertPretrainer
    from bertkeras.training import AdamW, make_train_step

    sizes = SHAPES[shape]
    keras.utils.set_random_seed(0)
    widths = (sizes.layers, sizes.width, sizes.heads, 4 * sizes.width)
    config = BertConfig(sizes.vocabulary, *widths, sizes.length, dropout=0.1, attention_dropout=0.1)
    model, optimizer = BertPretrainer(config), AdamW(1e-4, global_clipnorm=1.0)
    step = make_train_step(model, optimizer, jit_compile=jit_compile, recompute=recompute)
    inputs, labels = sizes.batch()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        inputs, labels = tf.nest.map_structure(tf.constant, (inputs, labels))
    return lambda: float(step(inputs, labels)["mlm_loss"])


def start_worker(shape: str, way: str, recompute: bool) -> None:
    backend, jit_compile = WAYS[way]
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def start() -> Callable[[dict[str, Any]], dict[str, Any]]:
        step = contender(shape, jit_compile, recompute)
        step()

        def timed(command: dict[str, Any]) -> dict[str, Any]:
            begin = time.perf_counter()
            loss = step()
            return {"seconds": time.perf_counter() - begin, "loss": loss}

        return timed

    serve(start)


def measure(shape: str, way: str, both: bool, rounds: int) -> list[dict[str, Any]]:
    settings = (False, True) if both else (True,)
    workers = {on: Worker("benchmarks.recompute", "--worker", shape, way, str(int(on))) for on in settings}
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
                "recompute": on,
                "seconds_per_step": round(seconds["median"], 3),
                "times_as_long": round(middle(ratios)["median"], 3) if ratios else None,
                "peak_memory_mb": found[-1]["peak_memory_mb"],
                "loss": found[-1]["loss"],
            }
        )
        print(rows[-1], flush=True)
    return rows


def report(record: dict[str, Any]) -> None:
    lines = "".join(
        f"| {row['work']} | {row['who']} | {'twice' if row['recompute'] else 'kept'} | {row['peak_memory_mb']:,} | "
        f"{row['seconds_per_step']:.2f} | {row['times_as_long'] or '-'} |\n"
        for row in record["rows"]
    )
    text = f"""## Activations computed twice

32 rows a step, float32, dropout 0.1; of the small model 38 pieces of a row are masked, of BERT-base 76.

| model | how | activations | largest memory of the process, MB | seconds a step | times as long |
|---|---|---|---:|---:|---:|
{lines}
Of the small model, medians of {record["rounds"]} rounds in which both take turns; of BERT-base one step.
{record["machine"]}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}. {record["date"]},
`{record["command"]}`.
"""
    write_section("recompute", text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recompute", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="turns of each with the small model")
    parser.add_argument("--worker", nargs=3, metavar=("SHAPE", "HOW", "ON"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        start_worker(*options.worker[:2], bool(int(options.worker[2])))
        return
    small, base = SHAPES
    rows = [row for way in WAYS for row in measure(small, way, True, options.rounds)]
    rows += [row for way in ("tensorflow", "jax") for row in measure(base, way, False, 1)]
    record = {
        "rows": rows,
        "rounds": options.rounds,
        "machine": machine(),
        "versions": versions("keras", "tensorflow", "jax", "torch"),
        "date": today(),
        "command": f"python -m benchmarks.recompute --rounds {options.rounds}",
    }
    write_text(ROOT / "book" / "results" / "recompute.json", json.dumps(record, indent=1) + "\n")
    report(record)


if __name__ == "__main__":
    main()
