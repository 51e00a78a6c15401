"""Held-out figures, beside what counting alone would reach."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bertkeras.pipelines.masking import Masking
from bertkeras.pipelines.ngrams import NgramCounts
from bertkeras.pipelines.pretraining import pretraining_dataset
from bertkeras.pipelines.records import Records
from bertkeras.training.distribution import Distribution
from bertkeras.training.metrics import means
from bertkeras.training.step import batches_for_step, make_test_step


def evaluate(
    model: keras.Model,
    records: Records,
    masking: Masking,
    ngrams: NgramCounts | None = None,
    batch_size: int = 64,
    distribution: Distribution | None = None,
) -> dict[str, float]:
    """Every row once, in the order of the files, with masks that depend on the masking's seed only.

    Args:
        model: A `BertPretrainer`.
        records: Held-out rows.
        masking: How to mask them.
        ngrams: Counts of the training text; gives the baselines on the very same masked positions.
        batch_size: Rows at a time.
        distribution: Where the model lies; every process must call this, and gets all figures.

    Returns:
        `mlm_loss`, `mlm_accuracy`, for pairs `nsp_loss` and `nsp_accuracy`, the number `mlm_count` of positions, and
        with `ngrams` what `NgramCounts.evaluate` returns. Losses are in nats per masked piece.
    """
    test_step = make_test_step(model, distribution)
    sums: dict[str, float] = {}
    targets, previous = [], []
    dataset = pretraining_dataset(records, masking, batch_size, seed=None, repeat=False, drop_remainder=False)
    for inputs, labels in batches_for_step(dataset):
        for name, value in test_step(inputs, labels).items():
            sums[name] = sums.get(name, 0.0) + float(value)
        found = masked_with_previous(inputs, labels, masking.special_ids)
        targets.append(found[0])
        previous.append(found[1])
    figures = {**means(sums), "mlm_count": sums["mlm_count"]}
    if ngrams is not None:
        figures |= ngrams.evaluate(np.concatenate(targets), np.concatenate(previous))
    return figures


def masked_with_previous(
    inputs: dict[str, Any], labels: dict[str, Any], special_ids: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The true piece at every masked position, and the true piece to its left or -1 where that is a special one."""
    original = np.array(inputs["token_ids"])
    counts = np.asarray(labels["mlm_weights"]) > 0
    rows, places = np.nonzero(counts)[0], np.asarray(inputs["mask_positions"])[counts]
    targets = np.asarray(labels["mlm_labels"])[counts]
    original[rows, places] = targets
    left = original[rows, places - 1]  # place 0 is [CLS], which is never masked
    return targets, np.where(np.isin(left, special_ids), -1, left)
