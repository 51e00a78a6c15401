"""BERT-base in bfloat16 on one GPU: useful tokens a second, and the share of the GPU's own matrix product.

Packed rows (`sequence_ids` and `position_ids`, several texts a row), dropout 0.1, AdamW with clipping, one device
through JAX; where PyTorch sees the GPU as well, `transformers` with `torch.compile` and scaled dot-product attention
beside it, in turns, on rows of one text (it has no packed ones). The model FLOPs are those of useful work only
(`bertkeras.training.plan.step_flops`), the limit is a product of two large bfloat16 matrices in the same run.

From a checkout, with JAX and the wheel of Keras, and without TensorFlow:

    python -m benchmarks.gpu                  # BERT-base, lengths 128 and 512
    python -m benchmarks.gpu --size tiny --batch-tokens 512 --side 256 --rounds 2   # a try on any machine
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

VOCABULARY, LEARNING_RATE, DROPOUT, CLIP_NORM = 30_522, 1e-4, 0.1, 1.0


def batch(rows: int, length: int, texts: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Full rows of random pieces, `texts` equal texts in each, 15 % of the pieces masked."""
    import numpy as np

    random = np.random.default_rng(0)
    asked = max(1, round(0.15 * length))
    places = random.permuted(np.tile(np.arange(length), (rows, 1)), axis=1)[:, :asked]
    inputs = {
        "token_ids": random.integers(5, VOCABULARY, (rows, length)).astype("int32"),
        "sequence_ids": np.broadcast_to(np.arange(length) * texts // length + 1, (rows, length)).astype("int32"),
        "position_ids": np.broadcast_to(np.arange(length) % (length // texts), (rows, length)).astype("int32"),
        "mask_positions": np.sort(places, axis=1).astype("int32"),
    }
    labels = {
        "mlm_labels": random.integers(5, VOCABULARY, (rows, asked)).astype("int32"),
        "mlm_weights": np.ones((rows, asked), "float32"),
    }
    return inputs, labels


def bertkeras_step(size: str, rows: int, length: int, texts: int, recompute: bool) -> Callable[[], None]:
    import jax

    from bertkeras import BertConfig, BertPretrainer
    from bertkeras.training import AdamW, make_train_step

    dropouts = {"dropout": DROPOUT, "attention_dropout": DROPOUT}
    config = BertConfig.from_size(size, VOCABULARY, max_sequence_length=length, **dropouts)
    model = BertPretrainer(config, next_sentence=False, dtype="mixed_bfloat16")
    step = make_train_step(model, AdamW(LEARNING_RATE, global_clipnorm=CLIP_NORM), recompute=recompute)
    inputs, labels = jax.tree.map(jax.numpy.asarray, batch(rows, length, texts))
    return lambda: step(inputs, labels)["mlm_loss"].block_until_ready()


def transformers_step(size: str, rows: int, length: int) -> Callable[[], None] | None:
    """The peer's step, or `None` where PyTorch or its GPU is not there."""
    try:
        import torch
        from transformers import BertConfig, BertForMaskedLM
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    from bertkeras.config import SIZES

    layers, width, heads = SIZES[size]
    config = BertConfig(VOCABULARY, width, layers, heads, 4 * width, attn_implementation="sdpa")
    model = torch.compile(BertForMaskedLM(config).cuda().train())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    inputs, labels = batch(rows, length, 1)
    everywhere = torch.full((rows, length), -100)
    everywhere.scatter_(1, torch.tensor(inputs["mask_positions"]).long(), torch.tensor(labels["mlm_labels"]).long())
    ids, everywhere = torch.tensor(inputs["token_ids"]).long().cuda(), everywhere.cuda()

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(input_ids=ids, labels=everywhere).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()

    return step


def matrix_product(side: int) -> Callable[[], None]:
    import jax

    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (side, side), "bfloat16") for key in keys)
    product = jax.jit(lambda a, b: a @ b)
    return lambda: product(a, b).block_until_ready()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="base")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--batch-tokens", type=int, default=65_536, help="pieces of a step (default: 65536)")
    parser.add_argument("--texts", type=int, default=2, help="texts packed into each row (default: 2)")
    parser.add_argument("--recompute", action="store_true", help="compute activations twice")
    parser.add_argument("--side", type=int, default=8192, help="of the matrices of the limit (default: 8192)")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each (default: 20)")
    parser.add_argument("--output", type=Path, help="a JSON file for the record")
    options = parser.parse_args()

    import jax

    from benchmarks.common import machine, middle, today, versions
    from bertkeras import BertConfig
    from bertkeras.training.plan import step_flops

    rows_of_record = []
    for length in options.lengths:
        rows = max(1, options.batch_tokens // length)
        config = BertConfig.from_size(options.size, VOCABULARY, max_sequence_length=length)
        flops = sum(step_flops(config, rows, length, max(1, round(0.15 * length)), False).values())
        contenders = {
            "limit": matrix_product(options.side),
            "bertkeras": bertkeras_step(options.size, rows, length, options.texts, options.recompute),
            "transformers": transformers_step(options.size, rows, length),
        }
        running = {who: step for who, step in contenders.items() if step is not None}
        seconds: dict[str, list[float]] = {who: [] for who in running}
        for turn in range(options.rounds + 3):
            for who, step in running.items():
                begin = time.perf_counter()
                step()
                if turn >= 3:  # the first ones compile
                    seconds[who].append(time.perf_counter() - begin)
        rate = 2 * options.side**3 / middle(seconds["limit"])["median"]
        for who in list(running)[1:]:
            median = middle(seconds[who])["median"]
            rows_of_record.append(
                {
                    "work": f"{options.size}, {rows} x {length}",
                    "who": who,
                    "backend": "jax" if who == "bertkeras" else "torch",
                    "tokens_per_second": round(rows * length / median),
                    "teraflops_per_second": flops / median / 1e12,
                    "share_of_limit": flops / median / rate,
                }
            )
            print(json.dumps(rows_of_record[-1]), flush=True)
    record = {
        "rows": rows_of_record,
        "limit_teraflops_per_second": rate / 1e12,
        "device": jax.devices()[0].device_kind,
        "rounds": options.rounds,
        "machine": machine(),
        "versions": versions("keras", "jax"),
        "date": today(),
    }
    text = json.dumps(record, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
