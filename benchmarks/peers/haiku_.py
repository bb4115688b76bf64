"""Haiku, as its guide: hk.transform of a function that builds the modules, an update under jax.jit, optax."""

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from .on_jax import data, device, device_peak_mb, loss, optimizer, wait

__all__ = ["PACKAGES", "Training", "device", "device_peak_mb", "wait"]

PACKAGES = ("jax", "jaxlib", "optax", "dm-haiku")


def define(network):
    def lenet(x):
        first, second = network.maps
        return hk.Sequential([
            hk.Conv2D(first, 5, padding="SAME", name="layer0"), jax.nn.relu, hk.MaxPool(2, 2, "VALID"),
            hk.Conv2D(second, 5, padding="VALID", name="layer1"), jax.nn.relu, hk.MaxPool(2, 2, "VALID"),
            hk.Flatten(),
            hk.Linear(120, name="layer2"), jax.nn.relu, hk.Linear(84, name="layer3"), jax.nn.relu,
            hk.Linear(10, name="layer4"),
        ])(x)  # fmt: skip

    def six(x):
        a, b, c, d, e, f = network.maps
        return hk.Sequential([
            hk.Conv2D(a, 3, name="layer0"), jax.nn.relu, hk.Conv2D(b, 3, name="layer1"), jax.nn.relu,
            hk.MaxPool(2, 2, "VALID"),
            hk.Conv2D(c, 3, name="layer2"), jax.nn.relu, hk.Conv2D(d, 3, name="layer3"), jax.nn.relu,
            hk.MaxPool(2, 2, "VALID"),
            hk.Conv2D(e, 3, name="layer4"), jax.nn.relu, hk.Conv2D(f, 3, name="layer5"), jax.nn.relu,
            hk.MaxPool(2, 2, "VALID"),
            hk.Flatten(), hk.Linear(10, name="layer6"),
        ])(x)  # fmt: skip

    return hk.without_apply_rng(hk.transform({"lenet": lenet, "six": six}[network.kind]))


class Training:
    """One training step, over and over, on the same batch."""

    def __init__(self, network, dtype, variant):
        net = define(network)
        self.batch = data(network, dtype)
        params = net.init(jax.random.key(0), self.batch[0])
        for name, (kernel, bias) in zip(sorted(params), network.weights(), strict=True):
            params[name] = {"w": jnp.asarray(kernel, dtype), "b": jnp.asarray(bias, dtype)}
        self.params = params
        rule = optimizer()
        self.state = rule.init(params)
        self.parameters = hk.data_structures.tree_size(params)

        def update(params, state, x, y):
            value, gradients = jax.value_and_grad(lambda params: loss(net.apply(params, x), y))(params)
            updates, state = rule.update(gradients, state)
            return optax.apply_updates(params, updates), state, value

        self.pure, self.compiled = update, jax.jit(update)

    def step(self):
        self.params, self.state, value = self.compiled(self.params, self.state, *self.batch)
        return value

    def scan(self, steps):
        @jax.jit
        def many(params, state, x, y):
            def body(carry, _):
                params, state, value = self.pure(*carry, x, y)
                return (params, state), value

            return jax.lax.scan(body, (params, state), length=steps)

        return lambda: many(self.params, self.state, *self.batch)
