"""What a training step has to hold at its fullest moment."""

from __future__ import annotations

import dataclasses

from bertkeras.config import BertConfig
from bertkeras.training.devices import BFLOAT16


@dataclasses.dataclass(frozen=True)
class Bytes:
    """Of each number kept: see `kept_elements`; of each logit, at the loss and at the table's gradient; of each weight,
    for its copy in the precision of the products."""

    sums: float = 4
    projections: float = 4
    inner: float = 4
    scores: float = 4
    loss: float = 12
    gradient: float = 8
    weights: float = 0


# By (bfloat16, on the CPU). The third is what the types in the program make it, not read off a GPU or TPU.
SIZES = {
    (False, False): Bytes(),
    (False, True): Bytes(),
    (True, False): Bytes(sums=2, projections=2, inner=2, scores=3, loss=10, gradient=6, weights=2),
    (True, True): Bytes(inner=10 / 3, loss=10, gradient=10, weights=4),
}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    A step is fullest at one of three moments: when the loss is taken, all activations and the logits are there and no
    gradient yet; when the gradient of the output table is; or when all gradients are and the activations are gone. So
    the sum of the parts is more than `peak`.

    Attributes:
        weights: Of the model.
        optimizer: Adam's two moments of each (Kingma and Ba 2015).
        ema: The moving average of the weights, if there is one.
        gradients: All of them; with a tied table also the second gradient of it, from the embeddings.
        accumulated: The sum of the micro-batches' gradients, with accumulation.
        activations: What the forward pass of a micro-batch keeps for the backward pass.
        logits: Of the masked positions, with what the loss makes of them.
        peak: The whole, at the fullest moment.
    """

    weights: float
    optimizer: float
    ema: float
    gradients: float
    accumulated: float
    activations: float
    logits: float
    peak: float


def kept_elements(
    config: BertConfig,
    rows: int,
    length: int,
    asked: int,
    next_sentence: bool,
    packed: bool = False,
    recompute: bool = False,
) -> dict[str, int]:
    """Numbers that XLA keeps between the two passes, read off its buffer assignment and checked by `benchmarks.plan`.

    With `T` positions, width `d`, inner width `f` and `h` heads, a block keeps

    - `8 T d`: queries, keys, values, the mixed heads, and each residual sum before and after its norm;
    - `3 T f`: the feed-forward network before its activation, the activation's inner function, and after it;
    - `2 h T length`: the probabilities, before and after the rows that see nothing are set to zero.

    Dropout keeps nothing, since its masks are computed again. This is the account of Korthikanti et al. 2022, section
    4.1 (34 bytes for each position and unit of width, 5 for each score, at 16 bits with stored dropout masks), for what
    this package computes: its last block keeps keys and values at every position, the rest at those asked for.
    With `recompute` every block keeps its input, `T d`, and the one whose turn it is in the backward pass the rest:
    by hand, not checked by the benchmark; XLA on a CPU was seen to hold about twice that of a BERT-base.

    Args:
        config: The model.
        rows: In a micro-batch.
        length: Positions in a row.
        asked: Masked positions in a row.
        next_sentence: Whether the pooler reads the first position too.
        packed: Whether rows hold several texts, with a mask and positions of their own.
        recompute: Whether blocks are computed again in the backward pass.

    Returns:
        Numbers by what they are: `sums` of the residuals and their norms, `projections` to and from the heads, `inner`
        of the feed-forward networks, `scores`, and `logits` of one copy.
    """
    width, inner, heads, full = config.hidden_dim, config.intermediate_dim, config.num_heads, config.num_layers - 1
    tokens, seen, masked = rows * length, rows * (asked + next_sentence), rows * asked
    whole, full = full, min(full, 1) if recompute else full
    return {
        "sums": width * ((whole - full) * tokens + 2 * tokens + 4 * full * tokens + 3 * seen + 5 * masked),
        "projections": width * (4 * full * tokens + 2 * tokens + 2 * seen),
        "inner": (3 + 2 * config.gated_feed_forward) * inner * (full * tokens + seen),
        "scores": 2 * heads * length * (full * tokens + seen) + 2 * seen * length + packed * 2 * tokens * length,
        "logits": masked * config.vocabulary_size,
    }


def step_memory(
    model: BertConfig,
    rows: int,
    length: int,
    asked: int,
    parameters: float,
    *,
    next_sentence: bool = True,
    packed: bool = False,
    recompute: bool = False,
    head_chunks: int = 1,
    precision: str = "float32",
    ema: bool = False,
    accumulated: bool = False,
    model_shards: int = 1,
    on_cpu: bool = False,
) -> Memory:
    """What `make_train_step` with XLA holds on one device.

    Args:
        model: The architecture.
        rows: In a micro-batch, on this device.
        length: Positions in a row.
        asked: Masked positions in a row.
        parameters: On this device.
        next_sentence: Whether there are pairs.
        packed: Whether rows hold several texts.
        recompute: Whether blocks are computed again in the backward pass.
        head_chunks: Parts in which the head scores the masked positions.
        precision: Of `PretrainConfig`. Weights, moments and gradients are float32 in either.
        ema: Whether a moving average of the weights is kept.
        accumulated: Whether there are several micro-batches.
        model_shards: Devices among which heads and inner width are divided, and the tables by their columns: each
            has all the sums and all the logits.
        on_cpu: There XLA multiplies float32 numbers also in bfloat16, and keeps these.
    """
    kept = kept_elements(model, rows, length, asked, next_sentence, packed, recompute)
    split = {name: kept[name] / model_shards for name in ("projections", "inner", "scores")}
    size = SIZES[precision == BFLOAT16, on_cpu]
    activations = kept["sums"] * size.sums + sum(number * getattr(size, name) for name, number in split.items())
    activations += size.weights * parameters
    logits, table = (
        kept["logits"] / min(head_chunks, asked),
        4 * model.vocabulary_size * model.hidden_dim / model_shards,
    )
    gradients = 4 * parameters + (table if model.tie_embeddings and not accumulated else 0.0)
    state, sums = 4 * parameters * (3 + ema), 4 * parameters * accumulated
    moments = (activations + logits * size.loss, activations + logits * size.gradient + table, gradients)
    return Memory(
        weights=4 * parameters,
        optimizer=8 * parameters,
        ema=4 * parameters * ema,
        gradients=gradients,
        accumulated=sums,
        activations=activations,
        logits=logits * size.loss,
        peak=state + sums + max(moments),
    )
