"""What a pretraining run takes before it is begun: arithmetic, memory, hours and money, from the options alone."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.training.devices import BFLOAT16, Device, find_device
from bertkeras.training.memory import Memory, step_memory
from bertkeras.training.pretrain_config import PretrainConfig

# Share of the peak that the matrix products of a step reach. Off the CPU nothing was measured with this package.
# NVIDIA's BERT-Large in TensorFlow 2 with XLA and 16-bit numbers does 485.6 rows of 128 and 96.5 of 512 a second on an
# A100 (DeepLearningExamples, TensorFlow2/LanguageModeling/BERT), which is 36 % and 31 % of 312 TFLOP/s by the count of
# `step_flops`; DeepSpeed's reaches 52 % of a V100 (deepspeed.ai, 18 May 2020). Narrow models and small batches reach
# less. On the CPU it is a share of a large product's rate on the same machine, about the median of
# book/results/plan.json.
MFU = 0.35
CPU_MFU = 0.6
# Adam with clipping, for each parameter: the norm reads the gradient; the update reads the gradient, and reads and
# writes the parameter and its two moments. About 16 operations; a moving average reads and writes one number more.
UPDATE_BYTES, EMA_BYTES, UPDATE_OPERATIONS = 32, 8, 16
ROOM = (
    0.9  # share of a device's memory that a step may fill; the rest is the driver's, the allocator's and the libraries'
)


def count_parameters(config: BertConfig, next_sentence: bool) -> int:
    """Weights of `BertPretrainer(config, next_sentence)`, counted from the shapes of its layers."""
    width, inner, pieces = config.hidden_dim, config.intermediate_dim, config.vocabulary_size
    norm = 2 * width
    positions = config.max_sequence_length * (config.positions == "learned")
    tables = (pieces + positions + config.num_segments) * width + norm
    attention = 4 * (width * width + width)  # Q, K, V and the output, each with its biases
    feed_forward = inner * width + width + (1 + config.gated_feed_forward) * (width * inner + inner)
    blocks = config.num_layers * (attention + feed_forward + 2 * norm) + config.norm_first * norm
    head = width * width + width + norm + pieces + (not config.tie_embeddings) * pieces * width
    pairs = next_sentence * (width * width + width + 2 * width + 2)  # the pooler and two scores
    return tables + blocks + head + pairs


def step_flops(config: BertConfig, rows: int, length: int, asked: int, next_sentence: bool) -> dict[str, float]:
    """Floating-point operations of the matrix products that a step needs: useful work only.

    A product of an `a x b` and a `b x c` matrix takes `2 a b c`, and the backward pass two more of that size: six for
    each weight and position (Kaplan et al. 2020, section 2.1), and `12 d length` for the scores and averages of a
    position in a block (Chowdhery et al. 2022, appendix B). Two things are as this package computes them, not as the
    rule has it: the head scores the `asked` positions only, and the last block computes keys and values everywhere, but
    the rest at the positions asked for, and at the first where there are pairs. Embeddings are looked up, which is no
    arithmetic. What runs at padding and for places that a row leaves unused is counted, since it takes as long.

    Args:
        config: The model.
        rows: Of a step.
        length: Positions in a row.
        asked: Masked positions in a row.
        next_sentence: Whether there are pairs.

    Returns:
        By part: `attention`, `feed_forward`, `head` (masked words and pairs) and `embeddings`, which is 0.
    """
    width, inner = config.hidden_dim, config.intermediate_dim
    tokens, seen, full = rows * length, rows * (asked + next_sentence), config.num_layers - 1
    attention = full * tokens * (4 * width**2 + 2 * length * width)
    attention += tokens * 2 * width**2 + seen * (2 * width**2 + 2 * length * width)
    feed_forward = (full * tokens + seen) * (2 + config.gated_feed_forward) * width * inner
    head = rows * asked * (width**2 + width * config.vocabulary_size) + next_sentence * rows * (width**2 + 2 * width)
    parts = {"attention": attention, "feed_forward": feed_forward, "head": head, "embeddings": 0}
    return {name: 3 * 2 * float(count) for name, count in parts.items()}


def extra_flops(config: BertConfig, rows: int, length: int, asked: int, next_sentence: bool, packed: bool) -> float:
    """Operations of the products that the package runs beyond those of `step_flops`; together they are all of them.

    Products with one-hot matrices stand for look-ups (of segments, of the positions of packed rows, and of the rows
    that the last block takes), with one product more in the backward pass; and the last block has its queries from the
    same product as its keys and values, at every position.
    """
    width, tokens, seen = config.hidden_dim, rows * length, rows * (asked + next_sentence)
    has_table = config.positions == "learned"
    tables = tokens * (config.max_sequence_length * has_table if packed else config.num_segments)
    return 2 * 2.0 * width * (tables + 2 * seen * length) + 3 * 2.0 * (tokens - seen) * width**2


def ring_seconds(size: float, devices: int, link: float) -> float:
    """Seconds in which `devices` in a ring add up `size` bytes: `2 (n - 1) / n * size / link`.

    Each sends its share on `n - 1` times to add and `n - 1` times to tell the sum, the least that is possible
    (Patarasuk and Yuan 2009). Latency is left out.
    """
    return 0.0 if devices == 1 else 2 * (devices - 1) / devices * size / link


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run takes. Seconds are of a step, bytes of a device.

    Attributes:
        parameters: Of the model.
        flops: Of a step, by part: see `step_flops`.
        extra_flops: Of a step, beyond the useful ones: see there; with `recompute`, blocks once more.
        steps: Of the optimizer.
        step_tokens: Real pieces in a step.
        device: One of them.
        devices: How many.
        model_shards: How many of them share a model's layers.
        mfu: Share of the peak that the products reach.
        product_seconds: The products at that share.
        update_seconds: What the optimizer's update takes at least, by the bytes it moves.
        reduce_seconds: Adding up the gradients of all replicas.
        model_parallel_seconds: Adding up the activations of the devices that share a layer.
        memory: See `Memory`.
        accumulation: Micro-batches of a step, as asked for.
        needed_accumulation: The fewest that fit.
        price: Of a device for an hour.
    """

    parameters: int
    flops: dict[str, float]
    extra_flops: float
    steps: int
    step_tokens: float
    device: Device
    devices: int
    model_shards: int
    mfu: float
    product_seconds: float
    update_seconds: float
    reduce_seconds: float
    model_parallel_seconds: float
    memory: Memory
    accumulation: int
    needed_accumulation: int
    price: float | None = None

    @property
    def step_seconds(self) -> float:
        """One thing after the other: gradients are clipped by the norm of their sum, so the update waits for it."""
        return self.product_seconds + self.update_seconds + self.reduce_seconds + self.model_parallel_seconds

    @property
    def hours(self) -> float:
        return self.steps * self.step_seconds / 3600

    @property
    def device_hours(self) -> float:
        return self.hours * self.devices

    @property
    def money(self) -> float | None:
        return None if self.price is None else self.device_hours * self.price

    @property
    def fits(self) -> bool:
        return self.memory.peak <= ROOM * self.device.memory

    def to_dict(self) -> dict[str, Any]:
        """All of it, with what follows from it, for JSON."""
        names = ("step_seconds", "hours", "device_hours", "money", "fits")
        return {**dataclasses.asdict(self), **{name: getattr(self, name) for name in names}}


def make_plan(
    config: PretrainConfig,
    device: Device | str = "cpu",
    devices: int = 1,
    *,
    tokens: float | None = None,
    fill: float = 1.0,
    mfu: float | None = None,
    price: float | None = None,
    model_shards: int = 1,
    link: float | None = None,
) -> Plan:
    """Plan a run.

    Args:
        config: All that changes the work; `steps` counts where `tokens` is not given.
        device: One, or its name with or without a count: see `find_device`.
        devices: How many, where `device` is no name with a count.
        tokens: Real pieces to train on.
        fill: Share of the places in the rows that hold real pieces; the others are padding, which takes as long.
        mfu: Share of the peak that the products reach; `MFU`, or `CPU_MFU` on the CPU.
        price: Of a device for an hour. Prices differ by the seller and the week, so there is none by default.
        model_shards: Devices that share each layer's heads and inner width, and the tables' columns.
        link: Bytes a second that a device sends to its neighbour in the ring; needed where the device's own link does
            not join so many.

    Raises:
        BertKerasError: Values that make no run, or a model that does not fit with one row at a time.
    """
    if isinstance(device, str):
        device, devices = find_device(device, config.precision)
    mfu = mfu if mfu is not None else CPU_MFU if device.name == "cpu" else MFU
    for name, value in {"tokens": tokens, "price": price, "link": link, "devices": devices}.items():
        if value is not None and not 0 < value < math.inf:
            raise BertKerasError(f"{name} must be more than 0, got {value:g}")
    for name, value in {"fill": fill, "mfu": mfu}.items():
        if not 0 < value <= 1:
            raise BertKerasError(f"{name} must be a share, more than 0 and at most 1, got {value:g}")
    model = config.bert_config(config.vocabulary_size)
    _check_split(config, model, device, devices, model_shards, link)

    length, asked = config.max_sequence_length, config.predictions(config.max_sequence_length)
    next_sentence, packed = config.row_options(0, 1, 2).has_labels, config.pairs == "packed"
    shape = (model, config.batch_size, length, asked, next_sentence)
    parameters, flops, replicas = count_parameters(model, next_sentence), step_flops(*shape), devices // model_shards
    share, speed = parameters / model_shards, link or device.link
    rows, step_tokens = config.batch_size // replicas, config.batch_size * length * fill
    number = 2 if config.precision == BFLOAT16 else 4
    # two sums of all positions in each block, forward and backward (Shoeybi et al. 2019, section 3), and the logits,
    # since the package divides the tables by their columns
    exchanged = number * rows * (4 * model.num_layers * length * model.hidden_dim + asked * model.vocabulary_size)

    def memory_of(accumulation: int) -> Memory:
        return step_memory(
            model,
            rows // accumulation,
            length,
            asked,
            share,
            next_sentence=next_sentence,
            packed=packed,
            recompute=config.recompute,
            head_chunks=config.head_chunks,
            precision=config.precision,
            ema=config.ema is not None,
            accumulated=accumulation > 1,
            model_shards=model_shards,
            on_cpu=device.name == "cpu",
        )

    repeated = config.recompute * (flops["attention"] + flops["feed_forward"]) / 3  # a forward pass more
    fitting = (k for k in range(1, rows + 1) if rows % k == 0 and memory_of(k).peak <= ROOM * device.memory)
    needed = next(fitting, None)
    if needed is None:
        least = min((memory_of(k) for k in (1, rows)), key=lambda memory: memory.peak)
        raise BertKerasError(
            f"does not fit: a step may fill {ROOM:.0%} of the {device.memory / 1e9:.0f} GB of {device.name}, and one "
            f"row at a time takes {least.peak / 1e9:.1f} GB; take a larger device, --model-shards or a smaller model"
        )
    return Plan(
        parameters=parameters,
        flops=flops,
        extra_flops=extra_flops(*shape, packed) + repeated,
        steps=config.steps if tokens is None else math.ceil(tokens / step_tokens),
        step_tokens=step_tokens,
        device=device,
        devices=devices,
        model_shards=model_shards,
        mfu=mfu,
        product_seconds=(sum(flops.values()) + repeated) / (devices * device.rate(config.precision) * mfu),
        update_seconds=share * (UPDATE_BYTES + EMA_BYTES * (config.ema is not None)) / device.bandwidth,
        reduce_seconds=ring_seconds(4 * share, replicas, speed),
        model_parallel_seconds=ring_seconds(exchanged, model_shards, speed),
        memory=memory_of(config.accumulation),
        accumulation=config.accumulation,
        needed_accumulation=needed,
        price=price,
    )


def _check_split(
    config: PretrainConfig, model: BertConfig, device: Device, devices: int, model_shards: int, link: float | None
) -> None:
    if model_shards < 1 or devices % model_shards:
        raise BertKerasError(f"model_shards={model_shards} does not divide {devices} devices")
    if model.num_heads % model_shards:
        raise BertKerasError(f"model_shards={model_shards} does not divide the {model.num_heads} heads")
    parts = devices // model_shards * config.accumulation
    if config.batch_size % parts:
        raise BertKerasError(f"batch_size={config.batch_size} does not divide by {parts}: replicas times accumulation")
    if devices > device.joined and link is None:
        raise BertKerasError(
            f"the link of {device.name} joins {device.joined}, not {devices}; give --link, the GB/s to the next one"
        )
