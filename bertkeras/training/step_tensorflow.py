"""The steps on TensorFlow: one device, the devices of one host, or those of several."""

from __future__ import annotations

from typing import Any

import keras

from bertkeras.layers.recompute import Savings, saving
from bertkeras.models.pretrainer import pretraining_loss, pretraining_sums, training_inputs
from bertkeras.training.distribution import Distribution
from bertkeras.training.distribution_tensorflow import TensorFlowDistribution
from bertkeras.training.step import Step, check_accumulation, count_tokens, whole_counts


def tensorflow_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    accumulation: int,
    jit_compile: bool,
    savings: Savings,
    distribution: Distribution,
) -> Step:
    """See `make_train_step`."""
    import tensorflow as tf

    values = [variable.value for variable in model.trainable_variables]

    def gradients_of(inputs: Any, labels: Any, counts: Any) -> tuple[list[Any], dict[str, Any]]:
        with tf.GradientTape() as tape, saving(savings):
            sums = pretraining_sums(model(training_inputs(inputs, labels), training=True), labels)
            loss = pretraining_loss(sums, counts)
        return tape.gradient(loss, values, unconnected_gradients="zero"), sums

    def accumulated(inputs: Any, labels: Any, counts: Any) -> tuple[list[Any], dict[str, Any]]:
        if accumulation == 1:
            return gradients_of(inputs, labels, counts)
        check_accumulation(labels["mlm_weights"].shape[0], accumulation)

        def split(x: Any) -> Any:
            return tf.reshape(x, [accumulation, x.shape[0] // accumulation, *x.shape[1:]])

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

    if not isinstance(distribution, TensorFlowDistribution):

        @tf.function(jit_compile=jit_compile, autograph=False, reduce_retracing=True)
        def step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
            gradients, sums = accumulated(inputs, labels, whole_counts(labels))
            optimizer.apply(gradients, model.trainable_variables)
            return {**sums, "tokens": count_tokens(inputs)}

        return step

    # XLA takes forward and backward pass; it can compile neither the sum over the devices nor, on several, the update.
    compute = tf.function(accumulated, jit_compile=jit_compile, autograph=False, reduce_retracing=True)

    def replica_step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        context = tf.distribute.get_replica_context()
        here = context.replica_id_in_sync_group % distribution.local_replicas

        def mine(x: Any) -> Any:
            check_accumulation(x.shape[0], distribution.local_replicas)
            rows = x.shape[0] // distribution.local_replicas
            return tf.ensure_shape(x[here * rows : (here + 1) * rows], [rows, *x.shape[1:]])

        inputs, labels = tf.nest.map_structure(mine, (inputs, labels))
        counts = sum_scalars(context, {**whole_counts(labels), "tokens": count_tokens(inputs)})
        gradients, sums = compute(inputs, labels, counts)
        optimizer.apply(gradients, model.trainable_variables)  # which sums them over the devices
        return {**sum_scalars(context, sums), "tokens": counts["tokens"]}

    @tf.function(autograph=False, reduce_retracing=True)
    def distributed_step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        sums = distribution.strategy.run(replica_step, (inputs, labels))
        return {name: distribution.strategy.experimental_local_results(value)[0] for name, value in sums.items()}

    return distributed_step


def sum_scalars(context: Any, sums: dict[str, Any]) -> dict[str, Any]:
    """Scalars summed over all devices, in one message."""
    import tensorflow as tf

    total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack(list(sums.values())))
    return dict(zip(sums, tf.unstack(total), strict=True))


def tensorflow_test_step(model: keras.Model) -> Step:
    """See `make_test_step`; every process goes over the whole batch on its first device."""
    import tensorflow as tf

    @tf.function(autograph=False, reduce_retracing=True)
    def step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        return {**pretraining_sums(model(inputs, training=False), labels), "tokens": count_tokens(inputs)}

    return step
