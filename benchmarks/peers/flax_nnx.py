"""Flax NNX, as its guide for MNIST: a module, nnx.Optimizer, nnx.jit; in a loop, nnx.split and nnx.merge."""

import jax
import jax.numpy as jnp
from flax import nnx

from . import flax_networks
from .on_jax import data, device, device_peak_mb, loss, optimizer, wait

__all__ = ["PACKAGES", "Published", "Training", "device", "device_peak_mb", "per_example", "wait"]

PACKAGES = ("jax", "jaxlib", "optax", "flax")


class LeNet(nnx.Module):
    """LeNet-5, or the same with more maps."""

    def __init__(self, network, dtype, rngs):
        kind = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        first, second = network.maps
        height, width, maps = network.flat()
        self.conv1 = nnx.Conv(network.shape[-1], first, (5, 5), padding="SAME", **kind)
        self.conv2 = nnx.Conv(first, second, (5, 5), padding="VALID", **kind)
        self.dense1 = nnx.Linear(height * width * maps, 120, **kind)
        self.dense2 = nnx.Linear(120, 84, **kind)
        self.dense3 = nnx.Linear(84, 10, **kind)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.dense1(x))
        x = nnx.relu(self.dense2(x))
        return self.dense3(x)


class SixConv(nnx.Module):
    """Six 3x3 convolutions, with a pool after every second."""

    def __init__(self, network, dtype, rngs):
        kind = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        a, b, c, d, e, f = network.maps
        height, width, maps = network.flat()
        self.conv1 = nnx.Conv(network.shape[-1], a, (3, 3), **kind)
        self.conv2 = nnx.Conv(a, b, (3, 3), **kind)
        self.conv3 = nnx.Conv(b, c, (3, 3), **kind)
        self.conv4 = nnx.Conv(c, d, (3, 3), **kind)
        self.conv5 = nnx.Conv(d, e, (3, 3), **kind)
        self.conv6 = nnx.Conv(e, f, (3, 3), **kind)
        self.dense1 = nnx.Linear(height * width * maps, 10, **kind)

    def __call__(self, x):
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
        x = nnx.max_pool(x, (2, 2), (2, 2))
        x = nnx.relu(self.conv4(nnx.relu(self.conv3(x))))
        x = nnx.max_pool(x, (2, 2), (2, 2))
        x = nnx.relu(self.conv6(nnx.relu(self.conv5(x))))
        x = nnx.max_pool(x, (2, 2), (2, 2))
        return self.dense1(x.reshape(x.shape[0], -1))


def define(network, dtype):
    model = {"lenet": LeNet, "six": SixConv}[network.kind](network, dtype, nnx.Rngs(0))
    names = sorted(name for name in vars(model) if name.startswith(("conv", "dense")))
    for name, (kernel, bias) in zip(names, network.weights(), strict=True):
        layer = getattr(model, name)
        layer.kernel[...] = jnp.asarray(kernel, dtype)
        layer.bias[...] = jnp.asarray(bias, dtype)
    return model


def train_step(model, optimizer, x, y):
    value, gradients = nnx.value_and_grad(lambda model: loss(model(x), y))(model)
    optimizer.update(model, gradients)
    return value


class Training:
    """One training step, over and over, on the same batch."""

    def __init__(self, network, dtype, variant):
        self.model = define(network, dtype)
        self.optimizer = nnx.Optimizer(self.model, optimizer(), wrt=nnx.Param)
        self.batch = data(network, dtype)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(self.model, nnx.Param)))
        self.compiled = nnx.jit(train_step)

    def step(self):
        return self.compiled(self.model, self.optimizer, *self.batch)

    def scan(self, steps):
        graph, state = nnx.split((self.model, self.optimizer))

        @jax.jit
        def many(state, x, y):
            def body(state, _):
                model, rule = nnx.merge(graph, state)
                value = train_step(model, rule, x, y)
                return nnx.state((model, rule)), value

            return jax.lax.scan(body, state, length=steps)

        return lambda: many(state, *self.batch)


class Published(Training):
    """A training step and inference of a network of the literature; parameters in float32."""

    def __init__(self, network, dtype, variant):
        self.model = flax_networks.define(network, dtype)
        self.optimizer = nnx.Optimizer(self.model, optimizer(), wrt=nnx.Param)
        self.batch = data(network, dtype)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(self.model, nnx.Param)))
        self.compiled = nnx.jit(train_step)

    def inferences(self):
        self.model.eval()
        call, x = nnx.jit(lambda model, x: model(x)), self.batch[0]
        return {"inference": lambda: call(self.model, x)}


def per_example(network, dtype, variant):
    graph, params = nnx.split(define(network, dtype))
    x, y = data(network, dtype)

    @jax.jit
    def gradients(params, x, y):
        def one(params, x, y):
            return loss(nnx.merge(graph, params)(x[None]), y[None])

        return jax.vmap(jax.grad(one), in_axes=(None, 0, 0))(params, x, y)

    return lambda: gradients(params, x, y)
