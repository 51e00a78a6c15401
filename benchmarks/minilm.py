"""Fine-tuning and prediction of all-MiniLM-L6-v2 on real pairs of SNLI, beside other libraries.

BERTKERAS_DATA_HOME=... python -m benchmarks.minilm

Three classes, batches of 32 pairs, float32, and the same weights for all: before anything is timed, all must give the
same logits. Fine-tuning is that of `bertkeras finetune`, dropout 0.1, AdamW and clipping, on batches of like length;
`transformers` gets the same pairs in random batches, each padded to its longest row, as its recipes have it, and then
our batches too. Prediction goes from strings to labels, and from ids to logits; there all sort by length, and
onnxruntime gets the very batches that ours makes. Each contender runs in a process of its own and they take turns, so
that what else the machine does strikes all alike: the ratios are medians over turns.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    ROOT,
    Worker,
    machine,
    middle,
    require,
    today,
    versions,
    write_rows,
    write_section,
)
from benchmarks.minilm_contenders import BACKENDS, BATCH, COMPILED, CONTENDERS, PARTS

TOLERANCE = 1e-3  # by which logits may differ
REST = 0.05  # seconds before each turn: the threads of the others wait awake for a while after theirs


def ready_worker(
    work: str, who: str, setting: str, options: argparse.Namespace, expected: list[Any]
) -> tuple[Worker, float] | None:
    """A contender whose logits are right, after as many turns as its warm-up takes, and the seconds of that.

    Args:
        expected: The logits of the contenders before, to which its own are appended.
    """
    worker = Worker("benchmarks.minilm_contenders", options.folder, work, who, setting, str(options.steps))
    answers = [worker.greeting]
    if "error" not in answers[0]:
        answers.append(worker.ask(do="logits"))
    if "error" not in answers[-1]:
        expected.append(answers[-1]["logits"])
        if (difference := float(np.abs(np.subtract(expected[0], expected[-1])).max())) > TOLERANCE:
            sys.exit(f"{who}, {setting}: its logits differ by {difference:.2g}")
    begin = time.perf_counter()
    turns = -(-options.training_pairs // (BATCH * options.steps)) if work == "finetune-minilm" else 2
    for turn, part in itertools.product(range(turns), PARTS[work]):
        if "error" not in answers[-1]:
            answers.append(worker.ask(do=part, turn=turn))
    if "error" in answers[-1]:
        print(f"{who}, {setting}: left out, {answers[-1]['error']}")
        return None
    return worker, time.perf_counter() - begin


def measure(
    work: str, options: argparse.Namespace
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, list[float]]]]:
    """Of each contender its setting, memory and seconds of warm-up; and tokens per second by part and turn."""
    facts: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    expected: list[Any] = []
    for who, choices in CONTENDERS[work].items():
        running = {
            setting: found
            for setting in choices
            if not (options.small and setting in COMPILED)
            and (found := ready_worker(work, who, setting, options, expected))
        }
        if not running:
            sys.exit(f"{who}: no setting runs")
        rates: dict[str, list[float]] = {setting: [] for setting in running}
        for turn in range(options.trials):
            for setting, (worker, _) in running.items():
                time.sleep(REST)
                rates[setting].append(worker.ask(do=PARTS[work][0], turn=turn)["tokens_per_second"])
        medians = {setting: middle(rate)["median"] for setting, rate in rates.items()}
        best = max(medians, key=medians.__getitem__)
        for setting, (worker, seconds) in running.items():
            print(f"{who}, {setting}: {medians[setting]:,.0f} tokens/s, warm after {seconds:.0f} s", flush=True)
            if setting != best:
                worker.close()
        workers[who], facts[who] = running[best][0], {"setting": best, "warmup_seconds": round(running[best][1])}
    speeds: dict[str, dict[str, list[float]]] = {part: {} for part in PARTS[work]}
    for turn, part in itertools.product(range(options.turns), PARTS[work]):
        for who, worker in workers.items():
            time.sleep(REST)
            answer = worker.ask(do=part, turn=turn)
            facts[who]["peak_memory_mb"] = answer["peak_memory_mb"]
            if answer["tokens_per_second"]:
                speeds[part].setdefault(who, []).append(answer["tokens_per_second"])
        shown = ", ".join(f"{who} {rates[-1]:,.0f}" for who, rates in speeds[part].items())
        print(f"turn {turn + 1} of {options.turns}, {part}, tokens/s: {shown}", flush=True)
    for worker in workers.values():
        worker.close()
    return facts, speeds


def ratios_of(speeds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """How many times as fast as each of the others ours is: median and quartiles of the turns."""
    ratios = {}
    for who, rates in speeds.items():
        if who != "bertkeras":
            turns = [ours / other for ours, other in zip(speeds["bertkeras"], rates, strict=True)]
            ratios[who] = {name: round(value, 3) for name, value in middle(turns).items()}
    return ratios


def record_of(
    work: str, facts: dict[str, dict[str, Any]], speeds: dict[str, dict[str, list[float]]], options: argparse.Namespace
) -> dict[str, Any]:
    """Rows, ratios and where they come from; the speeds from ids to logits have names of their own."""
    first, *more = PARTS[work]
    rows = [
        {
            "work": work,
            "who": who,
            "backend": BACKENDS.get(who, "torch"),
            "tokens_per_second": round(middle(speeds[first][who])["median"]),
            **{f"tokens_per_second_{p}": round(middle(speeds[p][who])["median"]) for p in more if who in speeds[p]},
            **fact,
        }
        for who, fact in facts.items()
    ]
    return {
        "rows": rows,
        "ratios": ratios_of(speeds[first]),
        **{f"ratios_{part}": ratios_of(speeds[part]) for part in more},
        "turns": options.turns,
        "pairs": options.training_pairs if work == "finetune-minilm" else options.pairs,
        "machine": machine(),
        "versions": versions(
            "bertkeras", "keras", "tensorflow", "torch", "transformers", "sentence-transformers", "onnxruntime"
        ),
        "command": f"python -m benchmarks.minilm --works {work} --turns {options.turns}",
        "date": today(),
    }


def section_of(work: str, record: dict[str, Any]) -> str:
    def table(titles: list[str], lines: list[list[str]]) -> str:
        sides = ["---" if title in ("who", "how") else "---:" for title in titles]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, sides, *lines))

    def told(ratios: dict[str, dict[str, float]]) -> str:
        return "\n".join(
            f"- **{r['median']:.2f} times** the speed of {who} (quartiles {r['low']:.2f} to {r['high']:.2f})."
            for who, r in ratios.items()
        )

    names = ["tokens_per_second", "tokens_per_second_ids", "warmup_seconds", "peak_memory_mb"]
    titles = ["tokens/s", "ids to logits, tokens/s", "warm after, s", "peak memory, MB"]
    rows = record["rows"]
    used = [(name, title) for name, title in zip(names, titles, strict=True) if name in rows[0]]
    lines = [
        [row["who"], f"{row['backend']}, {row['setting']}", *(f"{row[n]:,}" if n in row else "-" for n, _ in used)]
        for row in rows
    ]
    text = {
        "finetune-minilm": f"""## Fine-tuning MiniLM

{record["pairs"]:,} pairs of SNLI, three classes, {BATCH} pairs a step, float32, dropout 0.1, AdamW with clipping; only
pieces of text count, not padding. bertkeras puts rows of like length into a batch, as `bertkeras finetune` does;
transformers has the same pairs in random batches, each padded to its longest row, and then our batches.""",
        "predict-minilm": f"""## Prediction with MiniLM

{record["pairs"]:,} pairs of SNLI from strings to labels, and from ids to logits; {BATCH} pairs of like length in a
batch, float32, only pieces of text counted. onnxruntime computes the same weights on the same batches.""",
    }[work]
    more = f"\n\nand from ids to logits\n\n{told(record['ratios_ids'])}" if "ratios_ids" in record else ""
    return f"""{text}

{table(["who", "how", *(title for _, title in used)], lines)}

bertkeras does

{told(record["ratios"])}{more}

Medians over {record["turns"]} turns that each contender takes in its own process and in the faster of its settings,
after a warm-up over all batches. The logits of all agree to {TOLERANCE:g}.

{record["machine"]}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}.
{record["date"]}, `{record["command"]}`."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.minilm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--works", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), help="default: both")
    parser.add_argument("--turns", type=int, default=20, help="turns that every contender takes (default: 20)")
    parser.add_argument("--trials", type=int, default=5, help="turns that decide between a contender's settings")
    parser.add_argument("--steps", type=int, default=4, help="steps in a turn of fine-tuning (default: 4)")
    parser.add_argument("--training-pairs", type=int, default=1024, help="pairs to learn from (default: 1024)")
    parser.add_argument("--pairs", type=int, default=2048, help="pairs to predict (default: 2048)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the records here, not into the results")
    parser.add_argument("--small", action="store_true", help="a smoke test: 128 pairs, 2 turns; records nothing")
    options = parser.parse_args()
    require("tensorflow", "torch", "transformers", "sentence_transformers", "onnx", "onnxruntime", "onnxscript")
    if "BERTKERAS_DATA_HOME" not in os.environ:
        sys.exit("set BERTKERAS_DATA_HOME to the folder of the data sets; see bertkeras.datasets.registry")
    if options.small:
        options.training_pairs = options.pairs = 128
        options.turns, options.trials, options.steps = 2, 1, 2
    with tempfile.TemporaryDirectory() as options.folder:
        counts = (str(options.training_pairs), str(options.pairs))
        command = [sys.executable, "-m", "benchmarks.minilm_contenders", options.folder, "--prepare", *counts]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"preparation failed: {done.stderr.strip().splitlines()[-1]}")
        for work in options.works:
            record = record_of(work, *measure(work, options), options)
            for part in ("ratios", "ratios_ids"):
                for who, ratio in record.get(part, {}).items():
                    spread = f"{ratio['low']:.2f} to {ratio['high']:.2f}"
                    print(f"{work}, {part}, bertkeras / {who}: {ratio['median']:.2f} ({spread})", flush=True)
            if options.output:
                write_rows(options.output, work, record)
            elif not options.small:
                write_section(work.replace("-", "_"), section_of(work, record))
                write_rows(ROOT / "book" / "results" / "performance.json", work, record)


if __name__ == "__main__":
    main()
