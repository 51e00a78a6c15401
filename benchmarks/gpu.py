"""BERT-base in bfloat16 on one GPU: useful tokens a second, and the share of the GPU's own matrix product.

Packed rows (`sequence_ids` and `position_ids`, several texts a row), dropout 0.1, AdamW with clipping, one device
through JAX, attention and its dropout in one kernel of cuDNN; where PyTorch sees the GPU as well, `transformers` with
`torch.compile` and scaled dot-product attention beside it, in turns, on rows of one text (it has no packed ones). The
model FLOPs are those of useful work only (`bertkeras.training.plan.step_flops`; attention within a text), the limit is
a product of two large bfloat16 matrices in the same run, twenty of them one after another. Before anything is timed the
kernel must agree with attention operation by operation.

From a checkout, with JAX and the wheel of Keras, and without TensorFlow:

    python -m benchmarks.gpu --output gpu.json   # BERT-base, lengths 128 and 512
    python -m benchmarks.gpu --report gpu.json   # on any machine: what it found into the results and the book
    python -m benchmarks.gpu --size tiny --batch-tokens 512 --side 256 --rounds 2   # a try on any machine
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")  # the rest is PyTorch's

VOCABULARY, LEARNING_RATE, DROPOUT, CLIP_NORM = 30_522, 1e-4, 0.1, 1.0
PRODUCTS = 20  # in a turn of the limit
# dense bfloat16, of NVIDIA's data sheets
DATA_SHEET_TERAFLOPS = {"A100": 312, "H100": 989, "H200": 989}


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
    from bertkeras import BertConfig, BertPretrainer
    from bertkeras.training import AdamW, make_train_step

    dropouts = {"dropout": DROPOUT, "attention_dropout": DROPOUT}
    config = BertConfig.from_size(size, VOCABULARY, max_sequence_length=length, **dropouts)
    model = BertPretrainer(config, next_sentence=False, dtype="mixed_bfloat16")
    optimizer = AdamW(LEARNING_RATE, global_clipnorm=CLIP_NORM)
    step = make_train_step(model, optimizer, recompute=recompute, flash_dropout=not recompute)
    inputs, labels = batch(rows, length, texts)
    return lambda: step(inputs, labels)["mlm_loss"].block_until_ready()


def transformers_model(size: str) -> Any:
    from transformers import BertConfig, BertForMaskedLM

    from bertkeras.config import SIZES

    layers, width, heads = SIZES[size]
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        attn_implementation="sdpa",
    )
    return BertForMaskedLM(config)


def transformers_step(size: str, rows: int, length: int) -> Callable[[], None] | None:
    """The peer's step, or `None` where PyTorch or its GPU is not there."""
    if not all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    model = torch.compile(transformers_model(size).cuda().train())
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

    def products() -> None:
        for _ in range(PRODUCTS):
            last = product(a, b)
        last.block_until_ready()

    return products


def check_kernel(length: int) -> dict[str, float]:
    """How far the kernel on packed rows is from attention operation by operation, relative, in outputs and gradients.

    Of dropout, whether both passes draw the same bits: the output is linear in the values, so that the product of both
    with their gradients must be the same.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from bertkeras.layers import MultiHeadSelfAttention
    from bertkeras.layers.attention import broadcast_mask, mask_of_sequences
    from bertkeras.layers.flash import Flash, count_runs, flash, flash_attention

    random = np.random.default_rng(0)
    ids = np.sort(random.integers(1, 6, (16, length)), axis=1)  # rows of up to five texts, some with padding behind
    ids = np.where(np.arange(length) < random.integers(length // 2, length + 1, (16, 1)), ids, 0).astype("int32")
    shape = (16, length, 12, 64)
    query, key, value, slope = (jnp.asarray(random.normal(size=shape), "bfloat16") for _ in range(4))
    slope = slope * (ids > 0)[..., None, None]
    mask = broadcast_mask(mask_of_sequences(jnp.asarray(ids)))
    layer = MultiHeadSelfAttention(12, dtype="mixed_bfloat16")
    layer.build((None, length, 768))
    layer.output_dense = lambda x: x

    def plain(*qkv: Any) -> Any:
        heads = (jnp.swapaxes(x, 1, 2) for x in qkv)
        return layer.attend(*heads, mask)[0].reshape(shape)

    def in_kernel(rate: float, sequences: int | None) -> Callable[..., Any]:
        def attend(*qkv: Any) -> Any:
            with flash(Flash(sequences=sequences)):
                return flash_attention(*qkv, mask, jnp.asarray(ids), rate)

        return attend

    def both_passes(attend: Callable[..., Any]) -> Any:
        def passes(*qkv: Any) -> Any:
            outputs, backward = jax.vjp(attend, *qkv)
            return outputs * (ids > 0)[..., None, None], *backward(slope)

        options = {"xla_gpu_enable_command_buffer": ""}
        return jax.jit(passes, compiler_options=options)(query, key, value)

    def wide(x: Any) -> Any:
        return np.asarray(x, "float64")

    expected, errors = both_passes(plain), {}
    for name, sequences in {"mask": None, "packed": count_runs(ids)}.items():
        found = both_passes(in_kernel(0.0, sequences))
        pairs = zip(found, expected, strict=True)
        errors[name] = max(np.linalg.norm(wide(a) - wide(b)) / np.linalg.norm(wide(b)) for a, b in pairs)
        found = both_passes(in_kernel(DROPOUT, sequences))
        sums = np.vdot(wide(found[0]), wide(slope)), np.vdot(wide(found[3]), wide(value))
        errors[f"{name}, dropout"] = (
            abs(sums[0] - sums[1]) / np.linalg.norm(wide(found[0])) / np.linalg.norm(wide(slope))
        )
    return {name: float(error) for name, error in errors.items()}


def seconds_by_kind(step: Callable[[], None], steps: int = 3) -> dict[str, float]:
    """The seconds of a step that the GPU spends on matrix products, on attention and on all else."""
    import tempfile

    import jax

    kinds = {"matrix products": ("nvjet", "gemm", "cutlass", "cublas"), "attention": ("cudnn",)}
    found = dict.fromkeys([*kinds, "all else"], 0.0)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                step()
        planes = jax.profiler.ProfileData.from_file(str(next(Path(folder).rglob("*.xplane.pb")))).planes
        for line in (line for plane in planes if "GPU" in plane.name for line in plane.lines if "Stream" in line.name):
            for event in line.events:
                kind = next((k for k, names in kinds.items() if any(n in event.name for n in names)), "all else")
                found[kind] += event.duration_ns * 1e-9 / steps
    return found


def report(record: dict[str, Any]) -> None:
    """Write the section of `RESULTS.md` and the copy for the book."""
    from benchmarks.common import ROOT, write_section
    from bertkeras.files import write_text

    text = "## BERT-base on one GPU\n\n" + (__doc__ or "").split("\n\n")[1]
    text += "\n\n| rows of | who | tokens/s | useful TFLOP/s | share of the product | of the data sheet |\n"
    text += "| ---: | --- | ---: | ---: | ---: | ---: |\n"
    for row in record["rows"]:
        length, peak = row["work"].rsplit(" ", 1)[1], row["share_of_data_sheet"]
        text += f"| {length} | {row['who']} | {row['tokens_per_second']:,} | {row['teraflops_per_second']:.0f} | "
        text += f"{row['share_of_limit']:.1%} | {'-' if peak is None else f'{peak:.1%}'} |\n"
    for row in record["rows"]:
        if kinds := row.get("seconds"):
            parts = (f"{kind} {seconds / sum(kinds.values()):.0%}" for kind, seconds in kinds.items())
            text += f"\n{row['work']}, the time on the GPU: {', '.join(parts)}.\n"
    errors = max(record["errors_of_kernel"].values()) if "errors_of_kernel" in record else None
    text += f"\nThe kernel agrees with attention operation by operation to {errors:.1%}.\n" if errors else ""
    text += f"\n{record['note']}\n" if "note" in record else ""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    text += f"\nMedians over {record['rounds']} rounds. {record['device']}; {record['machine']}. {versions}.\n"
    write_section("gpu", f"{text}{record['date']}, `{record['command']}`.")
    write_text(ROOT / "book" / "results" / "gpu.json", json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="base")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--batch-tokens", type=int, default=131_072, help="pieces of a step (default: 131072)")
    parser.add_argument("--peer-tokens", type=int, default=65_536, help="and of the peer's, at most (default: 65536)")
    parser.add_argument("--texts", type=int, default=2, help="texts packed into each row (default: 2)")
    parser.add_argument("--recompute", action="store_true", help="compute activations twice")
    parser.add_argument("--profile", action="store_true", help="say what the time of our step goes to")
    parser.add_argument("--side", type=int, default=8192, help="of the matrices of the limit (default: 8192)")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each (default: 20)")
    parser.add_argument("--output", type=Path, help="a JSON file for the record, written anew after each length")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="put such a record with the results; measure nothing"
    )
    options = parser.parse_args()
    if options.report:
        report(json.loads(options.report.read_text()))
        return

    import jax

    from benchmarks.common import machine, middle, today, versions
    from bertkeras import BertConfig
    from bertkeras.layers.flash import has_flash_kernels
    from bertkeras.training.plan import step_flops

    device = jax.devices()[0].device_kind
    peak = next((rate for name, rate in DATA_SHEET_TERAFLOPS.items() if name in device), None)
    record: dict[str, Any] = {"device": device, "rows": [], "rounds": options.rounds, "date": today()}
    installed = [name for name in ("keras", "jax", "torch", "transformers") if importlib.util.find_spec(name)]
    command = shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]])
    record |= {"machine": machine(), "versions": versions(*installed), "command": command}
    if has_flash_kernels():
        record["errors_of_kernel"] = check_kernel(max(options.lengths))
        print(json.dumps(record["errors_of_kernel"]), flush=True)
        if max(record["errors_of_kernel"].values()) > 0.02:
            raise SystemExit("the kernel does not give what attention operation by operation gives")
    for length in options.lengths:
        rows = max(1, options.batch_tokens // length)
        peer_rows = max(1, min(options.peer_tokens, options.batch_tokens) // length)
        asked = max(1, round(0.15 * length))
        config = BertConfig.from_size(options.size, VOCABULARY, max_sequence_length=length)

        def flops(texts: int, asked: int = asked, config: BertConfig = config, length: int = length) -> float:
            """Of a row."""
            return sum(step_flops(config, texts, length // texts, asked // texts, False).values())

        contenders = {
            "limit": matrix_product(options.side),
            "bertkeras": bertkeras_step(options.size, rows, length, options.texts, options.recompute),
            "transformers": transformers_step(options.size, peer_rows, length),
        }
        running = {who: step for who, step in contenders.items() if step is not None}
        seconds: dict[str, list[float]] = {who: [] for who in running}
        for turn in range(options.rounds + 3):
            for who, step in running.items():
                begin = time.perf_counter()
                step()
                if turn >= 3:  # the first ones compile
                    seconds[who].append(time.perf_counter() - begin)
        limit = PRODUCTS * 2 * options.side**3 / middle(seconds["limit"])["median"]
        for who in list(running)[1:]:
            ours = who == "bertkeras"
            median, count = middle(seconds[who])["median"], rows if ours else peer_rows
            rate = count * flops(options.texts if ours else 1) / median
            row = {
                "work": f"{options.size}, rows of {length}",
                "who": who,
                "backend": "jax" if ours else "torch",
                "rows": count,
                "tokens_per_second": round(count * length / median),
                "teraflops_per_second": rate / 1e12,
                "limit_teraflops_per_second": limit / 1e12,
                "share_of_limit": rate / limit,
                "share_of_data_sheet": rate / 1e12 / peak if peak else None,
            }
            if ours and options.profile:
                row["seconds"] = seconds_by_kind(running[who])
            record["rows"].append(row)
            print(json.dumps(row), flush=True)
        del contenders, running
        if options.output:
            options.output.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
