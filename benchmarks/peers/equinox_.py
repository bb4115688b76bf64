"""Equinox, as its example for MNIST: a module for one example, channels first, jax.vmap and eqx.filter_jit."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .on_jax import data, device, device_peak_mb, loss, optimizer, wait

__all__ = ["PACKAGES", "Training", "device", "device_peak_mb", "wait"]

PACKAGES = ("jax", "jaxlib", "optax", "equinox")


class CNN(eqx.Module):
    """Either network, for one image (channels, height, width)."""

    layers: list

    def __init__(self, network, key):
        keys = iter(jax.random.split(key, 8))
        height, width, maps = network.flat()
        size, channels = height * width * maps, network.shape[-1]
        if network.kind == "lenet":
            first, second = network.maps
            self.layers = [
                eqx.nn.Conv2d(channels, first, 5, padding=2, key=next(keys)), jax.nn.relu, eqx.nn.MaxPool2d(2, 2),
                eqx.nn.Conv2d(first, second, 5, key=next(keys)), jax.nn.relu, eqx.nn.MaxPool2d(2, 2),
                jnp.ravel,
                eqx.nn.Linear(size, 120, key=next(keys)), jax.nn.relu,
                eqx.nn.Linear(120, 84, key=next(keys)), jax.nn.relu,
                eqx.nn.Linear(84, 10, key=next(keys)),
            ]  # fmt: skip
        else:
            a, b, c, d, e, f = network.maps
            self.layers = [
                eqx.nn.Conv2d(channels, a, 3, padding=1, key=next(keys)), jax.nn.relu,
                eqx.nn.Conv2d(a, b, 3, padding=1, key=next(keys)), jax.nn.relu, eqx.nn.MaxPool2d(2, 2),
                eqx.nn.Conv2d(b, c, 3, padding=1, key=next(keys)), jax.nn.relu,
                eqx.nn.Conv2d(c, d, 3, padding=1, key=next(keys)), jax.nn.relu, eqx.nn.MaxPool2d(2, 2),
                eqx.nn.Conv2d(d, e, 3, padding=1, key=next(keys)), jax.nn.relu,
                eqx.nn.Conv2d(e, f, 3, padding=1, key=next(keys)), jax.nn.relu, eqx.nn.MaxPool2d(2, 2),
                jnp.ravel,
                eqx.nn.Linear(size, 10, key=next(keys)),
            ]  # fmt: skip

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def define(network, dtype):
    """The module with the shared weights, turned to (out, in, *kernel) and to channels first before flattening."""
    model = CNN(network, jax.random.key(0))
    places = [i for i, layer in enumerate(model.layers) if isinstance(layer, eqx.nn.Conv2d | eqx.nn.Linear)]
    first_dense = True
    for place, (kernel, bias) in zip(places, network.weights(), strict=True):
        if kernel.ndim == 4:
            weight, bias = kernel.transpose(3, 2, 0, 1), bias[:, None, None]
        else:
            if first_dense:
                kernel = kernel.reshape(*network.flat(), -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
            weight, first_dense = kernel.T, False
        arrays = (jnp.asarray(weight, dtype), jnp.asarray(bias, dtype))
        model = eqx.tree_at(lambda m, i=place: (m.layers[i].weight, m.layers[i].bias), model, arrays)
    return model


class Training:
    """One training step, over and over, on the same batch."""

    def __init__(self, network, dtype, variant):
        self.model = define(network, dtype)
        x, y = data(network, dtype)
        self.batch = (jnp.transpose(x, (0, 3, 1, 2)), y)
        rule = optimizer()
        self.state = rule.init(eqx.filter(self.model, eqx.is_array))
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(self.model, eqx.is_array)))

        def make_step(model, state, x, y):
            value, gradients = eqx.filter_value_and_grad(lambda model: loss(jax.vmap(model)(x), y))(model)
            updates, state = rule.update(gradients, state, eqx.filter(model, eqx.is_array))
            return eqx.apply_updates(model, updates), state, value

        self.pure, self.compiled = make_step, eqx.filter_jit(make_step)

    def step(self):
        self.model, self.state, value = self.compiled(self.model, self.state, *self.batch)
        return value

    def scan(self, steps):
        arrays, static = eqx.partition(self.model, eqx.is_array)

        @jax.jit
        def many(arrays, state, x, y):
            def body(carry, _):
                model, state, value = self.pure(eqx.combine(carry[0], static), carry[1], x, y)
                return (eqx.filter(model, eqx.is_array), state), value

            return jax.lax.scan(body, (arrays, state), length=steps)

        return lambda: many(arrays, self.state, *self.batch)
