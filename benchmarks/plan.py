"""What `bertkeras plan --device cpu` says of a training step, against the step: its time and its memory.

Models of three sizes take real steps (`make_train_step`, compiled by XLA) on rows of several lengths. The plan knows a
model's options, the rate of a large matrix product and of a copy in memory, and one share of that rate that products
are to reach, the same for all. Steps and product take turns, so that what else runs on the machine slows both. Memory
is measured in a process for each model: what a step adds to the resident size at its fullest moment, beyond the weights
and moments, which are there all the time.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, Worker, machine, middle, require, serve, today, versions, write_section
from bertkeras.files import write_text

SIDE = 2048  # of the square matrices whose product gives the rate
CASES: dict[str, dict[str, Any]] = {
    "tiny, 64 x 64": {"size": "tiny", "batch_size": 64, "max_sequence_length": 64},
    "tiny, 64 x 128": {"size": "tiny", "batch_size": 64, "max_sequence_length": 128},
    "tiny, 8 x 512": {"size": "tiny", "batch_size": 8, "max_sequence_length": 512},
    "mini, 32 x 64": {"size": "mini", "batch_size": 32, "max_sequence_length": 64},
    "mini, 32 x 128": {"size": "mini", "batch_size": 32, "max_sequence_length": 128},
    "mini, 32 x 128, in 4 parts": {"size": "mini", "batch_size": 32, "max_sequence_length": 128, "accumulation": 4},
    "mini, 32 x 128, packed": {"size": "mini", "batch_size": 32, "max_sequence_length": 128, "pairs": "packed"},
    "mini, 32 x 128, 30,522 pieces": {
        "size": "mini", "batch_size": 32, "max_sequence_length": 128, "vocabulary_size": 30_522, "pairs": "none",
    },
    "mini, 4 x 512": {"size": "mini", "batch_size": 4, "max_sequence_length": 512},
    "small, 4 x 64": {"size": "small", "batch_size": 4, "max_sequence_length": 64},
    "small, 16 x 128": {"size": "small", "batch_size": 16, "max_sequence_length": 128},
    "small, 4 x 512": {"size": "small", "batch_size": 4, "max_sequence_length": 512},
}  # fmt: skip


def contender(name: str) -> tuple[Callable[[], float], int]:
    """A function that takes one step and gives the loss, and the bytes of the model's and the optimizer's variables."""
    import keras
    import numpy as np
    import tensorflow as tf

    from bertkeras import BertPretrainer
    from bertkeras.training import PretrainConfig, make_train_step
    from bertkeras.training.pretrain import make_optimizer

    keras.utils.set_random_seed(0)
    config = PretrainConfig(**CASES[name])
    pairs = config.row_options(0, 1, 2).has_labels
    model, optimizer = BertPretrainer(config.bert_config(config.vocabulary_size), pairs), make_optimizer(config)
    step = make_train_step(model, optimizer, accumulation=config.accumulation)
    random = np.random.default_rng(0)
    places = config.batch_size, config.max_sequence_length
    masked = config.batch_size, config.predictions(config.max_sequence_length)

    def ids(low: int, high: int, shape: tuple[int, ...]) -> Any:
        return tf.constant(random.integers(low, high, shape, "int32"))

    inputs = {"token_ids": ids(5, config.vocabulary_size, places), "mask_positions": ids(0, places[1], masked)}
    if config.pairs == "packed":
        inputs |= {"sequence_ids": tf.ones(places, tf.int32), "position_ids": ids(0, places[1], places)}
    else:
        inputs |= {"padding_mask": tf.ones(places, tf.bool), "segment_ids": ids(0, 2, places)}
    labels = {"mlm_labels": ids(5, config.vocabulary_size, masked), "mlm_weights": tf.ones(masked)}
    if pairs:
        labels["nsp_labels"] = ids(0, 2, places[:1])
    state = sum(4 * int(np.prod(variable.shape)) for variable in [*model.weights, *optimizer.variables])
    return lambda: float(step(inputs, labels)["mlm_loss"]), state


def start_alone(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The memory of a step in a process that has nothing else in it, after XLA has compiled it."""
    step, state = contender(name)
    for _ in range(2):
        step()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what compiling took goes back
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (man 5 proc)
    for _ in range(2):
        step()
    rise = resident("VmHWM") - before
    return lambda _: {"state_bytes": state, "rise_bytes": rise}


def resident(kind: str) -> int:
    """Bytes of this process in memory: `VmRSS` now, `VmHWM` at most."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def measure(rounds: int, warmup: int) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of a step of every model, and of a large product, round by round."""
    import tensorflow as tf

    steps: dict[str, Callable[[], float]] = {name: contender(name)[0] for name in CASES}
    a, b = (tf.random.stateless_normal((SIDE, SIDE), (0, seed)) for seed in (1, 2))
    steps["product"] = lambda: float(tf.matmul(a, b)[0, 0])
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-warmup, rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - begin)
        if turn >= 0:
            shown = ", ".join(f"{name} {values[-1] * 1e3:,.0f}" for name, values in seconds.items())
            print(f"round {turn + 1} of {rounds}, ms: {shown}", flush=True)
    return seconds, seconds.pop("product")


def summarise(
    seconds: dict[str, list[float]], products: list[float], alone: dict[str, dict[str, Any]], bandwidth: float
) -> dict[str, Any]:
    """The record: what was planned and measured of each model."""
    from bertkeras.training import PretrainConfig
    from bertkeras.training.devices import Device
    from bertkeras.training.plan import CPU_MFU, make_plan

    def rounded(values: list[float]) -> dict[str, float]:
        return {name: round(value, 3) for name, value in middle(values).items()}

    rates = [2 * SIDE**3 / s for s in products]
    rows = []
    for name, options in CASES.items():
        plans = [make_plan(PretrainConfig(**options), Device("cpu", rate, rate, 1e15, bandwidth)) for rate in rates]
        memory, state, rise = plans[0].memory, alone[name]["state_bytes"], alone[name]["rise_bytes"]
        planned = memory.peak - memory.weights - memory.optimizer
        pairs = list(zip(plans, seconds[name], strict=True))
        products_alone = [s - plan.update_seconds for plan, s in pairs]
        rows.append(
            {
                "work": name,
                "parameters": plans[0].parameters,
                "flops": sum(plans[0].flops.values()),
                "milliseconds": round(1e3 * statistics.median(seconds[name]), 1),
                "planned_milliseconds": round(1e3 * statistics.median(plan.step_seconds for plan in plans), 1),
                "time_ratio": rounded([plan.step_seconds / s for plan, s in pairs]),
                "share_of_product_rate": rounded(
                    [plan.product_seconds * CPU_MFU / s for plan, s in zip(plans, products_alone, strict=True)]
                ),
                "memory_mb": round((state + rise) / 1e6, 1),
                "planned_memory_mb": round(memory.peak / 1e6, 1),
                "memory_ratio": round(memory.peak / (state + rise), 3),
                "step_memory_mb": round(rise / 1e6, 1),
                "planned_step_memory_mb": round(planned / 1e6, 1),
                "step_memory_ratio": round(planned / rise, 3),
            }
        )
    shares = [row["share_of_product_rate"]["median"] for row in rows]
    return {
        "work": "a training step of several sizes and lengths: planned, over measured",
        "mfu": CPU_MFU,
        "median_share_of_product_rate": round(statistics.median(shares), 3),
        "matmul_gflops_per_second": round(middle(rates)["median"] / 1e9),
        "copy_gb_per_second": round(bandwidth / 1e9, 1),
        "rounds": len(products),
        **{
            f"{kind}_{end.__name__}": end(values)
            for kind, values in (
                ("time_ratio", [row["time_ratio"]["median"] for row in rows]),
                ("memory_ratio", [row["memory_ratio"] for row in rows]),
                ("step_memory_ratio", [row["step_memory_ratio"] for row in rows]),
            )
            for end in (min, max)
        },
        "rows": rows,
        "machine": machine(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "versions": versions("bertkeras", "keras", "tensorflow"),
    }


def report(record: dict[str, Any]) -> None:
    """Write the section of RESULTS.md."""
    lines = "\n".join(
        f"| {row['work']} | {row['milliseconds']:,} | {row['time_ratio']['median']:.2f} "
        f"({row['time_ratio']['low']:.2f} to {row['time_ratio']['high']:.2f}) | "
        f"{row['share_of_product_rate']['median']:.2f} | {row['memory_mb']:,.0f} | {row['memory_ratio']:.2f} | "
        f"{row['step_memory_mb']:,.0f} | {row['step_memory_ratio']:.2f} |"
        for row in record["rows"]
    )
    head = ["model, rows x pieces", "step, ms", "planned / measured (quartiles)", "share of the product's rate"]
    head += ["memory, MB", "planned / measured", "of it the step's, MB", "planned / measured"]
    write_section(
        "plan",
        f"""## What a run will take

`bertkeras plan` says it from the options, the rate of a large product and one share of that rate ({record["mfu"]:.0%})
for all models. Here it stands against the package's training step, float32 and compiled by XLA, with 8,000 pieces
unless the line says otherwise. Planned over measured, the time is {record["time_ratio_min"]:.2f} to
{record["time_ratio_max"]:.2f}, the memory {record["memory_ratio_min"]:.2f} to {record["memory_ratio_max"]:.2f}, and
of it what a step adds to the weights and moments {record["step_memory_ratio_min"]:.2f} to
{record["step_memory_ratio_max"]:.2f}. Narrow models reach less of the product's rate than wide ones, so that one share
for all is too hopeful for tiny and too careful for small.

| {" | ".join(head)} |
|---|---:|---:|---:|---:|---:|---:|---:|
{lines}

The product of two {SIDE:,} x {SIDE:,} float32 matrices ran at {record["matmul_gflops_per_second"]} GFLOP/s in the same
rounds, a copy in memory at {record["copy_gb_per_second"]} GB/s. Medians over {record["rounds"]} rounds in which models
and product take turns. Memory is the variables', and what the resident size of a process rises by during a step, after
XLA has compiled it. At rows of 512 that is more than the buffers which XLA assigns; the rest was not examined.

{record["machine"]}, load {record["load"][0]} in the last minute.
{", ".join(f"{name} {version}" for name, version in record["versions"].items())}. {record["date"]},
`{record["command"]}`.""",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="rounds in which every model takes its turn")
    parser.add_argument("--warmup", type=int, default=2, help="steps before anything is timed")
    parser.add_argument("--worker", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.worker:
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # its allocator keeps what a step gives back: nothing would rise
        serve(lambda: start_alone(options.worker))
        return
    require("tensorflow")
    if not Path("/proc/self/clear_refs").exists():
        raise SystemExit("the peak of memory is read from /proc, which only Linux has")
    alone = {}
    for name in CASES:
        worker = Worker("benchmarks.plan", "--worker", name)
        if "error" in worker.greeting:
            raise SystemExit(f"{name}: {worker.greeting['error']}")
        alone[name] = worker.ask()
        worker.close()
        print(f"{name}: a step adds {alone[name]['rise_bytes'] / 1e6:,.0f} MB", flush=True)
    from bertkeras.training.devices import measure_cpu

    bandwidth = measure_cpu().bandwidth
    seconds, products = measure(options.rounds, options.warmup)
    record = summarise(seconds, products, alone, bandwidth)
    record |= {"command": f"python -m benchmarks.plan --rounds {options.rounds}", "date": today()}
    write_text(ROOT / "book" / "results" / "plan.json", json.dumps(record, indent=2) + "\n")
    report(record)
    for row in record["rows"]:
        print(
            f"{row['work']:32} planned / measured: time {row['time_ratio']['median']:.2f} "
            f"(share {row['share_of_product_rate']['median']:.2f}), memory {row['memory_ratio']:.2f}, "
            f"the step's {row['step_memory_ratio']:.2f}"
        )


if __name__ == "__main__":
    main()
