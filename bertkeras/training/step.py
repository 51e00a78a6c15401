"""One optimizer step, the same on one device and on many: right with accumulation, clipping and uneven masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from bertkeras.errors import BertKerasError
from bertkeras.layers.recompute import Savings
from bertkeras.training.distribution import Distribution
from bertkeras.training.virtual import check_virtual_devices

Step = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


def make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    *,
    accumulation: int = 1,
    jit_compile: bool = True,
    recompute: bool = False,
    head_chunks: int = 1,
    flash_dropout: bool = False,
    virtual_devices: int | None = None,
    distribution: Distribution | None = None,
) -> Step:
    """Compile forward pass, backward pass and update into one function.

    With `accumulation=k` the batch is cut into `k` micro-batches that run one after another, so that memory is needed
    for one of them only; with several devices each takes its rows. All losses are sums over the counts of the *whole*
    batch: the step is the same as on one device without accumulation, and the optimizer, its schedule and its clipping
    see one gradient.

    Args:
        model: A `BertPretrainer`, made in the scope of the distribution.
        optimizer: `bertkeras.training.AdamW`, or another whose `apply` takes dense gradients.
        accumulation: Micro-batches per step; divides the rows of each device.
        recompute: Whether the blocks' activations are computed again in the backward pass (Chen et al. 2016): a third
            more arithmetic for the memory of one block and of every block's input. The numbers stay the same.
        head_chunks: Parts in which the masked-LM head scores its positions, each with some predictions of every row,
            so that there is memory for one part's scores only. The arithmetic and the numbers stay the same.
        flash_dropout: Whether attention's dropout may be drawn within the one kernel of attention, on JAX and one
            NVIDIA GPU in half precision. A step is much faster then, but the bits hang on how long the program has run:
            one that goes on from a checkpoint does not end with the weights of one that never stopped. Without dropout
            the kernel is used in any case.
        virtual_devices: Cut the batch into so many parts, a power of two, whatever the number of real devices, and add
            their gradients in an order that hangs on the parts alone: the weights are then the same *to the bit* on
            every power of two of devices up to this one, in bfloat16 too. In the place of `accumulation`; the parts of
            a device run one after another. Not with `model_parallel`.
        jit_compile: Whether XLA compiles the step; it always does on JAX, and never on PyTorch.
        distribution: From `choose_distribution`; by default one device.

    Returns:
        A function of `(inputs, labels)`, this process's rows of the batch, that updates the model and returns the sums
        of the whole batch: those of `pretraining_sums`, and `tokens`, the pieces that are not padding.

    Raises:
        BertKerasError: `head_chunks` below 1; `virtual_devices` beside `accumulation` or `flash_dropout`, or for
            devices that cannot share them out.
    """
    distribution = distribution or Distribution()
    if virtual_devices is not None:
        check_virtual_devices(virtual_devices, accumulation, flash_dropout, distribution)
    if head_chunks < 1:
        raise BertKerasError(f"head_chunks must be at least 1, got {head_chunks}")
    savings = Savings(recompute, head_chunks)
    with distribution.scope():
        optimizer.build(model.trainable_variables)
    backend = keras.backend.backend()
    if virtual_devices is not None and backend == "tensorflow":
        from bertkeras.training.virtual_tensorflow import tensorflow_virtual_step

        return tensorflow_virtual_step(model, optimizer, virtual_devices, jit_compile, savings, distribution)
    if virtual_devices is not None and backend == "jax":
        from bertkeras.training.virtual_jax import jax_virtual_step

        return jax_virtual_step(model, optimizer, virtual_devices, savings, distribution)
    if backend == "tensorflow":
        from bertkeras.training.step_tensorflow import tensorflow_train_step

        return tensorflow_train_step(model, optimizer, accumulation, jit_compile, savings, distribution)
    if backend == "jax":
        from bertkeras.training.step_jax import jax_train_step

        return jax_train_step(model, optimizer, accumulation, savings, flash_dropout, distribution)
    from bertkeras.training.step_torch import torch_train_step

    return torch_train_step(model, optimizer, virtual_devices or accumulation, savings)


def make_test_step(model: keras.Model, distribution: Distribution | None = None) -> Step:
    """A function of `(inputs, labels)`, a whole batch in every process, that returns the batch's sums, without dropout.

    On TensorFlow it goes without XLA: the last batch of an evaluation has another size.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from bertkeras.training.step_tensorflow import tensorflow_test_step

        return tensorflow_test_step(model)
    if backend == "jax":
        from bertkeras.training.step_jax import jax_test_step

        return jax_test_step(model, distribution or Distribution())
    from bertkeras.training.step_torch import torch_test_step

    return torch_test_step(model)


def batches_for_step(dataset: Any) -> Any:
    """A dataset's batches as the steps of the backend in use take them: tensors of TensorFlow, or arrays."""
    return dataset if keras.backend.backend() == "tensorflow" else dataset.as_numpy_iterator()


def count_tokens(inputs: dict[str, Any]) -> Any:
    """Pieces of a batch that are not padding, float32."""
    real = inputs["sequence_ids"] > 0 if "sequence_ids" in inputs else inputs["padding_mask"]
    return ops.sum(ops.cast(real, "float32"))


def whole_counts(labels: dict[str, Any]) -> dict[str, Any]:
    """The counts of `pretraining_sums`, which hang on the labels alone."""
    counts = {"mlm_count": ops.sum(ops.cast(labels["mlm_weights"], "float32"))}
    if "nsp_labels" in labels:
        counts["nsp_count"] = ops.sum(ops.ones_like(labels["nsp_labels"], dtype="float32"))
    return counts


def check_accumulation(rows: int | None, accumulation: int) -> None:
    """Raises: BertKerasError: The rows of a device cannot be cut into so many micro-batches."""
    if rows is None or rows % accumulation:
        raise BertKerasError(f"accumulation={accumulation} does not divide the batch size {rows}")
