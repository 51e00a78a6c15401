"""One pretraining step of a mini and of a small BERT: ours, KerasHub's and that of `transformers`, side by side.

4 layers of width 256 (mini) or 512 (small), vocabulary 30,522; 32 full rows of 128 pieces, 20 masked positions in each.
The ratios are medians over rounds in which all take their turn; in every round a large float32 matrix product is timed
too, and the arithmetic that the step needs, done at that rate, is the limit.

python -m benchmarks.pretraining_step
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.common import ROOT, machine, middle, require, today, versions, write_rows, write_section
from benchmarks.step_contenders import BACKENDS, CLIP_NORM, DROPOUT, SIDE, Shape, measure


def report(
    size: str, settings: dict[str, str], seconds: dict[str, list[float]], memory: dict[str, int], command: str
) -> dict[str, Any]:
    """Rows, ratios and where they come from; written to `RESULTS.md` too."""
    shape = Shape.of_size(size)
    tokens, flops = shape.tokens, shape.needed_flops
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
    write_section(
        "pretraining_step" if size == "mini" else f"pretraining_step_{size}",
        f"""## One pretraining step of a {size} BERT

{shape.layers} layers, width {shape.width}, {shape.heads} heads, feed-forward {4 * shape.width:,}, vocabulary
{shape.vocabulary:,}; {shape.rows} full rows of {shape.length} pieces, {shape.predictions} masked in each; dropout
{DROPOUT}; AdamW, global norm clipped to {CLIP_NORM:g}; float32. bertkeras and
transformers learn masked LM and next sentence; KerasHub (no next-sentence head) masked LM alone.

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
    options = parser.parse_args()
    require("tensorflow", "keras_hub", "torch", "transformers")
    for size in options.sizes:
        settings, seconds, memory = measure(
            Shape.of_size(size), options.rounds, options.trials, options.steps, options.warmup
        )
        command = f"python -m benchmarks.pretraining_step --sizes {size} --rounds {options.rounds}"
        record = report(size, settings, seconds, memory, command)
        for who, ratio in record["ratios"].items():
            print(f"{size}, bertkeras / {who}: {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})")
        write_rows(ROOT / "book" / "results" / "performance.json", f"step-{size}", record)


if __name__ == "__main__":
    main()
