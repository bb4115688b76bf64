"""Keras on JAX: compile and train_on_batch; in a loop, stateless_call and stateless_apply, as its guide for JAX."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
from keras import layers
from workloads import LEARNING_RATE, MOMENTUM

from .on_jax import data, device, device_peak_mb, wait

__all__ = ["PACKAGES", "Training", "device", "device_peak_mb", "wait"]

PACKAGES = ("jax", "jaxlib", "keras")


def define(network):
    if network.kind == "lenet":
        first, second = network.maps
        stack = [
            layers.Conv2D(first, 5, padding="same", activation="relu"), layers.MaxPooling2D(2),
            layers.Conv2D(second, 5, activation="relu"), layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="relu"), layers.Dense(84, activation="relu"), layers.Dense(10),
        ]  # fmt: skip
    else:
        stack = []
        for place, maps in enumerate(network.maps):
            stack.append(layers.Conv2D(maps, 3, padding="same", activation="relu"))
            if place % 2:
                stack.append(layers.MaxPooling2D(2))
        stack += [layers.Flatten(), layers.Dense(10)]
    return keras.Sequential([keras.Input(network.shape), *stack])


class Training:
    """One training step, over and over, on the same batch."""

    def __init__(self, network, dtype, variant):
        keras.config.set_dtype_policy(dtype)
        self.model = define(network)
        self.model.set_weights([array for pair in network.weights() for array in pair])
        self.model.compile(
            optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        self.batch = data(network, dtype)
        self.parameters = self.model.count_params()

    def step(self):
        return self.model.train_on_batch(*self.batch)

    def scan(self, steps):
        model = self.model
        rule = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
        rule.build(model.trainable_variables)
        fixed = [variable.value for variable in model.non_trainable_variables]

        def loss(trainable, x, y):
            outputs, _ = model.stateless_call(trainable, fixed, x, training=True)
            return model.loss(y, outputs)

        @jax.jit
        def many(trainable, state, x, y):
            def body(carry, _):
                value, gradients = jax.value_and_grad(loss)(carry[0], x, y)
                return rule.stateless_apply(carry[1], gradients, carry[0]), value

            return jax.lax.scan(body, (trainable, state), length=steps)

        # copies: train_on_batch gives its own arrays away to the compiled step
        trainable = [variable.value + 0 for variable in model.trainable_variables]
        state = [variable.value + 0 for variable in rule.variables]
        return lambda: many(trainable, state, *self.batch)
