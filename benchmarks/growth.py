"""How the cost of a step grows with the length of rows, the width and the vocabulary: ours and the peers'.

From a model of 4 layers, width 256, 32 rows of 128 pieces and a vocabulary of 30,522, one of the three changes and the
4,096 pieces of a batch stay, 15 % of them masked. The slope is the exponent of the step's seconds: 1 where they double
with what doubles, 0 where they stay. Beside it, that of the arithmetic a step needs.

python -m benchmarks.growth
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import numpy as np

from benchmarks.common import ROOT, machine, middle, require, today, versions, write_rows, write_section
from benchmarks.step_contenders import Shape, measure

MINI = Shape.of_size("mini")
VALUES = {"length": (64, 128, 256, 512), "width": (128, 256, 512, 768), "vocabulary": (8_000, 16_000, 30_522, 60_000)}
LABELS = {"length": "pieces in a row", "width": "width", "vocabulary": "vocabulary"}


def changed(what: str, value: int) -> Shape:
    """The mini shape with one thing changed, and as many pieces in a batch."""
    if what == "length":
        rows = MINI.tokens // value
        return dataclasses.replace(MINI, length=value, rows=rows, predictions=MINI.rows * MINI.predictions // rows)
    if what == "width":
        return dataclasses.replace(MINI, width=value, heads=value // 64)
    return dataclasses.replace(MINI, vocabulary=value)


def slope(values: tuple[int, ...], costs: list[float]) -> float:
    """The exponent of a power law through the points, by least squares of the logarithms."""
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="rounds in which every contender takes its turn")
    parser.add_argument("--trials", type=int, default=3, help="turns that decide between a contender's settings")
    parser.add_argument("--warmup", type=int, default=2, help="steps before anything is timed")
    options = parser.parse_args()
    require("tensorflow", "keras_hub", "torch", "transformers")
    record: dict[str, Any] = {"rows": [], "slopes": {}}
    measured: dict[Shape, tuple[dict[str, str], dict[str, dict[str, float]]]] = {}
    for what, values in VALUES.items():
        costs: dict[str, list[float]] = {"needed arithmetic": [changed(what, v).needed_flops for v in values]}
        for value in values:
            shape = changed(what, value)
            if shape not in measured:
                print(f"{what} {value}", flush=True)
                settings, seconds, _ = measure(shape, options.rounds, options.trials, 1, options.warmup)
                measured[shape] = settings, {who: middle(times) for who, times in seconds.items() if who != "limit"}
            settings, medians = measured[shape]
            for who, times in medians.items():
                costs.setdefault(who, []).append(times["median"])
                row = {"work": "growth", "what": what, "value": value, "who": who, "setting": settings[who]}
                row["tokens_per_second"] = round(shape.tokens / times["median"])
                record["rows"].append({**row, "seconds": times})
        record["slopes"][what] = {who: round(slope(values, found), 2) for who, found in costs.items()}
        print(record["slopes"][what], flush=True)
    record |= {
        "rounds": options.rounds,
        "machine": machine(),
        "versions": versions("bertkeras", "keras", "tensorflow", "keras-hub", "torch", "transformers"),
        "command": f"python -m benchmarks.growth --rounds {options.rounds}",
        "date": today(),
    }
    report(record)
    write_rows(ROOT / "book" / "results" / "performance.json", "growth", record)


def report(record: dict[str, Any]) -> None:
    text = f"## How the cost of a step grows\n\n{' '.join(__doc__.splitlines()[2:5])}\n"
    for what, values in VALUES.items():
        rows = [row for row in record["rows"] if row["what"] == what]
        slopes = record["slopes"][what]
        text += f"\n| {LABELS[what]} | {' | '.join(f'{value:,}' for value in values)} | slope |\n"
        text += f"|---|{'---:|' * (len(values) + 1)}\n"
        for who in dict.fromkeys(row["who"] for row in rows):
            times = [row["seconds"]["median"] for row in rows if row["who"] == who]
            text += f"| {who}, ms a step | {' | '.join(f'{t * 1e3:,.0f}' for t in times)} | {slopes[who]:.2f} |\n"
        needed = [changed(what, value).needed_flops / 1e9 for value in values]
        text += f"| needed, GFLOP | {' | '.join(f'{flops:,.0f}' for flops in needed)} | "
        text += f"{slopes['needed arithmetic']:.2f} |\n"
    text += (
        f"\nMedians over {record['rounds']} rounds. {record['machine']}. "
        f"{', '.join(f'{name} {version}' for name, version in record['versions'].items())}.\n"
        f"{record['date']}, `{record['command']}`."
    )
    write_section("growth", text)


if __name__ == "__main__":
    main()
