"""fcnn: `net.apply` is a pure function, the step a jitted function of params."""

import jax
import jax.numpy as jnp
import optax

import fcnn

from .on_jax import convolving, data, device, device_peak_mb, loss, optimizer, pooling, wait

__all__ = ["PACKAGES", "Published", "Training", "convolution", "device", "device_peak_mb", "max_pool"]
__all__ += ["per_example", "wait"]

PACKAGES = ("jax", "jaxlib", "optax")


def define(network):
    if network.kind == "lenet":
        first, second = network.maps
        return fcnn.serial(
            fcnn.Conv(first, 5, padding="SAME"), jax.nn.relu, fcnn.MaxPool(2),
            fcnn.Conv(second, 5), jax.nn.relu, fcnn.MaxPool(2),
            fcnn.Flatten(), fcnn.Dense(120), jax.nn.relu, fcnn.Dense(84), jax.nn.relu, fcnn.Dense(10),
        )  # fmt: skip
    a, b, c, d, e, f = network.maps
    return fcnn.serial(
        fcnn.Conv(a, 3, padding="SAME"), jax.nn.relu, fcnn.Conv(b, 3, padding="SAME"), jax.nn.relu, fcnn.MaxPool(2),
        fcnn.Conv(c, 3, padding="SAME"), jax.nn.relu, fcnn.Conv(d, 3, padding="SAME"), jax.nn.relu, fcnn.MaxPool(2),
        fcnn.Conv(e, 3, padding="SAME"), jax.nn.relu, fcnn.Conv(f, 3, padding="SAME"), jax.nn.relu, fcnn.MaxPool(2),
        fcnn.Flatten(), fcnn.Dense(10),
    )  # fmt: skip


def start(network, dtype):
    net = define(network)
    params = net.init(jax.random.key(0), network.shape)
    kernels = [name for _, name in sorted((name[:-1] != "conv", name) for name in params)]  # convolutions first
    for name, (kernel, bias) in zip(kernels, network.weights(), strict=True):
        params[name] = {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.asarray(bias, dtype)}
    return net, params


class Training:
    """One training step, over and over, on the same batch."""

    def __init__(self, network, dtype, variant):
        net, self.params = start(network, dtype)
        rule = optimizer()
        self.momenta = rule.init(self.params)
        self.batch = data(network, dtype)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.params))

        def step(params, momenta, x, y):
            value, gradient = jax.value_and_grad(lambda params: loss(net.apply(params, x), y))(params)
            updates, momenta = rule.update(gradient, momenta)
            return optax.apply_updates(params, updates), momenta, value

        self.pure, self.compiled = step, jax.jit(step)

    def step(self):
        self.params, self.momenta, value = self.compiled(self.params, self.momenta, *self.batch)
        return value

    def scan(self, steps):
        @jax.jit
        def many(params, momenta, x, y):
            def body(carry, _):
                params, momenta, value = self.pure(*carry, x, y)
                return (params, momenta), value

            return jax.lax.scan(body, (params, momenta), length=steps)

        return lambda: many(self.params, self.momenta, *self.batch)


NETWORKS = {
    "resnet18": lambda classes: fcnn.models.resnet(18, classes),
    "resnet50": lambda classes: fcnn.models.resnet(50, classes),
    "mobilenet": fcnn.models.mobilenet_v2,
    "unet": lambda classes: fcnn.models.unet(classes, widths=(16, 32, 64, 128), batch_norm=True),
    "vgg": lambda classes: fcnn.models.vgg(11, classes, batch_norm=True),
    "densenet": lambda classes: fcnn.models.densenet(121, classes),
}


class Published:
    """A training step and inference of a network of `fcnn.models`.

    In bfloat16 the parameters keep float32, as in `fit(precision="bfloat16")`.
    """

    def __init__(self, network, dtype, variant):
        self.net, self.low = NETWORKS[network.kind](network.classes), dtype
        self.params = self.net.init(jax.random.key(0), network.shape)
        self.params = jax.tree.map_with_path(
            lambda path, leaf: jnp.asarray(network.kernel(leaf.shape)) if path[-1].key == "kernel" else leaf,
            self.params,
        )
        self.state = self.net.init_state(network.shape)
        self.shape = network.shape
        rule = optimizer()
        self.momenta, self.key = rule.init(self.params), jax.random.key(1)
        self.batch = data(network, dtype)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.params))

        def mean_loss(params, state, x, y, key):
            logits, state = self.net.apply_train(lowered(params, dtype), x, key=key, state=state)
            return loss(logits, y), state

        @jax.jit
        def step(params, momenta, state, x, y, key):
            (value, state), gradient = jax.value_and_grad(mean_loss, has_aux=True)(params, state, x, y, key)
            updates, momenta = rule.update(gradient, momenta)
            return optax.apply_updates(params, updates), momenta, state, value

        self.compiled = step

    def step(self):
        self.params, self.momenta, self.state, value = self.compiled(
            self.params, self.momenta, self.state, *self.batch, self.key
        )
        return value

    def inferences(self):
        """Calls by name: the network as declared, and without its norms."""
        folded, weights = fcnn.fold(self.net, self.params, self.state)
        declared, state, x = jax.jit(self.net.apply), self.state, self.batch[0]
        params, weights = (lowered(tree, self.low) for tree in (self.params, weights))
        alone = jax.jit(folded.apply)
        return {"inference": lambda: declared(params, x, state=state), "folded": lambda: alone(weights, x)}


def lowered(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def per_example(network, dtype, variant):
    net, params = start(network, dtype)
    x, y = data(network, dtype)

    @jax.jit
    def gradients(params, x, y):
        def one(params, x, y):
            return loss(net.apply(params, x[None]), y[None])

        return jax.vmap(jax.grad(one), in_axes=(None, 0, 0))(params, x, y)

    return lambda: gradients(params, x, y)


def max_pool(pool, dtype, variant):
    return pooling(lambda x, window, stride: fcnn.ops.max_pool(x, window, stride=stride), pool, dtype)


def convolution(conv, dtype, variant):
    def function(x, kernel):
        pairs = ((conv.pad, conv.pad),) * len(conv.space)
        return fcnn.ops.conv(x, kernel, stride=conv.stride, padding=pairs, dilation=conv.dilation, groups=conv.groups)

    return convolving(function, conv, dtype)
