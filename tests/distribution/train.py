"""Fifty steps of a small model on devices that the command line names; the first process prints the losses as JSON."""

import argparse
import hashlib
import json
import os

parser = argparse.ArgumentParser()
parser.add_argument("--strategy", default="single")
parser.add_argument("--model-shards", type=int)
parser.add_argument("--accumulation", type=int, default=1)
parser.add_argument("--precision", default="float32")
parser.add_argument("--dropout", type=float, default=0.0)
parser.add_argument("--steps", type=int, default=50)
parser.add_argument("--virtual-devices", type=int)
parser.add_argument("--recompute", type=int, default=0)
parser.add_argument("--head-chunks", type=int, default=1)
options = parser.parse_args()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras  # noqa: E402
import numpy as np  # noqa: E402

from bertkeras import BertConfig, BertPretrainer  # noqa: E402
from bertkeras.training import AdamW, WarmupLinearDecay, make_test_step, make_train_step  # noqa: E402
from bertkeras.training.distribution import choose_distribution  # noqa: E402

ROWS, LENGTH, PREDICTIONS, VOCABULARY = 48, 19, 6, 97


def batch(seed):
    """Rows that follow a rule, so that there is something to learn; the later a row, the more of it is masked."""
    random = np.random.default_rng(seed)
    ids = (random.integers(0, 90, (ROWS, 1)) + 7 * np.arange(LENGTH)) % 90 + 5
    places = np.sort(random.permuted(np.tile(np.arange(1, LENGTH), (ROWS, 1)), axis=1)[:, :PREDICTIONS], axis=1)
    weights = np.arange(PREDICTIONS) < 1 + np.arange(ROWS)[:, None] * PREDICTIONS // ROWS
    labels = np.take_along_axis(ids, places, 1)
    masked = ids.copy()
    np.put_along_axis(masked, places, np.where(weights, 4, labels), 1)
    inputs = {
        "token_ids": masked.astype("int32"),
        "segment_ids": np.tile(np.arange(LENGTH) > 9, (ROWS, 1)).astype("int32"),
        "padding_mask": np.arange(LENGTH) < random.integers(LENGTH - 4, LENGTH + 1, (ROWS, 1)),
        "mask_positions": places.astype("int32"),
    }
    targets = {
        "mlm_labels": labels.astype("int32"),
        "mlm_weights": weights.astype("float32"),
        "nsp_labels": (ids[:, 0] % 2).astype("int32"),
    }
    return inputs, targets


def main():
    keras.config.set_dtype_policy(options.precision)
    distribution = choose_distribution(options.strategy, model_shards=options.model_shards)
    keras.utils.set_random_seed(0)
    config = BertConfig(VOCABULARY, 2, 24, 4, 40, LENGTH, dropout=options.dropout, attention_dropout=options.dropout)
    with distribution.scope():
        model = BertPretrainer(config)
        optimizer = AdamW(WarmupLinearDecay(5e-3, 5, 60), global_clipnorm=0.5)
    kinds = {"accumulation": options.accumulation, "recompute": bool(options.recompute)}
    kinds |= {"virtual_devices": options.virtual_devices, "head_chunks": options.head_chunks}
    step = make_train_step(model, optimizer, **kinds, distribution=distribution)
    host, hosts = distribution.part
    losses, counts = [], []
    for seed in range(options.steps):
        rows = [{name: x[host::hosts] for name, x in part.items()} for part in batch(seed)]
        sums = {name: float(value) for name, value in step(*rows).items()}
        losses.append([sums["mlm_loss"] / sums["mlm_count"], sums["nsp_loss"] / sums["nsp_count"]])
        counts.append([sums["mlm_count"], sums["nsp_count"], sums["tokens"]])
    tested = float(make_test_step(model, distribution)(*batch(99))["mlm_loss"])
    bytes_here = 0
    if keras.backend.backend() == "jax":
        arrays = [variable.value for variable in model.trainable_variables]
        bytes_here = sum(array.addressable_shards[0].data.nbytes for array in arrays)
    state = [distribution.to_host(v.value) for v in (*model.variables, *optimizer.variables)]
    if distribution.is_chief:
        digest = hashlib.sha256(b"".join((array + 0).tobytes() for array in state)).hexdigest()  # -0.0 becomes 0.0
        found = {"losses": losses, "counts": counts, "tested": tested, "bytes": bytes_here, "digest": digest}
        print(json.dumps(found))


main()
