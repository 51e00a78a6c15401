"""Virtual devices on TensorFlow: one program for a part, and sums in pairs over parts and replicas."""

from __future__ import annotations

from typing import Any

import keras

from bertkeras.layers.common import part_of_batch
from bertkeras.layers.dropout import dropouts_of, with_drawn
from bertkeras.layers.recompute import Savings, saving
from bertkeras.models.pretrainer import pretraining_loss, pretraining_sums, training_inputs
from bertkeras.training.distribution import Distribution
from bertkeras.training.distribution_tensorflow import TensorFlowDistribution
from bertkeras.training.step import Step, count_tokens, whole_counts
from bertkeras.training.step_tensorflow import sum_scalars
from bertkeras.training.virtual import Shares, sum_in_pairs


def tensorflow_virtual_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    parts: int,
    jit_compile: bool,
    savings: Savings,
    distribution: Distribution,
) -> Step:
    """See `make_train_step`."""
    import tensorflow as tf

    shares = Shares(parts, distribution)
    values = [variable.value for variable in model.trainable_variables]
    dropouts = dropouts_of(model)

    @tf.function(jit_compile=jit_compile, autograph=False, reduce_retracing=True)
    def of_part(inputs: Any, labels: Any, counts: Any, number: Any, seeds: Any) -> tuple[list[Any], dict[str, Any]]:
        with part_of_batch(number), with_drawn(zip(dropouts, seeds, strict=True)):
            with tf.GradientTape() as tape, saving(savings):
                sums = pretraining_sums(model(training_inputs(inputs, labels), training=True), labels)
                loss = pretraining_loss(sums, counts)
            gradients = tape.gradient(loss, values, unconnected_gradients="zero")
        return [tf.convert_to_tensor(gradient) for gradient in gradients], sums

    def sum_over_parts(replica: Any, inputs: Any, labels: Any, counts: Any) -> tuple[list[Any], dict[str, Any]]:
        seeds = [dropout.draw() for dropout in dropouts]  # once for all parts: their numbers tell them apart
        done: list[Any] = []

        def compute(number: Any) -> Any:
            first, every = shares.among_rows_here(number)

            def rows_of(x: Any) -> Any:
                return tf.reshape(x, [x.shape[0] // every, every, *x.shape[1:]])[:, first]

            with tf.control_dependencies(tf.nest.flatten(done)):  # one after another: memory for one
                done[:] = [of_part(*tf.nest.map_structure(rows_of, (inputs, labels)), counts, number, seeds)]
            return done[0]

        return sum_in_pairs(shares.numbers(replica), compute, add)

    if not isinstance(distribution, TensorFlowDistribution):

        @tf.function(autograph=False, reduce_retracing=True)
        def step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
            shares.check_rows(labels["mlm_weights"].shape[0])
            gradients, sums = sum_over_parts(tf.constant(0), inputs, labels, whole_counts(labels))
            optimizer.apply(gradients, model.trainable_variables)
            return {**sums, "tokens": count_tokens(inputs)}

        return step

    def replica_step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        shares.check_rows(labels["mlm_weights"].shape[0])
        context = tf.distribute.get_replica_context()
        place = context.replica_id_in_sync_group
        replica = shares.replica(place % shares.local_replicas)
        once = tf.cast(place % shares.local_replicas == 0, tf.float32)  # all replicas of a process see all its rows
        counts = {**whole_counts(labels), "tokens": count_tokens(inputs)}
        counts = sum_scalars(context, {name: once * value for name, value in counts.items()})
        found = sum_over_parts(replica, inputs, labels, counts)
        gradients, sums = sum_over_replicas_in_pairs(context, shares, found)
        # the optimizer adds over the replicas: to the sum of one, nothing
        alone = [tf.where(place == 0, gradient, 0.0) for gradient in gradients]
        optimizer.apply(alone, model.trainable_variables)
        return {**sums, "tokens": counts["tokens"]}

    @tf.function(autograph=False, reduce_retracing=True)
    def distributed_step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        sums = distribution.strategy.run(replica_step, (inputs, labels))
        return {name: distribution.strategy.experimental_local_results(value)[0] for name, value in sums.items()}

    return distributed_step


def add(one: Any, other: Any) -> Any:
    """Two trees of tensors, added; not by `+`, because TensorFlow orders a graph's sums of sums anew."""
    import tensorflow as tf

    return tf.nest.map_structure(lambda a, b: tf.reduce_sum(tf.stack([a, b]), 0), one, other)


def sum_over_replicas_in_pairs(context: Any, shares: Shares, tree: Any) -> Any:
    """A tree of tensors summed over all replicas, in the one order; each gathers those of all."""
    import tensorflow as tf

    leaves = tf.nest.flatten(tree)
    every = context.all_gather(tf.concat([tf.reshape(x, [-1]) for x in leaves], 0)[None], axis=0)
    every = tf.ensure_shape(every, [shares.replicas, None])
    every = tf.gather(every, [shares.place(k) for k in range(shares.replicas)])
    while every.shape[0] > 1:
        half = every.shape[0] // 2
        every = every[:half] + every[half:]
    parts = tf.split(every[0], [x.shape.num_elements() for x in leaves])
    return tf.nest.pack_sequence_as(tree, [tf.reshape(part, x.shape) for part, x in zip(parts, leaves, strict=True)])
