"""Virtual devices on JAX: programs for one device each, and a sum over them in pairs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras

from bertkeras.layers.flash import Flash, flash
from bertkeras.layers.recompute import Savings
from bertkeras.training.distribution import Distribution
from bertkeras.training.distribution_jax import JaxDistribution
from bertkeras.training.step import Step, count_tokens, whole_counts
from bertkeras.training.step_jax import gradient_function, place_rows
from bertkeras.training.virtual import Shares, sum_in_pairs


def jax_virtual_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    parts: int,
    savings: Savings,
    distribution: Distribution,
) -> Step:
    """See `make_train_step`.

    XLA does not write the same arithmetic into a program for one device and into one for several, so that what decides
    the numbers, a part's gradient and the update, are programs for one device, compiled for each.
    """
    import jax

    shares = Shares(parts, distribution)
    many = distribution if isinstance(distribution, JaxDistribution) else None
    devices = many.local_devices if many else jax.local_devices()[:1]
    variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    gradients_of = gradient_function(model, savings)

    @jax.jit
    def of_part(*arguments: Any) -> Any:
        with flash(Flash(on=False)):  # it is for one device alone, and other numbers
            gradients, sums, fixed = gradients_of(*arguments)
        return jax.tree.map(lambda x: x[None], (gradients, sums)), fixed  # a row of what all devices have together

    def exchange(tree: Any) -> Any:
        distance = shares.replicas // 2
        while distance:  # each device and its partner at this distance come to hold the same sum
            pairs = [(shares.place(k), shares.place(k ^ distance)) for k in range(shares.replicas)]
            tree = jax.tree.map(lambda x, pairs=pairs: x + jax.lax.ppermute(x, "batch", pairs), tree)
            distance //= 2
        return jax.tree.map(lambda x: x[0], tree)

    def apply(gradients: Any, trainable: Any, of_optimizer: Any) -> Any:
        return optimizer.stateless_apply(of_optimizer, gradients, trainable)

    total, by_rows, whole = exchange, None, None
    if many:
        by_rows, whole = many.over_batch(), many.over_batch(divided=False)
        total = jax.shard_map(exchange, mesh=many.mesh, in_specs=by_rows.spec, out_specs=whole.spec, check_vma=False)
    total = jax.jit(total)
    add = jax.jit(lambda one, other: jax.tree.map(lambda a, b: a + b, one, other), donate_argnums=0)
    update = jax.jit(apply, donate_argnums=(1, 2))
    count = jax.jit(
        lambda inputs, labels: {**whole_counts(labels), "tokens": count_tokens(inputs)}, out_shardings=whole
    )

    def copy_on(device: Any, array: Any) -> Any:
        if len(devices) == 1:  # JAX 0.10 takes the one shard here of an array of many processes for the array itself
            return array.addressable_data(0)
        return next(shard.data for shard in array.addressable_shards if shard.device == device)

    def split(tree: Any) -> list[Any]:
        """For each device of this process, its copies of arrays that lie whole on all."""
        return [jax.tree.map(functools.partial(copy_on, device), tree) for device in devices]

    def join(trees: Sequence[Any], layout: Any) -> Any:
        """The parts on the devices of this process, or copies, as arrays of all processes."""
        if not many:
            return trees[0]

        def together(*here: Any) -> Any:
            rows = here[0].shape if layout is whole else (shares.replicas, *here[0].shape[1:])
            return jax.make_array_from_single_device_arrays(rows, layout, list(here))

        return jax.tree.map(together, *trees)

    def on_device(local: int, state: Any, rows: Any, counts: Any) -> tuple[Any, Any]:
        """The sum over a device's parts, and the variables that are not trained after it, the same on every device."""
        device = devices[local]

        def compute(number: int) -> tuple[Any, Any]:
            first, every = shares.among_rows_here(number)
            part = jax.tree.map(lambda x: x[first::every], rows)
            return of_part(*state[:2], *jax.device_put(part, device), counts, jax.device_put(number, device))

        numbers = shares.numbers(shares.replica(local))
        return sum_in_pairs(numbers, compute, lambda one, other: (add(one[0], other[0]), other[1]))

    def step(inputs: dict[str, Any], labels: dict[str, Any]) -> dict[str, Any]:
        shares.check_rows(labels["mlm_weights"].shape[0])
        counts = count(*place_rows((inputs, labels), distribution))
        states = split(tuple([variable.value for variable in part] for part in variables))
        there = zip(range(len(devices)), states, split(counts), strict=True)
        summed, after = zip(*(on_device(k, state, (inputs, labels), here) for k, state, here in there), strict=True)
        gradients, sums = total(join(summed, by_rows))
        updated = [update(here, state[0], state[2]) for here, state in zip(split(gradients), states, strict=True)]
        states = [(trainable, fixed, rest) for (trainable, rest), fixed in zip(updated, after, strict=True)]
        for part, values in zip(variables, join(states, whole), strict=True):
            for variable, value in zip(part, values, strict=True):
                variable._value = value
        return {**sums, "tokens": counts["tokens"]}

    return step
