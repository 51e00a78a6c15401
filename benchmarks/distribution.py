"""Fifty steps on many devices and in many processes beside those of one device: the table of what works, measured.

python -m benchmarks.distribution
"""

from __future__ import annotations

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.common import ROOT, machine, today, versions, write_section, write_text
from tests.distribution.processes import train
from tests.distribution.test_equal import TABLE, VIRTUAL, VIRTUAL_DEVICES


def main() -> None:
    rows, alone = [], {}
    virtual = [(backend, {**cell, "virtual_devices": VIRTUAL_DEVICES}) for backend, cell in VIRTUAL]
    for precision in ("float32", "mixed_bfloat16"):
        for backend, cell in [*TABLE, *virtual]:
            one_device = {name: cell[name] for name in ("virtual_devices",) if name in cell}
            run = (backend, precision, bool(one_device))
            if run not in alone:
                alone[run] = train(backend, precision=precision, **one_device)
            wanted, found = alone[run], train(backend, precision=precision, **cell)
            difference = np.abs(np.array(found["losses"]) - wanted["losses"]).max()
            row = {
                "backend": backend,
                "precision": precision,
                "processes": 1,
                "devices": 1,
                "accumulation": 1,
                **cell,
                "largest_difference": float(difference),
                "same_counts": found["counts"] == wanted["counts"],
                "equal_bits": found["digest"] == wanted["digest"],
            }
            if backend == "jax":
                row["share_of_parameters_per_device"] = found["bytes"] / wanted["bytes"]
            rows.append(row)
            print(row, flush=True)
    record = {
        "rows": rows,
        "steps": len(wanted["losses"]),
        "first_loss": wanted["losses"][0][0],
        "device": machine(),
        "versions": versions("keras", "tensorflow", "jax", "torch"),
        "date": today(),
        "command": "python -m benchmarks.distribution",
    }
    write_text(ROOT / "book" / "results" / "distribution.json", json.dumps(record, indent=1) + "\n")
    report(record)


def report(record: dict) -> None:
    lines = ""
    for row in record["rows"]:
        share = row.get("share_of_parameters_per_device")
        lines += (
            f"| {row['backend']} | {row['strategy']} | {row['processes']} | {row['devices']} | {row['accumulation']} | "
            f"{row.get('virtual_devices', '')} | {row['precision']} | {row['largest_difference']:.1e} | "
            f"{'yes' if row['equal_bits'] else 'no'} | {'' if share is None else f'{share:.2f}'} |\n"
        )
    head = ("backend", "strategy", "processes", "devices of each", "accumulation", "virtual devices", "precision")
    head = " | ".join([*head, "largest difference", "equal bits", "parameters on a device"])
    text = f"""## Many devices

{record["steps"]} steps of a small model on the same global batches, dropout off, the last rows of a batch with six
times as many masked pieces as the first: the largest difference of a loss, masked-LM or next sentence, from one device
without accumulation. Devices are logical ones of a processor, processes talk over the loopback. In bfloat16 a
sum that differs in the last of its 24 bits is now and then rounded to another number of 8, with accumulation on one
device as well. With virtual devices the sums have one order everywhere: compared is one device with as many virtual
ones, and bits are those of all weights and moments at the end.

| {head} |
|---|---|---:|---:|---:|---:|---|---:|---|---:|
{lines}
{machine()}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}. {today()},
`{record["command"]}`.
"""
    write_section("distribution", text)
    print(text)


if __name__ == "__main__":
    main()
