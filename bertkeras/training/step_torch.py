"""The steps on PyTorch, on one device."""

from __future__ import annotations

from typing import Any

import keras

from bertkeras.layers.recompute import Savings, saving
from bertkeras.models.pretrainer import pretraining_loss, pretraining_sums, training_inputs
from bertkeras.training.step import Step, check_accumulation, count_tokens, whole_counts


def torch_train_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, accumulation: int, savings: Savings
) -> Step:
    """See `make_train_step`."""
    import torch

    variables = model.trainable_variables

    def step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        inputs, labels = as_tensors(inputs), as_tensors(labels)
        counts = whole_counts(labels)
        rows = labels["mlm_weights"].shape[0]
        check_accumulation(rows, accumulation)
        sums: dict[str, Any] = {}
        for variable in variables:
            variable.value.grad = None
        for first in range(0, rows, rows // accumulation):
            part = slice(first, first + rows // accumulation)
            with saving(savings):
                those = {name: x[part] for name, x in labels.items()}
                outputs = model(training_inputs({name: x[part] for name, x in inputs.items()}, those), training=True)
            part_sums = pretraining_sums(outputs, those)
            pretraining_loss(part_sums, counts).backward()  # adds to the gradients that are there
            sums = {name: sums.get(name, 0.0) + value.detach() for name, value in part_sums.items()}
        gradients = [variable.value.grad for variable in variables]
        with torch.no_grad():
            optimizer.apply(
                [torch.zeros_like(v.value) if g is None else g for g, v in zip(gradients, variables, strict=True)],
                variables,
            )
        return {**sums, "tokens": count_tokens(inputs)}

    return step


def torch_test_step(model: keras.Model) -> Step:
    """See `make_test_step`."""
    import torch

    def step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        inputs, labels = as_tensors(inputs), as_tensors(labels)
        with torch.no_grad():
            return {**pretraining_sums(model(inputs, training=False), labels), "tokens": count_tokens(inputs)}

    return step


def as_tensors(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: keras.ops.convert_to_tensor(x) for name, x in arrays.items()}
