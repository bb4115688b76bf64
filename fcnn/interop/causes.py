"""What frameworks choose differently, tried out on one layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..geometry import Shape
from ..layer import Context
from ..layers import BatchNorm, Conv, Dense, Dropout
from ..layers.function import Function
from .arrangement import arranged, difference
from .channel_order import to_first, to_last

#: the values of a hyperparameter that are tried, where a layer has it
CHOICES: dict[str, tuple[Any, ...]] = {
    "padding": (1, 2, 3, 4, 5, "VALID", "SAME", "SAME_LOWER", "CAUSAL", "CIRCULAR", "REFLECT", "EDGE"),
    "stride": (1, 2, 3, 4),
    "dilation": (1, 2, 3, 4),
    "ceil_mode": (False, True),
    "count_padding": (False, True),
    "output_padding": (0, 1),
    "epsilon": (1e-2, 1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-12, 0.0),
    "align_corners": (False, True),
    "antialias": (False, True),
    "method": ("nearest", "linear", "cubic"),
    "alpha": (1e-4, 5e-4, 1e-4 / 5, 2e-5),
    "k": (1.0, 2.0),
    "window": (2, 3),
}
#: activations, by the names that people know
ACTIVATIONS: dict[str, Any] = {
    "ReLU": jax.nn.relu,
    "ReLU6": jax.nn.relu6,
    "SiLU": jax.nn.silu,
    "GELU (tanh)": jax.nn.gelu,
    "GELU (erf)": partial(jax.nn.gelu, approximate=False),
    "LeakyReLU(0.01)": jax.nn.leaky_relu,
    "LeakyReLU(0.1)": partial(jax.nn.leaky_relu, negative_slope=0.1),
    "LeakyReLU(0.2)": partial(jax.nn.leaky_relu, negative_slope=0.2),
    "ELU": jax.nn.elu,
    "SELU": jax.nn.selu,
    "Mish": jax.nn.mish,
    "Hardswish": jax.nn.hard_swish,
    "Hardsigmoid": jax.nn.hard_sigmoid,
    "Sigmoid": jax.nn.sigmoid,
    "Tanh": jnp.tanh,
    "Softplus": jax.nn.softplus,
    "Softmax": jax.nn.softmax,
    "no activation": jax.nn.identity,
}


def likely_causes(one: Any, wanted: Sequence[np.ndarray], flattened: Shape | None, tolerance: float) -> list[str]:
    """Changes with which a layer gives one of the outputs that are wanted.

    Args:
        one: the layer with its params, state, inputs and output.
        wanted: the outputs of the other framework that may be its counterpart.
        flattened: the shape (*space, channels) that was flattened before; None: nothing was.
        tolerance: the difference below which outputs are equal.

    Returns:
        The changes in words; none: nothing that is known explains it.
    """
    found = []
    for words, made in _tried(one, flattened):
        for array in wanted:
            there = arranged(array, made, flattened)
            if there is not None and difference(made, there) <= tolerance:
                found.append(words)
    return list(dict.fromkeys(found))


def _tried(one: Any, flattened: Shape | None) -> Iterator[tuple[str, np.ndarray]]:
    """What a layer would make with each of the changes."""
    for words, layer, params, state in _changed(one, flattened):
        try:
            y, _ = layer.run(Context(train=False), params, state, tuple(map(jnp.asarray, one.inputs)))
        except (ValueError, TypeError):
            continue  # such a layer there cannot be
        yield words, np.asarray(y)
    if isinstance(one.layer, BatchNorm):
        y, _ = one.layer.run(Context(train=True), one.params, one.state, tuple(map(jnp.asarray, one.inputs)))
        yield "statistics of the batch there: the module is in training mode, call module.eval()", np.asarray(y)


def _changed(one: Any, flattened: Shape | None) -> Iterator[tuple[str, Any, Any, Any]]:
    layer, params, state = one.layer, one.params, one.state
    if isinstance(layer, Function):
        for name, function in ACTIVATIONS.items():
            if function != layer.function:
                yield f"{name} there for {layer!r} here", Function(function), params, state
        return
    known = {field.name for field in dataclasses.fields(layer)}
    for name, values in CHOICES.items():
        if name not in known:
            continue
        old = getattr(layer, name)
        for value in values:
            if value == old and type(value) is type(old):
                continue
            at = f", at stride {layer.stride}" if name == "padding" and "stride" in known else ""
            try:
                other = dataclasses.replace(layer, **{name: value})
                yield f"{name}: {old} here, {value} there{at}", other, params, state
            except (ValueError, TypeError):
                continue
    if isinstance(layer, Dropout):
        return
    if "kernel" in params:
        kernel = params["kernel"]
        if "bias" in params:
            yield "no bias there", layer, {**params, "bias": jnp.zeros_like(params["bias"])}, state
        if isinstance(layer, Conv):
            turned = {**params, "kernel": jnp.flip(kernel, tuple(range(kernel.ndim - 2)))}
            yield "the kernel is turned by 180 degrees there", layer, turned, state
        if isinstance(layer, Dense) and flattened is not None and kernel.shape[0] == prod(flattened):
            words = (
                "axes of the dense kernel: its inputs were flattened with the channels first there, with the channels "
                "last here"
            )
            for order in (to_last(flattened), to_first(flattened)):
                yield words, layer, {**params, "kernel": kernel[order]}, state
