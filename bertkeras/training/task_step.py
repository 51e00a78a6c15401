"""One step of fine-tuning on TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from bertkeras.models.base import PresetModel


def make_task_step(
    model: PresetModel,
    optimizer: keras.optimizers.Optimizer,
    *,
    adversarial: float = 0.0,
    jit_compile: bool = False,
) -> Callable[..., Any]:
    """Compile forward pass, backward pass and update into one function.

    Args:
        model: A task model, with the loss of its task.
        optimizer: `bertkeras.training.AdamW`, or another whose `apply` takes dense gradients.
        adversarial: Length of a step along the gradient of the token embeddings; the gradients of the text thus
            disturbed are added (FGM: Miyato et al. 2017, https://arxiv.org/abs/1605.07725). 0: none.
        jit_compile: Whether XLA compiles the step, anew for every shape of a batch.

    Returns:
        A function of inputs, labels and, if wanted, weights that updates the model and returns the loss.
    """
    import tensorflow as tf

    variables = model.trainable_variables
    optimizer.build(variables)
    values = [variable.value for variable in variables]
    table = model.backbone.embeddings.token_table  # type: ignore[attr-defined]

    def gradients_of(inputs: Any, labels: Any, weights: Any = None, *, sources: list[Any]) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            tape.watch(sources)  # the table may be frozen
            loss = model.compute_loss(inputs, labels, model(inputs, training=True), weights)
        found = tape.gradient(loss, sources, unconnected_gradients="zero")
        return loss, [tf.convert_to_tensor(gradient) for gradient in found]

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(*batch: Any) -> Any:
        if not adversarial:
            loss, gradients = gradients_of(*batch, sources=values)
        else:
            loss, found = gradients_of(*batch, sources=[*values, table.value])
            *gradients, slope = found
            undisturbed = tf.identity(table.value)
            length = tf.maximum(tf.norm(slope), 1e-12)
            table.assign(undisturbed + adversarial * slope / length)
            _, more = gradients_of(*batch, sources=values)
            table.assign(undisturbed)
            gradients = [one + other for one, other in zip(gradients, more, strict=True)]
        optimizer.apply(gradients, variables)
        return loss

    traced: dict[int, Any] = {}

    def step_of_any_shape(*batch: Any) -> Any:
        """The step, traced once: a run that goes on with a batch of another shape computes with the same graph."""
        if len(batch) not in traced:
            shapes = tf.nest.map_structure(lambda x: tf.TensorSpec([None] * len(x.shape), x.dtype), batch)
            traced[len(batch)] = step.get_concrete_function(*shapes)
        return traced[len(batch)](*batch)

    return step if jit_compile else step_of_any_shape
