"""What the files of all JAX libraries have in common: waiting, memory, and gradients of single operations."""

import jax
import jax.numpy as jnp

wait = jax.block_until_ready


def device():
    """Platform and name of the device that computes."""
    first = jax.devices()[0]
    return {"platform": first.platform, "device": first.device_kind}


def device_peak_mb():
    """The most memory of the accelerator in use so far; None on a CPU."""
    found = jax.devices()[0].memory_stats() or {}
    return found["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in found else None


def loss(logits, labels):
    """Mean softmax cross-entropy, in float32."""
    import optax

    return optax.losses.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels).mean()


def optimizer():
    import optax
    from workloads import LEARNING_RATE, MOMENTUM

    return optax.sgd(LEARNING_RATE, momentum=MOMENTUM)


def data(network, dtype):
    images, labels = network.data()
    return jnp.asarray(images, dtype), jnp.asarray(labels)


def pooling(function, pool, dtype):
    """Forward, and forward with the gradient, of a function (x, window, stride)."""
    x, above = (jnp.asarray(a, dtype) for a in pool.arrays())

    def pooled(x):
        return function(x, pool.window, pool.stride)

    @jax.jit
    def both(x, above):
        y, back = jax.vjp(pooled, x)
        return y, back(above)[0]

    forward = jax.jit(pooled)
    return {"forward": lambda: forward(x), "forward and gradient": lambda: both(x, above)}


def convolving(function, conv, dtype):
    """Forward, each gradient by itself, and all three, of a function (x, kernel)."""
    x, kernel, above = (jnp.asarray(a, dtype) for a in conv.arrays())

    @jax.jit
    def all_three(x, kernel, above):
        y, back = jax.vjp(function, x, kernel)
        return y, *back(above)

    forward = jax.jit(function)
    kernel_gradient = jax.jit(lambda x, kernel, above: jax.vjp(lambda k: function(x, k), kernel)[1](above))
    input_gradient = jax.jit(lambda x, kernel, above: jax.vjp(lambda x: function(x, kernel), x)[1](above))
    return {
        "forward": lambda: forward(x, kernel),
        "kernel gradient": lambda: kernel_gradient(x, kernel, above),
        "input gradient": lambda: input_gradient(x, kernel, above),
        "forward and gradients": lambda: all_three(x, kernel, above),
    }
