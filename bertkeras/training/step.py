"""One optimizer step on TensorFlow: right with accumulation, sparse gradients and uneven masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from bertkeras.errors import BertKerasError
from bertkeras.models.pretrainer import pretraining_loss, pretraining_sums

Step = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


def make_train_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, *, accumulation: int = 1, jit_compile: bool = True
) -> Step:
    """Compile forward pass, backward pass and update into one function.

    With `accumulation=k` the batch is cut into `k` micro-batches that run one after another, so that memory is needed
    for one of them only. Their losses are sums over the counts of the *whole* batch: the step is the same as without
    accumulation, and the optimizer, its schedule and its clipping see one gradient.

    Args:
        model: A `BertPretrainer`.
        optimizer: `bertkeras.training.AdamW`, or another whose `apply` takes dense gradients.
        accumulation: Micro-batches per step; divides the batch size.
        jit_compile: Whether XLA compiles the step.

    Returns:
        A function of `(inputs, labels)` that updates the model and returns the batch's sums: those of
        `pretraining_sums`, and `tokens`, the pieces that are not padding.
    """
    import tensorflow as tf

    optimizer.build(model.trainable_variables)
    values = [variable.value for variable in model.trainable_variables]

    def gradients_of(inputs: Any, labels: Any, counts: Any) -> tuple[list[Any], dict[str, Any]]:
        with tf.GradientTape() as tape:
            sums = pretraining_sums(model(inputs, training=True), labels)
            loss = pretraining_loss(sums, sums if counts is None else counts)
        return tape.gradient(loss, values, unconnected_gradients="zero"), sums

    def accumulated(inputs: Any, labels: Any) -> tuple[list[Any], dict[str, Any]]:
        def split(x: Any) -> Any:
            if x.shape[0] is None or x.shape[0] % accumulation:
                raise BertKerasError(f"accumulation={accumulation} does not divide the batch size {x.shape[0]}")
            return tf.reshape(x, [accumulation, x.shape[0] // accumulation, *x.shape[1:]])

        counts = {"mlm_count": tf.reduce_sum(labels["mlm_weights"])}
        if "nsp_labels" in labels:
            counts["nsp_count"] = tf.cast(tf.shape(labels["nsp_labels"])[0], tf.float32)
        parts = tf.nest.map_structure(split, (inputs, labels))

        def add_part(index: Any, gradients: Any, sums: Any) -> tuple[Any, Any, Any]:
            part_inputs, part_labels = tf.nest.map_structure(lambda x: x[index], parts)
            more, part_sums = gradients_of(part_inputs, part_labels, counts)
            gradients = [g + tf.convert_to_tensor(m) for g, m in zip(gradients, more, strict=True)]
            return index + 1, gradients, {name: sums[name] + part_sums[name] for name in sums}

        kinds = ("mlm", "nsp") if model.next_sentence else ("mlm",)
        zero_sums = {f"{kind}_{what}": tf.constant(0.0) for kind in kinds for what in ("loss", "accuracy", "count")}
        state = (tf.constant(0), [tf.zeros_like(value) for value in values], zero_sums)
        _, gradients, sums = tf.while_loop(lambda i, *_: i < accumulation, add_part, state, parallel_iterations=1)
        return gradients, sums

    @tf.function(jit_compile=jit_compile, autograph=False, reduce_retracing=True)
    def step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        gradients, sums = accumulated(inputs, labels) if accumulation > 1 else gradients_of(inputs, labels, None)
        optimizer.apply(gradients, model.trainable_variables)
        return {**sums, "tokens": count_tokens(inputs)}

    return step


def make_test_step(model: keras.Model) -> Step:
    """A function of `(inputs, labels)` that returns the batch's sums, without dropout and without XLA: the last batch
    of an evaluation has another size."""
    import tensorflow as tf

    @tf.function(autograph=False, reduce_retracing=True)
    def step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        return {**pretraining_sums(model(inputs, training=False), labels), "tokens": count_tokens(inputs)}

    return step


def count_tokens(inputs: dict[str, Any]) -> Any:
    """Pieces of a batch that are not padding, float32."""
    import tensorflow as tf

    real = inputs["sequence_ids"] > 0 if "sequence_ids" in inputs else inputs["padding_mask"]
    return tf.reduce_sum(tf.cast(real, tf.float32))
