"""Whether scores of pieces say what an answer hangs on: integrated gradients beside cheaper ones, attention and chance.

For each seed all-MiniLM-L6-v2 is fine-tuned on sentences of reviews and asked about sentences it has not seen. What is
explained is the log odds of its answer. Two questions: do integrated gradients sum to what the sentence does (within
1 %); and how far does the answer fall while the sentence loses its pieces, those with the highest scores first. The
fall is the mean over the curve, in nats; the more the better. Integrated gradients of a few sentences are then computed
by the three backends of Keras from the same weights.

BERTKERAS_DATA_HOME=... python -m benchmarks.attribution
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.common import ROOT, Worker, machine, require, serve, spread, today, versions, write_section, write_text
from benchmarks.tasks_rows import MINILM, ROWS, config_of, data_of

ROW = ROWS[0]
BACKENDS = ("tensorflow", "jax", "torch")
ORDERS = 10  # random ones for each sentence


def fine_tuned(seed: int, folder: Path) -> Any:
    """A classifier that learnt as in `benchmarks.tasks`."""
    from bertkeras.models import BertTextClassifier
    from bertkeras.training.finetune_run import fit

    config = config_of(ROW, seed, "")
    fit(config, data_of(ROW, config), folder)
    return BertTextClassifier.from_preset(folder)


def falls(model: Any, texts: list[str], rng: np.random.Generator) -> tuple[dict[str, list[float]], list[float]]:
    """For each way of scoring the mean fall of each text, and the completeness errors of integrated gradients."""
    from bertkeras.analysis import Explainer

    found: dict[str, list[float]] = {}
    errors = []
    for text in texts:
        explainer = Explainer(model, text)
        exact = explainer.integrated_gradients()
        errors.append(exact.completeness_error)
        length = len(exact.scores)
        scores = {
            "integrated gradients": [exact.scores],
            "gradient times input": [explainer.gradient_times_input().scores],
            "attention, all layers": [explainer.attention().scores],
            "attention, last layer": [explainer.attention(layer=-1).scores],
            "attention rollout": [explainer.attention_rollout().scores],
            "random order": list(rng.random((ORDERS, length))),
        }
        for name, several in scores.items():
            curves = [explainer.deletion_curve(one) for one in several]
            found.setdefault(name, []).append(float(np.mean([curve[0] - curve[1:] for curve in curves])))
    return found, errors


def start_worker(backend: str, preset: str) -> None:
    """Integrated gradients on one backend."""
    os.environ["KERAS_BACKEND"] = backend

    def start() -> Any:
        from bertkeras.analysis import Explainer
        from bertkeras.models import BertTextClassifier

        model = BertTextClassifier.from_preset(preset)

        def answer(command: dict[str, Any]) -> dict[str, Any]:
            found = Explainer(model, command["text"], target=command["target"]).integrated_gradients()
            return {"scores": found.scores.tolist(), "error": found.completeness_error}

        return answer

    serve(start)


def on_backends(preset: Path, texts: list[str], target: str) -> dict[str, dict[str, float]]:
    """For each backend the largest completeness error, and the largest difference of a score from TensorFlow's."""
    scores: dict[str, list[list[float]]] = {}
    found = {}
    for backend in BACKENDS:
        worker = Worker("benchmarks.attribution", "--worker", backend, str(preset))
        answers = [worker.ask(text=text, target=target) for text in texts]
        worker.close()
        scores[backend] = [answer["scores"] for answer in answers]
        differences = [
            float(np.abs(np.subtract(ours, theirs)).max())
            for ours, theirs in zip(scores[backend], scores[BACKENDS[0]], strict=True)
        ]
        found[backend] = {
            "completeness_error": max(answer["error"] for answer in answers),
            "difference": max(differences),
        }
    return found


def report(record: dict[str, Any]) -> None:
    lines = "".join(f"| {name} | {row['mean']:.3f} ± {row['spread']:.3f} |\n" for name, row in record["falls"].items())
    backends = "".join(
        f"| {name} | {100 * row['completeness_error']:.2f} % | {row['difference']:.1e} |\n"
        for name, row in record["backends"].items()
    )
    write_section(
        "attribution",
        f"""## Attribution

{MINILM}, fine-tuned on {ROW.dataset}; {record["texts"]} test sentences, {len(record["seeds"])} seeds. Mean fall of the
log odds of the answer while a sentence loses its pieces, the highest scores first: mean and standard deviation over
seeds.

| order by | fall, nats |
|---|---:|
{lines}
Completeness error of integrated gradients: median {100 * record["completeness"]["median"]:.2f} %, largest
{100 * record["completeness"]["largest"]:.2f} %. The same weights on three backends, {record["backend_texts"]}
sentences:

| backend | largest completeness error | largest difference of a score from TensorFlow's |
|---|---:|---:|
{backends}
{record["machine"]}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}. {record["date"]},
`{record["command"]}`.
""",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attribution", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="models")
    parser.add_argument("--texts", type=int, default=100, help="sentences for each")
    parser.add_argument("--worker", nargs=2, metavar=("BACKEND", "PRESET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        start_worker(*options.worker)
        return
    require("jax", "torch")
    from bertkeras.datasets import load

    texts = [example.text for example in load(ROW.dataset, "test")]
    by_seed: dict[str, list[float]] = {}
    errors: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            rng = np.random.default_rng(seed)
            asked = [texts[index] for index in rng.permutation(len(texts))[: options.texts]]
            preset = Path(folder) / str(seed)
            model = fine_tuned(seed, preset)
            found, some = falls(model, asked, rng)
            errors += some
            for name, values in found.items():
                by_seed.setdefault(name, []).append(float(np.mean(values)))
            print(f"seed {seed}: " + ", ".join(f"{name} {by_seed[name][-1]:.3f}" for name in by_seed), flush=True)
        few = asked[: min(20, options.texts)]
        backends = on_backends(preset, few, model.labels[0])
    record = {
        "falls": {name: spread(values) for name, values in by_seed.items()},
        "completeness": {"median": float(np.median(errors)), "largest": max(errors)},
        "backends": backends,
        "backend_texts": len(few),
        "texts": options.texts,
        "seeds": list(range(options.seeds)),
        "machine": machine(),
        "versions": versions("keras", "tensorflow", "jax", "torch"),
        "date": today(),
        "command": "python -m benchmarks.attribution",
    }
    write_text(ROOT / "book" / "results" / "attribution.json", json.dumps(record, indent=1) + "\n")
    report(record)


if __name__ == "__main__":
    main()
