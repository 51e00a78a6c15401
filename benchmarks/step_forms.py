"""What each form of the step's arithmetic buys: the step of a mini BERT with one form at a time put back to the plain.

The model and batch of `pretraining_step`, compiled by XLA for a processor. All compute the same step, to rounding, but
for dropout, whose bits are then others. The contenders take turns, each in a process of its own; the ratios are medians
over rounds.

python -m benchmarks.step_forms
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import ROOT, Worker, machine, middle, serve, today, versions, write_section
from benchmarks.step_contenders import Shape, bertkeras_step
from bertkeras.files import write_text


def put(owner: Any, name: str, plain: Any) -> None:
    getattr(owner, name)  # what is there no more is not put back
    setattr(owner, name, plain)


def sums_as_sums() -> None:
    from keras import ops

    from bertkeras.layers import dense, layer_norm

    def sum_rows(x: Any, dtype: Any = None) -> Any:
        return ops.sum(ops.reshape(ops.cast(x, dtype or x.dtype), (-1, x.shape[-1])), axis=0)

    for module in (dense, layer_norm):
        put(module, "sum_rows", sum_rows)


def wide_side_transposed() -> None:
    import tensorflow as tf

    from bertkeras.layers import dense

    put(dense, "sum_of_products", lambda a, b, dtype: tf.matmul(a, b, transpose_a=True))


def norm_derived_by_xla() -> None:
    import keras

    from bertkeras.layers.layer_norm import LayerNormalization

    put(LayerNormalization, "call", keras.layers.LayerNormalization.call)


def loss_at_once() -> None:
    from bertkeras.models import losses

    put(losses, "LAYERS", 2**15)  # no vocabulary is so large that it would be cut


def bits_of_the_backend() -> None:
    import keras

    from bertkeras.layers.dropout import Dropout

    put(Dropout, "call", keras.layers.Dropout.call)


def gelu_of_keras() -> None:
    import keras

    from bertkeras.layers import common

    put(common, "gelu", functools.partial(keras.activations.gelu, approximate=False))


# in the words of a table: "without ..."
FORMS: dict[str, Callable[[], None]] = {
    "sums over rows as products with ones": sums_as_sums,
    "the narrow side transposed for a kernel's gradient": wide_side_transposed,
    "the layer norm's sums by hand": norm_derived_by_xla,
    "the loss in layers of the vocabulary": loss_at_once,
    "dropout's bits by hash": bits_of_the_backend,
    "GELU by erf, where TensorFlow's has erfc": gelu_of_keras,
}
ALL = "all of these"


def put_back(without: str) -> None:
    for name, put_back_one in FORMS.items():
        if without in (name, ALL):
            put_back_one()


def start_worker(shape: Shape, without: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def start() -> Callable[[dict[str, Any]], dict[str, Any]]:
        put_back(without)
        step = bertkeras_step(shape, jit_compile=True)
        for _ in range(3):
            step()

        def timed(_: dict[str, Any]) -> dict[str, Any]:
            begin = time.perf_counter()
            step()
            return {"seconds": time.perf_counter() - begin}

        return timed

    serve(start)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_forms", description=__doc__)
    parser.add_argument("--size", default="mini", help="of the model (default: mini)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds in which every contender takes its turn")
    options = parser.parse_args()
    shape = Shape.of_size(options.size)
    seconds: dict[str, list[float]] = {name: [] for name in ("", *FORMS, ALL)}
    workers = {name: Worker("benchmarks.step_forms", shape.to_json(), name) for name in seconds}
    for name, worker in workers.items():
        if "error" in worker.greeting:
            raise SystemExit(f"without {name or 'nothing'}: {worker.greeting['error']}")
    for turn in range(options.rounds):
        for name, worker in workers.items():
            seconds[name].append(worker.ask()["seconds"])
        print(f"round {turn + 1} of {options.rounds}", flush=True)
    for worker in workers.values():
        worker.close()
    ratios = {
        name: {
            key: round(value, 3)
            for key, value in middle([a / b for a, b in zip(own, seconds[""], strict=True)]).items()
        }
        for name, own in seconds.items()
        if name
    }
    record = {
        "size": options.size,
        "seconds": round(middle(seconds[""])["median"], 4),
        "times_as_long_without": ratios,
        "rounds": options.rounds,
        "machine": machine(),
        "versions": versions("bertkeras", "keras", "tensorflow"),
        "command": f"python -m benchmarks.step_forms --size {options.size} --rounds {options.rounds}",
        "date": today(),
    }
    rows = "\n".join(
        f"| {name} | {r['median']:.3f} | {r['low']:.3f} to {r['high']:.3f} |" for name, r in ratios.items()
    )
    text = f"""## What each form of the step buys

The step of the {options.size} size takes {record["seconds"] * 1e3:,.0f} ms, compiled by XLA for a processor.
With a form put back to the plain one it computes the same, to rounding, but for dropout, whose bits are then others:

| without | times as long | quartiles |
|---|---:|---:|
{rows}

Medians over {options.rounds} rounds in which all take turns, each in its own process. {record["machine"]}.
{", ".join(f"{name} {version}" for name, version in record["versions"].items())}"""
    write_section("step_forms", f"{text}.\n{record['date']}, `{record['command']}`.")
    write_text(ROOT / "book" / "results" / "step_forms.json", json.dumps(record, indent=2) + "\n")
    print(rows)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("{"):
        start_worker(Shape(**json.loads(sys.argv[1])), sys.argv[2])
    else:
        main()
