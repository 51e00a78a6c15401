"""One classifier in every form in which it is shipped: the same numbers? how large, how fast, how good?

For each seed all-MiniLM-L6-v2 is fine-tuned on sentences of reviews. Its student, every other of its six blocks, learns
the same labels alone, or distilled: also from the teacher's answers, with `keras.distillation.Distiller`. Teacher and
distilled student are then written as ONNX, LiteRT and SavedModel, with weights in several precisions, and asked about
1,000 sentences in batches of all sizes and lengths. Times are those of one sentence at a time, forms in turn.

BERTKERAS_DATA_HOME=... python -m benchmarks.exports
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.attribution import ROW, fine_tuned
from benchmarks.common import ROOT, machine, middle, require, spread, today, versions, write_section, write_text
from benchmarks.tasks_rows import MINILM, config_of, data_of

EPOCHS, TEMPERATURE = 6, 2.0
Forward = Callable[[dict[str, np.ndarray]], np.ndarray]


def learn_student(teacher: Any, seed: int, distilled: bool) -> Any:
    """Every other block of the teacher, fine-tuned on the labels, and if `distilled` on the teacher's answers too."""
    import keras
    import tensorflow as tf

    from bertkeras.pipelines.tasks import text_rows
    from bertkeras.text.encoding import padded
    from bertkeras.training import AdamW, WarmupLinearDecay

    keras.utils.set_random_seed(seed)
    config = config_of(ROW, seed, "")
    examples = data_of(ROW, config).train
    student = teacher.with_layers([0, 2, 4])
    rows = text_rows(teacher.tokenizer, examples, 128, teacher.labels)
    token_ids, padding_mask = padded(rows.ids, teacher.tokenizer.pad_id)
    inputs = {"token_ids": token_ids, "segment_ids": np.zeros_like(token_ids), "padding_mask": padding_mask}
    labels = np.array(rows.labels, "int32")
    data = tf.data.Dataset.from_tensor_slices((inputs, labels)).shuffle(len(labels), seed=seed).batch(config.batch_size)
    steps = len(data) * EPOCHS
    optimizer = AdamW(WarmupLinearDecay(config.peak(384), steps // 10, steps), global_clipnorm=1.0)
    model: Any = student
    if distilled:
        loss = keras.distillation.LogitsDistillation(temperature=TEMPERATURE)
        model = keras.distillation.Distiller(teacher, student, loss)
    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(data, epochs=EPOCHS, verbose=0)
    teacher.trainable = True  # the distiller froze it
    return student


def batches(model: Any, texts: list[str], seed: int = 0) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    """The texts in batches of 1 to 32, as inputs of the model, and which they are."""
    from bertkeras.text.encoding import padded

    rng, begin = np.random.default_rng(seed), 0
    while begin < len(texts):
        size = int(rng.integers(1, 33))
        encodings = model.tokenizer.encode_batch(texts[begin : begin + size], max_length=128)
        token_ids, padding_mask = padded([encoding.ids for encoding in encodings], model.tokenizer.pad_id)
        inputs = {"token_ids": token_ids, "segment_ids": np.zeros_like(token_ids), "padding_mask": padding_mask}
        yield list(range(begin, begin + len(encodings))), inputs
        begin += size


def logits(forward: Forward, model: Any, texts: list[str]) -> np.ndarray:
    """What a form says of every text, `(texts, classes)`."""
    return np.concatenate([forward(inputs) for _, inputs in batches(model, texts)])


def forms(model: Any, folder: Path) -> dict[str, tuple[Path, Forward]]:
    """Every form but the SavedModel: its file and what runs it."""
    import onnxruntime
    import tensorflow as tf

    from bertkeras.export import export_litert, export_onnx
    from bertkeras.models.running import graph_of

    graph = graph_of(model)
    model.save_to_preset(folder / "keras")
    found: dict[str, tuple[Path, Forward]] = {
        "Keras, float32": (folder / "keras" / "model.safetensors", lambda inputs: graph(inputs).numpy())
    }
    for weights in ("float32", "float16", "bfloat16", "int8"):
        path = export_onnx(model.to_preset(), folder / f"{weights}.onnx", weights)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found[f"ONNX, {weights}"] = path, lambda inputs, session=session: session.run(None, inputs)[0]
    for weights in ("float32", "float16", "int8"):
        path = export_litert(model, folder / f"{weights}.tflite", weights)
        runner = tf.lite.Interpreter(str(path), num_threads=os.cpu_count()).get_signature_runner("serving_default")
        found[f"LiteRT, {weights}"] = path, lambda inputs, runner=runner: runner(**inputs)["outputs"]
    return found


def saved_model_difference(model: Any, folder: Path, texts: list[str], expected: np.ndarray) -> tuple[float, int]:
    """From raw strings in a process without bertkeras: the largest difference of a probability, and the bytes."""
    from bertkeras.export import export_saved_model

    where = export_saved_model(model, folder / "saved_model")
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    code = (
        "import json, sys\nimport numpy as np\nimport tensorflow as tf, tensorflow_text\n"
        "answer = tf.saved_model.load('saved_model').signatures['serving_default']\n"
        "texts = json.load(open('texts.json', encoding='utf-8'))\n"
        "parts = [tf.constant(texts[begin:begin + 25]) for begin in range(0, len(texts), 25)]\n"
        "found = [answer(texts=part)['probabilities'].numpy() for part in parts]\n"
        "assert 'bertkeras' not in sys.modules\n"
        "np.save('found.npy', np.concatenate(found))"
    )
    subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, check=True, capture_output=True)
    found = np.load(folder / "found.npy")
    size = sum(path.stat().st_size for path in where.rglob("*") if path.is_file())
    return float(np.abs(found - model.probabilities(expected)).max()), size


def milliseconds(found: dict[str, tuple[Path, Forward]], model: Any, texts: list[str], rounds: int) -> dict[str, float]:
    """The median time of a sentence by itself, the forms in turn."""
    inputs = [next(batches(model, [text]))[1] for text in texts[:rounds]]
    times: dict[str, list[float]] = {name: [] for name in found}
    for warm in (True, False):
        for one in inputs:
            for name, (_, forward) in found.items():
                begin = time.perf_counter()
                forward(one)
                if not warm:
                    times[name].append(1000 * (time.perf_counter() - begin))
    return {name: middle(some)["median"] for name, some in times.items()}


def report(record: dict[str, Any]) -> None:
    students = "".join(
        f"| {name} | {row['mean']:.3f} ± {row['spread']:.3f} |\n" for name, row in record["accuracy"].items()
    )
    lines = "".join(
        f"| {row['model']} | {row['form']} | {row['megabytes']:.1f} | "
        f"{'-' if row['milliseconds'] is None else format(row['milliseconds'], '.2f')} | {row['accuracy']:.3f} | "
        f"{row['difference']:.1e} |\n"
        for row in record["rows"]
    )
    write_section(
        "exports",
        f"""## Shipping: forms, sizes, times

{MINILM} fine-tuned on {ROW.dataset}, and a student with three of its six blocks; accuracy on {record["test_texts"]}
sentences, mean and standard deviation over {len(record["seeds"])} seeds:

| model | accuracy |
|---|---:|
{students}
The first seed in every form. Differences are the largest of a logit from Keras's, of a SavedModel of a probability,
over {record["texts"]} sentences in batches of 1 to 32; times are medians of {record["rounds"]} sentences, one at a
time, in turn.

| model | form | MB | ms a sentence | accuracy | largest difference |
|---|---|---:|---:|---:|---:|
{lines}
{record["machine"]}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}. {record["date"]},
`{record["command"]}`.
""",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exports", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="teachers, each with its students")
    parser.add_argument("--texts", type=int, default=1000, help="sentences to compare")
    parser.add_argument("--rounds", type=int, default=100, help="sentences to time")
    options = parser.parse_args()
    require("onnxruntime", "tensorflow_text")
    from bertkeras.datasets import load

    examples = load(ROW.dataset, "test")
    labels = sorted({example.label for example in examples})
    truth = np.array([labels.index(example.label) for example in examples])
    asked = [example.text for example in examples]
    more = [example.text for example in load(ROW.dataset, "train")]
    texts = (asked + more)[: options.texts]
    accuracy: dict[str, list[float]] = {"teacher": [], "student": [], "student, distilled": []}
    rows = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            teacher = fine_tuned(seed, folder / "teacher")
            assert teacher.labels == labels
            models = {"teacher": teacher}
            for distilled in (False, True):
                models["student, distilled" if distilled else "student"] = learn_student(teacher, seed, distilled)
            for who, model in models.items():
                accuracy[who].append(float(np.mean(model.logits_of(asked).argmax(axis=1) == truth)))
            print(f"seed {seed}: " + ", ".join(f"{who} {accuracy[who][-1]:.3f}" for who in accuracy), flush=True)
            if seed:
                continue
            for who in ("teacher", "student, distilled"):
                model, home = models[who], folder / who
                home.mkdir(exist_ok=True)
                found = forms(model, home)
                times = milliseconds(found, model, texts, options.rounds)
                expected = logits(found["Keras, float32"][1], model, texts)
                for form, (path, forward) in found.items():
                    said = logits(forward, model, texts)
                    rows.append({
                        "model": who, "form": form, "megabytes": path.stat().st_size / 1e6, "milliseconds": times[form],
                        "accuracy": float(np.mean(said[: len(asked)].argmax(axis=1) == truth)),
                        "difference": float(np.abs(said - expected).max()),
                    })  # fmt: skip
                    print(rows[-1], flush=True)
                difference, size = saved_model_difference(model, home, texts, expected)
                rows.append({**rows[-len(found)], "form": "SavedModel, from strings", "megabytes": size / 1e6,
                             "milliseconds": None, "difference": difference})  # fmt: skip
    record = {
        "accuracy": {who: spread(values) for who, values in accuracy.items()},
        "rows": rows,
        "texts": len(texts),
        "test_texts": len(asked),
        "rounds": options.rounds,
        "seeds": list(range(options.seeds)),
        "machine": machine(),
        "versions": versions("keras", "tensorflow", "onnx", "onnxruntime"),
        "date": today(),
        "command": "python -m benchmarks.exports",
    }
    write_text(ROOT / "book" / "results" / "exports.json", json.dumps(record, indent=1) + "\n")
    report(record)


if __name__ == "__main__":
    main()
