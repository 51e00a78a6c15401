"""Who takes part in the benchmarks of a pretraining step: ours, KerasHub's and that of `transformers`.

Every contender trains the same architecture on the same batch of full rows: feed-forward four times the width, dropout
0.1 everywhere, AdamW with clipping of the global norm to 1, float32. Ours and that of `transformers` learn masked LM
and next sentence; KerasHub, which has no head for that, masked LM alone. Each runs in a process of its own and they
take turns, so that what else the machine does strikes all alike.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import Worker, middle, serve
from bertkeras.config import SIZES

DROPOUT, LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 0.1, 1e-4, 0.01, 1.0
SIDE = 2048  # of the square matrices whose product gives the limit

Step = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a model and its batch."""

    layers: int
    width: int
    heads: int
    vocabulary: int = 30_522
    length: int = 128
    rows: int = 32
    predictions: int = 20

    @classmethod
    def of_size(cls, size: str) -> Shape:
        return cls(*SIZES[size])

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @property
    def tokens(self) -> int:
        """Of a step; there is no padding."""
        return self.rows * self.length

    @property
    def needed_flops(self) -> int:
        """Floating-point operations of the matrix products that one step cannot do without.

        The masked-LM head is counted at the masked positions, and the last block past its keys and values only there
        and at the first position. Backward costs twice forward.
        """
        seen = self.predictions + 1
        kernels = 12 * self.width**2  # of one block: Q, K, V, output, feed-forward
        of_last = self.length * 2 * self.width**2 + seen * (kernels - 2 * self.width**2)
        blocks = (self.layers - 1) * self.length * kernels + of_last
        attention = 2 * self.width * self.length * ((self.layers - 1) * self.length + seen)
        heads = self.predictions * (self.width**2 + self.width * self.vocabulary) + self.width**2 + 2 * self.width
        return 3 * 2 * self.rows * (blocks + attention + heads)

    def batch(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Random pieces without padding: inputs and labels under our names."""
        import numpy as np

        random, shape = np.random.default_rng(0), (self.rows, self.length)
        places = np.arange(1, self.length)[None].repeat(self.rows, axis=0)
        inputs = {
            "token_ids": random.integers(5, self.vocabulary, shape).astype("int32"),
            "segment_ids": np.broadcast_to(np.arange(self.length) >= self.length // 2, shape).astype("int32"),
            "padding_mask": np.ones(shape, "bool"),
            "mask_positions": np.sort(random.permuted(places, axis=1)[:, : self.predictions], axis=1).astype("int32"),
        }
        labels = {
            "mlm_labels": random.integers(5, self.vocabulary, (self.rows, self.predictions)).astype("int32"),
            "mlm_weights": np.ones((self.rows, self.predictions), "float32"),
            "nsp_labels": random.integers(0, 2, (self.rows,)).astype("int32"),
        }
        return inputs, labels


# === The contenders: each returns a function that does one whole step and waits for its result ===


def bertkeras_step(shape: Shape, jit_compile: bool) -> Step:
    import tensorflow as tf

    from bertkeras import BertConfig, BertPretrainer
    from bertkeras.training import AdamW, make_train_step

    model = BertPretrainer(
        BertConfig(
            shape.vocabulary,
            shape.layers,
            shape.width,
            shape.heads,
            4 * shape.width,
            shape.length,
            dropout=DROPOUT,
            attention_dropout=DROPOUT,
        )
    )
    optimizer = AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORM)
    step = make_train_step(model, optimizer, jit_compile=jit_compile)
    inputs, labels = tf.nest.map_structure(tf.constant, shape.batch())
    return lambda: float(step(inputs, labels)["mlm_loss"])


def kerashub_step(shape: Shape, jit_compile: bool) -> Step:
    import keras
    import keras_hub
    import tensorflow as tf

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=shape.vocabulary,
        num_layers=shape.layers,
        num_heads=shape.heads,
        hidden_dim=shape.width,
        intermediate_dim=4 * shape.width,
        dropout=DROPOUT,
    )
    model = keras_hub.models.BertMaskedLM(backbone)
    model.compile(
        optimizer=keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()],
        jit_compile=jit_compile,
    )
    inputs, labels = tf.nest.map_structure(tf.constant, shape.batch())
    inputs["padding_mask"] = tf.cast(inputs["padding_mask"], tf.int32)
    return lambda: model.train_on_batch(inputs, labels["mlm_labels"], labels["mlm_weights"])


def transformers_step(shape: Shape, compiled: bool) -> Step:
    import numpy as np
    import torch
    from transformers import BertConfig, BertForPreTraining

    model = BertForPreTraining(
        BertConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=4 * shape.width,
            hidden_dropout_prob=DROPOUT,
            attention_probs_dropout_prob=DROPOUT,
        )
    ).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    inputs, labels = shape.batch()
    everywhere = np.full((shape.rows, shape.length), -100)
    np.put_along_axis(everywhere, inputs["mask_positions"], labels["mlm_labels"], axis=1)
    arguments = {
        "input_ids": torch.tensor(inputs["token_ids"], dtype=torch.long),
        "token_type_ids": torch.tensor(inputs["segment_ids"], dtype=torch.long),
        "attention_mask": torch.tensor(inputs["padding_mask"], dtype=torch.long),
        "labels": torch.tensor(everywhere, dtype=torch.long),
        "next_sentence_label": torch.tensor(labels["nsp_labels"], dtype=torch.long),
    }
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        loss = forward(**arguments).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def matrix_product(shape: Shape) -> Step:
    import tensorflow as tf

    a, b = tf.random.normal((SIDE, SIDE)), tf.random.normal((SIDE, SIDE))
    return lambda: tf.matmul(a, b).numpy()


# who -> setting -> how to make the step; of several settings the fastest runs
CONTENDERS: dict[str, dict[str, Callable[[Shape], Step]]] = {
    "bertkeras": {
        "jit_compile=True": functools.partial(bertkeras_step, jit_compile=True),
        "jit_compile=False": functools.partial(bertkeras_step, jit_compile=False),
    },
    "kerashub": {
        "jit_compile=True": functools.partial(kerashub_step, jit_compile=True),
        "jit_compile=False": functools.partial(kerashub_step, jit_compile=False),
    },
    "transformers": {
        "eager": functools.partial(transformers_step, compiled=False),
        "torch.compile": functools.partial(transformers_step, compiled=True),
    },
    "limit": {"float32 matrix product": matrix_product},
}
BACKENDS = {"bertkeras": "tensorflow", "kerashub": "tensorflow", "transformers": "torch", "limit": "tensorflow"}


def start_worker(shape: Shape, who: str, setting: str, warmup: int) -> None:
    """The process of a contender: it warms up, and then answers `{"steps": n}` with the seconds of a step."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def start() -> Callable[[dict[str, Any]], dict[str, Any]]:
        step = CONTENDERS[who][setting](shape)
        for _ in range(warmup):
            step()

        def timed(command: dict[str, Any]) -> dict[str, Any]:
            begin = time.perf_counter()
            for _ in range(command["steps"]):
                step()
            return {"seconds": (time.perf_counter() - begin) / command["steps"]}

        return timed

    serve(start)


def measure(
    shape: Shape, rounds: int, trials: int, steps: int, warmup: int
) -> tuple[dict[str, str], dict[str, list[float]], dict[str, int]]:
    """The fastest setting of each contender, its seconds per step round by round, and its peak memory in MB."""
    settings: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    for who, choices in CONTENDERS.items():
        running = {}
        for setting in choices:
            worker = Worker("benchmarks.step_contenders", shape.to_json(), who, setting, str(warmup))
            if "error" in worker.greeting:
                print(f"{who}, {setting}: left out, {worker.greeting['error']}")
            else:
                running[setting] = worker
        if not running:
            raise SystemExit(f"{who}: no setting runs")
        turns = range(trials if len(running) > 1 else 0)
        trial = [{setting: worker.ask(steps=steps)["seconds"] for setting, worker in running.items()} for _ in turns]
        medians = {setting: middle([turn[setting] for turn in trial])["median"] for setting in running if trial}
        settings[who] = min(medians, key=medians.__getitem__) if medians else next(iter(running))
        for setting, seconds in medians.items():
            print(f"{who}, {setting}: {seconds * 1e3:,.0f} ms a step", flush=True)
        for setting, worker in running.items():
            if setting == settings[who]:
                workers[who] = worker
            else:
                worker.close()
    seconds: dict[str, list[float]] = {who: [] for who in workers}
    memory: dict[str, int] = {}
    for turn in range(rounds):
        for who, worker in workers.items():
            answer = worker.ask(steps=steps)
            seconds[who].append(answer["seconds"])
            memory[who] = answer["peak_memory_mb"]
        print(
            f"round {turn + 1} of {rounds}: " + ", ".join(f"{w} {s[-1] * 1e3:,.0f} ms" for w, s in seconds.items()),
            flush=True,
        )
    for worker in workers.values():
        worker.close()
    return settings, seconds, memory


if __name__ == "__main__":
    start_worker(Shape(**json.loads(sys.argv[1])), sys.argv[2], sys.argv[3], int(sys.argv[4]))
