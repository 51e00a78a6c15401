"""The steps on JAX: one program for all devices of all processes, which XLA divides among them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bertkeras.layers.common import part_of_batch
from bertkeras.layers.flash import Flash, count_runs, flash, has_flash_kernels
from bertkeras.layers.recompute import Savings, saving
from bertkeras.models.pretrainer import pretraining_loss, pretraining_sums, training_inputs
from bertkeras.training.distribution import Distribution
from bertkeras.training.distribution_jax import JaxDistribution
from bertkeras.training.step import Step, check_accumulation, count_tokens, whole_counts


def jax_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    accumulation: int,
    savings: Savings,
    flash_dropout: bool,
    distribution: Distribution,
) -> Step:
    """See `make_train_step`. A sum over rows is one over all devices here, by construction."""
    import jax

    variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    if isinstance(distribution, JaxDistribution):
        distribution.check_layout(model.trainable_variables)

    gradients_of = gradient_function(model, savings)
    groups = distribution.replicas

    # the gradient of each device's rows for itself, so that they are added over the devices once, behind the loop
    of_groups = jax.vmap(gradients_of, (None, None, 0, 0, None, 0), (0, 0, None), spmd_axis_name="batch")
    if groups == 1:  # there are attention kernels that cannot be mapped

        def of_groups(*arguments: Any) -> Any:
            trainable, fixed, inputs, labels, counts, parts = arguments
            inputs, labels = jax.tree.map(lambda x: x[0], (inputs, labels))
            gradients, sums, fixed = gradients_of(trainable, fixed, inputs, labels, counts, parts[0])
            return *jax.tree.map(lambda x: x[None], (gradients, sums)), fixed

    def accumulated(trainable: Any, fixed: Any, inputs: Any, labels: Any, counts: Any) -> Any:
        if accumulation == 1:
            return gradients_of(trainable, fixed, inputs, labels, counts)

        def split(x: Any) -> Any:  # part i has rows i, i + accumulation, ..., so that it lies on all devices
            check_accumulation(x.shape[0], accumulation * groups)
            x = x.reshape(groups, x.shape[0] // accumulation // groups, accumulation, *x.shape[1:])
            return jax.numpy.moveaxis(x, 2, 0)  # (accumulation, groups, rows, ...)

        def add_part(state: Any, part: Any) -> tuple[Any, None]:
            gradients, sums, fixed = state
            more, part_sums, fixed = of_groups(trainable, fixed, part[0], part[1], counts, jax.numpy.arange(groups))
            return (*jax.tree.map(lambda a, b: a + b, (gradients, sums), (more, part_sums)), fixed), None

        parts = jax.tree.map(split, (inputs, labels))
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(of_groups, trainable, fixed, first[0], first[1], counts, jax.numpy.arange(groups))[:2]
        zeros = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), shapes)
        gradients, sums, fixed = jax.lax.scan(add_part, (*zeros, fixed), parts)[0]
        return *jax.tree.map(lambda x: x.sum(axis=0), (gradients, sums)), fixed

    def train(state: Any, inputs: Any, labels: Any, sequences: int | None) -> Any:
        trainable, fixed, of_optimizer = state
        with flash(Flash(dropout=flash_dropout, sequences=sequences)):
            gradients, sums, fixed = accumulated(trainable, fixed, inputs, labels, whole_counts(labels))
        trainable, of_optimizer = optimizer.stateless_apply(of_optimizer, gradients, trainable)
        return (trainable, fixed, of_optimizer), {**sums, "tokens": count_tokens(inputs)}

    state = [[variable.value for variable in part] for part in variables]
    layout = jax.tree.map(lambda value: value.sharding, state)
    whole = distribution.over_batch(divided=False) if isinstance(distribution, JaxDistribution) else None
    shardings = tuple(layout)  # of both sides: an array that lies where it must, by chance, would compile once more
    kernels = has_flash_kernels()
    compiled = jax.jit(
        train,
        static_argnums=3,
        donate_argnums=0,
        in_shardings=(shardings, None, None),
        out_shardings=(shardings, whole),
        # the kernel's dropout ends the process where XLA records it to be played back
        compiler_options={"xla_gpu_enable_command_buffer": ""} if kernels and flash_dropout else None,
    )

    def step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        state = tuple([variable.value for variable in part] for part in variables)
        ids = inputs.get("sequence_ids")
        sequences = count_runs(ids) if kernels and isinstance(ids, np.ndarray) else None
        state, sums = compiled(state, *place_rows((inputs, labels), distribution), sequences)
        for part, values in zip(variables, state, strict=True):
            for variable, value in zip(part, values, strict=True):
                variable._value = value  # the array itself: `assign` would place it anew
        return sums

    return step


def gradient_function(model: keras.Model, savings: Savings) -> Any:
    """A pure function of weights, other variables, a batch or a part of one, the counts of the whole, and which part.

    It returns gradients, sums, and the other variables as they are after it.
    """
    import jax

    def loss_of(trainable: Any, fixed: Any, inputs: Any, labels: Any, counts: Any, part: Any) -> Any:
        with saving(savings), part_of_batch(part):
            outputs, fixed = model.stateless_call(trainable, fixed, training_inputs(inputs, labels), training=True)
        sums = pretraining_sums(outputs, labels)
        return pretraining_loss(sums, counts), (sums, fixed)

    def gradients_of(trainable: Any, fixed: Any, inputs: Any, labels: Any, counts: Any, part: Any = None) -> Any:
        (_, (sums, fixed)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            trainable, fixed, inputs, labels, counts, part
        )
        return gradients, sums, fixed

    return gradients_of


def jax_test_step(model: keras.Model, distribution: Distribution) -> Step:
    """See `make_test_step`; a batch that the devices do not divide is computed by each of them."""
    import jax

    @jax.jit
    def test(trainable: Any, fixed: Any, inputs: Any, labels: Any) -> dict[str, Any]:
        outputs, _ = model.stateless_call(trainable, fixed, inputs, training=False)
        return {**pretraining_sums(outputs, labels), "tokens": count_tokens(inputs)}

    def step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        trainable, fixed = (
            [variable.value for variable in part] for part in (model.trainable_variables, model.non_trainable_variables)
        )
        return test(trainable, fixed, *place_whole((inputs, labels), distribution))

    return step


def place_rows(arrays: Any, distribution: Distribution) -> Any:
    """This process's rows as its share of arrays that all processes have together."""
    import jax

    if not isinstance(distribution, JaxDistribution):
        return arrays
    layout = distribution.over_batch()
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(layout, x), arrays)


def place_whole(arrays: Any, distribution: Distribution) -> Any:
    """Arrays that every process has in full, laid over the devices where they divide the rows."""
    import jax

    if not isinstance(distribution, JaxDistribution):
        return arrays
    rows = jax.tree.leaves(arrays)[0].shape[0]
    layout = distribution.over_batch(divided=rows % distribution.replicas == 0)
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, layout, lambda place: x[place]), arrays)
