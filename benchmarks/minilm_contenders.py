"""The contenders of `benchmarks.minilm`: how each learns and predicts, and the pairs and weights that all begin with.

python -m benchmarks.minilm_contenders FOLDER WORK WHO SETTING STEPS
python -m benchmarks.minilm_contenders FOLDER --prepare TRAINING_PAIRS PAIRS
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import serve
from bertkeras.files import write_text
from bertkeras.pipelines.tasks import TaskRows, order_of, task_batches

MODEL, DATASET = "all-MiniLM-L6-v2", "snli-dev-test"
BATCH = 32
CHECKED = 100  # pairs whose logits are compared
EXPORTERS = {"torch.export": True, "TorchScript": False}  # setting -> the argument `dynamo`

Turn = Callable[[int], int]  # does the n-th turn of a work; how many pieces of text were in it
Run = Callable[[dict[str, np.ndarray]], np.ndarray]  # from a padded batch to its logits
Contender = tuple[Callable[[], Any], dict[str, Turn]]  # the logits of the first pairs, and what is timed


# === What all begin with ===


def prepare(folder: Path, training_pairs: int, pairs: int) -> None:
    """Write the pairs, the weights with their new head, and the same weights for `transformers` and as ONNX."""
    import keras

    from bertkeras.training.task_data import read_data
    from bertkeras.training.tasks import TASKS

    keras.utils.set_random_seed(0)
    config = make_config(training_pairs)
    data = read_data(config)
    random = np.random.default_rng(0)
    test = [data.test[index] for index in random.permutation(len(data.test))[:pairs]]
    task: Any = TASKS[config.task](config, data.train, data.labels)
    model: Any = task.model()
    model.classifier.kernel.assign(random.normal(scale=0.1, size=model.classifier.kernel.shape))
    model.save_to_preset(folder / "ours")
    model.save_to_hugging_face(folder / "hugging_face")
    for name, examples in {"train": data.train, "test": test}.items():
        rows = task.rows(model, examples)
        content = {
            "texts": [example.text for example in examples],
            "pairs": [example.pair for example in examples],
            "ids": rows.ids,
            "segment_ids": rows.segment_ids,
            "labels": rows.labels,
        }
        write_text(folder / f"{name}.json", json.dumps(content))
    export(folder)


def export(folder: Path) -> None:
    """By both of PyTorch's exporters, because onnxruntime is not equally fast with them."""
    import torch

    model, example = hugging_face(folder).eval(), tensors(*read_rows(folder, "test").batch(range(BATCH)))
    model.config.return_dict = False
    del example["labels"]
    for setting, new in EXPORTERS.items():
        free = torch.export.Dim.DYNAMIC
        shapes = {name: {0: free, 1: free} for name in example}
        axes = {name: {0: "batch", 1: "length"} for name in example}
        torch.onnx.export(
            model,
            kwargs=example,
            f=str(folder / f"{setting}.onnx"),
            input_names=list(example),
            output_names=["logits"],
            dynamo=new,
            external_data=False,
            **({"dynamic_shapes": shapes} if new else {"dynamic_axes": axes}),
        )


def make_config(training_pairs: int) -> Any:
    from bertkeras.training.finetune_config import FinetuneConfig

    return FinetuneConfig(
        task="classification",
        dataset=DATASET,
        train_split="dev",
        max_train=training_pairs,
        model=MODEL,
        batch_size=BATCH,
    )


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text())


def read_rows(folder: Path, name: str) -> TaskRows:
    content = read(folder, name)
    return TaskRows(content["ids"], content["segment_ids"], content["labels"], pad_id=0)


def batches_by_length(ids: list[list[int]]) -> list[list[int]]:
    """As the package makes them for prediction."""
    by_length = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    return [by_length[begin : begin + BATCH] for begin in range(0, len(ids), BATCH)]


def pieces(ids: list[list[int]], rows: Iterable[int]) -> int:
    return sum(len(ids[row]) for row in rows)


# === Fine-tuning: a turn is so many steps ===


def bertkeras_training(folder: Path, steps: int, jit_compile: bool) -> Contender:
    """The loop of `bertkeras.training.finetune_run`, without its log."""
    import tensorflow as tf

    from bertkeras import BertTextClassifier
    from bertkeras.training.finetune_run import make_optimizer
    from bertkeras.training.task_step import make_task_step

    rows, model = read_rows(folder, "train"), BertTextClassifier.from_preset(folder / "ours")
    step = make_task_step(model, make_optimizer(make_config(len(rows)), model, 10**6), jit_compile=jit_compile)
    # always the same epoch, as for the others, so that XLA has compiled every shape
    batches = (batch for _ in itertools.count() for batch in task_batches(rows, BATCH, epochs=1, seed=0))

    def train(_: int) -> int:
        count = 0
        for inputs, labels, chosen in itertools.islice(batches, steps):
            float(step(*tf.nest.map_structure(tf.convert_to_tensor, (inputs, labels))))
            count += pieces(rows.ids, chosen)
        return count

    return first_logits(folder, model), {"train": train}


def transformers_training(folder: Path, steps: int, compiled: bool, by_length: bool) -> Contender:
    import torch

    rows, model = read_rows(folder, "train"), hugging_face(folder)
    shuffled = np.random.default_rng(0).permutation(len(rows))
    at_random = [shuffled[begin : begin + BATCH].tolist() for begin in range(0, len(rows), BATCH)]
    order = order_of(rows, BATCH, seed=0, epoch=0) if by_length else at_random
    batches = [tensors(*rows.batch(chosen)) for chosen in order]  # ready beforehand, unlike ours
    config, parameters = make_config(len(rows)), list(model.parameters())
    rate = config.peak(model.config.hidden_size)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=config.weight_decay, fused=True)
    logits = by_hand(folder, torch_run(model, compiled))[0]

    def train(turn: int) -> int:
        model.train()
        places = [(turn * steps + step) % len(order) for step in range(steps)]
        for place in places:
            loss = model(**batches[place]).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
        return sum(pieces(rows.ids, order[place]) for place in places)

    return logits, {"train": train}


# === Prediction: a turn is all pairs, from strings to labels or from ids to logits ===


def bertkeras_prediction(folder: Path, _: int) -> Contender:
    from bertkeras import BertTextClassifier
    from bertkeras.models.running import outputs_of

    model, content = BertTextClassifier.from_preset(folder / "ours"), read(folder, "test")
    rows = list(zip(content["ids"], content["segment_ids"], strict=True))
    texts, pairs = content["texts"], content["pairs"]
    return first_logits(folder, model), {
        "strings": whole(content, lambda: [found.labels[0] for found in model.classify(texts, pairs, BATCH)]),
        "ids": whole(content, lambda: outputs_of(model, rows, 0, BATCH)),
    }


def first_logits(folder: Path, model: Any) -> Callable[[], np.ndarray]:
    content = read(folder, "test")
    return lambda: model.logits_of(content["texts"][:CHECKED], content["pairs"][:CHECKED], BATCH)


def transformers_prediction(folder: Path, _: int, compiled: bool) -> Contender:
    return by_hand(folder, torch_run(hugging_face(folder), compiled))


def torch_run(model: Any, compiled: bool) -> Run:
    import torch

    model.eval()
    if compiled:
        model.compile(dynamic=True)

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()

    return run


def onnxruntime_prediction(folder: Path, _: int, setting: str) -> Contender:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(folder / f"{setting}.onnx", options, providers=["CPUExecutionProvider"])
    return by_hand(folder, lambda batch: session.run(None, batch)[0])


def sentence_transformers_prediction(folder: Path, _: int) -> Contender:
    import torch
    from sentence_transformers import CrossEncoder

    content = read(folder, "test")
    both = list(zip(content["texts"], content["pairs"], strict=True))
    model = CrossEncoder(str(folder / "hugging_face"), device="cpu")

    def predict(pairs: list[tuple[str, str]]) -> np.ndarray:
        return model.predict(pairs, batch_size=BATCH, show_progress_bar=False, activation_fn=torch.nn.Identity())

    labels = model.config.id2label
    return lambda: predict(both[:CHECKED]), {
        "strings": whole(content, lambda: [labels[int(best)] for best in predict(both).argmax(axis=-1)])
    }


def by_hand(folder: Path, run: Run) -> Contender:
    """Prediction with the tokenizer of `transformers` and a function from a padded batch to its logits."""
    from transformers import AutoConfig, AutoTokenizer

    content = read(folder, "test")
    tokenizer = AutoTokenizer.from_pretrained(folder / "hugging_face")
    names = AutoConfig.from_pretrained(folder / "hugging_face").id2label

    def batches_of(texts: list[str], pairs: list[str]) -> list[tuple[list[int], dict[str, np.ndarray]]]:
        found = tokenizer(texts, pairs, truncation=True, max_length=128)
        return [
            (chosen, dict(tokenizer.pad({k: [v[i] for i in chosen] for k, v in found.items()}, return_tensors="np")))
            for chosen in batches_by_length(found["input_ids"])
        ]

    def logits_of(batches: list[tuple[list[int], dict[str, np.ndarray]]], rows: int) -> np.ndarray:
        logits = np.zeros((rows, len(names)), "float32")
        for chosen, batch in batches:
            logits[chosen] = run(batch)
        return logits

    def logits(some: int | None = None) -> np.ndarray:
        texts, pairs = content["texts"][:some], content["pairs"][:some]
        return logits_of(batches_of(texts, pairs), len(texts))

    ready = batches_of(content["texts"], content["pairs"])
    return lambda: logits(CHECKED), {
        "strings": whole(content, lambda: [names[int(best)] for best in logits().argmax(axis=-1)]),
        "ids": whole(content, lambda: logits_of(ready, len(content["texts"]))),
    }


def whole(content: dict[str, Any], work: Callable[[], Any]) -> Turn:
    """A turn that does all pairs."""
    count = pieces(content["ids"], range(len(content["ids"])))

    def turn(_: int) -> int:
        work()
        return count

    return turn


def hugging_face(folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder / "hugging_face")


def tensors(inputs: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """One of our batches for a model of `transformers`."""
    import torch

    names = {"input_ids": "token_ids", "attention_mask": "padding_mask", "token_type_ids": "segment_ids"}
    arrays = {**{name: inputs[own] for name, own in names.items()}, "labels": labels}
    return {name: torch.from_numpy(array).long() for name, array in arrays.items()}


# work -> who -> setting -> how to make it, from the folder and the steps of a turn; the fastest setting runs
Makers = dict[str, dict[str, Callable[[Path, int], Contender]]]
CONTENDERS: dict[str, Makers] = {
    "finetune-minilm": {
        "bertkeras": {
            "jit_compile=True": functools.partial(bertkeras_training, jit_compile=True),
            "jit_compile=False": functools.partial(bertkeras_training, jit_compile=False),
        },
        "transformers": {
            "eager": functools.partial(transformers_training, compiled=False, by_length=False),
            "torch.compile": functools.partial(transformers_training, compiled=True, by_length=False),
        },
        "transformers, our batches": {
            "eager": functools.partial(transformers_training, compiled=False, by_length=True),
            "torch.compile": functools.partial(transformers_training, compiled=True, by_length=True),
        },
    },
    "predict-minilm": {
        "bertkeras": {"classify": bertkeras_prediction},
        "transformers": {
            "eager": functools.partial(transformers_prediction, compiled=False),
            "torch.compile": functools.partial(transformers_prediction, compiled=True),
        },
        "sentence-transformers": {"CrossEncoder": sentence_transformers_prediction},
        "onnxruntime": {setting: functools.partial(onnxruntime_prediction, setting=setting) for setting in EXPORTERS},
    },
}
PARTS = {"finetune-minilm": ["train"], "predict-minilm": ["strings", "ids"]}
COMPILED = ("jit_compile=True", "torch.compile")  # settings that take minutes to start
BACKENDS = {"bertkeras": "tensorflow", "onnxruntime": "onnxruntime"}  # the others: torch


def start_worker(work: str, who: str, setting: str, folder: Path, steps: int) -> None:
    def start() -> Callable[[dict[str, Any]], dict[str, Any]]:
        logits, turns = CONTENDERS[work][who][setting](folder, steps)

        def answer(command: dict[str, Any]) -> dict[str, Any]:
            if command["do"] == "logits":
                return {"logits": np.asarray(logits(), "float64").tolist()}
            begin = time.perf_counter()
            count = turns[command["do"]](command["turn"]) if command["do"] in turns else None
            return {"tokens_per_second": count and count / (time.perf_counter() - begin)}

        return answer

    serve(start)


def main() -> None:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    folder = Path(sys.argv[1])
    if sys.argv[2] == "--prepare":
        prepare(folder, int(sys.argv[3]), int(sys.argv[4]))
    else:
        work, who, setting, steps = sys.argv[2:]
        start_worker(work, who, setting, folder, int(steps))


if __name__ == "__main__":
    main()
