"""JAX's own operations, which Flax, Haiku and Keras call: lax.conv_general_dilated and lax.reduce_window."""

import jax.numpy as jnp
from jax import lax

from .on_jax import convolving, device, device_peak_mb, pooling, wait

__all__ = ["PACKAGES", "convolution", "device", "device_peak_mb", "max_pool", "wait"]

PACKAGES = ("jax", "jaxlib")


def max_pool(pool, dtype, variant):
    def function(x, window, stride):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1), "VALID")

    return pooling(function, pool, dtype)


def convolution(conv, dtype, variant):
    rank = len(conv.space)
    axes = "DHW"[-rank:]

    def function(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(conv.stride,) * rank,
            padding=((conv.pad, conv.pad),) * rank,
            rhs_dilation=(conv.dilation,) * rank,
            dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
            feature_group_count=conv.groups,
        )

    return convolving(function, conv, dtype)
